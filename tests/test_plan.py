"""Laws of the plan: counts are counts, work is what the formula says, and it comes before the weights."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import finish, sums
from transformers import LlamaConfig

from monotreme import train
from monotreme.errors import InputError
from monotreme.report.terminal import print_training_plan
from monotreme.run import Run
from monotreme.train import plan
from monotreme.train.encode import Encoded
from monotreme.train.lora import lora_config
from monotreme.train.trial import tried_steps

MLP = ["gate_proj", "up_proj", "down_proj"]
LLAMA_13B = LlamaConfig(
    vocab_size=32_000,
    hidden_size=5120,
    intermediate_size=13_824,
    num_hidden_layers=40,
    num_attention_heads=40,
    num_key_value_heads=40,
)


def test_llama_2_13b_is_counted_as_it_is() -> None:
    """13,015,864,320 parameters of the model card; 36.4 M of the paper's adapter; 12.85 G in products."""
    size = plan.size_of(LLAMA_13B, lora_config(16, 16, 0.05, MLP))
    assert size.parameters == 13_015_864_320
    assert size.trainable == 36_372_480
    assert size.products + size.head == pytest.approx(12.85e9, rel=1e-3)


def test_a_token_costs_what_the_formula_says() -> None:
    """By hand for one question of 653 tokens, all answers: 4 · 12.85 G + 6 · 36.4 M + 0.80 G."""
    size = plan.size_of(LLAMA_13B, lora_config(16, 16, 0.05, MLP))
    per_token = plan.flop(size, np.array([653]), 653) / 653
    assert per_token == pytest.approx(52.4e9, rel=3e-3)


def test_two_epochs_cost_twice_and_the_batch_nothing() -> None:
    size = plan.size_of(LLAMA_13B, lora_config(16, 16, 0.05, MLP))
    lengths = [100, 200, 300]
    encoded = Encoded(np.zeros(600, np.int32), np.ones(600, np.bool_), np.cumsum([0, *lengths]))
    one, two = (
        plan.plan(size, encoded, batch, epochs, "bf16", 4096) for batch, epochs in ((1, 1), (3, 2))
    )
    assert two["petaflop"] == pytest.approx(2 * one["petaflop"])
    assert (one["steps"], two["steps"]) == (3, 2)
    assert one["histogram"] == {"≤ 128": 1, "≤ 256": 1, "≤ 512": 1}
    assert one["memory_gib"]["base"] == pytest.approx(24.24, abs=0.01)
    assert not one["gpus"]["RTX 4090"]["fits"]
    assert one["gpus"]["H200"]["fits"]


def test_it_is_told_before_the_weights_are_there_and_agrees_with_the_training(
    make_run: Callable[..., Run], tmp_path: Path, tiny_model: Path
) -> None:
    run = make_run(train={"batch_size": 4, "warmup_steps": 0})
    finish(run, "decontaminate", sums(9))
    weights = tiny_model / "model.safetensors"
    hidden = weights.rename(tmp_path / "hidden")
    try:
        told = train.plan_of(run)
    finally:
        hidden.rename(weights)
    train.execute(run)
    facts = run.record("train")["facts"]
    assert told["steps"] == facts["num_steps"]
    assert told["tokens"] == facts["num_tokens"]
    assert told["trainable_parameters"] == facts["num_trainable_parameters"]


def test_without_questions_there_is_no_plan(make_run: Callable[..., Run]) -> None:
    run = make_run()
    finish(run, "decontaminate", [])
    with pytest.raises(InputError, match="no question to train on"):
        train.plan_of(run)


def test_every_number_that_is_printed_is_in_the_plan(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    finish(run, "decontaminate", sums(9))
    told = train.plan_of(run)
    print_training_plan(told, 2.0)
    text = capsys.readouterr().out
    assert f"{told['tokens']:,} tokens" in text
    assert all(name in text for name in told["gpus"])
    assert "none of them measured" in text
    json.dumps(told)
    assert "tried here" not in text


def test_the_largest_step_is_tried_first_then_typical_ones() -> None:
    assert tried_steps([5, 9, 4, 100, 6, 1]) == [3, 0, 4, 2]
    assert tried_steps([7]) == [0, 0]


def test_a_trial_tells_what_was_measured_and_leaves_the_training_as_it_was(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(train={"batch_size": 4, "warmup_steps": 0, "dropout": 0.1})
    finish(run, "decontaminate", sums(18))
    told = train.plan_of(run, try_steps=True)
    tried = told["trial"]
    assert tried["tokens_per_second"] > 0
    assert tried["minutes"] == pytest.approx(
        told["tokens"] / tried["tokens_per_second"] / 60, abs=0.01
    )
    print_training_plan(told, 2.0)
    assert f"({tried['largest_step_tokens']:,} tokens) fits" in capsys.readouterr().out
    assert not (run.folder / "train").exists()


def test_a_trial_without_memory_says_so_before_any_training(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    finish(run, "decontaminate", sums(9))
    monkeypatch.setattr(train, "memory_bytes", lambda: 1000)
    with pytest.raises(InputError, match="GiB on each device"):
        train.plan_of(run, try_steps=True)
