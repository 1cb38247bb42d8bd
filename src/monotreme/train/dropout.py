"""The adapter's dropout: masks that are a function of what they fall on, and of nothing else.

A mask is an integer hash of seed, step, question, position in the question, layer and feature. So
neither the order of the questions, nor the cut into rows, nor who computes a row changes it; and the
backward pass draws it again instead of keeping it. Legend: T tokens of a row, F features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from monotreme.records import digest
from monotreme.train.batches import MicroBatch

# Multipliers of lowbias32 (C. Wellons, "Prospecting for Hash Functions", 2018), as signed integers.
FIRST, SECOND = 0x7FEB352D, 0x846CA68B - 2**32
LANES = 2**16  # a 32-bit hash serves two features: p is rounded down to a multiple of 1 / 65,536
BLOCK = 2**18  # hashes at a time on the processor: what its nearest caches hold


class Draws:
    """What the masks of the forward pass under way depend on, apart from layer and feature.

    Attributes:
        tokens_T: int32, a hash of seed, step, question and position of each token.
    """

    def __init__(self, seed: int) -> None:
        self._seed = str(seed)
        self.tokens_T = torch.empty(0, dtype=torch.int32)

    def begin(self, step: int, row: MicroBatch, device: torch.device) -> None:
        """Say that the next forward pass is that of a row of a step (counted from 0)."""
        asked = [_key("question", self._seed, str(step), str(q)) for q in row.questions.tolist()]
        keys_Q = torch.tensor(asked, dtype=torch.int32)
        keys_T = keys_Q.repeat_interleave(row.cu_seq_lens.diff(), output_size=row.ids.numel())
        self.tokens_T = _mixed(keys_T ^ _mixed(row.position_ids[0].int() + 1)).to(device)


@dataclass(frozen=True)
class Mask:
    """What one layer drops in one forward pass; drawn each time it is asked for."""

    tokens: Tensor  # (T,) int32
    key: int
    p: float

    def lost(self, num_features: int) -> Tensor:
        """(T, F) bool: true where a feature of a token is dropped."""
        rows_T, half = _mixed(self.tokens ^ self.key), -(-num_features // 2)
        features = _features(half, rows_T.device)
        lost_TF = torch.empty(len(rows_T), num_features, dtype=torch.bool, device=rows_T.device)
        rows = max(1, BLOCK // half) if rows_T.device.type == "cpu" else len(rows_T)
        for start in range(0, len(rows_T), rows):
            lanes = _lanes(rows_T[start : start + rows, None] ^ features)[:, :num_features]
            torch.lt(lanes, int(self.p * LANES) - LANES // 2, out=lost_TF[start : start + rows])
        return lost_TF

    def drop(self, x: Tensor, lost_TF: Tensor) -> Tensor:
        """The rest of x (…, T, F), made larger by as much as is lost on average."""
        return (x * (1 / (1 - self.p))).masked_fill_(lost_TF, 0)


class KeyedDropout(nn.Module):
    """`nn.Dropout` of the tokens that `Draws` tells of.

    Args:
        name: of this dropout in the model; another name draws other masks.
    """

    def __init__(self, p: float, name: str, draws: Draws) -> None:
        super().__init__()
        self.p, self._key, self._draws = p, _key("layer", name), draws

    def mask(self) -> Mask | None:
        """Of the forward pass under way; None where nothing is dropped."""
        return Mask(self._draws.tokens_T, self._key, self.p) if self.training else None

    def forward(self, x: Tensor) -> Tensor:
        """x: (1, T, F) or (T, F)."""
        mask, drop = self.mask(), cast(Callable[[Tensor, Mask], Tensor], _Dropped.apply)
        return x if mask is None else drop(x, mask)


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Mask) -> Tensor:
        ctx.mask = mask
        return mask.drop(x, mask.lost(x.shape[-1]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.mask.drop(grad, ctx.mask.lost(grad.shape[-1])), None


def key_dropout(model: nn.Module, seed: int) -> Draws:
    """Let every dropout of the adapter in `model` draw keyed masks; returns what tells them of a row.

    A second call replaces the seed, and what told of rows before.
    """
    draws = Draws(seed)
    for name, module in list(model.named_modules()):
        if ".lora_dropout." in name and isinstance(module, nn.Dropout | KeyedDropout):
            keyed = KeyedDropout(module.p, name, draws).train(module.training)
            model.set_submodule(name, keyed)
    return draws


def _key(*parts: str) -> int:
    """A signed 32-bit number."""
    return int.from_bytes(bytes.fromhex(digest("dropout", *parts)[:8]), "big", signed=True)


@lru_cache(maxsize=16)
def _features(num: int, device: torch.device) -> Tensor:
    return _mixed(torch.arange(1, num + 1, dtype=torch.int32)).to(device)


def _mixed(x: Tensor) -> Tensor:
    """lowbias32: a permutation of the 32-bit integers that looks random. x: int32."""
    return _avalanche(x ^ _shifted(x, 16))


def _avalanche(x: Tensor) -> Tensor:
    """The rounds of lowbias32 after its first shift, in place."""
    x = x.mul_(FIRST)
    x = x.bitwise_xor_(_shifted(x, 15)).mul_(SECOND)
    return x.bitwise_xor_(_shifted(x, 16))


def _lanes(hashes: Tensor) -> Tensor:
    """(rows, 2 × columns) int16, two from each of (rows, columns) int32, which it overwrites.

    The first shift of lowbias32 is left out: both sides of what comes in were mixed already.
    """
    return _avalanche(hashes).view(torch.int16)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """x >> bits, with zeros coming in; torch's own shift of signed integers copies the sign."""
    return (x >> bits).bitwise_and_((1 << (32 - bits)) - 1)
