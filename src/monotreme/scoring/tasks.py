"""Benchmarks asked of a model: its records of every question, one row each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from monotreme.benchmarks import Benchmark, benchmark_of, read_benchmark
from monotreme.errors import RecipeError
from monotreme.recipe import BenchmarkRef
from monotreme.records import Counts, digest, read_table
from monotreme.run import Run
from monotreme.scoring.protocol import Prompt, Shots, item_score, prompts
from monotreme.scoring.scorer import Scorer
from monotreme.scoring.spans import Likelihood
from monotreme.storage import writing
from monotreme.work import StageWork

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


@dataclass(frozen=True, slots=True)
class Task:
    """A benchmark with its prompts, and the number of questions they were chosen from."""

    benchmark: Benchmark
    prompts: list[Prompt]
    num_read: int


def scored(refs: Sequence[BenchmarkRef]) -> list[tuple[BenchmarkRef, Benchmark]]:
    """Benchmarks that have a metric; the others are only checked for leaks.

    Raises:
        RecipeError: none has.
    """
    pairs = [(ref, benchmark_of(ref)) for ref in refs]
    found = [(ref, benchmark) for ref, benchmark in pairs if benchmark.metric is not None]
    if not found:
        names = ", ".join(ref.id for ref in refs)
        raise RecipeError(
            f"none of the benchmarks ({names}) has a metric", "Add one such as arc_challenge"
        )
    return found


def benchmark_digests(run: Run, refs: Sequence[BenchmarkRef]) -> dict[str, str]:
    """Digests of the benchmarks that are scored, as `benchmark/<id>`."""
    return {
        f"benchmark/{ref.id}": run.dataset_digest(ref.path, benchmark.name, benchmark.revision)
        for ref, benchmark in scored(refs)
    }


def read_tasks(run: Run, refs: Sequence[BenchmarkRef]) -> list[Task]:
    """The prompts of the benchmarks that are scored.

    Raises:
        RecipeError: none is, or one has no split to draw its shots from.
        InputError, RemoteError: one cannot be read.
    """
    return [_read_task(run, ref, benchmark) for ref, benchmark in scored(refs)]


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


def asked(task: Task) -> list[str]:
    """All that a task's items say but the model's answers."""
    benchmark = task.benchmark
    each = (f"{p.sha256} {p.question.subject} {p.question.labels}" for p in task.prompts)
    return [str(benchmark.metric), str(benchmark.shots), benchmark.split, *each]


def items_of(model: str, task: Task, load: Callable[[], Scorer]) -> pa.Table:
    """Score a task: one row a question, in the protocol's order; how, the schema says."""
    pairs = [(p.context, f" {choice}") for p in task.prompts for choice in p.choices]
    scorer = load()
    found = iter(scorer.continuations(pairs, f"{model} on {task.benchmark.id}"))
    rows = [
        _item(model, task.benchmark, prompt, [next(found) for _ in prompt.choices])
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


def way_of(tables: Sequence[pa.Table]) -> str:
    """How a model's items were scored: plain if any were."""
    ways = {(table.schema.metadata or {}).get(WAY.encode(), b"plain") for table in tables}
    return "shared" if ways == {b"shared"} else "plain"


def count(tasks: Sequence[Task]) -> Counts:
    kept = [task.benchmark.id for task in tasks for _ in task.prompts]
    dropped = [
        (task.benchmark.id, "limit")
        for task in tasks
        for _ in range(task.num_read - len(task.prompts))
    ]
    return Counts.tally(kept, dropped)


def kept(work: StageWork, name: str, same: Sequence[str], make: Callable[[], pa.Table]) -> pa.Table:
    """A finished piece of an earlier, killed execution of a stage, or the same made now and kept.

    Args:
        name: of the piece.
        same: all that it depends on.
    """
    path = work.folder / "parts" / f"{name}-{digest(*same)[:16]}.parquet"
    if not path.exists():
        table = make()
        work.forget()
        with writing(path) as temporary:
            pq.write_table(table, temporary)
    return read_table(path)
