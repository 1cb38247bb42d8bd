"""The frozen weights of the base in the precision that they are kept in, and their two products.

    bf16, fp32   as they are
    fp8          W and Wᵀ in float8 with a scale a row, cast once; x and gradients scaled as they come
    nf4          four bits (Dettmers et al., "QLoRA", 2023; bitsandbytes), dense only while in use

Forward asks for x Wᵀ, the gradient of x for g W; W itself gets none. Legend: T tokens, O and I
outputs and inputs of a linear layer.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from monotreme.errors import InputError
from monotreme.models import load_model

BasePrecision = Literal["bf16", "fp32", "fp8", "nf4"]

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
MULTIPLE = 16  # of the float8 product's inputs and outputs: the kernel's alignment
FOUR_BIT = "Linear4bit"  # bitsandbytes' layer
CAPABILITY = (8, 9)  # the first GPUs with float8 products (Ada, Hopper)
# Bytes a weight of a linear layer takes. nf4: 4 bits, 8 a block of 64 for its scale, and 32 a 256 of
# those (QLoRA, section 3: double quantisation).
WEIGHT_BYTES = {"bf16": 2.0, "fp32": 4.0, "fp8": 2.0, "nf4": (4 + 8 / 64 + 32 / (64 * 256)) / 8}


class Frozen(Protocol):
    """A frozen linear map without bias."""

    def product(self, x: Tensor) -> Tensor:
        """(T, O) of x (T, I)."""
        ...

    def pull_back(self, grad: Tensor) -> Tensor:
        """(T, I), the gradient of x, of grad (T, O)."""
        ...


@dataclass(frozen=True)
class Dense:
    """weight: (O, I)."""

    weight: Tensor

    def product(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))

    def pull_back(self, grad: Tensor) -> Tensor:
        return grad @ self.weight.to(grad.dtype)


@dataclass(frozen=True)
class FourBit:
    """A linear layer of bitsandbytes; its weight is made dense for each product and forgotten."""

    layer: Any

    def _weight(self, dtype: torch.dtype) -> Tensor:
        from bitsandbytes.functional import dequantize_4bit

        weight = self.layer.weight
        return dequantize_4bit(weight.data, weight.quant_state).to(dtype)

    def product(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight(x.dtype))

    def pull_back(self, grad: Tensor) -> Tensor:
        return grad @ self._weight(grad.dtype)


class Fp8Linear(nn.Module):
    """A frozen linear layer in float8. Both layouts are kept: the kernel sums along rows of both sides."""

    forward_values: Tensor
    forward_scales: Tensor
    backward_values: Tensor
    backward_scales: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = layer.bias
        for name, weight in (("forward", layer.weight), ("backward", layer.weight.T)):
            values, scales = _by_row(weight.detach())
            self.register_buffer(f"{name}_values", values)
            self.register_buffer(f"{name}_scales", scales)

    def product(self, x: Tensor) -> Tensor:
        return _scaled_product(x, self.forward_values, self.forward_scales)

    def pull_back(self, grad: Tensor) -> Tensor:
        return _scaled_product(grad, self.backward_values, self.backward_scales)

    def forward(self, x: Tensor) -> Tensor:
        """x: (…, I)."""
        apply = cast(Any, _FrozenProduct.apply)
        y = cast(Tensor, apply(x.reshape(-1, self.in_features), self))
        y = y if self.bias is None else y + self.bias
        return y.reshape(*x.shape[:-1], self.out_features)


class _FrozenProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, frozen: Frozen) -> Tensor:
        ctx.frozen, ctx.dtype = frozen, x.dtype
        return frozen.product(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.frozen.pull_back(grad).to(ctx.dtype), None


def _by_row(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (N, K) as float8 and (N, 1) float32 scales, each row's largest value at the end of the range."""
    largest = x.abs().amax(1, keepdim=True).float()
    scales = largest.clamp_(min=torch.finfo(torch.float32).tiny * LARGEST).div_(LARGEST)
    return (x / scales).to(FLOAT8).contiguous(), scales


def _scaled_product(x: Tensor, values: Tensor, scales: Tensor) -> Tensor:
    """(T, N) bfloat16 of x (T, K) and a (N, K) matrix in float8."""
    # Young in torch: nothing but float8 should hang on it.
    from torch.nn.functional import ScalingType, scaled_mm

    rows, row_scales = _by_row(x)
    by_row = ScalingType.RowWise
    return scaled_mm(
        rows, values.T, row_scales, by_row, scales.T, by_row, output_dtype=torch.bfloat16
    )


# ── a base in a precision ───────────────────────────────────────────────────────────────────────


def load_base(
    folder: Path, precision: BasePrecision, trust: bool, attention: str, device: torch.device
) -> Any:
    """The base on the processor, or in four bits on the device, frozen or to be frozen.

    fp8 is loaded in bfloat16; `to_float8` casts it once it is on its device.

    Raises:
        InputError: the folder cannot be loaded, or this machine cannot compute in that precision.
    """
    if precision == "fp8":
        _check_float8(device)
    if precision != "nf4":
        return load_model(folder, "fp32" if precision == "fp32" else "bf16", trust, attention)
    if find_spec("bitsandbytes") is None:
        raise InputError(
            "train.base_precision: nf4 needs bitsandbytes", 'pip install "monotreme[nf4]"'
        )
    from transformers import BitsAndBytesConfig

    four_bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    options = {"quantization_config": four_bits, "device_map": {"": device}}
    model = load_model(folder, "bf16", trust, attention, **options)
    for module in model.modules():
        if type(module).__name__ == FOUR_BIT:
            # else a processor's kernel for inference packs the weights so that no other can read them
            module.support_avx512bf16_for_cpu = False
    return model


def _check_float8(device: torch.device) -> None:
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < CAPABILITY:
        raise InputError(
            f"{torch.cuda.get_device_name(device)} has no float8 products",
            "Set train.base_precision: bf16 (or nf4, where the memory is short)",
        )


def to_float8(model: nn.Module) -> int:
    """Cast the frozen linear layers of `model` in place, on whatever device they lie; not its head.

    Layers whose sides are no multiple of 16 stay as they are.

    Returns:
        How many were cast.

    Raises:
        InputError: none could be.
    """
    head = cast(Any, model).get_output_embeddings()
    head = getattr(head, "base_layer", head)  # an adapted one
    names = [n for n, m in model.named_modules() if m is not head and _can_be_cast(m)]
    for name in names:  # one after the other, so that one dense weight is held besides
        model.set_submodule(name, Fp8Linear(cast(nn.Linear, model.get_submodule(name))))
    if not names:
        raise InputError(
            f"no linear layer of the base has sides that are multiples of {MULTIPLE}",
            "Set train.base_precision: bf16",
        )
    return len(names)


def _can_be_cast(layer: nn.Module) -> bool:
    return (
        type(layer) is nn.Linear
        and not layer.weight.requires_grad
        and layer.in_features % MULTIPLE == 0
        and layer.out_features % MULTIPLE == 0
    )


def frozen_product(layer: nn.Module) -> Frozen | None:
    """The products of a frozen linear layer without bias; None for any other module."""
    if getattr(layer, "bias", None) is not None:
        return None
    if isinstance(layer, Fp8Linear):
        return layer
    if type(layer) is nn.Linear and not layer.weight.requires_grad:
        return Dense(layer.weight)
    if type(layer).__name__ == FOUR_BIT and hasattr(layer.weight, "quant_state"):
        return FourBit(layer)
    return None
