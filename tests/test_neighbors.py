"""The tiled join finds exactly the pairs that a plain float64 comparison finds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monotreme import neighbors
from monotreme.neighbors import pairs_between, pairs_within


def unit_rows(num: int, seed: int, dimension: int = 16, clusters: int = 5) -> np.ndarray:
    """Rows that crowd around a few centres, so that many pairs are near a threshold."""
    random = np.random.default_rng(seed)
    rows = random.normal(size=(clusters, dimension))[random.integers(clusters, size=num)]
    rows = rows + random.normal(scale=0.4, size=(num, dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def brute(left: np.ndarray, right: np.ndarray, threshold: float) -> set[tuple[int, int]]:
    product = left.astype(np.float64) @ right.astype(np.float64).T
    return {(int(i), int(j)) for i, j in np.argwhere(product > threshold)}


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 60), st.integers(0, 1000), st.sampled_from([-0.2, 0.5, 0.8, 0.95]))
def test_within_is_every_pair_once(num, seed, threshold):
    rows = unit_rows(num, seed)
    pairs = pairs_within(rows, threshold)
    found = list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))
    assert found == sorted({(i, j) for i, j in brute(rows, rows, threshold) if i < j})


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 1000))
def test_between_is_every_pair(num, other, seed):
    left, right = unit_rows(num, seed), unit_rows(other, seed + 1)
    pairs = pairs_between(left, right, 0.5)
    found = set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))
    assert found == brute(left, right, 0.5)


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch):
    rows = unit_rows(300, 1)
    whole = pairs_within(rows, 0.7)
    monkeypatch.setattr(neighbors, "TILE_ROWS", 37)
    monkeypatch.setattr(neighbors, "TILE_COLUMNS", 53)
    tiled = pairs_within(rows, 0.7)
    for one, other in zip(whole, tiled, strict=True):
        assert one.tobytes() == other.tobytes()


def test_over_means_strictly():
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
    assert pairs_within(rows, 1.0).left.size == 0
    assert pairs_within(rows, 0.0).left.tolist() == [0]
    assert pairs_within(rows, 0.999).similarity.tolist() == [1.0]
