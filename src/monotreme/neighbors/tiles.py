"""All pairs of unit vectors over a similarity threshold: exact, tile by tile.

A fast matrix product proposes with a proven margin, a float64 dot product of the stored rows
decides; so the pairs, to the last byte, do not depend on tile sizes, threads, the BLAS library or
the precision of the product. Where a text has several rows, the highest similarity of any two of
two texts counts. Legend: N texts of one side, M of the other, D numbers a row, P pairs.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from monotreme import machine
from monotreme.engine import HERE, Engine, Shared
from monotreme.neighbors.kept import kept
from monotreme.neighbors.pairs import Pairs, Side, dots, highest, joined
from monotreme.progress import progress

TILES = {"cpu": (1024, 2048), "cuda": (8192, 16_384)}  # on the CPU larger ones leave the cache
ROUNDOFF = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}
TENSOR_CORE_ROUNDOFF = 2.0**-10  # of float32 products on CUDA, should TF32 be switched on


def pairs_within(
    side: Side, threshold: float, engine: Engine = HERE, folder: Path | None = None
) -> Iterator[Pairs]:
    """Every pair i < j of texts with cosine > threshold, in blocks of ascending i.

    Args:
        folder: of these rows and this threshold alone: a block that lies there is not computed
            again, others are left there.

    Raises:
        StorageError: the folder is full or cannot be written.
    """
    blocks = {f"{rows.start:012}-{rows.stop:012}": rows for rows in _blocks(side.owner)}
    return kept(folder, blocks, partial(_join, side, None, threshold, engine), Pairs)


def pairs_between(
    left: Side, right: Side, threshold: float, engine: Engine = HERE
) -> Iterator[Pairs]:
    """Every pair (i of left, j of right) with cosine > threshold, in blocks of ascending i."""
    return _join(left, right, threshold, engine, list(_blocks(left.owner)))


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


def _join(
    left: Side, right: Side | None, threshold: float, engine: Engine, blocks: list[slice]
) -> Iterator[Pairs]:
    """The pairs of each block of left rows."""
    theirs = None if right is None else shared(right, engine)
    make = partial(Tiles, shared(left, engine), theirs, threshold)
    with progress("Comparing", sum(rows.stop - rows.start for rows in blocks)) as done:
        found = engine.map(_search, blocks, make, on_gpu=True)
        for rows, pairs in zip(blocks, found, strict=True):
            yield pairs
            done(rows.stop - rows.start)


@dataclass(frozen=True)
class _SharedSide:
    """A side that every worker can have."""

    shared_rows: Shared[np.ndarray]
    shared_owner: Shared[np.ndarray]

    @property
    def rows(self) -> np.ndarray:
        return self.shared_rows.value

    @property
    def owner(self) -> np.ndarray:
        return self.shared_owner.value


def shared(side: Side, engine: Engine) -> Side:
    """A side that an engine's workers can have, as part of what they `make`."""
    return _SharedSide(engine.share(side.rows), engine.share(side.owner))


class Tiles:
    """Both sides as a worker needs them: stored rows to decide, tensors to propose.

    Without a right side the pairs are i < j of the left one.
    """

    def __init__(self, left: Side, right: Side | None, threshold: float) -> None:
        self.triangle = right is None
        self.left, self.right = left, right or left
        self.threshold = threshold
        self.place = machine.device()
        self.dtype = torch.bfloat16 if machine.has_amx() else torch.float32
        roundoff = TENSOR_CORE_ROUNDOFF if self.place == "cuda" else ROUNDOFF[self.dtype]
        self.floor = threshold - margin(threshold, self.right.rows.shape[1], roundoff)
        self.theirs = _tensor(self.right.rows).to(self.place, self.dtype)

    def ours(self, rows: slice) -> torch.Tensor:
        """Left rows; converted as they are needed, so that a long left side takes no memory."""
        if self.triangle:
            return self.theirs[rows]
        return _tensor(self.left.rows[rows]).to(self.place, self.dtype)


def propose(tiles: Tiles, rows: slice) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Left and right rows (P,), (P,) that may be over the threshold, of a block of left rows.

    None that is over it is missing. Within one side, only pairs of a text and a later one.
    """
    _, width = TILES[tiles.place]
    ours = tiles.ours(rows)
    for column in range(rows.start if tiles.triangle else 0, len(tiles.theirs), width):
        product = ours @ tiles.theirs[column : column + width].T
        if tiles.triangle and column == rows.start:
            product.fill_diagonal_(-torch.inf)  # rows themselves: each would have a maximum
        i, j = _candidates(product, tiles.floor)
        i, j = i + rows.start, j + column
        if tiles.triangle:
            distinct = tiles.left.owner[i] < tiles.left.owner[j]
            i, j = i[distinct], j[distinct]
        yield i, j


def _search(tiles: Tiles, rows: slice) -> Pairs:
    """The pairs of a block of left rows with all right ones."""
    found = []
    left, right = tiles.left, tiles.right
    for i, j in propose(tiles, rows):
        pairs = Pairs(left.owner[i], right.owner[j], dots(left.rows, right.rows, i, j))
        found.append(pairs.over(tiles.threshold))
    return highest(joined(found))


def _tensor(rows: np.ndarray) -> torch.Tensor:
    """The same memory; an engine may have given it for reading alone, and it is only read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(rows)


def _blocks(owner: np.ndarray) -> Iterator[slice]:
    """Cut rows into blocks of about a tile's height, never between two rows of one text."""
    height, _ = TILES[machine.device()]
    start = 0
    while start < len(owner):
        last = owner[min(start + height, len(owner)) - 1]
        stop = int(np.searchsorted(owner, last, "right"))
        yield slice(start, stop)
        start = stop


def _candidates(product: torch.Tensor, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Places (P,), (P,) in a tile over the floor; rows with a maximum under it are not searched.

    Products are widened before they are compared: a bf16 tensor would round the floor too.
    """
    rows = (product.amax(1).float() > floor).nonzero().squeeze(1)
    places = (product[rows].float() > floor).nonzero()
    return rows[places[:, 0]].cpu().numpy(), places[:, 1].cpu().numpy()
