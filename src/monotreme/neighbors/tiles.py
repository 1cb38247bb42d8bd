"""All pairs of unit vectors over a similarity threshold: exact, tile by tile.

A fast matrix product proposes with a proven margin, a float64 dot product of the stored rows
decides; so the pairs, to the last byte, do not depend on tile sizes, threads, the BLAS library or
the precision of the product. Where a text has several rows, the highest similarity of any two of
two texts counts. Legend: N texts of one side, M of the other, D numbers a row, P pairs.
"""

import warnings
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from monotreme import machine
from monotreme.engine import HERE, Engine, Shared
from monotreme.neighbors.pairs import Pairs, Side, dots, highest, joined
from monotreme.progress import progress

TILES = {"cpu": (1024, 2048), "cuda": (8192, 16_384)}  # on the CPU larger ones leave the cache
ROUNDOFF = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}
TENSOR_CORE_ROUNDOFF = 2.0**-10  # of float32 products on CUDA, should TF32 be switched on


def pairs_within(side: Side, threshold: float, engine: Engine = HERE) -> Iterator[Pairs]:
    """Every pair i < j of texts with cosine > threshold, in blocks of ascending i."""
    return _join(side, None, threshold, engine)


def pairs_between(
    left: Side, right: Side, threshold: float, engine: Engine = HERE
) -> Iterator[Pairs]:
    """Every pair (i of left, j of right) with cosine > threshold, in blocks of ascending i."""
    return _join(left, right, threshold, engine)


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


def _join(left: Side, right: Side | None, threshold: float, engine: Engine) -> Iterator[Pairs]:
    theirs = None if right is None else _share(right, engine)
    make = partial(_Tiles, _share(left, engine), theirs, threshold)
    height, _ = TILES[machine.device()]
    with progress("Comparing", len(left.rows)) as done:
        blocks = list(_blocks(left.owner, height))
        for rows, pairs in zip(blocks, engine.map(_search, blocks, make, on_gpu=True), strict=True):
            yield pairs
            done(rows.stop - rows.start)


def _share(side: Side, engine: Engine) -> tuple[Shared[np.ndarray], Shared[np.ndarray]]:
    return engine.share(side.rows), engine.share(side.owner)


class _Tiles:
    """Both sides as a worker needs them: stored rows to decide, tensors to propose.

    Without a right side the pairs are i < j of the left one.
    """

    def __init__(
        self,
        left: tuple[Shared[np.ndarray], Shared[np.ndarray]],
        right: tuple[Shared[np.ndarray], Shared[np.ndarray]] | None,
        threshold: float,
    ) -> None:
        self.triangle = right is None
        self.left, self.left_owner = (part.value for part in left)
        self.right, self.right_owner = (part.value for part in right or left)
        self.threshold = threshold
        place = machine.device()
        dtype = torch.bfloat16 if machine.has_amx() else torch.float32
        roundoff = TENSOR_CORE_ROUNDOFF if place == "cuda" else ROUNDOFF[dtype]
        self.floor = threshold - margin(threshold, self.right.shape[1], roundoff)
        self.width = TILES[place][1]
        self.ours = _tensor(self.left).to(place, dtype)
        self.theirs = self.ours if self.triangle else _tensor(self.right).to(place, dtype)


def _search(tiles: _Tiles, rows: slice) -> Pairs:
    """The pairs of a block of left rows with all right ones."""
    found = []
    for column in range(rows.start if tiles.triangle else 0, len(tiles.theirs), tiles.width):
        columns = slice(column, column + tiles.width)
        i, j = _candidates(tiles.ours[rows], tiles.theirs[columns], tiles.floor)
        i, j = i + rows.start, j + columns.start
        if tiles.triangle:
            distinct = tiles.left_owner[i] < tiles.left_owner[j]
            i, j = i[distinct], j[distinct]
        cosines = dots(tiles.left, tiles.right, i, j)
        pairs = Pairs(tiles.left_owner[i], tiles.right_owner[j], cosines)
        found.append(pairs.over(tiles.threshold))
    return highest(joined(found))


def _tensor(rows: np.ndarray) -> torch.Tensor:
    """The same memory; an engine may have given it for reading alone, and it is only read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(rows)


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
