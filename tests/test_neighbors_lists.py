"""Lists find nothing that the exact join has not, hardly miss a pair, and say how many they miss."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monotreme import machine
from monotreme.embed import Vectors
from monotreme.engine import HERE, Engine, open_engine
from monotreme.neighbors import (
    Pairs,
    Recall,
    joined,
    lists,
    make_lists,
    measure_recall,
    pairs_in_lists,
    pairs_within,
)

THRESHOLD = 0.8


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def planted(num: int, seed: int = 0, dimension: int = 48) -> Vectors:
    """Rows around crowded and lonely centres; every fifth is near its predecessor."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(30, dimension))
    rows = 0.8 * centres[(30 * random.random(num) ** 3).astype(int)]
    rows += random.normal(size=(num, dimension))
    copies = np.arange(4, num, 5)
    rows[copies] = rows[copies - 1] + 0.6 * rows[copies]
    return Vectors(unit(rows), np.arange(num))


def windows(side: Vectors, most: int) -> Vectors:
    """The same rows as texts of one to `most` rows."""
    counts = np.random.default_rng(1).integers(1, most + 1, size=len(side.rows))
    return Vectors(side.rows, np.repeat(np.arange(len(counts)), counts)[: len(side.rows)])


def found(
    side: Vectors, folder: Path, engine: Engine = HERE, threshold: float = THRESHOLD
) -> Pairs:
    entered = make_lists(side, threshold, engine)
    return joined(list(pairs_in_lists(side, entered, threshold, folder, engine)))


def as_dict(pairs: Pairs) -> dict[tuple[int, int], float]:
    keys = list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))
    assert keys == sorted(set(keys))
    return dict(zip(keys, pairs.similarity.tolist(), strict=True))


def exact(side: Vectors, threshold: float = THRESHOLD) -> Pairs:
    return joined(list(pairs_within(side, threshold)))


def pair_bytes(pairs: Pairs) -> list[bytes]:
    return [column.tobytes() for column in pairs]


@pytest.mark.parametrize("most", [1, 3])
def test_what_is_found_is_in_the_exact_join_and_nearly_all_of_it(tmp_path: Path, most: int):
    side = windows(planted(5000), most)
    everything, ours = as_dict(exact(side)), as_dict(found(side, tmp_path))
    assert len(everything) > 400
    assert ours.items() <= everything.items()
    assert len(ours) >= 0.995 * len(everything)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 60), st.integers(0, 1000), st.sampled_from([-0.2, 0.5]), st.integers(1, 3))
def test_few_rows_and_low_thresholds(tmp_path: Path, num, seed, threshold, most):
    side = windows(planted(num, seed, 4), most)
    ours = as_dict(found(side, tmp_path, threshold=threshold))
    assert ours.items() <= as_dict(exact(side, threshold)).items()


def test_one_list_is_the_exact_join(tmp_path: Path):
    side = windows(planted(700), 2)
    one = lists.Lists(1, np.zeros((700, 1), np.int32))
    ours = joined(list(pairs_in_lists(side, one, 0.3, tmp_path)))
    assert pair_bytes(ours) == pair_bytes(exact(side, 0.3))


def test_rows_that_are_the_same_many_times_are_all_pairs(tmp_path: Path):
    rows = unit(np.repeat(np.eye(3, 8), [400, 1, 99], axis=0))
    ours = found(Vectors(rows, np.arange(500)), tmp_path)
    assert len(ours.left) == 400 * 399 // 2 + 99 * 98 // 2


@pytest.fixture(scope="module")
def two() -> Iterator[Engine]:
    with open_engine("local", 2, None) as engine:
        yield engine


def test_workers_and_the_size_of_parts_change_no_byte(
    tmp_path: Path, two: Engine, monkeypatch: pytest.MonkeyPatch
):
    side = windows(planted(3000), 2)
    alone = pair_bytes(found(side, tmp_path))
    assert pair_bytes(found(side, tmp_path, two)) == alone
    for name, value in {
        "ASSIGNED_AT_ONCE": 37,
        "RANGES": 5,
        "DECIDED_AT_ONCE": 11,
        "STEP": 7,
    }.items():
        monkeypatch.setattr(lists, name, value)
    assert pair_bytes(found(side, tmp_path)) == alone


def test_the_precision_of_the_tiles_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    side = planted(1000)
    ours = []
    for amx in (False, True):
        monkeypatch.setattr(machine, "has_amx", lambda amx=amx: amx)
        ours.append(pair_bytes(found(side, tmp_path)))
    assert ours[0] == ours[1]


