"""A SwiGLU block with LoRA as one function that keeps about half of what PEFT's layers keep.

    g = x Gᵀ + s · drop(x) Aᵀ Bᵀ,  u likewise,  h = silu(g) ∘ u,  y = h Dᵀ + s · drop(h) Aᵀ Bᵀ

Kept for the backward pass: x, g, u and the small drop(·) Aᵀ. The rest, every dropout mask included
(see dropout.py), is computed again. The products and casts of the forward pass are PEFT's, one by one.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from monotreme.train.dropout import KeyedDropout, Mask
from monotreme.train.frozen import Frozen, frozen_product

Way = Literal["fused", "peft"]
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
SERVED = ("Linear", "Linear4bit")  # PEFT's layers, of dense weights and of bitsandbytes' four bits


@dataclass(frozen=True)
class Adapter:
    """A LoRA on a linear layer for one forward pass.

    Attributes:
        a: (rank, in). b: (out, rank).
        dtype: of its products: autocast's, else that of a and b.
        mask: what it drops of its input; None for nothing.
    """

    a: Tensor
    b: Tensor
    scaling: float
    dtype: torch.dtype
    mask: Mask | None

    def lost(self) -> Tensor | None:
        return None if self.mask is None else self.mask.lost(self.a.shape[1])

    def drop(self, x: Tensor, lost: Tensor | None) -> Tensor:
        return x if self.mask is None or lost is None else self.mask.drop(x, lost)

    def low_rank(self, x: Tensor) -> Tensor:
        """(T, rank) of x (T, in)."""
        return F.linear(self.drop(x.to(self.dtype), self.lost()), self.a.to(self.dtype))


@dataclass(frozen=True)
class Projection:
    """A frozen linear layer, with an adapter or without."""

    base: Frozen
    adapter: Adapter | None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """(T, out) of x (T, in), and what the backward pass wants of the adapter."""
        y, adapter = self.base.product(x), self.adapter
        if adapter is None:
            return y, None
        low = adapter.low_rank(x)
        return y.add_(F.linear(low, adapter.b.to(adapter.dtype)).mul_(adapter.scaling)), low

    def backward(
        self, x: Tensor, low: Tensor | None, grad: Tensor, wants_x: bool
    ) -> tuple[Tensor | None, tuple[Tensor, ...]]:
        """The gradients of x, where it is wanted, and of a and b."""
        grad_x = self.base.pull_back(grad) if wants_x else None
        adapter = self.adapter
        if adapter is None or low is None:
            return grad_x, ()
        lost, grad = adapter.lost(), grad.to(adapter.dtype)
        grad_low = (grad @ adapter.b.to(adapter.dtype)).mul_(adapter.scaling)
        grad_a = grad_low.T @ adapter.drop(x.to(adapter.dtype), lost)
        grad_b = (grad.T @ low).mul_(adapter.scaling)
        if grad_x is not None:
            grad_x.add_(adapter.drop(grad_low @ adapter.a.to(adapter.dtype), lost))
        return grad_x, (grad_a.to(adapter.a.dtype), grad_b.to(adapter.b.dtype))


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, layers: tuple[Projection, Projection, Projection], *_ab: Tensor
    ) -> Tensor:
        """x: (T, hidden). `_ab`: the adapters' weights, which autograd wants to see."""
        gate, up, down = layers
        (g, low_g), (u, low_u) = gate.forward(x), up.forward(x)
        y, low_h = down.forward(F.silu(g).mul_(u))
        ctx.layers = layers
        ctx.save_for_backward(x, g, u, low_g, low_u, low_h)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, g, u, low_g, low_u, low_h = ctx.saved_tensors
        gate, up, down = ctx.layers
        silu, wants_x = F.silu(g), ctx.needs_input_grad[0]
        grad_h, of_down = down.backward(silu * u, low_h, grad, True)
        grad_g = torch.ops.aten.silu_backward(grad_h * u, g)
        grad_x, of_gate = gate.backward(x, low_g, grad_g, wants_x)
        from_up, of_up = up.backward(x, low_u, grad_h.mul_(silu), wants_x)
        if wants_x:
            grad_x.add_(from_up)
        return grad_x, None, *of_gate, *of_up, *of_down


def swiglu(block: Any, x: Tensor) -> Tensor:
    """What `block` says of x (…, hidden), by the fused function."""
    kind = x.device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    layers = tuple(_projection(getattr(block, name), autocast) for name in PROJECTIONS)
    weights = [w for layer in layers if layer.adapter for w in (layer.adapter.a, layer.adapter.b)]
    flat = x.reshape(-1, x.shape[-1]).to(autocast or x.dtype)
    apply = cast(Callable[..., Tensor], _SwiGLU.apply)
    y = apply(flat, layers, *weights)
    return y.reshape(*x.shape[:-1], -1)


