"""Evaluate: base, adapter and every merge on the benchmarks, under the paper's protocol.

Records of every question come first (`items.parquet`); `scores.json` and `scores.md` are functions
of them. A model's answers are kept piece by piece, so that a killed evaluation goes on where it stopped,
and several processes may share the pieces.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from monotreme.errors import InputError
from monotreme.evaluate.exposure import exposure_digest, read_exposures
from monotreme.evaluate.summary import EXPOSURE, STAGE, leave, summarise, summarise_again
from monotreme.records import digest
from monotreme.rows import BadRow, RawRow, read_file
from monotreme.run import Run
from monotreme.scoring import tasks
from monotreme.scoring.deltas import BASE
from monotreme.scoring.pieces import ask
from monotreme.scoring.protocol import PROTOCOL
from monotreme.scoring.results import Exposure
from monotreme.scoring.sheets import Candidate, Sheet, way_of
from monotreme.storage import sha256

TEXTS = "(texts)"  # the name of their sheet, which no benchmark's id can be


def inputs(run: Run) -> dict[str, str]:
    """Digests of the models, the benchmarks that are scored, and the texts."""
    recipe = run.recipe
    found = {
        BASE: run.model_digest(recipe.train.base),
        "adapter": sha256(run.output("train", "adapter")),
    }
    for name in run.merges():
        found[f"merged-{name}"] = sha256(run.output("merge", name))
    found |= benchmark_digests(run)
    for name, exposure in _exposures(run, found).items():
        found[f"{EXPOSURE}{name}"] = exposure_digest(exposure)
    return found


def benchmark_digests(run: Run) -> dict[str, str]:
    """Digests of the benchmarks that are scored, and of the texts."""
    settings = run.recipe.evaluate
    found = tasks.benchmark_digests(run, settings.benchmarks)
    if settings.texts is not None:
        found["texts"] = sha256(run.locate(settings.texts))
    return found


def _exposures(run: Run, digests: dict[str, str]) -> dict[str, Exposure]:
    scored = [
        (ref, benchmark.split) for ref, benchmark in tasks.scored(run.recipe.evaluate.benchmarks)
    ]
    return read_exposures(
        run, scored, {ref.id: digests[f"benchmark/{ref.id}"] for ref, _ in scored}
    )


def _candidates(run: Run, digests: dict[str, str]) -> list[Candidate]:
    base = run.recipe.train.base
    folder, trust = run.model(base), base.trust_remote_code
    adapter = run.output("train", "adapter")
    both = digest(digests[BASE], digests["adapter"])
    found = [
        Candidate(BASE, folder, None, digests[BASE], trust),
        Candidate("adapter", folder, adapter, both, trust),
    ]
    for into in run.merges().values():
        trust = (base if into.model == BASE else into).trust_remote_code
        name = f"merged-{into.id}"
        found.append(Candidate(name, run.output("merge", into.id), None, digests[name], trust))
    return found


def _read_texts(path: Path) -> list[str]:
    """The `text` of every row.

    Raises:
        InputError: a row without `text`, or no text of at least one character.
    """
    texts = [_text(path, row) for row in read_file(path)]
    if sum(map(bool, texts)) < 2:
        raise InputError(
            f"{path} holds {sum(map(bool, texts))} texts, an error bar needs 2",
            "Name a file with more text, or remove evaluate.texts",
        )
    return texts


def _text(path: Path, row: RawRow | BadRow) -> str:
    problem = row.problem if isinstance(row, BadRow) else "has no `text`"
    if isinstance(row, BadRow) or not isinstance(row.values.get("text"), str):
        raise InputError(f"{path}: {row.where} {problem}", "Mend the row")
    return str(row.values["text"])


def execute(run: Run) -> None:
    """Score every model on every benchmark and write items.parquet, scores.json, scores.md."""
    digests = inputs(run)
    exposures = _exposures(run, digests)
    if not summarise_again(run, digests, exposures):
        score(run, digests, _candidates(run, digests), exposures)


def score(
    run: Run,
    digests: dict[str, str],
    candidates: Sequence[Candidate],
    exposures: dict[str, Exposure] | None = None,
) -> None:
    """Score these models on the recipe's benchmarks, and leave the stage's files.

    Args:
        digests: of all that is read.

    Raises:
        RecipeError: no benchmark has a metric.
    """
    settings = run.recipe.evaluate
    with run.stage(STAGE, digests) as work:
        asked = tasks.read_tasks(run, settings.benchmarks)
        texts = _read_texts(run.locate(settings.texts)) if settings.texts is not None else []
        found = ask(
            work,
            candidates,
            [*map(tasks.sheet_of, asked), Sheet(TEXTS, texts, [()] * len(texts))],
            precision=settings.precision,
            batch_tokens=settings.batch_tokens,
            num_ranks=run.num_gpus,
        )
        names = [candidate.name for candidate in candidates]
        table = pa.concat_tables(
            tasks.items_of(name, task, found[name, task.benchmark.id])
            for name in names
            for task in asked
        )
        losses = {name: found[name, TEXTS].losses() for name in names if texts}
        scores = summarise(table, losses, run.recipe.seed, exposures)
        leave(work, table, scores)
        work.counts = tasks.count(asked)
        work.facts = {
            "protocol": PROTOCOL,
            "truncated": scores["truncated"],
            "scoring": {
                name: way_of([found[name, task.benchmark.id] for task in asked]) for name in names
            },
        }
