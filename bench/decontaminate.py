"""Leaks planted among real questions: what finds them, what it drops besides, and what it costs.

    pip install --requirement bench/requirements.txt
    python bench/decontaminate.py [--quick] [--size N] [--benchmark N] [--each N]

Copies of benchmark questions, altered in known ways (monotreme.self_test), are put among a seeded
sample of real questions. Then, in one process on one set:

    original     sentence-transformers over instructions and "stem + options"; of each benchmark
                 question the most similar training row goes, if it is over 0.8 (the paper's code)
    all pairs    the same vectors, every row over 0.8 goes: the original's idea without the argmax
    8-grams      a row that shares eight words in a row with a benchmark question goes (open-r1)
    13-grams     the same with thirteen (GPT-3)
    monotreme    views, all pairs, verbatim pass, triage; duplicate and gray_area go

Found: share of the planted copies that go. False alarms: share of the control, benchmark questions
with other numbers and another answer, that goes, and of the real questions. A real question may be a
leak, so its share is no error rate. Processor seconds are of all threads.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from curate import model_folder, sample

from monotreme.benchmarks import BENCHMARKS, read_benchmark
from monotreme.decontaminate.finding import similar_pairs
from monotreme.decontaminate.judging import judge
from monotreme.decontaminate.views import benchmark_views, training_views
from monotreme.encoders import BUILT_IN, find_encoder
from monotreme.records import BenchmarkQuestion, Question
from monotreme.self_test import CONTROL, KINDS, copies
from monotreme.similar import Texts, similar_between

DATA = Path(__file__).parents[1].parent / "shared" / "data" / "benchmarks"
NAMES = ("arc_challenge", "hellaswag", "mmlu", "truthfulqa")
THRESHOLD = 0.8
JOIN_TARGET_SECONDS = 5.0  # for 25,000 questions × the four benchmarks
Spent = dict[str, float]


@contextmanager
def clocked(spent: Spent, phase: str) -> Iterator[None]:
    """Add the processor seconds of what is done inside."""
    started = time.process_time()
    yield
    spent[phase] = spent.get(phase, 0.0) + time.process_time() - started


def real_benchmark(size: int | None, seed: int) -> list[BenchmarkQuestion]:
    items = [
        item
        for name in NAMES
        for item in read_benchmark(BENCHMARKS[name], BENCHMARKS[name].split, DATA / name, None)
    ]
    return items if size is None else random.Random(seed).sample(items, size)


# ── contestants: each says which rows go ────────────────────────────────────────────────────────


def embedded(
    questions: Sequence[Question], items: Sequence[BenchmarkQuestion], spent: Spent
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 384) and (M, 384) unit rows as the original's notebook makes them."""
    from sentence_transformers import SentenceTransformer

    with clocked(spent, "embed"):
        model = SentenceTransformer(str(model_folder()))
        shown = ["\n".join((item.stem, *item.options)) for item in items]
        texts = [question.text for question in questions]
        rows, tests = (model.encode(t, normalize_embeddings=True) for t in (texts, shown))
    return rows, tests


def original(rows: np.ndarray, tests: np.ndarray, spent: Spent) -> np.ndarray:
    """One nearest row for each benchmark question, one question after another."""
    goes = np.zeros(len(rows), bool)
    with clocked(spent, "join"):
        for test in tests:
            similarities = rows @ test
            nearest = int(similarities.argmax())
            goes[nearest] |= bool(similarities[nearest] > THRESHOLD)
    return goes


def all_pairs(rows: np.ndarray, tests: np.ndarray, spent: Spent) -> np.ndarray:
    with clocked(spent, "join"):
        return np.concatenate(
            [(rows[i : i + 1024] @ tests.T).max(1) > THRESHOLD for i in range(0, len(rows), 1024)]
        )


def ngrams(
    questions: Sequence[Question], items: Sequence[BenchmarkQuestion], size: int, spent: Spent
) -> np.ndarray:
    def runs(text: str) -> set[str]:
        found = text.lower().split()
        return {" ".join(found[i : i + size]) for i in range(len(found) - size + 1)}

    with clocked(spent, "join"):
        known = set().union(*(runs(item.stem) for item in items))
        return np.array([not known.isdisjoint(runs(question.text)) for question in questions])


