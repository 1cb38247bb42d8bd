"""rsLoRA, DoRA and patterns: PEFT's own layers, trained by our loop, read again by PEFT."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from test_train import log_of, stage
from tiny_training import uneven
from transformers import AutoModelForCausalLM

from monotreme import train
from monotreme.errors import RecipeError
from monotreme.run import Run

KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "rslora": ({"rslora": True}, "fused"),
    "dora": ({"dora": True}, "peft"),
    "patterns": ({"rank_pattern": {"up_proj": 2}, "alpha_pattern": {"0.mlp.up_proj": 3}}, "fused"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_learns_and_is_what_peft_reads(
    make_run: Callable[..., Run], tiny_model: Path, kind: str
) -> None:
    settings, mlp = KINDS[kind]
    run = stage(make_run, uneven(24), **settings)
    train.execute(run)
    facts = run.record("train")["facts"]
    assert facts["mlp"] == mlp
    losses = [line["loss"] for line in log_of(run)]
    assert losses[-1] < losses[0]
    folder = run.output("train", "adapter")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["use_rslora"] == (kind == "rslora")
    assert config["use_dora"] == (kind == "dora")
    read = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), folder)
    ranks = {
        name: m.weight.shape[0] for name, m in read.named_modules() if ".lora_A.default" in name
    }
    assert sorted(set(ranks.values())) == ([2, 4] if kind == "patterns" else [4])
    assert (
        sum(p.numel() for n, p in read.named_parameters() if "lora_" in n)
        == (facts["num_trainable_parameters"])
    )
    ids = torch.tensor([[1, 9, 40, 7]])
    with torch.no_grad():
        adapted = read(ids).logits
        with read.disable_adapter():
            assert not torch.allclose(read(ids).logits, adapted, atol=1e-3)


@pytest.mark.parametrize("dora", [False, True])
def test_dropout_reaches_every_kind(make_run: Callable[..., Run], dora: bool) -> None:
    losses = {}
    for dropout in (0.0, 0.5):
        run = stage(make_run, uneven(12), dropout=dropout, dora=dora)
        train.execute(run)
        losses[dropout] = [line["loss"] for line in log_of(run)]
    assert losses[0.0][0] == pytest.approx(losses[0.5][0])  # B is zero
    assert losses[0.0][-1] != losses[0.5][-1]


def test_dora_on_float8_is_refused(make_run: Callable[..., Run]) -> None:
    with pytest.raises(RecipeError, match="dense weights"):
        make_run(train={"dora": True, "base_precision": "fp8"})
