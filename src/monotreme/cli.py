"""The commands. Everything heavy is imported inside them, so that `--help` answers at once."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from monotreme.errors import InputError, MonotremeError

if TYPE_CHECKING:
    from monotreme.pipeline import Step
    from monotreme.run import Run

app = typer.Typer(
    name="monotreme",
    help="Open datasets and a base model in; a clean set, an adapter, merges and honest deltas out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Start here: [bold]monotreme init[/bold], then [bold]monotreme run recipe.yaml[/bold].",
)

Where = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="Recipe file, or the folder of a run.")
]
Folder = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of a run, such as runs/pocket.")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Override a setting.")
]
Runs = Annotated[Path, typer.Option(help="Where run folders are made.")]
Force = Annotated[bool, typer.Option("--force", help="Do it again although it is up to date.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Gpus = Annotated[int, typer.Option(min=1, help="Processes that train together, a GPU each.")]
RUNS = Path("runs")


def _examples(*lines: str) -> str:
    return "Examples:\n\n" + "\n\n".join(f"  [bold]{line}[/bold]" for line in lines)


@app.command(epilog=_examples("monotreme init", "monotreme init my.yaml --like platypus-13b"))
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path("recipe.yaml"),
    like: Annotated[
        str, typer.Option(help="Recipe to start from; a wrong name lists them.")
    ] = "pocket",
) -> None:
    """Write a recipe to start from; `pocket` runs as it is, on any machine."""
    from importlib.resources import files

    from monotreme.storage import writing

    shelf = Path(str(files("monotreme"))) / "recipes"
    names = sorted(file.stem for file in shelf.glob("*.yaml"))
    if like not in names:
        raise InputError(f"there is no recipe {like!r}", f"Known are {', '.join(names)}")
    if path.exists():
        raise InputError(f"{path} exists", "Name another file, or delete it")
    with writing(path) as temporary:
        temporary.write_text((shelf / f"{like}.yaml").read_text("utf-8"), encoding="utf-8")
    typer.echo(f"wrote {path}; next: monotreme run {path}")


@app.command(
    epilog=_examples(
        "monotreme run recipe.yaml",
        "monotreme run recipe.yaml --set train.rank=32 --set name=rank-32",
        "monotreme run runs/pocket",
    )
)
def run(
    where: Where,
    set_: Set = None,
    runs: Runs = RUNS,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    gpus: Gpus = 1,
) -> None:
    """Do all six stages; what is up to date stays, what was interrupted goes on."""
    from monotreme.recipe import STAGES

    found = _execute(STAGES, where, set_, runs, force, as_json, quiet, gpus)
    if not (as_json or quiet):
        _show(found)


@app.command(epilog=_examples("monotreme plan recipe.yaml", "monotreme plan recipe.yaml --json"))
def plan(where: Where, set_: Set = None, runs: Runs = RUNS, as_json: Json = False) -> None:
    """Check the recipe and its inputs; list what would run and what is up to date."""
    from monotreme import pipeline

    found = pipeline.find_run(where, runs, set_ or ())
    steps = list(pipeline.plan(found))
    if as_json:
        _print_json({"run": str(found.folder), "stages": [_plain(step) for step in steps]})
        return
    typer.echo(f"{found.folder}")
    for step in steps:
        typer.echo(f"  {step.stage:<14} {step.state} {step.detail}".rstrip())


@app.command(
    epilog=_examples(
        "monotreme show runs/pocket",
        "monotreme show runs/pocket dropped --source science --limit 5",
        "monotreme show runs/pocket --similar-to 3f9c2a",
        "monotreme show runs/pocket leaked",
    )
)
def show(
    folder: Folder,
    what: Annotated[str, typer.Argument(help="summary, dropped or leaked.")] = "summary",
    source: Annotated[str | None, typer.Option(help="Only rows of this source.")] = None,
    similar_to: Annotated[
        str | None, typer.Option(metavar="ID", help="What is near a question, kept or not.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 20,
    as_json: Json = False,
) -> None:
    """Print what a run found: the summary, the rows that were dropped and why, or look-alikes."""
    from monotreme import pipeline
    from monotreme.report import terminal

    found = pipeline.find_run(folder, RUNS)
    if similar_to is not None:
        near = terminal.similar_to(found, similar_to, limit)
        _print_json(near) if as_json else terminal.print_similar(near)
        return
    if what == "summary":
        _print_json(terminal.summary(found)) if as_json else _show(found)
        return
    if what not in terminal.ROWS:
        known = ", ".join(("summary", *terminal.ROWS))
        raise InputError(f"there is nothing called {what!r} to show", f"Known are {known}")
    rows = terminal.rows(found, what, source, limit)
    if as_json:
        _print_json(rows)
    else:
        terminal.print_rows(rows)


@app.command(epilog=_examples("monotreme judge pairs.jsonl --output judged.jsonl"))
def judge(
    pairs: Annotated[
        Path,
        typer.Argument(help="JSON Lines: benchmark_question, train_instruction and what is known."),
    ],
    output: Annotated[Path | None, typer.Option(help="File to write; else printed.")] = None,
    runs: Runs = RUNS,
) -> None:
    """Judge pairs of questions from a file as decontaminate would, at any similarity."""
    from monotreme import judge as judging

    with _interruptible():
        rows = judging.judge_file(pairs, runs / ".cache" / "embeddings")
    if output is None:
        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False))
    else:
        judging.write_lines(rows, output)
        typer.echo(f"wrote {len(rows)} verdicts to {output}", err=True)


def _verb(stage: str, what: str, *more: str) -> None:
    """Make the command of one stage."""

    def command(
        where: Where,
        set_: Set = None,
        runs: Runs = RUNS,
        force: Force = False,
        as_json: Json = False,
        quiet: Quiet = False,
    ) -> None:
        _execute((stage,), where, set_, runs, force, as_json, quiet)

    command.__doc__ = what
    lines = (f"monotreme {stage} recipe.yaml", f"monotreme {stage} runs/pocket --force", *more)
    app.command(name=stage, epilog=_examples(*lines))(command)


_verb(
    "curate",
    "Read the sources, drop what is off topic and every duplicate, each with its reason.",
    "monotreme curate recipe.yaml --set curate.threshold=0.85",
)


@app.command(
    epilog=_examples(
        "monotreme decontaminate recipe.yaml",
        "monotreme decontaminate runs/pocket --force",
        "monotreme decontaminate recipe.yaml --self-test",
    )
)
def decontaminate(
    where: Where,
    set_: Set = None,
    runs: Runs = RUNS,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    plant: Annotated[
        bool,
        typer.Option("--self-test", help="Plant altered benchmark questions and count the found."),
    ] = False,
) -> None:
    """Find benchmark questions that leaked into the set, and drop them."""
    if not plant:
        _execute(("decontaminate",), where, set_, runs, force, as_json, quiet)
        return
    from monotreme import pipeline, self_test

    found = pipeline.find_run(where, runs, set_ or ())
    with _interruptible(), found.open():
        measured = self_test.self_test(found)
    if as_json:
        _print_json(self_test.figures(measured))
    else:
        self_test.print_figures(measured)


@app.command(
    epilog=_examples(
        "monotreme review runs/pocket",
        "monotreme review runs/pocket --reviewer ada --port 8899 --no-browser",
        "monotreme review runs/pocket --export verdicts.csv",
        "monotreme review runs/pocket --import verdicts.csv",
    )
)
def review(
    folder: Folder,
    reviewer: Annotated[
        str | None, typer.Option(help="Your name beside your verdicts; else your login's.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    export: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Write pairs and verdicts; no page.")
    ] = None,
    import_: Annotated[
        Path | None, typer.Option("--import", metavar="CSV", help="Take verdicts in; no page.")
    ] = None,
) -> None:
    """Judge the pairs that decontaminate found, on a local web page; it then applies the verdicts."""
    import getpass

    from monotreme.review import exchange, serve
    from monotreme.run import open_run
    from monotreme.verdicts import reviewer_name

    found, name = open_run(folder), reviewer_name(reviewer or getpass.getuser())
    if export is not None:
        typer.echo(f"wrote {exchange.export_verdicts(found, export):,} pairs to {export}")
    if import_ is not None:
        typer.echo(f"took in {exchange.import_verdicts(found, import_, name):,} verdicts")
    if export is None and import_ is None:
        typer.echo("Each address opens the page once; Ctrl-C ends.")
        serve.serve(found, name, port, typer.echo, browser)
    if export is None:
        typer.echo(f"monotreme decontaminate {folder} applies the verdicts")


@app.command(
    epilog=_examples(
        "monotreme train recipe.yaml",
        "monotreme train runs/pocket --force",
        "monotreme train recipe.yaml --gpus 8",
        "monotreme train recipe.yaml --set train.learning_rate=3e-4",
    )
)
def train(
    where: Where,
    set_: Set = None,
    runs: Runs = RUNS,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    gpus: Gpus = 1,
) -> None:
    """Train the LoRA adapter; an interrupted training goes on at its last checkpoint."""
    if int(os.environ.get("RANK", "0")):  # torchrun started it to help the one of rank 0
        from monotreme import pipeline

        pipeline.follow(where, runs, set_ or ())
        return
    _execute(("train",), where, set_, runs, force, as_json, quiet, gpus)


_verb("merge", "Merge the adapter into its base and into other models of the same shape.")
_verb("evaluate", "Score base, adapter and merges; paired deltas with error bars.")


@app.command(
    epilog=_examples("monotreme release recipe.yaml", "monotreme release recipe.yaml --push")
)
def release(
    where: Where,
    set_: Set = None,
    runs: Runs = RUNS,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    push: Annotated[
        bool, typer.Option("--push", help="Upload to the Hub, after preparing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Upload without asking.")] = False,
) -> None:
    """Prepare the data set, the adapter and their cards for publishing; upload with --push."""
    from monotreme import pipeline

    found = _execute(("release",), where, set_, runs, force, as_json, quiet)
    if push:
        for address in pipeline.push(found, lambda uploads: yes or _confirm(uploads)):
            typer.echo(f"pushed {address}")


# ── what the commands share ─────────────────────────────────────────────────────────────────────


def _execute(
    stages: Sequence[str],
    where: Path,
    overrides: list[str] | None,
    runs: Path,
    force: bool,
    as_json: bool,
    quiet: bool,
    gpus: int = 1,
) -> "Run":
    from dataclasses import replace

    from monotreme import pipeline
    from monotreme.progress import console

    console.quiet = quiet
    found = replace(pipeline.find_run(where, runs, overrides or ()), num_gpus=gpus)
    with _interruptible():
        steps = pipeline.execute(found, stages, force=force, announce=_announce)
    if as_json:
        records = {step.stage: found.record(step.stage)["counts"] for step in steps}
        report = [{**_plain(step), "counts": records[step.stage]} for step in steps]
        _print_json({"run": str(found.folder), "stages": report})
    return found


def _announce(step: "Step") -> None:
    from monotreme.progress import console

    if step.state == "to run":
        console.print(f"[bold]{step.stage}[/bold] ...")
    else:
        console.print(f"[bold]{step.stage}[/bold] {step.state} {step.detail}".rstrip())


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(
            "stopped; what was finished is kept, the same command goes on from there", err=True
        )
        raise typer.Exit(130) from None


def _confirm(uploads: Sequence[object]) -> bool:
    for upload in uploads:
        typer.echo(str(upload))
    return typer.confirm("Upload this?")


def _show(found: "Run") -> None:
    from monotreme.report import terminal

    terminal.print_summary(found)


def _plain(step: "Step") -> dict[str, Any]:
    return {"stage": step.stage, "state": step.state, "detail": step.detail}


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def main() -> None:
    """Entry point: a MonotremeError becomes one line on stderr and its exit status."""
    # Waiting threads sleep: spinning ones take a busy machine's cores from the work they wait for
    # (a training step of the pocket model: 0.1 s alone, 6 s spinning beside another program).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not sys.stderr.isatty():  # other libraries' bars are no use in a log either
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app()
    except MonotremeError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
