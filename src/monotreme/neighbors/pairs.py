"""Pairs of texts, and the float64 similarity that decides about them.

Legend: N texts of one side, M of the other, R rows of N texts, D numbers a row, P pairs.
"""

from typing import NamedTuple, Protocol

import numpy as np

DECIDED_AT_ONCE = 8192  # pairs: bounds the float64 copies of their rows to some 50 MB


class Side(Protocol):
    """Rows of N texts.

    Attributes:
        rows: (R, D) float32 unit rows.
        owner: (R,) int64, ascending: the text of each row.
    """

    @property
    def rows(self) -> np.ndarray: ...
    @property
    def owner(self) -> np.ndarray: ...


class Rows(NamedTuple):
    """Some rows of a side, as a side."""

    rows: np.ndarray
    owner: np.ndarray


class Pairs(NamedTuple):
    """Pairs in ascending (left, right) order.

    Attributes:
        left: (P,) int64 text of the first side.
        right: (P,) int64 text of the second side.
        similarity: (P,) float64 cosine.
    """

    left: np.ndarray
    right: np.ndarray
    similarity: np.ndarray

    def where(self, keep: np.ndarray) -> "Pairs":
        """The pairs of a (P,) bool mask, or of places in their order."""
        return Pairs(self.left[keep], self.right[keep], self.similarity[keep])

    def over(self, threshold: float) -> "Pairs":
        """Only the pairs strictly over a threshold."""
        return self.where(self.similarity > threshold)


def joined(parts: list[Pairs]) -> Pairs:
    """Pairs one after the other, in the parts' order."""
    if not parts:
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    return Pairs(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def similarities(left: Side, right: Side, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """(P,) float64 cosine of text i of one side and text j of the other; each must have a row."""
    first_i, num_i = _extent(left.owner, i)
    first_j, num_j = _extent(right.owner, j)
    num = num_i * num_j  # every row of one text against every row of the other
    start = np.cumsum(num) - num
    place = np.arange(num.sum()) - np.repeat(start, num)
    rows_i = np.repeat(first_i, num) + place // np.repeat(num_j, num)
    rows_j = np.repeat(first_j, num) + place % np.repeat(num_j, num)
    found = dots(left.rows, right.rows, rows_i, rows_j)
    return np.maximum.reduceat(found, start) if len(i) else np.empty(0)


def dots(left_RD: np.ndarray, right_RD: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """(P,) float64 dot products of rows i of one side with rows j of the other."""
    found = np.empty(len(i), np.float64)
    for start in range(0, len(i), DECIDED_AT_ONCE):
        part = slice(start, start + DECIDED_AT_ONCE)
        left, right = left_RD[i[part]].astype(np.float64), right_RD[j[part]].astype(np.float64)
        found[part] = (left * right).sum(1)
    return found


def highest(pairs: Pairs) -> Pairs:
    """Each pair once, with its highest similarity, in ascending order."""
    order = np.lexsort((-pairs.similarity, pairs.right, pairs.left))
    pairs = pairs.where(order)
    again = (np.diff(pairs.left, prepend=-1) == 0) & (np.diff(pairs.right, prepend=-1) == 0)
    return pairs.where(~again)


def _extent(owner: np.ndarray, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row of each text and how many it has."""
    first = np.searchsorted(owner, texts)
    return first, np.searchsorted(owner, texts, "right") - first
