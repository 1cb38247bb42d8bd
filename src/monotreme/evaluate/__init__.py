"""Evaluate: base, adapter and every merge on the benchmarks, under the paper's protocol.

Records of every question come first (`items.parquet`); `scores.json` and `scores.md` are functions
of them. A model's records of a benchmark are kept as soon as they are complete, so that a killed
evaluation goes on where it stopped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from monotreme.benchmarks import Benchmark, benchmark_of, read_benchmark
from monotreme.errors import InputError, RecipeError
from monotreme.evaluate.deltas import BASE
from monotreme.evaluate.exposure import exposure_digest, read_exposures
from monotreme.evaluate.loaded import Loaded
from monotreme.evaluate.protocol import PROTOCOL, Prompt, Shots, item_score, prompts
from monotreme.evaluate.results import Exposure
from monotreme.evaluate.scorer import Scorer, load_scorer
from monotreme.evaluate.spans import Likelihood
from monotreme.evaluate.summary import EXPOSURE, STAGE, leave, summarise, summarise_again
from monotreme.recipe import BenchmarkRef, Evaluate
from monotreme.records import Counts, digest, read_table
from monotreme.rows import BadRow, RawRow, read_file
from monotreme.run import Run, StageWork
from monotreme.storage import sha256, writing

ITEM_SCHEMA = pa.schema(
    [
        pa.field("model", pa.string()),
        pa.field("benchmark", pa.string()),
        pa.field("metric", pa.string()),
        pa.field("shots", pa.int64()),
        pa.field("split", pa.string()),
        pa.field("subject", pa.string()),
        pa.field("question_id", pa.string()),
        pa.field("prompt_sha256", pa.string()),
        pa.field("log_likelihoods", pa.list_(pa.float64())),
        pa.field("lengths", pa.list_(pa.int64())),
        pa.field("num_tokens", pa.list_(pa.int64())),
        pa.field("greedy", pa.list_(pa.bool_())),
        pa.field("labels", pa.list_(pa.int64())),
        pa.field("score", pa.float64()),
        pa.field("num_truncated", pa.int64()),
    ]
)
WAY = "scoring"  # of the items' schema: whether prefixes were shared
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


@dataclass(frozen=True, slots=True)
class Task:
    """A benchmark with its prompts, and the number of questions they were chosen from."""

    benchmark: Benchmark
    prompts: list[Prompt]
    num_read: int


def inputs(run: Run) -> dict[str, str]:
    """Digests of the models, the benchmarks that are scored, and the texts."""
    recipe = run.recipe
    found = {
        BASE: run.model_digest(recipe.train.base),
        "adapter": sha256(run.output("train", "adapter")),
    }
    for into in recipe.merge.into:
        found[f"merged-{into.id}"] = sha256(run.output("merge", into.id))
    found |= benchmark_digests(run)
    for name, exposure in _exposures(run, found).items():
        found[f"{EXPOSURE}{name}"] = exposure_digest(exposure)
    return found


def benchmark_digests(run: Run) -> dict[str, str]:
    """Digests of the benchmarks that are scored, and of the texts."""
    settings = run.recipe.evaluate
    found = {
        f"benchmark/{ref.id}": run.dataset_digest(ref.path, benchmark.name, benchmark.revision)
        for ref, benchmark in _scored(settings)
    }
    if settings.texts is not None:
        found["texts"] = sha256(run.locate(settings.texts))
    return found


def _exposures(run: Run, digests: dict[str, str]) -> dict[str, Exposure]:
    scored = [(ref, benchmark.split) for ref, benchmark in _scored(run.recipe.evaluate)]
    return read_exposures(
        run, scored, {ref.id: digests[f"benchmark/{ref.id}"] for ref, _ in scored}
    )


def _scored(settings: Evaluate) -> list[tuple[BenchmarkRef, Benchmark]]:
    """Benchmarks that have a metric; the others are only checked for leaks."""
    pairs = [(ref, benchmark_of(ref)) for ref in settings.benchmarks]
    return [(ref, benchmark) for ref, benchmark in pairs if benchmark.metric is not None]


def _candidates(run: Run, digests: dict[str, str]) -> list[Candidate]:
    base = run.recipe.train.base
    folder, trust = run.model(base), base.trust_remote_code
    adapter = run.output("train", "adapter")
    both = digest(digests[BASE], digests["adapter"])
    found = [
        Candidate(BASE, folder, None, digests[BASE], trust),
        Candidate("adapter", folder, adapter, both, trust),
    ]
    for into in run.recipe.merge.into:
        trust = (base if into.model == BASE else into).trust_remote_code
        name = f"merged-{into.id}"
        found.append(Candidate(name, run.output("merge", into.id), None, digests[name], trust))
    return found


def _read_task(run: Run, ref: BenchmarkRef, benchmark: Benchmark) -> Task:
    if ref.path is not None:
        path, revision = run.locate(ref.path), None
    else:
        path, revision = None, run.pin("dataset", benchmark.name or "", benchmark.revision)
    read = partial(read_benchmark, benchmark, path=path, revision=revision)
    questions = read(benchmark.split)
    same_split = benchmark.shots_split == benchmark.split
    if benchmark.shots and not benchmark.shots_split:
        raise RecipeError(
            f"benchmark {ref.id}: shots = {benchmark.shots}, but it has no split to draw them from",
            "Set shots: 0, or give a shots_split",
        )
    pool = questions if same_split else read(benchmark.shots_split) if benchmark.shots else []
    shots = Shots(benchmark.shots, pool, same_split)
    return Task(benchmark, prompts(benchmark.id, questions, shots, ref.limit), len(questions))


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
    tasks: Sequence[Task],
    texts: Sequence[str],
) -> tuple[list[pa.Table], pa.Table]:
    """A model's items of each task, and its losses on the texts; it is loaded if any is to do."""
    settings = run.recipe.evaluate
    load = partial(loaded.scorer, candidate.folder, candidate.adapter, candidate.trust_remote_code)
    keep = partial(_part, work, candidate, (settings.precision, str(settings.batch_tokens)))
    items = [
        keep(
            task.benchmark.id,
            _asked(task),
            partial(_items, candidate.name, task, load),
        )
        for task in tasks
    ]
    return items, keep("texts", texts, partial(_losses, candidate.name, texts, load))


