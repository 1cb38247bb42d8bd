"""Leaks within a benchmark: questions of the scored split that another of its splits holds too.

A model meets the other splits as worked examples and as training data that call themselves clean.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from monotreme.benchmarks import Benchmark, other_splits, read_benchmark
from monotreme.decontaminate.finding import similar_pairs
from monotreme.decontaminate.judging import Match, Matches, count_verdicts, gravest_verdicts, judge
from monotreme.encoders import Encoder
from monotreme.records import BenchmarkQuestion, Question


def split_matches(
    benchmark: Benchmark,
    items: Sequence[BenchmarkQuestion],
    where: tuple[Path | None, str | None],
    encoder: Encoder,
    threshold: float,
    cache: Path,
) -> Iterator[tuple[str, Matches]]:
    """Each other split that there is, with its questions that are like one of the scored split's.

    Args:
        items: the scored split.
        where: local path or Hub commit.
    """
    for split in other_splits(benchmark, where[0]):
        others = [_as_question(item) for item in read_benchmark(benchmark, split, *where)]
        pairs, _ = similar_pairs(others, items, encoder, threshold, cache)
        yield split, judge(others, items, pairs, threshold, cache)


def _as_question(item: BenchmarkQuestion) -> Question:
    options = (
        f"{letter}. {text}" for letter, text in zip(ascii_uppercase, item.options, strict=False)
    )
    parts = filter(None, (item.passage, item.stem, *options))
    answer = item.answers[0] if item.answers else ""
    return Question("\n".join(parts), "", answer, item.split, "unknown", False)


def split_row(benchmark: Benchmark, split: str, matches: Sequence[Match]) -> dict[str, Any]:
    """Distinct questions of the scored split by gravest verdict, and the ids of the duplicates."""
    worst = gravest_verdicts((match.benchmark.id, match.verdict) for match in matches)
    return {
        "benchmark": benchmark.id,
        "split": benchmark.split,
        "other_split": split,
        **count_verdicts(worst.values()),
        "duplicate_ids": sorted(id_ for id_, verdict in worst.items() if verdict == "duplicate"),
    }
