"""All pairs of unit vectors over a similarity threshold: exact, tile by tile.

A fast matrix product proposes with a proven margin, a float64 dot product of the stored rows
decides; so the pairs, to the last byte, do not depend on tile sizes, threads, the BLAS library or
the precision of the product. Where a text has several rows, the highest similarity of any two of
two texts counts. Legend: N texts of one side, M of the other, D numbers a row, P pairs.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch

from monotreme import machine
from monotreme.progress import progress

TILES = {"cpu": (1024, 2048), "cuda": (8192, 16_384)}  # on the CPU larger ones leave the cache
DECIDED_AT_ONCE = 8192  # pairs: bounds the float64 copies of their rows to some 50 MB
ROUNDOFF = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}
TENSOR_CORE_ROUNDOFF = 2.0**-10  # of float32 products on CUDA, should TF32 be switched on


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


def pairs_within(side: Side, threshold: float) -> Iterator[Pairs]:
    """Every pair i < j of texts with cosine > threshold, in blocks of ascending i."""
    return _join(side, side, threshold, triangle=True)


def pairs_between(left: Side, right: Side, threshold: float) -> Iterator[Pairs]:
    """Every pair (i of left, j of right) with cosine > threshold, in blocks of ascending i."""
    return _join(left, right, threshold, triangle=False)


def similarities(left: Side, right: Side, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """(P,) float64 cosine of text i of one side and text j of the other."""
    first_i, num_i = _extent(left.owner, i)
    first_j, num_j = _extent(right.owner, j)
    num = num_i * num_j  # every row of one text against every row of the other
    start = np.cumsum(num) - num
    place = np.arange(num.sum()) - np.repeat(start, num)
    rows_i = np.repeat(first_i, num) + place // np.repeat(num_j, num)
    rows_j = np.repeat(first_j, num) + place % np.repeat(num_j, num)
    dots = _dots(left.rows, right.rows, rows_i, rows_j)
    return np.maximum.reduceat(dots, start) if len(i) else np.empty(0)


def margin(threshold: float, dimension: int, roundoff: float) -> float:
    """How far under `threshold` the computed product of two unit rows over it can be.

    Let u be the unit roundoff of the tiles' type, a and b unit rows, s their cosine. Rounding both
    changes each aᵢbᵢ by a factor within (1 ± u)², so the sum by at most (2u + u²) Σ|aᵢbᵢ| ≤ 2u + u²
    (Cauchy-Schwarz). Products of two rounded numbers are exact in float32 (bf16 has 8 bits); adding
    D of them in float32, in any order, errs by at most D·2⁻²⁴ (Higham, Accuracy and Stability of
    Numerical Algorithms, section 3.1), twice that in units that cut instead of rounding; γ = D·2⁻²²
    leaves room for rows whose norm is off by float32's own rounding. Storing the sum in the tiles'
    type adds u of itself. With e = 2u + u² + γ that is |error| ≤ e + u(|s| + e): for bf16 the known
    2u + u² + u|s| and a little more. Since s − u|s| rises with s, every s over the threshold t is
    computed as more than t − e − u(|t| + e).
    """
    e = 2 * roundoff + roundoff**2 + dimension * 2.0**-22
    return e + roundoff * (abs(threshold) + e)


def _join(left: Side, right: Side, threshold: float, triangle: bool) -> Iterator[Pairs]:
    place = machine.device()
    dtype = torch.bfloat16 if machine.has_amx() else torch.float32
    roundoff = TENSOR_CORE_ROUNDOFF if place == "cuda" else ROUNDOFF[dtype]
    floor = threshold - margin(threshold, right.rows.shape[1], roundoff)
    ours = torch.from_numpy(left.rows).to(place, dtype)
    theirs = ours if triangle else torch.from_numpy(right.rows).to(place, dtype)
    height, width = TILES[place]
    with progress("Comparing", len(left.rows)) as done:
        for rows in _blocks(left.owner, height):
            found = []
            for column in range(rows.start if triangle else 0, len(theirs), width):
                columns = slice(column, column + width)
                i, j = _candidates(ours[rows], theirs[columns], floor)
                i, j = i + rows.start, j + columns.start
                if triangle:
                    distinct = left.owner[i] < left.owner[j]
                    i, j = i[distinct], j[distinct]
                dots = _dots(left.rows, right.rows, i, j)
                found.append(Pairs(left.owner[i], right.owner[j], dots).over(threshold))
            yield _highest(joined(found))
            done(rows.stop - rows.start)


def _blocks(owner: np.ndarray, height: int) -> Iterator[slice]:
    """Cut rows into blocks of about `height`, never between two rows of one text."""
    start = 0
    while start < len(owner):
        last = owner[min(start + height, len(owner)) - 1]
        stop = int(np.searchsorted(owner, last, "right"))
        yield slice(start, stop)
        start = stop


def _candidates(
    left: torch.Tensor, right: torch.Tensor, floor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Places (P,), (P,) in a tile over the floor; rows with a maximum under it are not searched.

    Products are widened before they are compared: a bf16 tensor would round the floor too.
    """
    product = left @ right.T
    rows = (product.amax(1).float() > floor).nonzero().squeeze(1)
    places = (product[rows].float() > floor).nonzero()
    return rows[places[:, 0]].cpu().numpy(), places[:, 1].cpu().numpy()


def _dots(left_RD: np.ndarray, right_RD: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """(P,) float64 dot products of rows i of one side with rows j of the other."""
    dots = np.empty(len(i), np.float64)
    for start in range(0, len(i), DECIDED_AT_ONCE):
        part = slice(start, start + DECIDED_AT_ONCE)
        left, right = left_RD[i[part]].astype(np.float64), right_RD[j[part]].astype(np.float64)
        dots[part] = (left * right).sum(1)
    return dots


def _highest(pairs: Pairs) -> Pairs:
    """Each pair once, with its highest similarity, in ascending order."""
    order = np.lexsort((-pairs.similarity, pairs.right, pairs.left))
    pairs = pairs.where(order)
    again = (np.diff(pairs.left, prepend=-1) == 0) & (np.diff(pairs.right, prepend=-1) == 0)
    return pairs.where(~again)


def _extent(owner: np.ndarray, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row of each text and how many it has."""
    first = np.searchsorted(owner, texts)
    return first, np.searchsorted(owner, texts, "right") - first
