"""Evaluate: base, adapter and every merge on the benchmarks, under the paper's protocol.

Records of every question come first (`items.parquet`); `scores.json` and `scores.md` are functions
of them. A model's records of a benchmark are kept as soon as they are complete, so that a killed
evaluation goes on where it stopped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
from monotreme.scoring.loaded import Loaded
from monotreme.scoring.protocol import PROTOCOL
from monotreme.scoring.results import Exposure
from monotreme.scoring.scorer import Scorer, load_scorer
from monotreme.scoring.tasks import Task
from monotreme.storage import sha256
from monotreme.work import StageWork

TEXT_SCHEMA = pa.schema([pa.field("log_loss", pa.float64()), pa.field("num_tokens", pa.int64())])


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that is scored.

    Attributes:
        name: "base", "adapter" or "merged-" and the id of the merge.
        adapter: folder of the adapter to put on it.
        digest: what identifies its weights.
    """

    name: str
    folder: Path
    adapter: Path | None
    digest: str
    trust_remote_code: bool


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


def _evaluate(
    run: Run,
    work: StageWork,
    loaded: Loaded,
    candidate: Candidate,
    asked: Sequence[Task],
    texts: Sequence[str],
) -> tuple[list[pa.Table], pa.Table]:
    """A model's items of each task, and its losses on the texts; it is loaded if any is to do."""
    settings = run.recipe.evaluate
    load = partial(loaded.scorer, candidate.folder, candidate.adapter, candidate.trust_remote_code)
    same = (candidate.digest, settings.precision, str(settings.batch_tokens))
    keep = partial(tasks.kept, work)
    items = [
        keep(
            f"{candidate.name}-{task.benchmark.id}",
            [*same, *tasks.asked(task)],
            partial(tasks.items_of, candidate.name, task, load),
        )
        for task in asked
    ]
    losses = partial(_losses, candidate.name, texts, load)
    return items, keep(f"{candidate.name}-texts", [*same, *texts], losses)


def _losses(model: str, texts: Sequence[str], load: Callable[[], Scorer]) -> pa.Table:
    """Loss and tokens of each text; no model is loaded for no texts."""
    found = load().texts(texts, f"{model} on texts") if texts else []
    rows = [{"log_loss": loss, "num_tokens": num} for loss, num in found]
    return pa.Table.from_pylist(rows, TEXT_SCHEMA)


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
        items: dict[str, list[pa.Table]] = {}
        losses: dict[str, pa.Table] = {}
        load = partial(
            load_scorer, precision=settings.precision, batch_tokens=settings.batch_tokens
        )
        loaded = Loaded(load)
        for candidate in candidates:
            name = candidate.name
            items[name], losses[name] = _evaluate(run, work, loaded, candidate, asked, texts)
        table = pa.concat_tables(table for own in items.values() for table in own)
        table = table.replace_schema_metadata(None)
        scores = summarise(table, losses if texts else {}, run.recipe.seed, exposures)
        leave(work, table, scores)
        work.counts = tasks.count(asked)
        work.facts = {
            "protocol": PROTOCOL,
            "truncated": scores["truncated"],
            "scoring": {name: tasks.way_of(own) for name, own in items.items()},
        }