def _projection(layer: Any, autocast: torch.dtype | None) -> Projection:
    base = frozen_product(layer.base_layer if isinstance(layer, LoraLayer) else layer)
    assert base is not None  # `fused` has looked
    if not isinstance(layer, LoraLayer):
        return Projection(base, None)
    (name,) = layer.active_adapters
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    dropout = layer.lora_dropout[name]
    mask = dropout.mask() if isinstance(dropout, KeyedDropout) else None
    adapter = Adapter(a, b, layer.scaling[name], autocast or a.dtype, mask)
    return Projection(base, adapter)


# ── where it serves ─────────────────────────────────────────────────────────────────────────────


@contextmanager
def fused(model: nn.Module) -> Iterator[Way]:
    """Compute the adapted MLPs of `model` by the fused function, if it fits every one of them.

    Gives which way is taken. Where the function does not fit, PEFT's layers stay.
    """
    blocks: list[Any] = [block for block in model.modules() if _is_adapted(block)]
    fits = bool(blocks) and all(_is_plain(block) and _agrees(block) for block in blocks)
    served = blocks if fits else []
    for block in served:
        block.forward = lambda x, block=block: swiglu(block, x)
    try:
        yield "fused" if fits else "peft"
    finally:
        for block in served:
            del block.forward  # the class's own is seen again


def _layers(block: nn.Module) -> list[Any]:
    return [getattr(block, name, None) for name in PROJECTIONS]


def _is_adapted(block: nn.Module) -> bool:
    return any(isinstance(layer, LoraLayer) for layer in _layers(block))


def _is_plain(block: nn.Module) -> bool:
    """Whether it is built as SwiGLU from linear layers without bias, all adapters plain LoRA."""
    activation = getattr(block, "act_fn", None)
    is_silu = activation is F.silu or type(activation).__name__ in ("SiLU", "SiLUActivation")
    takes_x_alone = len(inspect.signature(block.forward).parameters) == 1
    return is_silu and takes_x_alone and all(_is_plain_layer(layer) for layer in _layers(block))


def _is_plain_layer(layer: Any) -> bool:
    if not isinstance(layer, LoraLayer):
        return frozen_product(layer) is not None
    if type(layer).__name__ not in SERVED:
        return False
    names = list(layer.lora_A)
    if layer.active_adapters != names or len(names) != 1 or layer.merged or layer.disable_adapters:
        return False
    parts = layer.lora_A[names[0]], layer.lora_B[names[0]]
    return (
        not layer.lora_variant  # DoRA and its like
        and all(type(part) is nn.Linear and part.bias is None for part in parts)
        and isinstance(layer.lora_dropout[names[0]], KeyedDropout | nn.Identity)
        and frozen_product(layer.base_layer) is not None
    )


def _agrees(block: Any) -> bool:
    """Whether both ways give the same output and gradients on a few tokens, without dropout.

    Once with adapters that add nothing, where a fault in the frozen products shows, and once with
    adapters that are far larger than these.
    """
    return _agrees_with(block, 0.0) and _agrees_with(block, 1.0)


def _agrees_with(block: Any, size: float) -> bool:
    """On a copy whose adapters are drawn, B of so large a size."""
    draw = torch.Generator().manual_seed(0)
    weights = [weight for weight in block.parameters() if not weight.requires_grad]
    frozen = {id(weight): weight for weight in [*weights, *block.buffers()]}
    trial = deepcopy(block, frozen).eval()
    adapters = [weight for weight in trial.parameters() if weight.requires_grad]
    for weight in adapters:
        weight.data = _normal(weight.shape, weight, draw) / weight.shape[1] ** 0.5
    for name, weight in trial.named_parameters():
        if "lora_B" in name:
            weight.data *= size
    dense = [weight.dtype for weight in weights if weight.is_floating_point()]
    like = adapters[0].to(dense[0] if dense else torch.bfloat16)  # few bits compute in bfloat16
    x = _normal((1, 4, trial.gate_proj.in_features), like, draw).requires_grad_()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        ways = trial(x), swiglu(trial, x)
    direction = _normal(x.shape, ways[1], draw)
    theirs, ours = ([y, *torch.autograd.grad(y, [x, *adapters], direction)] for y in ways)
    tolerance = torch.finfo(x.dtype).eps ** 0.5 / 4  # half the digits of what it is computed in
    return all((a - b).norm() <= tolerance * b.norm() for a, b in zip(ours, theirs, strict=True))


def _normal(shape: Sequence[int], like: Tensor, draw: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=draw).to(like.device, like.dtype)
