"""The fused MLP says what PEFT's layers say, masks included, keeps half as much, and knows its place.

Float64 shows that the mathematics is the same; bfloat16 that the casts of the forward pass are.
"""

import gc
from collections.abc import Callable
from copy import deepcopy
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import finish
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from tiny_training import EXACT, MLP, fresh_model, gradients, in_float64, step_loss, uneven
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen3Config,
)
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import LlamaMLP

from monotreme import train
from monotreme.run import Run
from monotreme.train import batches
from monotreme.train.dropout import Draws, KeyedDropout, key_dropout
from monotreme.train.encode import Encoded, encode, load_tokenizer
from monotreme.train.fused_mlp import fused
from monotreme.train.lora import drop_in_adapter_only, trainable

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
SOME_OF_THREE = [list(some) for num in (1, 2, 3) for some in combinations(MLP, num)]
HIDDEN, INNER = 64, 172  # in Llama's proportion


@pytest.fixture(scope="module")
def encoded(tiny_model: Path) -> Encoded:
    return encode(load_tokenizer(tiny_model, False), uneven(9), 512)[0]


class Wrapped(nn.Module):
    """A model that is one block."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.mlp = block

    def forward(self, x: Tensor) -> Tensor:
        said: Tensor = self.mlp(x)
        return said


def llama_mlp(dtype: torch.dtype, bias: bool = False) -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=HIDDEN, intermediate_size=INNER, mlp_bias=bias)
    return LlamaMLP(config).to(dtype)


def adapted(
    block: nn.Module,
    p: float = 0.05,
    targets: list[str] = MLP,
    **settings: Any,
) -> tuple[Any, Draws]:
    """The block with adapters that are not zero, in training; float64 throughout if it is."""
    lora = LoraConfig(r=4, lora_alpha=6, lora_dropout=p, target_modules=targets, **settings)
    dtype = next(block.parameters()).dtype
    model = get_peft_model(Wrapped(block), lora)
    if dtype == torch.float64:
        model.double()
    torch.manual_seed(1)
    for weight in trainable(model).values():
        nn.init.normal_(weight, std=0.1)
    draws = key_dropout(model, 3)
    drop_in_adapter_only(model)
    return model, draws


def packed_input(encoded: Encoded, draws: Draws, dtype: torch.dtype = torch.float64) -> Tensor:
    """(1, T, HIDDEN) of nine questions in a row."""
    (row,) = batches.micro_batches(encoded, np.arange(9), np.ones(9), 100_000)
    draws.begin(5, row, torch.device("cpu"))
    torch.manual_seed(2)
    return torch.randn(1, row.ids.numel(), HIDDEN).to(dtype).requires_grad_()


def results(model: Any, x: Tensor, autocast: bool = False) -> list[Tensor]:
    """The output, and the gradients of x and of every adapter weight."""
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = model(x)
    torch.manual_seed(3)
    weights = list(trainable(model).values())
    return [y, *torch.autograd.grad(y, [x, *weights], torch.randn(y.shape).to(y))]


def both_ways(model: Any, x: Tensor, autocast: bool = False) -> tuple[list[Tensor], list[Tensor]]:
    theirs = results(model, x, autocast)
    with fused(model) as way:
        assert way == "fused"
        return results(model, x, autocast), theirs


# ── the same result ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("p", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("targets", SOME_OF_THREE, ids="-".join)
def test_output_and_gradients_are_those_of_pefts_layers(
    encoded: Encoded, targets: list[str], p: float
) -> None:
    model, draws = adapted(llama_mlp(torch.float64), p, targets)
    ours, theirs = both_ways(model, packed_input(encoded, draws))
    assert len(ours) == 2 + 2 * len(targets)
    for mine, reference in zip(ours, theirs, strict=True):
        assert reference.abs().max() > 1e-2
        torch.testing.assert_close(mine, reference, **EXACT)


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True},
        {"rank_pattern": {"up_proj": 7}, "alpha_pattern": {"down_proj": 3}},
        {"init_lora_weights": "gaussian"},
    ],
    ids=str,
)
def test_other_ranks_and_scalings_are_plain_lora_too(
    encoded: Encoded, settings: dict[str, Any]
) -> None:
    model, draws = adapted(llama_mlp(torch.float64), **settings)
    for mine, reference in zip(*both_ways(model, packed_input(encoded, draws)), strict=True):
        torch.testing.assert_close(mine, reference, **EXACT)


@pytest.mark.parametrize("p", [0.0, 0.05])
def test_a_steps_loss_and_gradients_are_those_of_pefts_layers(
    tiny_model: Path, encoded: Encoded, p: float
) -> None:
    """A whole Llama with adapters on attention and MLP, its questions in two rows."""
    model = in_float64(fresh_model(tiny_model, p, [*MLP, *ATTENTION]))
    draws = key_dropout(model, 0)

    def loss_and_gradients() -> dict[str, Tensor]:
        loss = step_loss(model, encoded, np.arange(9), "question", 600, draws)
        return {"loss": loss.detach(), **gradients(model, loss)}

    theirs = loss_and_gradients()
    with fused(model) as way:
        ours = loss_and_gradients()
    assert way == "fused"
    assert len(ours) == 1 + 2 * 2 * 7
    for name, reference in theirs.items():
        torch.testing.assert_close(ours[name], reference, **EXACT)


@pytest.mark.parametrize("p", [0.0, 0.05])
@pytest.mark.parametrize("autocast", [True, False])
def test_a_bfloat16_base_is_computed_with_pefts_casts(
    encoded: Encoded, p: float, autocast: bool
) -> None:
    """The output has the same bits; the gradients are as near as one rounding more or less lets be."""
    model, draws = adapted(llama_mlp(torch.bfloat16), p)
    ours, theirs = both_ways(model, packed_input(encoded, draws, torch.bfloat16), autocast)
    assert torch.equal(ours[0], theirs[0])
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.dtype == reference.dtype
        assert (mine - reference).norm() < 2**-7 * reference.norm()


def test_no_gradient_of_the_input_is_computed_where_none_is_asked_for(encoded: Encoded) -> None:
    """The first block of a model whose attention is not adapted has an input without gradient."""
    model, draws = adapted(llama_mlp(torch.float64))
    x = packed_input(encoded, draws)
    expected = results(model, x)[2:]
    with fused(model):
        y = model(x.detach())
    torch.manual_seed(3)
    found = torch.autograd.grad(y, list(trainable(model).values()), torch.randn(y.shape).to(y))
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, reference, **EXACT)


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────


class ByteDropout(nn.Dropout):
    """torch's dropout as it is on a GPU."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.native_dropout(x, self.p, self.training)[0]


