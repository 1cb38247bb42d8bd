"""A SwiGLU block with LoRA as one autograd function that keeps half of what PEFT's layers keep.

Kept for the backward pass: the input, the two projections before the activation, and the ranks' small
products. The activation, the products and every dropout mask are computed again. Same mathematics,
same masks (dropout.py); the backward pass is derived by hand:

    g = x Gᵀ + s·drop(x) Aᵀ Bᵀ,  u likewise,  h = silu(g) ∘ u,  y = h Dᵀ + s·drop(h) Aᵀ Bᵀ

Legend: T tokens, H hidden size, I intermediate size, R rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional as F

from monotreme.train.dropout import KeyedDropout, Mask

ADAPTER = "default"  # PEFT's name of the one adapter
DIFFERENCE = 0.02  # of the norm, in the trial: bfloat16's rounding, five times
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Projection:
    """One of the three linear layers.

    Attributes:
        weight: (out, in), frozen.
        adapter: (A (R, in), B (out, R)), None where it is not adapted.
        scaling: of the adapter.
        p, mask: of its dropout; None where nothing is dropped.
    """

    weight: Tensor
    adapter: tuple[Tensor, Tensor] | None = None
    scaling: float = 1.0
    p: float = 0.0
    mask: Mask | None = None

    def drop(self, x: Tensor) -> Tensor:
        return x if self.mask is None else x * self.mask(x.shape[-1]) / (1 - self.p)


def _apply(x: Tensor, layer: Projection) -> tuple[Tensor, Tensor | None]:
    """The layer's output, and (T, R) what its rank was given."""
    out = F.linear(x, layer.weight.to(x.dtype))
    if layer.adapter is None:
        return out, None
    down, up = (weight.to(x.dtype) for weight in layer.adapter)
    ranked = F.linear(layer.drop(x), down)
    return out + F.linear(ranked, up) * layer.scaling, ranked


def _gradients(
    x: Tensor, layer: Projection, ranked: Tensor | None, grad: Tensor, wants_x: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """Gradients of the layer's input, None where nobody asks for it, and of A and B."""
    grad_x = grad @ layer.weight.to(grad.dtype) if wants_x else None
    if layer.adapter is None or ranked is None:
        return grad_x, []
    down, up = layer.adapter
    grad = grad * layer.scaling
    grad_ranked = grad @ up.to(grad.dtype)
    grads = [(grad_ranked.T @ layer.drop(x)).to(down.dtype), (grad.T @ ranked).to(up.dtype)]
    if grad_x is not None:
        grad_x = grad_x + layer.drop(grad_ranked @ down.to(grad.dtype))
    return grad_x, grads


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: Sequence[Projection], *_adapters: Tensor) -> Tensor:
        """x: (T, H); `_adapters` are those of `layers`, for autograd to know them."""
        gate, up, down = layers
        g, ranked_g = _apply(x, gate)
        u, ranked_u = _apply(x, up)
        y, ranked_h = _apply(F.silu(g) * u, down)
        ranked = (ranked_g, ranked_u, ranked_h)
        ctx.layers, ctx.has = layers, [r is not None for r in ranked]
        ctx.save_for_backward(x, g, u, *(r for r in ranked if r is not None))
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, g, u, *rest = ctx.saved_tensors
        ranked = [rest.pop(0) if has else None for has in ctx.has]
        gate, up, down = ctx.layers
        silu = F.silu(g)
        grad_h, of_down = _gradients(silu * u, down, ranked[2], grad, True)
        assert grad_h is not None
        wants_x = ctx.needs_input_grad[0]
        grad_g = torch.ops.aten.silu_backward(grad_h * u, g)
        from_gate, of_gate = _gradients(x, gate, ranked[0], grad_g, wants_x)
        from_up, of_up = _gradients(x, up, ranked[1], grad_h * silu, wants_x)
        grad_x = None if from_gate is None or from_up is None else from_gate + from_up
        return grad_x, None, *of_gate, *of_up, *of_down


class _Forward:
    """Takes the place of an MLP's `forward`."""

    def __init__(self, mlp: nn.Module) -> None:
        self._layers = [getattr(mlp, name) for name in PROJECTIONS]

    def __call__(self, x: Tensor) -> Tensor:
        layers = [_projection(module) for module in self._layers]
        adapters = [weight for layer in layers for weight in layer.adapter or ()]
        flat = x.reshape(-1, x.shape[-1]).to(_computes_in(x))
        apply: Any = _SwiGLU.apply
        y: Tensor = apply(flat, layers, *adapters)
        return y.reshape(*x.shape[:-1], y.shape[-1])


def _computes_in(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def _projection(module: Any) -> Projection:
    if not isinstance(module, LoraLinear):
        return Projection(module.weight)
    dropout = module.lora_dropout[ADAPTER]
    return Projection(
        weight=module.base_layer.weight,
        adapter=(module.lora_A[ADAPTER].weight, module.lora_B[ADAPTER].weight),
        scaling=module.scaling[ADAPTER],
        p=getattr(dropout, "p", 0.0),
        mask=dropout.mask() if isinstance(dropout, KeyedDropout) else None,
    )


# ── which blocks it serves ──────────────────────────────────────────────────────────────────────


def fuse(model: nn.Module) -> int:
    """Put the function in the place of every block that it serves; returns how many that are.

    A block that is built otherwise, or that says something else on a trial, keeps PEFT's layers.
    """
    blocks = [module for module in model.modules() if _is_plain(module) and _is_equal(module)]
    for block in blocks:
        block.forward = _Forward(block)
    return len(blocks)


def _is_plain(block: nn.Module) -> bool:
    """SwiGLU of three linear layers without bias, at least one of them with plain LoRA."""
    layers = [getattr(block, name, None) for name in PROJECTIONS]
    adapted = [layer for layer in layers if isinstance(layer, LoraLinear)]
    activation = getattr(block, "act_fn", None)
    silu = activation is F.silu or "SiLU" in type(activation).__name__
    return bool(silu and adapted and all(_is_plain_layer(layer) for layer in layers))


def _is_plain_layer(layer: Any) -> bool:
    if isinstance(layer, LoraLinear):
        plain = layer.active_adapters == [ADAPTER] and not (layer.lora_variant or layer.merged)
        plain = plain and not layer.lora_bias.get(ADAPTER, False)
        dropout = layer.lora_dropout[ADAPTER]
        return plain and isinstance(dropout, KeyedDropout | nn.Identity) and _is_plain_layer(layer.base_layer)  # fmt: skip
    return type(layer) is nn.Linear and layer.bias is None


@torch.no_grad()
def _is_equal(block: Any) -> bool:
    """Whether the block says the same both ways, without dropout, on a few tokens."""
    weight = _projection(block.gate_proj).weight
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, weight.shape[1], generator=generator).to(weight)
    training = block.training
    block.eval()
    try:
        ours, theirs = _Forward(block)(x).float(), block(x).float()
        return bool((ours - theirs).norm() <= DIFFERENCE * theirs.norm())
    finally:
        block.train(training)