def _asked(task: Task) -> list[str]:
    """All that a task's items say but the model's answers."""
    benchmark = task.benchmark
    asked = (f"{p.sha256} {p.question.subject} {p.question.labels}" for p in task.prompts)
    return [str(benchmark.metric), str(benchmark.shots), benchmark.split, *asked]


def _part(
    work: StageWork,
    candidate: Candidate,
    settings: Sequence[str],
    what: str,
    asked: Sequence[str],
    make: Callable[[], pa.Table],
) -> pa.Table:
    """A finished piece of an earlier, killed execution, or the same made now and kept."""
    key = digest(candidate.digest, *settings, *asked)[:16]
    path = work.folder / "parts" / f"{candidate.name}-{what}-{key}.parquet"
    if not path.exists():
        table = make()
        work.forget()
        with writing(path) as temporary:
            pq.write_table(table, temporary)
    return read_table(path)


def _items(model: str, task: Task, load: Callable[[], Scorer]) -> pa.Table:
    """Score a task: one row a question, in the protocol's order; how, the schema says."""
    pairs = [(p.context, f" {choice}") for p in task.prompts for choice in p.choices]
    scorer = load()
    scored = iter(scorer.continuations(pairs, f"{model} on {task.benchmark.id}"))
    rows = [
        _item(model, task.benchmark, prompt, [next(scored) for _ in prompt.choices])
        for prompt in task.prompts
    ]
    return pa.Table.from_pylist(rows, ITEM_SCHEMA.with_metadata({WAY: scorer.way}))


def _item(
    model: str, benchmark: Benchmark, prompt: Prompt, scored: Sequence[Likelihood]
) -> dict[str, Any]:
    log_likelihoods = [choice.log_likelihood for choice in scored]
    lengths = [len(choice) for choice in prompt.choices]
    labels = list(prompt.question.labels)
    return {
        "model": model,
        "benchmark": benchmark.id,
        "metric": benchmark.metric,
        "shots": benchmark.shots,
        "split": prompt.question.split,
        "subject": prompt.question.subject,
        "question_id": prompt.question.id,
        "prompt_sha256": prompt.sha256,
        "log_likelihoods": log_likelihoods,
        "lengths": lengths,
        "num_tokens": [choice.num_tokens for choice in scored],
        "greedy": [choice.greedy for choice in scored],
        "labels": labels,
        "score": item_score(str(benchmark.metric), log_likelihoods, lengths, labels),
        "num_truncated": sum(choice.truncated for choice in scored),
    }


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
    if not _scored(settings):
        names = ", ".join(ref.id for ref in settings.benchmarks)
        raise RecipeError(
            f"evaluate.benchmarks ({names}) has none with a metric", "Add one such as arc_challenge"
        )
    with run.stage(STAGE, digests) as work:
        tasks = [_read_task(run, ref, benchmark) for ref, benchmark in _scored(settings)]
        texts = _read_texts(run.locate(settings.texts)) if settings.texts is not None else []
        items: dict[str, list[pa.Table]] = {}
        losses: dict[str, pa.Table] = {}
        load = partial(
            load_scorer, precision=settings.precision, batch_tokens=settings.batch_tokens
        )
        loaded = Loaded(load)
        for candidate in candidates:
            name = candidate.name
            items[name], losses[name] = _evaluate(run, work, loaded, candidate, tasks, texts)
        table = pa.concat_tables(table for own in items.values() for table in own)
        table = table.replace_schema_metadata(None)
        scores = summarise(table, losses if texts else {}, run.recipe.seed, exposures)
        leave(work, table, scores)
        work.counts = _count(tasks)
        work.facts = {
            "protocol": PROTOCOL,
            "truncated": scores["truncated"],
            "scoring": {name: _way(own) for name, own in items.items()},
        }


def _way(tables: Sequence[pa.Table]) -> str:
    """How a model's items were scored: plain if any were."""
    ways = {(table.schema.metadata or {}).get(WAY.encode(), b"plain") for table in tables}
    return "shared" if ways == {b"shared"} else "plain"


def _count(tasks: Sequence[Task]) -> Counts:
    kept = [task.benchmark.id for task in tasks for _ in task.prompts]
    dropped = [
        (task.benchmark.id, "limit")
        for task in tasks
        for _ in range(task.num_read - len(task.prompts))
    ]
    return Counts.tally(kept, dropped)