def alive() -> dict[int, Tensor]:
    """Every tensor that Python knows of, by the address of its storage."""
    found = [each for each in gc.get_objects() if type(each) in (Tensor, nn.Parameter)]
    return {tensor.untyped_storage().data_ptr(): tensor for tensor in found}


def saved_bytes(model: Any, x: Tensor, autocast: bool) -> int:
    """Bytes that the forward pass keeps for the backward pass, weights apart, each storage once.

    What autograd is told of, and what a function hides in its context.
    """
    kept: dict[int, Tensor] = {}  # holds on to them, so that no address comes twice

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    before = alive()
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        y = model(x)
    kept |= {at: tensor for at, tensor in alive().items() if at not in before}
    others = [y, *model.parameters()]
    for tensor in others:
        kept.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_less_than_half_is_kept_of_what_pefts_layers_keep(
    encoded: Encoded, dtype: torch.dtype
) -> None:
    """With the paper's dropout. The peer keeps a byte a mask, as on a GPU; on the processor torch keeps four."""
    model, draws = adapted(llama_mlp(dtype), 0.05)
    x = packed_input(encoded, draws, dtype)
    autocast = dtype == torch.bfloat16
    with fused(model):
        ours = saved_bytes(model, x, autocast)
    for name, module in list(model.named_modules()):
        if isinstance(module, KeyedDropout):
            model.set_submodule(name, ByteDropout(module.p))
    theirs = saved_bytes(model, x, autocast)
    size, tokens = dtype.itemsize, x.shape[1]
    assert ours == tokens * size * (HIDDEN + 2 * INNER + 3 * 4)  # x, g, u, and three ranks
    assert ours / theirs <= 0.5


# ── where it serves ──────────────────────────────────────────────────────────────────────────────


SHAPE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "pad_token_id": 0,
}


