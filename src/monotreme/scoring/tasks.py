"""Benchmarks asked of a model: its records of every question, one row each."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from monotreme.benchmarks import Benchmark, benchmark_of, read_benchmark
from monotreme.errors import RecipeError
from monotreme.recipe import BenchmarkRef
from monotreme.records import Counts
from monotreme.run import Run
from monotreme.scoring.protocol import Prompt, Shots, item_score, prompts
from monotreme.scoring.sheets import Answers, Sheet


def _list(kind: pa.DataType) -> pa.DataType:
    """With Parquet's name of what is in a list: items that were read are written to the same bytes."""
    return pa.list_(pa.field("element", kind))


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
        pa.field("log_likelihoods", _list(pa.float64())),
        pa.field("lengths", _list(pa.int64())),
        pa.field("num_tokens", _list(pa.int64())),
        pa.field("greedy", _list(pa.bool_())),
        pa.field("labels", _list(pa.int64())),
        pa.field("score", pa.float64()),
        pa.field("num_truncated", pa.int64()),
    ]
)


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


def sheet_of(task: Task) -> Sheet:
    """What a model is asked of a task."""
    prompts = task.prompts
    return Sheet(task.benchmark.id, [p.context for p in prompts], [p.choices for p in prompts])


def items_of(model: str, task: Task, answers: Answers) -> pa.Table:
    """A task scored: one row a question, in the protocol's order."""
    found = answers.rows.to_pylist()
    rows = [
        _item(model, task.benchmark, prompt, given)
        for prompt, given in zip(task.prompts, found, strict=True)
    ]
    return pa.Table.from_pylist(rows, ITEM_SCHEMA)


def _item(
    model: str, benchmark: Benchmark, prompt: Prompt, given: dict[str, Any]
) -> dict[str, Any]:
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
        **given,
        "lengths": lengths,
        "labels": labels,
        "score": item_score(str(benchmark.metric), given["log_likelihoods"], lengths, labels),
    }


def count(tasks: Sequence[Task]) -> Counts:
    kept = [task.benchmark.id for task in tasks for _ in task.prompts]
    dropped = [
        (task.benchmark.id, "limit")
        for task in tasks
        for _ in range(task.num_read - len(task.prompts))
    ]
    return Counts.tally(kept, dropped)
