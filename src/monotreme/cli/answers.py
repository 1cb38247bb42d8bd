"""The commands that let a model answer: a file of questions, or a person."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from monotreme.cli.app import Json, Quiet, app, examples, interruptible, local_run, print_json


class Precision(StrEnum):
    bf16 = "bf16"
    fp32 = "fp32"


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        parser=lambda text: str(local_run(text)),
        help="Run folder (its adapter, or :base or :merged-ID after it), model folder or Hub name.",
    ),
]
Adapter = Annotated[Path | None, typer.Option(help="Folder of an adapter to put on a model.")]
Loaded = Annotated[Precision, typer.Option(help="Of the model.")]


@app.command(
    epilog=examples(
        "monotreme generate runs/pocket --input questions.csv",
        "monotreme generate runs/pocket:base --input questions.jsonl --out base.jsonl",
        "monotreme generate models/llama --adapter my/adapter --input questions.jsonl --out llama.jsonl",
    )
)
def generate(
    model: Model,
    input_: Annotated[
        Path,
        typer.Option("--input", help="CSV or JSON Lines with `instruction`, and perhaps `input`."),
    ],
    adapter: Adapter = None,
    out: Annotated[
        Path | None, typer.Option(help="File to append to; else INPUT.answers.jsonl.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens of an answer.")] = 512,
    batch_tokens: Annotated[int, typer.Option(min=1, help="Tokens worked on at once.")] = 16_384,
    precision: Loaded = Precision.bf16,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer a file of questions, greedily; the same command goes on after a kill."""
    from monotreme.generate.answerer import load_answerer
    from monotreme.generate.answers import answer_file, read_questions
    from monotreme.generate.chosen import choose
    from monotreme.progress import console
    from monotreme.records import digest

    console.quiet = quiet
    asked, chosen = read_questions(input_), choose(model, adapter)
    target = out or input_.with_name(f"{input_.stem}.answers.jsonl")
    with interruptible():
        answerer = load_answerer(chosen, precision.value)
        identity = digest(chosen.identity, precision.value)
        kept = answer_file(answerer, identity, asked, target, max_new_tokens, batch_tokens)
    if as_json:
        print_json({"out": str(target), "answers": len(asked), "kept": kept})
    elif not quiet:
        typer.echo(f"{len(asked):,} answers in {target}, {kept:,} of them from before")


@app.command(
    epilog=examples(
        "monotreme chat runs/pocket", "monotreme chat models/llama --adapter my/adapter"
    )
)
def chat(model: Model, adapter: Adapter = None, precision: Loaded = Precision.bf16) -> None:
    """Talk to a model; Ctrl-C stops an answer, Ctrl-D leaves. Each question stands alone."""
    import sys

    from monotreme.generate.answerer import load_answerer
    from monotreme.generate.chat import chat as talk
    from monotreme.generate.chosen import choose

    answerer = load_answerer(choose(model, adapter), precision.value)
    typer.echo("Each question stands alone. Ctrl-C stops an answer, Ctrl-D leaves.", err=True)

    def say(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    talk(answerer, lambda: input("> "), say)
