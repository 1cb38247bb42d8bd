"""The base is read whole or not at all, and the adapter is the paper's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from monotreme.errors import InputError
from monotreme.models import load_model
from monotreme.train import attention
from monotreme.train.lora import add_adapter, lora_config, trainable

MLP = ["gate_proj", "up_proj", "down_proj"]

LLAMA_2 = {
    "7B": ((4096, 11008, 32, 32, 32), 23_199_744),
    "13B": ((5120, 13824, 40, 40, 40), 36_372_480),
    "70B": ((8192, 28672, 80, 64, 8), 141_557_760),
}


@pytest.mark.parametrize("size", LLAMA_2)
def test_trainable_parameters_of_the_paper(size: str) -> None:
    """Rank 16 on the three MLP layers: 23.2 M, 36.4 M and 141.6 M."""
    (hidden, inner, layers, heads, key_heads), expected = LLAMA_2[size]
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
    )
    with torch.device("meta"):
        model = add_adapter(LlamaForCausalLM(config), lora_config(16, 16, 0.05, MLP), 0)
    assert sum(p.numel() for p in trainable(model).values()) == expected


def test_the_adapter_starts_from_the_seed_and_changes_nothing_yet(tiny_model: Path) -> None:
    def start(seed: int) -> Any:
        return add_adapter(
            load_model(tiny_model, "bf16", False, attention.ATTENTION),
            lora_config(4, 4, 0, MLP),
            seed,
        )

    one, same, other = start(1), start(1), start(2)
    for (name, weight), again in zip(trainable(one).items(), trainable(same).values(), strict=True):
        assert weight.dtype == torch.float32
        assert torch.equal(weight, again)
        assert torch.equal(weight, trainable(other)[name]) == ("lora_B" in name)
    ids = torch.tensor([[1, 5, 9]])
    kwargs = attention.boundaries(torch.tensor([0, 3], dtype=torch.int32), 3)
    with torch.no_grad():
        adapted = one.eval()(ids, use_cache=False, **kwargs).logits
        with one.disable_adapter():
            assert torch.equal(adapted, one(ids, use_cache=False, **kwargs).logits)


def test_unknown_targets_are_named_with_the_right_ones(tiny_model: Path) -> None:
    with pytest.raises(InputError, match="'gate', which is no linear layer") as caught:
        add_adapter(
            load_model(tiny_model, "fp32", False, attention.ATTENTION),
            lora_config(4, 4, 0, ["gate"]),
            0,
        )
    assert "Choose from down_proj, gate_proj, k_proj, lm_head, o_proj" in str(caught.value)


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _pickled_weights(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _one_weight_less(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _wrong_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(31)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    "damage",
    [_no_weights, _pickled_weights, _cut_weights, _one_weight_less, _wrong_shape, _no_config],
)
def test_a_damaged_base_is_one_line(damage: Callable[[Path], None], tmp_path: Path) -> None:
    """Above all, a weight that is missing is never made up."""
    folder = write_model(tmp_path / "base")
    damage(folder)
    with pytest.raises(InputError, match=r"cannot be loaded|lacks 1 weights") as caught:
        load_model(folder, "fp32", False, attention.ATTENTION)
    assert "\n" not in str(caught.value)
