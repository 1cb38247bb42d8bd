"""A base in few bits: its products are near the dense ones, and everything behind them is the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import finish, write_model
from test_train import SHORT, log_of
from tiny_training import MLP, fresh_model, in_float64, uneven
from torch import nn
from torch.nn import functional as F

from monotreme import train
from monotreme.errors import InputError
from monotreme.run import Run
from monotreme.train import frozen
from monotreme.train.attention import ATTENTION
from monotreme.train.dropout import key_dropout
from monotreme.train.fused_mlp import fused
from monotreme.train.lora import add_adapter, lora_config, trainable

CPU = torch.device("cpu")


def layer(bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(48, 64, bias=bias, dtype=torch.bfloat16).requires_grad_(False)


def four_bit() -> Any:
    from bitsandbytes.nn import Linear4bit

    dense = layer()
    found = Linear4bit(48, 64, bias=False, quant_type="nf4", compute_dtype=torch.bfloat16)
    found.load_state_dict(dense.state_dict())
    return found.to(CPU)


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    found, wanted = found.detach().double(), wanted.detach().double()
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (lambda: layer(), 0.004),  # bfloat16's own rounding
        (lambda: frozen.Fp8Linear(layer()), 0.045),  # two roundings to 3 bits: 2^-4 / sqrt(3) each
        (four_bit, 0.12),
    ],
    ids=["dense", "fp8", "nf4"],
)
def test_both_products_are_near_the_dense_ones(made: Callable[[], nn.Module], error: float) -> None:
    product = frozen.frozen_product(made())
    assert product is not None
    weight = layer().weight.double()
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(33, 48, generator=draw).bfloat16()
    grad = torch.randn(33, 64, generator=draw).bfloat16()
    assert relative(product.product(x), x.double() @ weight.T) < error
    assert relative(product.pull_back(grad), grad.double() @ weight) < error


def test_a_row_with_an_outlier_does_not_cost_the_others_their_digits() -> None:
    """Scales are by row on both sides: what is small beside another row's values stays exact."""
    cast = frozen.Fp8Linear(layer())
    x = torch.randn(4, 48).bfloat16()
    alone = cast.product(x)
    x[3] *= 1e6
    assert torch.equal(cast.product(x)[:3], alone[:3])


def test_a_row_of_zeros_is_zero() -> None:
    assert not frozen.Fp8Linear(layer()).product(torch.zeros(2, 48, dtype=torch.bfloat16)).any()


def test_float8_layers_keep_bias_shape_and_gradient() -> None:
    dense = layer(bias=True)
    cast = frozen.Fp8Linear(dense)
    x = torch.randn(1, 5, 48, dtype=torch.bfloat16, requires_grad=True)
    y = cast(x)
    assert y.shape == (1, 5, 64)
    assert relative(y, F.linear(x, dense.weight, dense.bias)) < 0.045
    (grad,) = torch.autograd.grad(y.float().sum(), x)
    wanted = torch.ones(5, 64, dtype=torch.bfloat16) @ dense.weight
    assert grad.dtype == x.dtype
    assert relative(grad[0], wanted) < 0.045


def model_in(precision: Any, folder: Path) -> Any:
    model = frozen.load_base(folder, precision, False, ATTENTION, CPU)
    model = add_adapter(model, lora_config(4, 8, 0.1, MLP), 0)
    if precision == "fp8":
        frozen.to_float8(model)
    key_dropout(model, 0)
    return model


def test_the_head_and_the_adapter_stay_as_they_are(tiny_model: Path) -> None:
    model = model_in("fp8", tiny_model)
    kinds = {name: type(m) for name, m in model.named_modules()}
    assert kinds["base_model.model.lm_head"] is nn.Linear
    assert kinds["base_model.model.model.layers.0.mlp.up_proj.base_layer"] is frozen.Fp8Linear
    assert kinds["base_model.model.model.layers.0.self_attn.q_proj"] is frozen.Fp8Linear
    assert all(p.dtype == torch.float32 for p in trainable(model).values())
    adapted = frozen.load_base(tiny_model, "fp8", False, ATTENTION, CPU)
    adapted = add_adapter(adapted, lora_config(4, 8, 0.1, ["lm_head"]), 0)
    frozen.to_float8(adapted)
    assert type(adapted.base_model.model.lm_head.base_layer) is nn.Linear


@pytest.mark.parametrize("precision", ["bf16", "fp8", "nf4"])
def test_the_fused_mlp_serves_every_precision(tiny_model: Path, precision: str) -> None:
    """It is taken only where it says what PEFT's layers say (see fused_mlp)."""
    with fused(model_in(precision, tiny_model)) as way:
        assert way == "fused"


def test_a_wrong_product_is_seen_before_the_first_step(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_in("nf4", tiny_model)
    right = frozen.FourBit.pull_back
    monkeypatch.setattr(frozen.FourBit, "pull_back", lambda self, grad: 1.1 * right(self, grad))
    with fused(model) as way:
        assert way == "peft"


@pytest.mark.parametrize("precision", ["fp8", "nf4"])
def test_few_bits_train_close_to_bf16(make_run: Callable[..., Run], precision: str) -> None:
    losses = {}
    for kept_in in ("bf16", precision):
        settings = {**SHORT, "base_precision": kept_in, "dropout": 0.0}
        run = make_run(train=settings, merge={"into": []})
        finish(run, "decontaminate", uneven(12))
        train.execute(run)
        losses[kept_in] = [line["loss"] for line in log_of(run)]
    assert losses[precision] == pytest.approx(losses["bf16"], rel=0.02)
    assert losses[precision] != losses["bf16"]


def test_no_layer_to_cast_is_one_line(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "odd", hidden_size=24, intermediate_size=40)
    with pytest.raises(InputError, match="multiples of 16"):
        model_in("fp8", folder)


def test_a_gpu_without_float8_is_one_line(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "A100")
    with pytest.raises(InputError, match="A100 has no float8"):
        frozen.load_base(tiny_model, "fp8", False, ATTENTION, torch.device("cuda"))


def test_four_bits_without_bitsandbytes_is_one_line(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match="needs bitsandbytes"):
        frozen.load_base(tiny_model, "nf4", False, ATTENTION, CPU)


def test_in_float64_the_products_are_torchs_own(tiny_model: Path) -> None:
    """The fused function's dense path, after the change to products: exact."""
    model = in_float64(fresh_model(tiny_model))
    block = model.get_submodule("base_model.model.model.layers.0.mlp")
    x = torch.randn(1, 6, 32, dtype=torch.float64)
    wanted = block(x)
    with fused(model):
        torch.testing.assert_close(block(x), wanted, rtol=1e-12, atol=1e-12)
