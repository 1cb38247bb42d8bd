"""The commands that do things: a new recipe, all stages, each stage."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from monotreme.cli.app import (
    RUNS,
    EngineName,
    Force,
    Gpus,
    Json,
    Quiet,
    Runs,
    Set,
    Where,
    WorkerMemory,
    Workers,
    app,
    confirm,
    examples,
    execute,
    interruptible,
    is_helper,
    local_run,
    plain,
    prepared_files,
    print_json,
    scored_together,
    show_files,
    show_summary,
    working,
)
from monotreme.errors import InputError, UsageError


@app.command(epilog=examples("monotreme init", "monotreme init my.yaml --like platypus-13b"))
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
        raise UsageError(f"there is no recipe {like!r}", f"Known are {', '.join(names)}")
    if path.exists():
        raise InputError(f"{path} exists", "Name another file, or delete it")
    with writing(path) as temporary:
        temporary.write_text((shelf / f"{like}.yaml").read_text("utf-8"), encoding="utf-8")
    typer.echo(f"wrote {path}; next: monotreme run {path}")


@app.command(
    epilog=examples(
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
    engine: EngineName = "local",
    workers: Workers = None,
    worker_memory: WorkerMemory = None,
) -> None:
    """Do all six stages; what is up to date stays, what was interrupted goes on."""
    from monotreme.recipe import STAGES

    if (size := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise InputError(
            f"torchrun or Slurm started {size} of `monotreme run`, which works in one process or --gpus",
            "Let them start train, merge and evaluate, and do the other stages by themselves",
        )
    found = execute(
        STAGES,
        where,
        set_,
        runs,
        force,
        as_json,
        quiet,
        gpus,
        working(engine, workers, worker_memory),
    )
    if not (as_json or quiet):
        show_summary(found)


@app.command(
    epilog=examples(
        "monotreme plan recipe.yaml",
        "monotreme plan recipe.yaml --price-per-hour 3.5",
        "monotreme plan recipe.yaml --no-try --json",
    )
)
def plan(
    where: Where,
    set_: Set = None,
    runs: Runs = RUNS,
    as_json: Json = False,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Of a GPU; the training's cost is told too.")
    ] = None,
    try_: Annotated[
        bool | None,
        typer.Option(
            "--try/--no-try",
            help="Load the base and try a few steps, the largest first.",
            show_default="where there is a GPU",
        ),
    ] = None,
) -> None:
    """Check the recipe and its inputs; list what would run, and what the training will take."""
    from monotreme import pipeline

    found = pipeline.find_run(where, runs, set_ or ())
    steps = list(pipeline.plan(found))
    training = pipeline.plan_training(found, steps, try_)
    if as_json:
        stages = [plain(step) for step in steps]
        print_json({"run": str(found.folder), "stages": stages, "training": training})
        return
    typer.echo(f"{found.folder}")
    for step in steps:
        typer.echo(f"  {step.stage:<14} {step.state} {step.detail}".rstrip())
    if training:
        from monotreme.report.terminal import print_training_plan

        print_training_plan(training, price_per_hour)


@app.command(
    epilog=examples(
        "monotreme curate recipe.yaml",
        "monotreme curate runs/pocket --force",
        "monotreme curate recipe.yaml --set curate.threshold=0.85",
        "monotreme curate recipe.yaml --workers 8 --worker-memory 4GB",
        "monotreme curate recipe.yaml --engine ray",
    )
)
def curate(
    where: Where,
    set_: Set = None,
    runs: Runs = RUNS,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    engine: EngineName = "local",
    workers: Workers = None,
    worker_memory: WorkerMemory = None,
) -> None:
    """Read the sources, drop what is off topic and every duplicate, each with its reason."""
    place = working(engine, workers, worker_memory)
    execute(("curate",), where, set_, runs, force, as_json, quiet, engine=place)


@app.command(
    epilog=examples(
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
    engine: EngineName = "local",
    workers: Workers = None,
    worker_memory: WorkerMemory = None,
) -> None:
    """Find benchmark questions that leaked into the set, and drop them."""
    if not plant:
        place = working(engine, workers, worker_memory)
        execute(("decontaminate",), where, set_, runs, force, as_json, quiet, engine=place)
        return
    from monotreme import pipeline, self_test

    found = pipeline.find_run(where, runs, set_ or ())
    with interruptible(), found.open():
        measured = self_test.self_test(found)
    if as_json:
        print_json(self_test.figures(measured))
    else:
        self_test.print_figures(measured)


@app.command(
    epilog=examples(
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
    if is_helper():
        from monotreme import pipeline

        pipeline.follow(where, runs, set_ or (), force)
        return
    execute(("train",), where, set_, runs, force, as_json, quiet, gpus)


@app.command(
    epilog=examples(
        "monotreme merge recipe.yaml",
        "monotreme merge recipe.yaml --preview",
        "monotreme merge recipe.yaml --gpus 8",
        "monotreme merge runs/pocket --force",
    )
)
@scored_together
def merge(
    where: Where,
    set_: Set = None,
    runs: Runs = RUNS,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Tell what every merge would do; write nothing.")
    ] = False,
    gpus: Gpus = 1,
) -> None:
    """Merge the adapter into its base and into other models; of candidates make the best."""
    if not preview:
        execute(("merge",), where, set_, runs, force, as_json, quiet, gpus)
        return
    from monotreme import merge as merging
    from monotreme import pipeline

    told = merging.preview(pipeline.find_run(where, runs, set_ or ()))
    if as_json:
        print_json(told)
        return
    from monotreme.report.terminal import print_merge_preview

    print_merge_preview(told)


@app.command(
    epilog=examples(
        "monotreme evaluate recipe.yaml",
        "monotreme evaluate runs/pocket --force",
        "monotreme evaluate recipe.yaml --gpus 8",
        "monotreme evaluate --model models/llama --tasks open-llm-2023 --data benchmarks",
        "monotreme evaluate --model models/llama --adapter my/adapter --tasks arc_challenge,mmlu",
        "monotreme evaluate --model models/llama --tasks lm-eval:hellaswag,lm-eval:gsm8k",
    )
)
@scored_together
def evaluate(
    where: Annotated[
        Path | None,
        typer.Argument(
            metavar="RECIPE", parser=local_run, help="Recipe file, or the folder or URL of a run."
        ),
    ] = None,
    set_: Set = None,
    runs: Runs = RUNS,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
    model: Annotated[
        str | None, typer.Option(help="Score this model instead: a folder or a Hub name.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="Folder of an adapter to put on it.")] = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Benchmarks, with commas; else open-llm-2023, the paper's four. lm-eval:NAME is the harness's task."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with a folder or file a benchmark; else the Hub.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many questions of each.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write; else a folder of its name in --runs.")
    ] = None,
    gpus: Gpus = 1,
) -> None:
    """Score base, adapter and merges of a recipe, or any model; paired deltas with error bars."""
    if (where is None) == (model is None):
        raise UsageError("evaluate takes a RECIPE or a --model", "Name one of the two")
    if where is not None:
        if any(option is not None for option in (adapter, tasks, data, limit, out)):
            raise UsageError(
                "--adapter, --tasks, --data, --limit and --out go with --model only",
                "Write them into the recipe's table evaluate",
            )
        execute(("evaluate",), where, set_, runs, force, as_json, quiet, gpus)
        return
    from monotreme.evaluate import alone, harness
    from monotreme.progress import console
    from monotreme.scoring.protocol import PROTOCOL

    console.quiet = quiet
    folder = out or runs / alone.name_of(str(model), adapter)
    if theirs := harness.names(tasks or ""):
        harness.check_alone(gpus)
        settings = alone.settings_of(PROTOCOL, None, None, set_ or ())
        with interruptible():
            told = harness.evaluate_model(
                str(model), adapter, theirs, settings, folder, limit=limit, data=data
            )
        if as_json:
            print_json({"results": told["results"], "versions": told["versions"]})
        elif not quiet:
            typer.echo("\n".join(harness.lines(told)))
        return
    settings = alone.settings_of(tasks or PROTOCOL, data, limit, set_ or ())
    with interruptible():
        found = alone.evaluate_model(str(model), adapter, settings, folder, force, gpus)
    if as_json:
        typer.echo(found.output("evaluate", "scores.json").read_text(encoding="utf-8"), nl=False)
    elif not quiet:
        show_summary(found)


@app.command(
    epilog=examples(
        "monotreme release recipe.yaml",
        "monotreme release recipe.yaml --push",
        "monotreme release recipe.yaml --push --accept-license unknown",
    )
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
    accept_license: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Upload questions although this licence does not allow it."
        ),
    ] = None,
) -> None:
    """Prepare the data set, the adapter and their cards for publishing; upload with --push."""
    if accept_license and not push:
        raise UsageError("--accept-license goes with --push only", "Add --push, or leave it out")
    from monotreme import pipeline

    found = execute(("release",), where, set_, runs, force, as_json, quiet, told=prepared_files)
    if not (as_json or quiet):
        show_files(found)
    if push:
        if not quiet:
            typer.echo("checking what would be uploaded", err=True)
        confirmed = partial(confirm, asks=not yes, aside=as_json, silent=yes and quiet)
        for address in pipeline.push(found, confirmed, accept_license or ()):
            typer.echo(f"pushed {address}", err=as_json)
