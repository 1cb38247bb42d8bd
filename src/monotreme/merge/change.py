"""The arithmetic of a merge: what an adapter does to rows of a weight.

Shapes: O, I are the outputs and inputs of a layer, R is the adapter's rank, N is a number of rows
as they are stored: outputs of a linear layer (O, I), inputs of a Conv1D (I, O), tokens of an
embedding. Every step is the one that PEFT 0.21 takes in `merge_and_unload()` with safe_merge off,
in its order, so that the bits agree.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK_ELEMENTS = 2**18  # of a block: a megabyte in float32, so that its copies stay in the cache
LEAST_ROWS = 64  # of a block; one row alone would be another BLAS routine with other last bits


@dataclass(frozen=True)
class Factors:
    """What an adapter adds to one weight: scale · b a; `a` is (R, I), `b` is (O, R), float32.

    Attributes:
        transposed: whether the weight is stored (I, O).
        embedding: PEFT rounds the delta of an embedding to the weight's dtype before it adds it.
        magnitude: (O,), DoRA's length of each output's row (Liu et al. 2024); None is plain LoRA.
    """

    a: Tensor
    b: Tensor
    scale: float
    transposed: bool = False
    embedding: bool = False
    magnitude: Tensor | None = None

    def delta(self, start: int, stop: int) -> Tensor:
        """scale · b a as float32, rows start to stop as they are stored."""
        if self.transposed:
            return (self.b @ self.a[:, start:stop]).T.mul_(self.scale)
        return (self.b[start:stop] @ self.a).mul_(self.scale)


@dataclass(frozen=True)
class Change:
    """What becomes of one weight: `saved`, if any, takes its place, then the deltas are added."""

    factors: tuple[Factors, ...] = ()
    saved: Tensor | None = None

    @property
    def takes_all_rows(self) -> bool:
        """DoRA of a transposed weight: the lengths are those of its columns."""
        return any(f.transposed and f.magnitude is not None for f in self.factors)

    def cuts(self, shape: tuple[int, ...]) -> list[tuple[int, int]]:
        """The blocks of rows (start, stop) that a weight of this shape is merged in."""
        return [(0, shape[0])] if self.takes_all_rows else cuts(shape[0], math.prod(shape[1:]))


def cuts(num_rows: int, num_columns: int) -> list[tuple[int, int]]:
    """Cut rows into blocks (start, stop) of at most `BLOCK_ELEMENTS` or `LEAST_ROWS`, nearly equal."""
    rows = max(LEAST_ROWS, BLOCK_ELEMENTS // max(1, num_columns))
    num = math.ceil(num_rows / rows)
    return [(num_rows * i // num, num_rows * (i + 1) // num) for i in range(num)]


def merged_rows(weight_NX: Tensor, change: Change, start: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of the merged weight in its dtype, and what was added to them in float32.

    Args:
        weight_NX: rows of the target's weight, from row `start` on.
    """
    stop = start + len(weight_NX)
    new_NX = weight_NX.clone()
    if change.saved is not None:
        new_NX.copy_(change.saved[start:stop])
    if not change.factors:
        return new_NX, new_NX.float() - weight_NX.float()
    delta_NX = change.factors[0].delta(start, stop)
    for factors in change.factors[1:]:
        delta_NX += factors.delta(start, stop)
    first = change.factors[0]
    if first.magnitude is not None:
        exact_NX = _dora(new_NX + delta_NX, first.magnitude, first.transposed, start, stop)
        return exact_NX.to(weight_NX.dtype), exact_NX - weight_NX.float()
    # The addition in place promotes to float32 and rounds once.
    return new_NX.add_(delta_NX.to(new_NX.dtype) if first.embedding else delta_NX), delta_NX


def _dora(sum_NX: Tensor, magnitude: Tensor, transposed: bool, start: int, stop: int) -> Tensor:
    """Give every output's row of W + delta the length that DoRA learnt."""
    rows_OX = sum_NX.T if transposed else sum_NX
    lengths_O: Tensor = torch.linalg.norm(rows_OX, dim=1)
    if transposed:
        return sum_NX * (magnitude / lengths_O).view(1, -1)
    return sum_NX * (magnitude[start:stop] / lengths_O).view(-1, 1)
