"""What a training will take, told before it starts: tokens, steps, work, memory, minutes and price.

Tokens, steps, parameters and FLOP are counted. Memory and minutes are estimates, from the two figures
that are named as such below; the record of a finished training has the measured ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from peft import LoraConfig
from torch import nn
from transformers import AutoModelForCausalLM

from monotreme.errors import InputError
from monotreme.train.batches import num_steps
from monotreme.train.encode import Encoded
from monotreme.train.frozen import WEIGHT_BYTES, BasePrecision
from monotreme.train.lora import add_adapter, trainable

SHARE_OF_PEAK = 0.5  # an estimate: half of the data sheet's rate
# An estimate too: bytes kept for the backward pass by token, layer and unit of the hidden size, with
# bfloat16, the fused MLP and dropout, on blocks of Llama 2's proportions.
KEPT_BYTES = 32
ADAPTER_BYTES = 16  # a weight, its gradient and AdamW's two moments, in float32
GIB = 2**30
BINS = (128, 256, 512, 1024, 2048, 4096)  # upper ends of the histogram, tokens


class Gpu(NamedTuple):
    """Of the vendor's data sheet: dense bfloat16 with float32 sums, TFLOP/s; memory in GiB."""

    teraflops: float
    memory: float


GPUS: Mapping[str, Gpu] = {
    "RTX 3090": Gpu(71, 24),
    "RTX 4090": Gpu(165, 24),
    "L40S": Gpu(362, 48),
    "A100": Gpu(312, 80),
    "H100": Gpu(989, 80),
    "H200": Gpu(989, 141),
}


@dataclass(frozen=True)
class Size:
    """A base with its adapter.

    Attributes:
        parameters: all of the base.
        products: weights of linear layers that every token passes.
        head: weights of the head, which answer tokens alone pass.
        trainable: of the adapter.
        hidden, layers: for attention, and for what a token keeps.
    """

    parameters: int
    products: int
    head: int
    trainable: int
    hidden: int
    layers: int


def size_of(config: Any, adapter: LoraConfig, trust_remote_code: bool = False) -> Size:
    """Counted on the model's own modules, without memory for their weights.

    Args:
        config: transformers' configuration of the base.

    Raises:
        InputError: a target is no linear layer of the model.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        head = model.get_output_embeddings()
        linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
        parameters = sum(p.numel() for p in model.parameters())
        adapted = add_adapter(model, adapter, 0)
    text = config.get_text_config()
    return Size(
        parameters=parameters,
        products=sum(m.weight.numel() for m in linear),
        head=head.weight.numel() if isinstance(head, nn.Linear) else 0,
        trainable=sum(p.numel() for p in trainable(adapted).values()),
        hidden=int(text.hidden_size),
        layers=int(text.num_hidden_layers),
    )


def peak_of(gpu: str) -> float | None:
    """TFLOP/s of a GPU by the name that its driver gives; None for one that the table lacks."""
    words = gpu.replace("-", " ").split()
    return next((GPUS[name].teraflops for name in GPUS if set(name.split()) <= set(words)), None)


def needed_bytes(size: Size, precision: BasePrecision) -> float:
    """What stands in a device's memory whatever the rows are: base, adapter and optimizer."""
    return base_bytes(size, precision) + size.trainable * ADAPTER_BYTES


def check_memory(
    size: Size, precision: BasePrecision, has: int, num_ranks: int, shared: bool
) -> None:
    """Raise InputError if a device with `has` bytes cannot hold its share, before anything is loaded."""
    needed = needed_bytes(size, precision)
    if shared:
        needed -= size.products * WEIGHT_BYTES[precision] * (1 - 1 / num_ranks)
    if needed > has:
        raise InputError(
            f"the base in {precision} with its adapter needs {needed / GIB:,.1f} GiB on each device, "
            f"this one has {has / GIB:,.1f}",
            "Set train.base_precision: nf4, add GPUs (--gpus), or take a smaller base",
        )


def base_bytes(size: Size, precision: BasePrecision) -> float:
    """Of the frozen base on its device; few bits are of its linear layers alone."""
    others = size.parameters - size.products
    dense = WEIGHT_BYTES["fp32" if precision == "fp32" else "bf16"]
    return size.products * WEIGHT_BYTES[precision] + others * dense


def flop(size: Size, lengths: np.ndarray, num_answer_tokens: int) -> float:
    """Floating-point operations of one pass over the questions.

    A token costs 2 a frozen weight forward and 2 for the gradient of its input; 6 an adapter's
    weight; a causal attention over half of its question's tokens, in products with keys and values,
    forward and twice backward: 6 · hidden · length, summed over a question.
    """
    tokens, squares = float(lengths.sum()), float((lengths.astype(np.float64) ** 2).sum())
    per_token = 4 * size.products + 6 * size.trainable
    return (
        tokens * per_token
        + 4 * size.head * num_answer_tokens
        + 6 * size.hidden * size.layers * squares
    )


def plan(
    size: Size,
    encoded: Encoded,
    batch_size: int,
    epochs: float,
    precision: BasePrecision,
    row_tokens: int,
) -> dict[str, Any]:
    """All of it as plain JSON.

    Args:
        row_tokens: tokens of a row at most.
    """
    lengths = encoded.lengths
    if not len(lengths):
        raise InputError("there is no question to train on", "Look at decontaminate's questions")
    work = flop(size, lengths, int(encoded.num_answer_tokens.sum())) * epochs
    row = min(row_tokens, int(lengths.max()) * batch_size)
    memory = {
        "base": base_bytes(size, precision) / GIB,
        "adapter_and_optimizer": size.trainable * ADAPTER_BYTES / GIB,
        f"row_of_{row}_tokens": KEPT_BYTES * size.hidden * size.layers * row / GIB,
    }
    return {
        "questions": len(lengths),
        "tokens": int(lengths.sum()),
        "mean_tokens": round(float(lengths.mean()), 1),
        "longest": int(lengths.max()),
        "histogram": histogram(lengths),
        "steps": num_steps(len(lengths), batch_size, epochs),
        "parameters": size.parameters,
        "trainable_parameters": size.trainable,
        "petaflop": work / 1e15,
        "memory_gib": {name: round(value, 2) for name, value in memory.items()},
        "gpus": {name: _on(gpu, work, sum(memory.values())) for name, gpu in GPUS.items()},
    }


def histogram(lengths: np.ndarray) -> dict[str, int]:
    """Questions by tokens; the last bin has no upper end."""
    counts = np.bincount(np.searchsorted(BINS, lengths), minlength=len(BINS) + 1).tolist()
    names = [*(f"≤ {end}" for end in BINS), f"> {BINS[-1]}"]
    return {name: num for name, num in zip(names, counts, strict=True) if num}


def _on(gpu: Gpu, work: float, memory: float) -> dict[str, Any]:
    minutes = work / (gpu.teraflops * 1e12 * SHARE_OF_PEAK) / 60
    return {"minutes": round(minutes, 1), "fits": memory <= gpu.memory}
