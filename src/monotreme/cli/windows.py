"""The commands that look at a run or a release, or judge pairs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from monotreme.cli.app import (
    RUNS,
    Folder,
    Json,
    Runs,
    app,
    examples,
    interruptible,
    looked_at,
    print_json,
    show_summary,
)
from monotreme.errors import InputError, UsageError
from monotreme.printable import printable

SHOWN = ("dropped", "leaked", "protected")  # what `show` lists row by row
SEED = 42  # of the bootstrap, where no recipe says another


def _side(text: str) -> str:
    return str(looked_at(text))


@app.command(
    epilog=examples(
        "monotreme show runs/pocket",
        "monotreme show runs/pocket dropped --source science --limit 5",
        "monotreme show runs/pocket --similar-to 118722",
        "monotreme show runs/pocket leaked",
        "monotreme show runs/pocket protected",
    )
)
def show(
    folder: Folder,
    what: Annotated[str, typer.Argument(help="summary, dropped, leaked or protected.")] = "summary",
    source: Annotated[str | None, typer.Option(help="Only rows of this source.")] = None,
    similar_to: Annotated[
        str | None, typer.Option(metavar="ID", help="What is near a question, kept or not.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 20,
    as_json: Json = False,
) -> None:
    """Print what a run found: the summary, the rows that were dropped and why, or look-alikes."""
    from monotreme import pipeline
    from monotreme.report import protected, terminal

    found = pipeline.find_run(folder, RUNS)
    if similar_to is not None:
        near = terminal.similar_to(found, similar_to, limit)
        print_json(near) if as_json else terminal.print_similar(near)
        return
    if what == "summary":
        if source is not None:
            raise UsageError("--source goes with rows", f"Name one of {', '.join(SHOWN)} before it")
        print_json(terminal.summary(found)) if as_json else show_summary(found)
        return
    if what not in SHOWN:
        known = ", ".join(("summary", *SHOWN))
        raise UsageError(f"there is nothing called {what!r} to show", f"Known are {known}")
    if what == "protected":
        rows, print_ = protected.rows(found, source, limit), terminal.print_pairs
    else:
        rows, print_ = terminal.rows(found, what, source, limit), terminal.print_rows
    print_json(rows) if as_json else print_(rows)


@app.command(
    epilog=examples(
        "monotreme report runs/pocket",
        "monotreme report runs/pocket --out pages",
        "monotreme report runs/pocket --price-per-hour 2.5 --json",
        "monotreme report runs/rank-16 runs/rank-32 --out pages",
    )
)
def report(
    folder: Folder,
    other: Annotated[
        str | None,
        typer.Argument(
            metavar="B", parser=_side, help="Another run or model: RUN is subtracted from it."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to; else the run's, for two one of B's own in it."),
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(min=0, help="Of a GPU, or of the machine; what the run cost is told."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write what a run did and found as one HTML page, Markdown and JSON; or how two models differ."""
    from monotreme import stores
    from monotreme.report.facts import comparison_facts, facts
    from monotreme.report.page import write_report
    from monotreme.run import open_run

    if other is None:
        told = facts(open_run(folder), price_per_hour)
    elif price_per_hour is not None:
        raise UsageError("a comparison has no price", "Give --price-per-hour with one run")
    else:
        from monotreme.evaluate import compare as comparing
        from monotreme.evaluate.tables import subject_map

        found = comparing.compare(str(folder), other, SEED)
        lines, picture = comparing.count_lines(found), subject_map(found["deltas"])
        told = comparison_facts(found, lines, picture)
        out = out or comparing.beside(str(folder), other)
    written = write_report(told, out or folder)
    if other is None:
        stores.send(folder)
    if as_json:
        print_json(told)
    else:
        typer.echo("\n".join(f"wrote {path}" for path in written))


@app.command(
    epilog=examples(
        "monotreme compare runs/pocket:base runs/pocket:adapter",
        "monotreme compare runs/rank-16 runs/rank-32 --markdown",
        "monotreme compare old/items.parquet new/items.parquet --json",
    )
)
def compare(
    first: Annotated[
        str,
        typer.Argument(
            metavar="A",
            parser=_side,
            help="Run folder, with `:model` for another than its adapter; or records.",
        ),
    ],
    second: Annotated[
        str, typer.Argument(metavar="B", parser=_side, help="Likewise; A is subtracted from it.")
    ],
    as_json: Json = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Compare two evaluated models: paired differences on the questions both were asked."""
    from monotreme.evaluate import compare as comparing

    found = comparing.compare(first, second, SEED)
    if as_json:
        print_json(found)
    elif as_markdown:
        typer.echo(printable(comparing.markdown(found)), nl=False)
    else:
        from monotreme.report.comparison import print_comparison

        print_comparison(found, comparing.count_lines(found))


@app.command(epilog=examples("monotreme judge pairs.jsonl --output judged.jsonl"))
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

    with interruptible():
        rows = judging.judge_file(pairs, runs / ".cache" / "embeddings")
    if output is None:
        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False))
    else:
        judging.write_lines(rows, output)
        typer.echo(f"wrote {len(rows)} verdicts to {output}", err=True)


@app.command(
    epilog=examples(
        "monotreme verify runs/pocket/release/dataset",
        "monotreme verify questions --all --cache vectors",
        "monotreme verify questions adapter --json",
        "monotreme verify questions --benchmark mmlu=data/mmlu",
    )
)
def verify(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Released data set, adapter or model.")
    ],
    sample: Annotated[
        int, typer.Option(min=1, help="Questions that are compared with all others.")
    ] = 2000,
    every: Annotated[bool, typer.Option("--all", help="Compare all, not a sample.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of the sample; else a fresh one.")] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(metavar="ID=PATH", help="Local file or folder of a benchmark."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps vectors for the next time.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a released folder against its own claims; changes nothing, exit code 1 if one fails."""
    import secrets
    from tempfile import TemporaryDirectory

    for folder in folders:  # before seconds are spent on libraries
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder", "Name one that release made")
    from monotreme import verify as verifying

    with TemporaryDirectory() as temporary, interruptible():
        options = verifying.Options(
            sample=None if every else sample,
            seed=secrets.randbelow(2**32) if seed is None else seed,
            benchmarks=verifying.read_given(benchmark or []),
            cache=cache or Path(temporary),
        )
        reports = verifying.verify(folders, options)
    if as_json:
        print_json(verifying.plain(reports))
    else:
        typer.echo("\n".join(verifying.lines(reports)))
    if any(report.failed for report in reports):
        raise typer.Exit(1)


@app.command(
    epilog=examples(
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

    from monotreme import stores
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
    stores.send(folder)
    if export is None:
        typer.echo(f"monotreme decontaminate {folder} applies the verdicts")
