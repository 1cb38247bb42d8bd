"""A tiny training to take apart: a model with an adapter, uneven questions, a step's gradients."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from conftest import sums
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from monotreme.models import load_model
from monotreme.records import Question
from monotreme.train import attention, batches, loop
from monotreme.train.dropout import Draws
from monotreme.train.encode import Encoded
from monotreme.train.lora import add_adapter, lora_config, trainable
from monotreme.train.loss import question_losses

MLP = ["gate_proj", "up_proj", "down_proj"]
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def uneven(num: int) -> list[Question]:
    """Questions whose answers differ much in length, from three sources."""
    return [
        replace(q, output=q.output * (1 + 3 * (i % 4)), source=f"source {i % 3}")
        for i, q in enumerate(sums(num))
    ]


def fresh_model(folder: Path, dropout: float = 0.0, targets: list[str] = MLP) -> Any:
    """The tiny model with an adapter whose B is not zero, so that A has a gradient."""
    model = add_adapter(
        load_model(folder, "fp32", False, attention.ATTENTION),
        lora_config(4, 8, dropout, targets),
        0,
    )
    torch.manual_seed(1)
    for name, weight in trainable(model).items():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.1)
    loop.drop_in_adapter_only(model)
    return model


def in_float64(model: Any) -> Any:
    """The same in float64, where only a mistake makes a difference.

    Its norms are torch's own: transformers' compute in float32 whatever they are given.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, LlamaRMSNorm):
            norm = nn.RMSNorm(32, eps=module.variance_epsilon).requires_grad_(False)
            model.set_submodule(name, norm)
    return model.double()


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    weights = trainable(model)
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


def step_loss(
    model: Any,
    encoded: Encoded,
    chosen: Any,
    weighting: Any,
    budget: int,
    draws: Draws | None = None,
) -> Tensor:
    """The loss of step 0; `draws` where the adapter has dropout."""
    weights = batches.token_weights(encoded.num_answer_tokens[chosen], weighting)
    shares = []
    with question_losses(model) as losses:
        for row in batches.micro_batches(encoded, chosen, weights, budget):
            if draws is not None:
                draws.begin(0, row, torch.device("cpu"))
            shares.append(losses(row, False))
    return torch.cat(shares).sum()
