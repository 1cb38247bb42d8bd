"""Dropout whose masks are a function of (seed, step, question, position, layer) and nothing else.

So neither the cut of a batch into rows, nor the number of GPUs, nor a resume changes a mask, and a
mask can be drawn again in the backward pass instead of being kept. Integers only: the same on every
device. Legend: T tokens of a row, F features.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from monotreme.records import digest
from monotreme.train.batches import MicroBatch

# Constants of lowbias32 (C. Wellons, "Prospecting for hash functions", 2018) as signed integers, and
# of splitmix64 (G. Steele, D. Lea, C. Flood, OOPSLA 2014).
_LOW_1, _LOW_2 = 0x7FEB352D, 0x846CA68B - 2**32
_SPLIT_1, _SPLIT_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_QUESTION, _POSITION = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)

Mask = Callable[[int], Tensor]  # number of features F → (T, F) bool, what stays


class Draws:
    """What decides the masks of the row under way.

    Attributes:
        tokens_T: int32, a hash of seed, step, question and position of each token of the row.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.tokens_T = torch.empty(0, dtype=torch.int32)

    def begin(self, step: int, row: MicroBatch, device: torch.device) -> None:
        """The next forward pass is of this row in this step."""
        start = np.uint64(int(digest("dropout", str(self._seed), str(step))[:16], 16))
        lengths = np.diff(row.cu_seq_lens.numpy())
        questions_T = np.repeat(row.questions, lengths).astype(np.uint64)
        positions_T = row.position_ids[0].numpy().astype(np.uint64)
        mixed_T = _mix64(start + questions_T * _QUESTION + positions_T * _POSITION)
        self.tokens_T = torch.from_numpy((mixed_T >> np.uint64(32)).astype(np.uint32).view(np.int32)).to(device)  # fmt: skip


class KeyedDropout(nn.Module):
    """`nn.Dropout` with masks from `Draws`.

    Args:
        name: of the layer, of which the masks are a function.
    """

    def __init__(self, p: float, name: str, draws: Draws) -> None:
        super().__init__()
        self.p = p
        self.key = int(digest("layer", name)[:7], 16)
        self._draws = draws

    def forward(self, x: Tensor) -> Tensor:
        """x: (1, T, F)."""
        if not self.training:
            return x
        drop: Any = _Dropped.apply
        dropped: Tensor = drop(x, self._draws.tokens_T, self.key, self.p)
        return dropped

    def mask(self) -> "Mask | None":
        """What draws the mask of the row under way, then or later; None where nothing is dropped."""
        if not self.training:
            return None
        return partial(keep, self._draws.tokens_T, self.key, self.p)


class _Dropped(torch.autograd.Function):
    """Keeps the hash of the tokens for the backward pass, not the mask."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tokens_T: Tensor, key: int, p: float) -> Tensor:
        ctx.save_for_backward(tokens_T)
        ctx.key, ctx.p = key, p
        return x * keep(tokens_T, key, p, x.shape[-1]) / (1 - p)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = grads
        mask = keep(ctx.saved_tensors[0], ctx.key, ctx.p, grad.shape[-1])
        return grad * mask / (1 - ctx.p), None, None, None


def keep(tokens_T: Tensor, key: int, p: float, num_features: int) -> Tensor:
    """(T, F) bool, true with probability 1 − p."""
    rows_T = _mix32(tokens_T ^ key)
    mixed_TF = rows_T[:, None] ^ _features(num_features, tokens_T.device)
    mixed_TF.mul_(_LOW_1)
    mixed_TF ^= (mixed_TF >> 15) & 0x1FFFF  # a shift of signed integers copies the sign
    mixed_TF.mul_(_LOW_2)
    return mixed_TF >= round(p * 2**32) - 2**31


@lru_cache(maxsize=16)
def _features(num: int, device: torch.device) -> Tensor:
    return _mix32(torch.arange(1, num + 1, dtype=torch.int32, device=device))


def _mix32(x: Tensor) -> Tensor:
    x = (x ^ ((x >> 16) & 0xFFFF)) * _LOW_1
    x = (x ^ ((x >> 15) & 0x1FFFF)) * _LOW_2
    return x ^ ((x >> 16) & 0xFFFF)


def _mix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = np.multiply(x ^ (x >> np.uint64(30)), _SPLIT_1)
    x = np.multiply(x ^ (x >> np.uint64(27)), _SPLIT_2)
    mixed: NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return mixed


def key_dropout(model: nn.Module, seed: int) -> Draws:
    """Put `KeyedDropout` in the place of every dropout of the adapter; returns what feeds them."""
    draws = Draws(seed)
    for name, module in list(model.named_modules()):
        if ".lora_dropout." in name and isinstance(module, nn.Dropout):
            model.set_submodule(name, KeyedDropout(module.p, name, draws))
    return draws
