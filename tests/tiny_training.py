"""A tiny training: to take apart (a model with an adapter, a step's gradients) and as a whole stage."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from conftest import finish, sums
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from monotreme.models import load_model
from monotreme.recipe import check_recipe
from monotreme.records import Question
from monotreme.run import Run
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


# ── the whole stage ──────────────────────────────────────────────────────────────────────────────

SETTINGS = {
    "base_precision": "fp32",
    "batch_size": 4,
    "epochs": 3,
    "warmup_steps": 4,
    "rank": 4,
    "learning_rate": 1e-2,
    "dropout": 0.1,
    "max_length": 200,  # two rows a step
}


def build(folder: Path, model: Path, /, num: int = 30, **settings: Any) -> Run:
    """A run of `num` questions that is ready to train; 30 of them are 24 steps."""
    settings = {"base": str(model), **SETTINGS, **settings}
    data = {"name": folder.name, "curate": {"sources": ["sums"]}, "train": settings}
    run = Run(folder, check_recipe(data, "test"), folder.parent)
    folder.mkdir(exist_ok=True)
    finish(run, "decontaminate", sums(num))
    return run


def checkpoints(run: Run) -> list[Path]:
    """Those that stand there, the oldest first."""
    return sorted((run.folder / "train/checkpoints").glob("step-*"), key=lambda p: int(p.name[5:]))


def same(run: Run, other: Run) -> bool:
    """Whether adapter and log are the same; the log's times apart."""
    assert [line["step"] for line in _log(run)] == list(range(1, len(_log(other)) + 1))
    return _weights(run) == _weights(other) and _log(run) == _log(other)


def _weights(run: Run) -> bytes:
    return run.output("train", "adapter/adapter_model.safetensors").read_bytes()


def _log(run: Run) -> list[dict[str, Any]]:
    lines = run.output("train", "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
