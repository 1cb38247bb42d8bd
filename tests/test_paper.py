"""The paper's figures, and those measured on its data: what the system must reproduce."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import rows_of

from monotreme.curate.duplicates import drop_exact_duplicates
from monotreme.curate.fates import Fates
from monotreme.encoders import BUILT_IN, Encoder, find_encoder
from monotreme.exclusion import verbosity_order
from monotreme.neighbors import Pairs, joined
from monotreme.recipe import SourceRef, load_recipe
from monotreme.records import Question
from monotreme.similar import Texts, similar_between, similar_within
from monotreme.sources import read_source

SHELF = Path(__file__).parents[1] / "recipes"


def read(source: str, path: Path) -> list[Question]:
    rows = read_source(SourceRef(id=source, path=str(path)), path, None, seed=42, on_bad_row="fail")
    return [row for row in rows if isinstance(row, Question)]


def papers_encoder() -> Encoder:
    return find_encoder(BUILT_IN, Path(), lambda _: pytest.fail("asked the Hub"), truncate=True)


def file_order_greedy(num: int, pairs: Pairs) -> int:
    """How many the original's rule keeps: a row stays unless an earlier one that stayed is near."""
    kept: set[int] = set()
    earlier: dict[int, set[int]] = {row: set() for row in range(num)}
    for i, j in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True):
        earlier[j].add(i)
    for row in range(num):
        if not earlier[row] & kept:
            kept.add(row)
    return len(kept)


@pytest.mark.parametrize(
    ("source", "num", "unique", "kept"),
    [
        ("scibench", 695, 684, 624),
        pytest.param("theoremqa", 800, 799, 561, marks=pytest.mark.slow),
    ],
)
def test_a_source_alone(shared_data: Path, tmp_path: Path, source, num, unique, kept):
    """The published 616 and 564 come from the order-dependent greedy over these same rows."""
    questions = read(source, shared_data / "sources" / source)
    sizes = [len(q.output) for q in questions]
    rank = verbosity_order(sizes, sizes, [0] * len(sizes), [q.id for q in questions])
    rows = rows_of(questions)
    fates = Fates(rows)
    drop_exact_duplicates(rows, fates, rank)
    assert (len(rows), int(fates.stays.sum())) == (num, unique)
    texts = list(dict.fromkeys(q.text for q in questions))
    similar = similar_within(Texts(texts, papers_encoder(), tmp_path), 0.8, 0.8)
    assert file_order_greedy(len(texts), joined(list(similar.over(0.8)))) == kept


def test_scibench_has_685_texts_of_which_two_differ_in_a_trailing_line_break(shared_data: Path):
    files = sorted((shared_data / "sources" / "scibench").glob("*.json"))
    texts = {row["problem_text"] for file in files for row in json.loads(file.read_text())}
    assert (len(texts), len({text.strip() for text in texts})) == (685, 684)


# ── MATH × MMLU high_school_mathematics, the check that the authors published ───────────────────


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8").strip()
    return [json.loads(line) for line in text.split("\n")]  # splitlines would cut at U+0085


def authors_argmax(pairs: Pairs) -> set[int]:
    """What the original code removed: of each test question only its most similar training row."""
    best: dict[int, tuple[float, int]] = {}
    for i, j, similarity in zip(*pairs, strict=True):
        best[int(j)] = max(best.get(int(j), (0.0, 0)), (float(similarity), -int(i)))
    return {-row for _, row in best.values()}


@pytest.fixture(scope="module")
def texts(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Texts]]:
    items = lines(shared_data / "benchmarks" / "mmlu" / "test.jsonl")
    items = [item for item in items if item["subject"] == "high_school_mathematics"]
    math = shared_data / "sources" / "math"
    columns = {
        "train": [row["problem"] for row in lines(math / "train_answers.jsonl")],
        "test": [row["problem"] for row in lines(math / "test.jsonl")],
        "stem": [item["question"] for item in items],
        "choices": [
            item["question"]
            + "".join(f"\n{a}: {c}" for a, c in zip("ABCD", item["choices"], strict=True))
            for item in items
        ],
    }
    encoder, cache = papers_encoder(), tmp_path_factory.mktemp("cache")
    return {name: Texts(column, encoder, cache) for name, column in columns.items()}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("splits", "view", "flagged", "removed", "rows", "num_pairs"),
    [
        (("train",), "choices", 80, 80, 93, 94),
        (("train", "test"), "choices", 152, 148, 176, 182),
        (("train",), "stem", 97, 96, 126, 131),
        (("train", "test"), "stem", 167, 163, 239, 252),
    ],
)
def test_the_authors_leak_check(texts, splits, view, flagged, removed, rows, num_pairs):
    math = [text for split in splits for text in texts[split].texts]
    blocks, _ = similar_between(replace(texts[view], texts=math), texts[view], 0.8)
    pairs = joined(list(blocks))
    assert len(set(pairs.right.tolist())) == flagged
    assert len(authors_argmax(pairs)) == removed
    assert len(set(pairs.left.tolist())) == rows
    assert len(pairs.left) == num_pairs


# ── the recipes ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("size", "rate"), [("7b", 4e-4), ("13b", 4e-4), ("70b", 3e-4)])
def test_the_recipes_are_the_papers(size, rate):
    recipe = load_recipe(SHELF / f"platypus-{size}.yaml")
    assert len(recipe.curate.sources) == 11
    train = recipe.train
    assert (train.rank, train.alpha, train.dropout, train.learning_rate) == (16, 16, 0.05, rate)
    assert (train.warmup_steps, train.batch_size, train.epochs) == (100, 16, 1)
    assert train.targets == ["gate_proj", "up_proj", "down_proj"]
    assert (recipe.curate.threshold, recipe.decontaminate.threshold) == (0.8, 0.8)
    assert len(recipe.decontaminate.drop) == 3
    assert len(recipe.evaluate.benchmarks) == 4
