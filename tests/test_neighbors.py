"""The tiled join finds exactly the pairs that a plain float64 comparison finds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monotreme import machine
from monotreme.embed import Vectors
from monotreme.neighbors import (
    Pairs,
    joined,
    margin,
    pairs_between,
    pairs_within,
    similarities,
    tiles,
)


def unit_rows(num: int, seed: int, dimension: int = 16, clusters: int = 5) -> np.ndarray:
    """Rows that crowd around a few centres, so that many pairs are near a threshold."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(clusters, dimension))[random.integers(clusters, size=num)]
    rows = rows + random.normal(scale=0.4, size=(num, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def side(num: int, seed: int, windows: int = 1, dimension: int = 16) -> Vectors:
    """`num` texts of up to `windows` rows each."""
    counts = np.random.default_rng(seed).integers(1, windows + 1, size=num)
    owner = np.repeat(np.arange(num), counts)
    return Vectors(unit_rows(len(owner), seed, dimension), owner)


def within(one: Vectors, threshold: float) -> Pairs:
    return joined(list(pairs_within(one, threshold)))


def between(one: Vectors, other: Vectors, threshold: float) -> Pairs:
    return joined(list(pairs_between(one, other, threshold)))


def brute(left: Vectors, right: Vectors, threshold: float) -> dict[tuple[int, int], float]:
    """Highest float64 product of any two rows of two texts, where over the threshold."""
    product = left.rows.astype(np.float64) @ right.rows.astype(np.float64).T
    best: dict[tuple[int, int], float] = {}
    for i, j in np.argwhere(product > threshold):
        key = (int(left.owner[i]), int(right.owner[j]))
        best[key] = max(best.get(key, -1.0), float(product[i, j]))
    return best


def as_dict(pairs: Pairs) -> dict[tuple[int, int], float]:
    keys = list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))
    assert keys == sorted(set(keys))
    return dict(zip(keys, pairs.similarity.tolist(), strict=True))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 60), st.integers(0, 1000), st.sampled_from([-0.2, 0.5, 0.8]), st.integers(1, 4)
)
def test_within_is_every_pair_once_with_its_highest_similarity(num, seed, threshold, windows):
    texts = side(num, seed, windows)
    expected = {k: s for k, s in brute(texts, texts, threshold).items() if k[0] < k[1]}
    assert as_dict(within(texts, threshold)) == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 1000), st.integers(1, 3))
def test_between_is_every_pair(num, other, seed, windows):
    left, right = side(num, seed, windows), side(other, seed + 1, windows)
    found = as_dict(between(left, right, 0.5))
    assert found == pytest.approx(brute(left, right, 0.5), abs=1e-12)


@pytest.mark.parametrize("amx", [False, True])
def test_tiles_and_precision_change_no_byte(monkeypatch: pytest.MonkeyPatch, amx: bool):
    texts = side(300, 1, windows=3)
    monkeypatch.setattr(machine, "has_amx", lambda: False)
    whole = within(texts, 0.7)
    monkeypatch.setattr(machine, "has_amx", lambda: amx)  # bf16 tiles run on any CPU, only slowly
    monkeypatch.setattr(tiles, "TILES", {"cpu": (37, 53), "cuda": (37, 53)})
    tiled = within(texts, 0.7)
    for one, other in zip(whole, tiled, strict=True):
        assert one.tobytes() == other.tobytes()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.sampled_from([2, 16, 384]), st.sampled_from([0.0, 0.5, 0.9]))
def test_no_product_errs_by_more_than_the_margin(seed, dimension, spread):
    random = np.random.default_rng(seed)
    centre = random.normal(size=dimension)
    rows = spread * centre + (1 - spread) * random.normal(size=(64, dimension))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    true = rows.astype(np.float64) @ rows.astype(np.float64).T
    for dtype, roundoff in tiles.ROUNDOFF.items():
        tile = torch.from_numpy(rows).to(dtype)
        computed = (tile @ tile.T).double().numpy()
        limit = np.vectorize(lambda s, u=roundoff: margin(s, dimension, u))(true)
        assert (np.abs(computed - true) <= limit).all()


def test_pairs_beside_the_threshold_survive_bf16_tiles(monkeypatch: pytest.MonkeyPatch):
    angle = np.arccos(0.8) + np.linspace(-1e-3, 1e-3, 200)
    rows = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    one = Vectors(np.array([[1, 0]], np.float32), np.zeros(1, np.int64))
    other = Vectors(rows, np.arange(200))
    monkeypatch.setattr(machine, "has_amx", lambda: True)
    assert as_dict(between(one, other, 0.8)) == brute(one, other, 0.8)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 20), st.integers(0, 1000), st.integers(0, 40))
def test_similarities_of_named_pairs_are_the_joins(num, seed, asked):
    left, right = side(num, seed, 3), side(num, seed + 1, 3)
    random = np.random.default_rng(seed)
    i, j = random.integers(num, size=(2, asked))
    everything = as_dict(between(left, right, -1.1))
    expected = [everything[int(a), int(b)] for a, b in zip(i, j, strict=True)]
    assert similarities(left, right, i, j).tolist() == expected


def test_a_clique_of_thousands_is_found_whole():
    rows = np.ones((3000, 4), np.float32) / 2
    pairs = within(Vectors(rows, np.arange(3000)), 0.99)
    assert len(pairs.left) == 3000 * 2999 // 2


def test_over_means_strictly():
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
    texts = Vectors(rows, np.arange(3))
    assert within(texts, 1.0).left.size == 0
    assert within(texts, 0.0).left.tolist() == [0]
    assert within(texts, 0.999).similarity.tolist() == [1.0]


def test_blocks_that_were_compared_are_not_compared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle and taken up again is uninterrupted; a broken file is made anew."""
    monkeypatch.setattr(tiles, "TILES", {"cpu": (50, 64), "cuda": (50, 64)})
    texts = side(300, 1)
    whole = list(pairs_within(texts, 0.7))
    searched: list[slice] = []
    search = tiles._search

    def counting(made: tiles.Tiles, rows: slice) -> Pairs:
        searched.append(rows)
        return search(made, rows)

    monkeypatch.setattr(tiles, "_search", counting)
    begun = pairs_within(texts, 0.7, folder=tmp_path)
    for _ in range(3):
        next(begun)
    del begun
    num = len(searched)
    assert 3 <= num < len(whole)
    again = list(pairs_within(texts, 0.7, folder=tmp_path))
    assert len(searched) == len(whole) + (num - 3)  # the one under way was lost
    assert [c.tobytes() for p in again for c in p] == [c.tobytes() for p in whole for c in p]
    broken = sorted(tmp_path.iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:20])
    searched.clear()
    again = list(pairs_within(texts, 0.7, folder=tmp_path))
    assert len(searched) == 1
    assert [c.tobytes() for p in again for c in p] == [c.tobytes() for p in whole for c in p]
