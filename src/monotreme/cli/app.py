"""What the commands share: the app, their options, doing stages, printing.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monotreme.errors import UsageError
from monotreme.printable import printable

if TYPE_CHECKING:
    from monotreme.engine import Engine
    from monotreme.pipeline import Step
    from monotreme.run import Run

app = typer.Typer(
    name="monotreme",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        from monotreme import __version__

        typer.echo(f"monotreme {__version__}")
        raise typer.Exit


@app.callback(
    epilog="Start here: [bold]monotreme init[/bold], then [bold]monotreme run recipe.yaml[/bold]."
)
def before_all(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Tell the version."),
    ] = False,
) -> None:
    """Open datasets and a base model in; a clean set, an adapter, merges and honest deltas out."""


def local_run(text: str) -> Path:
    """A path as it is; for the URL of a run its local copy, with all that the store has of it."""
    return _copied(text, weights=True)


def looked_at(text: str) -> Path:
    """As `local_run`, without the models' weights, which a window does not read."""
    return _copied(text, weights=False)


def _copied(text: str, weights: bool) -> Path:
    from monotreme import stores
    from monotreme.recipe import is_url

    return stores.working_copy(text, weights) if is_url(text) else Path(text)


def local_runs(text: str | Path) -> Path:
    """A folder as it is; for one in a store the folder of the local copies."""
    from monotreme import stores
    from monotreme.recipe import is_url

    return stores.mirror(str(text)) if is_url(str(text)) else Path(text)


Where = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE", parser=local_run, help="Recipe file, or the folder or URL of a run."
    ),
]
Folder = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", parser=looked_at, help="Folder or URL of a run, such as runs/pocket."
    ),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Override a setting.")
]
Runs = Annotated[
    Path,
    typer.Option(
        metavar="PATH", parser=local_runs, help="Where run folders are made, or s3://bucket/runs."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Do it again although it is up to date.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Gpus = Annotated[
    int, typer.Option(min=1, help="Processes that train or score together, a GPU each.")
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine", metavar="NAME", help="Where rows are worked on: local, ray or ray:ADDRESS."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes that work on rows.",
        show_default="1, of a cluster all its processors",
    ),
]
WorkerMemory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Most memory of its own that a worker takes: 4GB, 1500MiB."),
]
RUNS = Path("runs")


def examples(*lines: str) -> str:
    return "Examples:\n\n" + "\n\n".join(f"  [bold]{line}[/bold]" for line in lines)


def execute(
    stages: Sequence[str],
    where: Path,
    overrides: list[str] | None,
    runs: Path,
    force: bool,
    as_json: bool,
    quiet: bool,
    gpus: int = 1,
    engine: "AbstractContextManager[Engine] | None" = None,
    told: Callable[["Run"], dict[str, Any]] = lambda _: {},
) -> "Run":
    """Do stages of the run that is meant.

    Args:
        engine: opened while the stages are done.
        told: what a command adds to its JSON.
    """
    if not quiet:  # before seconds go into libraries and digests
        typer.echo(f"reading {where}", err=True)
    from dataclasses import replace

    from monotreme import pipeline
    from monotreme.engine import HERE
    from monotreme.progress import console

    console.quiet = quiet
    found = pipeline.find_run(where, runs, overrides or ())
    with interruptible(), engine or HERE as workers:
        found = replace(found, num_gpus=gpus, force=force, engine=workers)
        steps = pipeline.execute(found, stages, announce=partial(_announce, found))
    if as_json:
        records = {step.stage: found.record(step.stage)["counts"] for step in steps}
        report = [{**plain(step), "counts": records[step.stage]} for step in steps]
        print_json({"run": str(found.folder), "stages": report, **told(found)})
    return found


@contextmanager
def working(name: str, num: int | None, memory: str | None) -> "Iterator[Engine]":
    """The engine of these options.

    Raises:
        UsageError: the memory is no size.
        EngineError: as `open_engine`.
    """
    from pydantic import ByteSize, TypeAdapter, ValidationError

    from monotreme.engine import open_engine

    try:
        num_bytes = None if memory is None else TypeAdapter(ByteSize).validate_python(memory)
    except ValidationError:
        raise UsageError(
            f"--worker-memory {memory!r} is no size", "Write such as 4GB or 1500MiB"
        ) from None
    with open_engine(name, num, num_bytes) as engine:
        yield engine


def is_helper() -> bool:
    """Whether torchrun or Slurm started this process to help the one of rank 0."""
    return int(os.environ.get("RANK", "0")) > 0


def scored_together(command: Callable[..., None]) -> Callable[..., None]:
    """A command that processes which torchrun or Slurm started beside rank 0's help to score."""

    @wraps(command)
    def of_any_rank(*args: Any, **options: Any) -> None:
        if "WORLD_SIZE" not in os.environ:
            command(*args, **options)
        elif is_helper():
            from monotreme.scoring.follow import follow

            follow()
        else:
            from monotreme.scoring.team import dismiss

            try:
                command(*args, **options)
            finally:
                dismiss()

    return of_any_rank


def _announce(found: "Run", step: "Step") -> None:
    from monotreme.progress import console

    if step.state == "to run":
        console.print(f"[bold]{step.stage}[/bold] ...")
    elif step.state == "done":
        from monotreme.report.terminal import outcome

        said = outcome(step.stage, found.record(step.stage))
        console.print(f"[bold]{step.stage}[/bold] done: {said}", highlight=False, soft_wrap=True)
    else:
        console.print(f"[bold]{step.stage}[/bold] {step.state} {step.detail}".rstrip())


@contextmanager
def interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(
            "stopped; what was finished is kept, the same command goes on from there", err=True
        )
        raise typer.Exit(130) from None


def confirm(
    uploads: Sequence[object], asks: bool = True, aside: bool = False, silent: bool = False
) -> bool:
    """Show what would be uploaded, and ask; no answer is a no.

    Args:
        aside: standard output is for machines.
    """
    if not silent:
        for upload in uploads:
            typer.echo(printable(str(upload)), err=aside)
    try:
        return not asks or typer.confirm("Upload this?", err=aside)
    except typer.Abort:  # nobody is there to answer
        return False


def prepared_files(found: "Run") -> dict[str, Any]:
    """The files that release has left, each with its size and digest."""
    path = found.output("release", "manifest.json")
    return {"files": json.loads(path.read_text(encoding="utf-8"))}


def show_files(found: "Run") -> None:
    """Digest, size and path of every prepared file, a line each."""
    for file in prepared_files(found)["files"]:
        path = printable(str(found.folder / "release" / file["path"]))
        typer.echo(f"{file['sha256']}  {file['bytes']:>15,}  {path}")


def show_summary(found: "Run") -> None:
    from monotreme.report import terminal

    terminal.print_summary(found)


def plain(step: "Step") -> dict[str, Any]:
    return {"stage": step.stage, "state": step.state, "detail": step.detail}


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