@pytest.mark.parametrize(
    ("config", "targets", "expected"),
    [
        (LlamaConfig, MLP, "fused"),
        (MistralConfig, ["down_proj", "q_proj"], "fused"),
        (Qwen3Config, MLP, "fused"),
        (GemmaConfig, MLP, "peft"),  # its activation is a GELU
        (Phi3Config, ["gate_up_proj", "down_proj"], "peft"),  # two projections in one
        (LlamaConfig, ATTENTION, "peft"),  # nothing to fuse
    ],
)
def test_the_architecture_decides(config: Any, targets: list[str], expected: str) -> None:
    base = AutoModelForCausalLM.from_config(config(**SHAPE))
    model = get_peft_model(base, LoraConfig(r=2, lora_dropout=0.1, target_modules=targets))
    key_dropout(model, 0)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    with fused(model) as way:
        assert way == expected
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], w) for name, w in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


class Clipped(LlamaMLP):
    """Built as Llama's block, but computes something else."""

    def forward(self, x: Tensor) -> Tensor:
        said: Tensor = super().forward(x)
        return said.clamp(-0.05, 0.05)


class Routed(LlamaMLP):
    """Built as Llama's block, but asks for more than its input."""

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        said: Tensor = super().forward(x)
        return said * scale


def with_class(block: nn.Module, other: type) -> nn.Module:
    block.__class__ = other
    return block


def with_activation(name: str) -> nn.Module:
    block: Any = llama_mlp(torch.float64)
    block.act_fn = ACT2FN[name]
    return block


ODD_BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "bias": lambda: llama_mlp(torch.float64, bias=True),
    "gelu": lambda: with_activation("gelu"),
    "computes something else": lambda: with_class(llama_mlp(torch.float64), Clipped),
    "takes more than its input": lambda: with_class(llama_mlp(torch.float64), Routed),
}


@pytest.mark.parametrize("name", ODD_BLOCKS)
def test_odd_blocks_keep_pefts_layers(encoded: Encoded, name: str) -> None:
    model, draws = adapted(ODD_BLOCKS[name]())
    x = packed_input(encoded, draws)
    theirs = results(model, x)
    with fused(model) as way:
        assert way == "peft"
        assert all(map(torch.equal, results(model, x), theirs))


@pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed")  # that it cannot be merged
@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_bias": True}], ids=str)
def test_other_adapters_keep_pefts_layers(encoded: Encoded, settings: dict[str, Any]) -> None:
    """DoRA takes the keyed masks all the same: the same step twice is the same bits."""
    model, draws = adapted(llama_mlp(torch.float64), 0.5, **settings)
    x = packed_input(encoded, draws)
    with fused(model) as way:
        assert way == "peft"
        first, again = results(model, x), results(model, x)
    assert all(map(torch.equal, first, again))


def test_masks_from_elsewhere_and_second_adapters_keep_pefts_layers() -> None:
    one, _ = adapted(llama_mlp(torch.float64))
    layer = next(m for m in one.modules() if isinstance(m, LoraLayer))
    layer.lora_dropout["default"] = nn.Dropout(0.05)
    two, _ = adapted(llama_mlp(torch.float64))
    two.add_adapter("other", LoraConfig(r=2, target_modules=MLP))
    for model in (one, two):
        with fused(model) as way:
            assert way == "peft"


def test_one_block_that_does_not_fit_leaves_all_to_peft(tiny_model: Path) -> None:
    model = fresh_model(tiny_model)
    with fused(model) as way:
        assert way == "fused"
    model.base_model.model.model.layers[1].mlp.act_fn = nn.GELU()
    with fused(model) as way:
        assert way == "peft"


def test_pefts_layers_are_back_afterwards(encoded: Encoded) -> None:
    """So that an adapter can be disabled or merged: the function knows nothing of that."""
    model, draws = adapted(llama_mlp(torch.float64))
    x = packed_input(encoded, draws)
    base = model.base_model.model.mlp
    frozen = deepcopy(base)
    with pytest.raises(ZeroDivisionError), fused(model):
        assert "forward" in vars(base)
        1 / 0  # noqa: B018 - something goes wrong in the training
    assert "forward" not in vars(base)
    with model.disable_adapter():
        plain = frozen.down_proj.base_layer(
            nn.functional.silu(frozen.gate_proj.base_layer(x)) * frozen.up_proj.base_layer(x)
        )
        assert torch.equal(model(x), plain)


def test_the_record_says_which_way_was_taken(make_run: Callable[..., Run]) -> None:
    for targets, expected in ((MLP, "fused"), (["q_proj"], "peft")):
        run = make_run(train={"batch_size": 4, "rank": 2, "targets": targets})
        finish(run, "decontaminate", uneven(4))
        train.execute(run)
        assert run.record("train")["facts"]["mlp"] == expected
