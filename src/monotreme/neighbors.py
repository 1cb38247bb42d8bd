"""All pairs of unit vectors over a similarity threshold: exact, tile by tile.

A float32 matrix product proposes, a float64 dot product of the stored rows decides, so the pairs do
not depend on tile sizes, threads or the BLAS library. Legend: N rows of one side, M of the other,
D numbers a row, P pairs.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from monotreme.progress import progress

TILE_ROWS = 512  # 512 × 2048 float32 products fit the cache; larger tiles measured 2–3× slower
TILE_COLUMNS = 2048
MARGIN = 1e-4  # far over float32's error of a dot product of unit rows (about 1e-6 at D = 384)


class Pairs(NamedTuple):
    """Pairs in ascending (left, right) order.

    Attributes:
        left: (P,) int64 row of the first side.
        right: (P,) int64 row of the second side.
        similarity: (P,) float64 cosine.
    """

    left: np.ndarray
    right: np.ndarray
    similarity: np.ndarray

    def over(self, threshold: float) -> "Pairs":
        """Only the pairs strictly over a threshold."""
        keep = self.similarity > threshold
        return Pairs(self.left[keep], self.right[keep], self.similarity[keep])


def pairs_within(vectors_ND: np.ndarray, threshold: float) -> Pairs:
    """Every pair i < j of rows with cosine > threshold.

    Args:
        vectors_ND: (N, D) float32 unit rows.
    """
    return _join(vectors_ND, vectors_ND, threshold, triangle=True)


def pairs_between(left_ND: np.ndarray, right_MD: np.ndarray, threshold: float) -> Pairs:
    """Every pair (i of left, j of right) with cosine > threshold; arguments as in `pairs_within`."""
    return _join(left_ND, right_MD, threshold, triangle=False)


def _join(left_ND: np.ndarray, right_MD: np.ndarray, threshold: float, triangle: bool) -> Pairs:
    left, right = torch.from_numpy(left_ND), torch.from_numpy(right_MD)
    found: list[Pairs] = []
    tiles = list(_tiles(len(left_ND), len(right_MD), triangle))
    with progress("Comparing tiles", len(tiles)) as done:
        for rows, columns in tiles:
            candidates = _candidates(left[rows], right[columns], threshold - MARGIN)
            i = candidates[:, 0].numpy() + rows.start
            j = candidates[:, 1].numpy() + columns.start
            if triangle:
                i, j = i[i < j], j[i < j]
            found.append(_decide(left_ND, right_MD, i, j, threshold))
            done(1)
    return _sorted(found)


def _tiles(num_rows: int, num_columns: int, triangle: bool) -> Iterator[tuple[slice, slice]]:
    for row in range(0, num_rows, TILE_ROWS):
        for column in range(0, num_columns, TILE_COLUMNS):
            if not triangle or column + TILE_COLUMNS > row:
                yield slice(row, row + TILE_ROWS), slice(column, column + TILE_COLUMNS)


def _candidates(left: torch.Tensor, right: torch.Tensor, floor: float) -> torch.Tensor:
    """(P, 2) places in a tile over the floor; rows whose maximum is under it are not searched."""
    product = left @ right.T
    rows = (product.amax(1) > floor).nonzero().squeeze(1)
    places = (product[rows] > floor).nonzero()
    places[:, 0] = rows[places[:, 0]]
    return places


def _decide(
    left_ND: np.ndarray, right_MD: np.ndarray, i: np.ndarray, j: np.ndarray, threshold: float
) -> Pairs:
    similarity = np.empty(len(i), np.float64)
    for start in range(0, len(i), 65_536):  # bounds the float64 copies of the rows
        part = slice(start, start + 65_536)
        left, right = left_ND[i[part]].astype(np.float64), right_MD[j[part]].astype(np.float64)
        similarity[part] = (left * right).sum(1)
    return Pairs(i, j, similarity).over(threshold)


def _sorted(parts: list[Pairs]) -> Pairs:
    left = np.concatenate([p.left for p in parts] or [np.empty(0, np.int64)])
    right = np.concatenate([p.right for p in parts] or [np.empty(0, np.int64)])
    similarity = np.concatenate([p.similarity for p in parts] or [np.empty(0)])
    order = np.lexsort((right, left))
    return Pairs(left[order], right[order], similarity[order])