def ours(
    questions: Sequence[Question], items: Sequence[BenchmarkQuestion], cache: Path, spent: Spent
) -> np.ndarray:
    encoder = find_encoder(BUILT_IN, Path(), str)
    with clocked(spent, "embed, join, verbatim"):
        pairs, _ = similar_pairs(questions, items, encoder, THRESHOLD, cache)
    with clocked(spent, "triage"):
        matches = judge(questions, items, pairs, THRESHOLD, cache)
    gone = {m.question for m in matches if m.verdict in ("duplicate", "gray_area")}
    with clocked(spent, "of it: join"):  # all vectors lie in the cache now
        sides = (
            Texts(views.texts, encoder, cache)
            for views in (training_views(questions, cache), benchmark_views(items))
        )
        similar_between(*sides, THRESHOLD)
    return np.array([question in gone for question in questions])


# ── the comparison ──────────────────────────────────────────────────────────────────────────────


def shares(goes: np.ndarray, kinds: np.ndarray) -> dict[str, float]:
    return {str(kind): float(goes[kinds == kind].mean()) for kind in np.unique(kinds)}


def compare(size: int, num_items: int | None, num_each: int) -> dict[str, Any]:
    items = real_benchmark(num_items, 0)
    planted = copies(items, 0, num_each)
    real = [Question(text, "", "", "real", "unknown", False) for text in sample(size)]
    questions = [*real, *(copy.question for copy in planted)]
    kinds = np.array(["real"] * len(real) + [copy.kind for copy in planted])
    print(
        f"{len(real):,} real questions, {len(planted)} planted, {len(items):,} benchmark questions"
    )
    rows, tests = embedded(questions, items, vectors := {})
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, tuple[Spent, Callable[[Spent], np.ndarray]]] = {
            "original": (dict(vectors), lambda spent: original(rows, tests, spent)),
            "all pairs": (dict(vectors), lambda spent: all_pairs(rows, tests, spent)),
            "8-grams": ({}, lambda spent: ngrams(questions, items, 8, spent)),
            "13-grams": ({}, lambda spent: ngrams(questions, items, 13, spent)),
            "monotreme": ({}, lambda spent: ours(questions, items, Path(folder), spent)),
        }
        results = {}
        columns = [kind for kind in (*KINDS, "real") if kind in kinds]
        print(f"{'':<11}" + "".join(f"{name:>17}" for name in columns) + "   processor s")
        for name, (spent, way) in ways.items():
            found = shares(way(spent), kinds)
            results[name] = {"shares": found, "seconds": spent}
            cells = "".join(f"{found[column]:17.3f}" for column in columns)
            phases = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in spent.items())
            print(f"{name:<11}{cells}   {phases}", flush=True)
    return results


def summary(results: dict[str, Any]) -> dict[str, Any]:
    """Found: the mean over the kinds that are leaks."""

    def found(way: str) -> float:
        return float(np.mean([s for k, s in results[way]["shares"].items() if k not in ("real", CONTROL)]))  # fmt: skip

    def seconds(way: str) -> float:
        return float(sum(s for phase, s in results[way]["seconds"].items() if phase != "of it: join"))  # fmt: skip

    join = results["monotreme"]["seconds"]["of it: join"]
    return {
        "name": "decontaminate",
        "ours": {"found": found("monotreme"), "false_alarms": results["monotreme"]["shares"].get(CONTROL), "seconds": seconds("monotreme"), "join_seconds": join},
        "peers": {way: {"found": found(way), "false_alarms": results[way]["shares"].get(CONTROL), "seconds": seconds(way)} for way in results if way != "monotreme"},
        "ratio": seconds("original") / seconds("monotreme"),
        "target": {"join_seconds": JOIN_TARGET_SECONDS},
        "met": join <= JOIN_TARGET_SECONDS,
        "floor_share": None,  # the embedding's: see bench/curate.py
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--size", type=int, default=25_000, help="real questions")
    parser.add_argument("--benchmark", type=int, help="benchmark questions; all where not given")
    parser.add_argument("--each", type=int, default=200, help="planted copies of a kind")
    parser.add_argument("--quick", action="store_true", help="a small set, under a minute")
    given = parser.parse_args()
    size, items, each = (600, 500, 30) if given.quick else (given.size, given.benchmark, given.each)
    print(json.dumps(summary(compare(size, items, each))))


if __name__ == "__main__":
    main()
