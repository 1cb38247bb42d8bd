"""Laws of the fused block: the same numbers as PEFT's layers with the same masks, to the last bits of
float64; half of what they keep; and where it does not belong it stays away."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import sums, write_model
from torch import Tensor, nn

from monotreme.models import load_model
from monotreme.train import attention, fused
from monotreme.train.batches import micro_batches
from monotreme.train.dropout import Draws, key_dropout
from monotreme.train.encode import Encoded, encode, load_tokenizer
from monotreme.train.lora import add_adapter, drop_in_adapter_only, lora_config, trainable
from monotreme.train.loss import question_losses

MLP = ["gate_proj", "up_proj", "down_proj"]
EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(scope="module")
def encoded(tiny_model: Path) -> Encoded:
    return encode(load_tokenizer(tiny_model, False), sums(9), 512)[0]


def adapted(folder: Path, targets: list[str], dropout: float, **more: Any) -> tuple[Any, Draws]:
    """A model in float64 whose adapter is not zero, with keyed dropout."""
    config = lora_config(4, 8, dropout, targets)
    for name, value in more.items():
        setattr(config, name, value)
    model = add_adapter(load_model(folder, "fp32", False, attention.ATTENTION), config, 0)
    torch.manual_seed(1)
    for weight in trainable(model).values():
        nn.init.normal_(weight, std=0.1)
    draws = key_dropout(model, 7)
    return model.double(), draws


def step(model: Any, draws: Draws, encoded: Encoded, budget: int) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of a step, cut into rows of so many tokens."""
    drop_in_adapter_only(model)
    losses = []
    for row in micro_batches(encoded, np.arange(9), np.ones(9), budget):
        draws.begin(2, row, torch.device("cpu"))
        with question_losses(model) as shares:
            losses.append(shares(row, False))
    loss = torch.cat(losses).sum()
    return loss, list(torch.autograd.grad(loss, list(trainable(model).values())))


@pytest.mark.parametrize("targets", [MLP, ["gate_proj"], ["up_proj", "down_proj"], [*MLP, "q_proj", "o_proj"]], ids=str)  # fmt: skip
@pytest.mark.parametrize("dropout", [0.0, 0.05, 0.5])
def test_it_equals_pefts_layers_with_the_same_masks(
    tiny_model: Path, encoded: Encoded, targets: list[str], dropout: float
) -> None:
    model, draws = adapted(tiny_model, targets, dropout)
    loss, gradients = step(model, draws, encoded, 10**6)
    assert fused.fuse(model) == 2
    again, others = step(model, draws, encoded, 10**6)
    torch.testing.assert_close(again, loss, **EXACT)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other, one, **EXACT)


def test_it_scales_as_rank_stabilised_lora_does(tiny_model: Path, encoded: Encoded) -> None:
    model, draws = adapted(tiny_model, MLP, 0.1, use_rslora=True, rank_pattern={"up_proj": 2})
    loss, _ = step(model, draws, encoded, 10**6)
    assert fused.fuse(model) == 2
    torch.testing.assert_close(step(model, draws, encoded, 10**6)[0], loss, **EXACT)


def test_the_cut_into_rows_changes_nothing_with_dropout_too(
    tiny_model: Path, encoded: Encoded
) -> None:
    """The norms of transformers compute in float32, so rows may differ in its last bits."""
    model, draws = adapted(tiny_model, MLP, 0.3)
    fused.fuse(model)
    whole, of_whole = step(model, draws, encoded, 10**6)
    for budget in (1, 150):
        cut, of_cut = step(model, draws, encoded, budget)
        torch.testing.assert_close(cut, whole, rtol=1e-6, atol=1e-6)
        for one, other in zip(of_whole, of_cut, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)


def saved_bytes(run: Callable[[], Tensor]) -> int:
    """Bytes that autograd keeps for the backward pass, weights not counted."""
    seen: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and tensor.dim() > 1:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = run()  # alive until all is counted: a freed address would be used again
    assert kept.requires_grad
    return sum(seen.values())


def test_it_keeps_at_most_half_of_what_pefts_layers_keep(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "wide", hidden_size=64, intermediate_size=176)
    model, draws = adapted(folder, MLP, 0.05)
    model = model.float()
    drop_in_adapter_only(model)
    block = model.get_submodule("base_model.model.model.layers.0.mlp")
    draws.tokens_T = torch.arange(128, dtype=torch.int32)
    x = torch.randn(1, 128, 64, requires_grad=True)

    def forward() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out: Tensor = block(x)
        return out

    before = saved_bytes(forward)
    assert fused.fuse(model) == 2
    drop_in_adapter_only(model)
    after = saved_bytes(forward)
    assert 0 < after <= before / 2


def test_bf16_is_as_near_to_float32_as_pefts_layers(tiny_model: Path, encoded: Encoded) -> None:
    model, draws = adapted(tiny_model, MLP, 0.05)
    model = model.float()
    (row,) = micro_batches(encoded, np.arange(4), np.ones(4), 10**6)

    def loss(autocast: bool) -> float:
        drop_in_adapter_only(model)
        draws.begin(0, row, torch.device("cpu"))
        with question_losses(model) as shares:
            return shares(row, autocast).sum().item()

    exact, peft = loss(False), loss(True)
    fused.fuse(model)
    assert abs(loss(True) - exact) <= 2 * abs(peft - exact) + 1e-4 * exact  # bf16's own error


ODD: dict[str, dict[str, Any]] = {
    "another activation": {"hidden_act": "gelu"},
    "biases": {"mlp_bias": True},
}


@pytest.mark.parametrize("kind", ODD)
def test_a_block_that_is_built_otherwise_keeps_pefts_layers(tmp_path: Path, kind: str) -> None:
    model, _ = adapted(write_model(tmp_path / "odd", **ODD[kind]), MLP, 0.1)
    assert fused.fuse(model) == 0


def test_dora_and_unadapted_blocks_keep_pefts_layers(tiny_model: Path) -> None:
    assert fused.fuse(adapted(tiny_model, MLP, 0.1, use_dora=True)[0]) == 0
    assert fused.fuse(adapted(tiny_model, ["q_proj"], 0.1)[0]) == 0


def test_a_block_that_says_something_else_keeps_pefts_layers(tiny_model: Path) -> None:
    model, _ = adapted(tiny_model, MLP, 0.1)
    block = model.get_submodule("base_model.model.model.layers.1.mlp")
    before = type(block).forward
    block.forward = lambda x: before(block, x) * 1.1
    assert fused.fuse(model) == 1