def test_the_order_of_the_rows_does_not_matter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lists, "SAMPLE", 300)
    side = planted(2000)
    order = np.random.default_rng(3).permutation(2000)
    moved = Vectors(side.rows[order], side.owner)
    nearest, there = (make_lists(one, THRESHOLD).nearest for one in (side, moved))
    assert there.tolist() == nearest[order].tolist()
    pairs = exact(side).where(np.arange(len(exact(side).left)) % 3 > 0)
    i, j = (np.argsort(order)[column] for column in pairs[:2])
    there_too = Pairs(np.minimum(i, j), np.maximum(i, j), pairs.similarity)
    ours, theirs = (
        measure_recall(one, [some], THRESHOLD) for one, some in ((side, pairs), (moved, there_too))
    )
    assert ours == theirs


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 384, 4096]))
def test_products_of_whole_numbers_are_exact_in_any_order(seed, dimension):
    rows = unit(np.random.default_rng(seed).normal(size=(32, dimension)))
    whole = lists._whole(rows)
    products = whole.numpy().astype(np.int64) @ whole.numpy().astype(np.int64).T
    assert np.abs(products).max() < 2**24
    shuffled = whole[:, torch.randperm(dimension, generator=torch.Generator().manual_seed(seed))]
    for some in (whole, shuffled):
        assert (some @ some.T).long().numpy().tolist() == products.tolist()


def test_of_equal_centroids_the_lower_number_is_nearer():
    whole = lists._whole(np.eye(4, dtype=np.float32))
    centroids = whole[[2, 0, 0, 1, 0]]
    assert lists._nearest(whole[:1], centroids, 4).tolist() == [[1, 2, 4, 0]]


def test_blocks_ascend_and_are_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lists, "DECIDED_AT_ONCE", 50)
    side = planted(2000)
    blocks = list(pairs_in_lists(side, make_lists(side, THRESHOLD), THRESHOLD, tmp_path))
    assert len(blocks) > 5
    assert max(len(block.left) for block in blocks) <= 50
    as_dict(joined(blocks))
    assert list(tmp_path.iterdir()) == []


def test_lists_that_were_compared_are_not_compared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    side = windows(planted(900), 2)
    entered, kept = make_lists(side, THRESHOLD), tmp_path / "kept"
    whole = pair_bytes(joined(list(pairs_in_lists(side, entered, THRESHOLD, tmp_path))))

    def again() -> list[bytes]:
        pairs = pairs_in_lists(side, entered, THRESHOLD, tmp_path, done_before=kept)
        return pair_bytes(joined(list(pairs)))

    assert again() == whole
    files = sorted(kept.iterdir())
    assert len(files) == entered.num
    files[0].unlink()
    files[1].write_bytes(files[1].read_bytes()[:20])
    compared = []
    propose = lists._propose
    monkeypatch.setattr(lists, "_propose", lambda *given: compared.append(given) or propose(*given))
    assert again() == whole
    assert len(compared) == 2
    assert again() == whole
    assert len(compared) == 2


# ── what is missed ──────────────────────────────────────────────────────────────────────────────


def test_the_recall_of_all_texts_is_the_share_that_was_found(monkeypatch: pytest.MonkeyPatch):
    side = windows(planted(2000), 2)
    pairs = exact(side)
    some = pairs.where(np.arange(len(pairs.left)) % 4 > 0)
    recall = measure_recall(side, [some], THRESHOLD)
    assert recall.num_pairs == len(pairs.left)
    assert recall.share == pytest.approx(len(some.left) / len(pairs.left))
    assert recall.low < recall.share < recall.high
    assert measure_recall(side, [pairs], THRESHOLD).share == 1
    monkeypatch.setattr(lists, "SAMPLE", 200)
    sampled = measure_recall(side, [some], THRESHOLD)
    assert sampled.num_texts == 200
    assert sampled.low < recall.share < sampled.high
    assert sampled.high - sampled.low > recall.high - recall.low


def test_no_pair_says_nothing_of_the_recall():
    side = Vectors(unit(np.eye(5)), np.arange(5))
    assert measure_recall(side, [], THRESHOLD) == Recall(1.0, 0.0, 1.0, 5, 0)


def test_the_pairs_of_one_text_are_one_observation():
    crowd = Vectors(unit(np.ones((60, 4))), np.arange(60))
    couples = Vectors(unit(np.repeat(np.eye(60), 2, axis=0)), np.arange(120))
    crowded, lonely = (measure_recall(side, [exact(side)], THRESHOLD) for side in (crowd, couples))
    assert crowded.num_pairs == 60 * 59 // 2 > lonely.num_pairs == 60
    assert crowded.low < lonely.low  # hundreds of pairs of one crowd say less than 60 couples


def test_intervals_are_clopper_and_pearsons():
    from scipy.stats import binomtest

    for count, size in ((0, 7), (3, 7), (7, 7), (995, 1000)):
        expected = binomtest(count, size).proportion_ci(0.95, method="exact")
        assert lists._interval(count, size) == pytest.approx((expected.low, expected.high))


def test_rows_without_company_need_more_lists():
    random = np.random.default_rng(0)
    crowds = unit(np.repeat(random.normal(size=(20, 384)), 150, axis=0))
    crowds = unit(crowds + 0.3 * unit(random.normal(size=crowds.shape)))
    lonely = unit(random.normal(size=(3000, 384)))
    lonely[1::2] = unit(0.82 * lonely[::2] + np.sqrt(1 - 0.82**2) * lonely[1::2])
    few, many = (
        make_lists(Vectors(rows, np.arange(3000)), THRESHOLD).nearest.shape[1]
        for rows in (crowds, lonely)
    )
    assert lists.FEWEST <= few < many <= lists.MOST
