"""The log's words: facts, the validation loss against a hand-made one, overfitting said once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from test_train import log_of, stage
from tiny_training import uneven
from torch.nn import functional as F

from monotreme import train
from monotreme.run import Run
from monotreme.train import log, plan
from monotreme.train.data import training_data


def line(step: int, **more: Any) -> dict[str, Any]:
    return {"step": step, "loss": 2.0 / step, "num_tokens": 100, "num_answer_tokens": 40, "seconds": 0.5, **more}  # fmt: skip


def test_facts_are_sums_and_rates() -> None:
    lines = [line(1, teraflop=3.0), line(2, teraflop=1.0)]
    found = log.facts(lines, 16.0)
    assert (found["num_steps"], found["num_tokens"], found["num_answer_tokens"]) == (2, 200, 80)
    assert (found["first_loss"], found["tokens_per_second"]) == (1.5, 200.0)
    assert (found["teraflop_per_second"], found["share_of_peak"]) == (4.0, 0.25)
    assert "share_of_peak" not in log.facts(lines, None)
    assert "teraflop_per_second" not in log.facts([line(1)], 16.0)


@pytest.mark.parametrize(
    ("losses", "warned_after"),
    [
        ([3, 2, 1], []),
        ([3, 2, 2.1, 1.9, 2.0, 1.8], []),  # up and down is no trend
        ([3, 1, 1.1, 1.2, 1.3, 1.4], [4]),
        ([3, 1, 1.1, 1.2, 0.9, 1.0, 1.1], [4, 7]),
        ([1, 2], []),
    ],
)
def test_overfitting_is_two_measurements_over_the_best(
    losses: list[float], warned_after: list[int]
) -> None:
    said = [n for n in range(1, len(losses) + 1) if log.is_overfitting(losses[:n])]
    assert said == warned_after


def test_the_warning_names_both_losses(capfd: pytest.CaptureFixture[str]) -> None:
    lines = [
        line(step, validation_loss=value) for step, value in ((50, 1.0), (100, 1.1), (150, 1.2))
    ]
    log.warn_of_overfitting(lines)
    said = " ".join(capfd.readouterr().err.split())
    assert "is 1.200 after step 150, and was 1.000 after 50" in said
    assert log.facts(lines, None)["best_validation_step"] == 50


def test_the_glance_has_rate_and_work() -> None:
    told = log.glance({**line(1, teraflop=100.0), "learning_rate": 4e-4})
    assert told == "loss 2.000 · rate 4.0e-04 · 200 tokens/s · 200.0 TFLOP/s"


def test_the_validation_loss_is_the_mean_of_each_questions_mean(
    make_run: Callable[..., Run], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the model as it is after those steps, without dropout; the questions one by one."""
    monkeypatch.setattr(train, "SAVE_STEPS", 2)
    run = stage(make_run, uneven(14), validation=0.3, dropout=0.5, learning_rate=0.0001)
    train.execute(run)
    lines = log_of(run)
    assert [one["step"] for one in lines if "validation_loss" in one] == [2, 3]
    held = training_data(run, tiny_model, 512).held_out
    model = train.add_adapter(
        train.load_base(tiny_model, "fp32", False, "sdpa", torch.device("cpu")),
        train.adapter_config(run.recipe.train),
        0,
    )
    set_peft_model_state_dict(
        model, load_file(run.output("train", "adapter") / "adapter_model.safetensors")
    )
    model.eval()
    losses = []
    for start, end in zip(held.offsets[:-1], held.offsets[1:], strict=True):
        ids = torch.from_numpy(held.ids[start:end].astype("int64"))
        answer = torch.from_numpy(held.is_answer[start:end])[1:]
        with torch.no_grad():
            logits = model(ids[None]).logits[0, :-1]
        losses.append(F.cross_entropy(logits[answer], ids[1:][answer]).item())
    assert lines[-1]["validation_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert run.record("train")["facts"]["validation_loss"] == lines[-1]["validation_loss"]
    assert "held-out questions" in run.output("train", "loss.svg").read_text(encoding="utf-8")


def test_measuring_changes_no_step(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout at work, however often the loss is measured in between."""
    losses = []
    for every in (1, 50):
        monkeypatch.setattr(train, "SAVE_STEPS", every)
        run = stage(make_run, uneven(14), validation=0.3, dropout=0.5)
        train.execute(run)
        losses.append([one["loss"] for one in log_of(run)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA L40S", 362),
        ("Tesla T4", None),
    ],
)
def test_peak_by_the_drivers_name(name: str, peak: float | None) -> None:
    assert plan.peak_of(name) == peak


def test_work_of_the_steps_is_that_of_the_plan(make_run: Callable[..., Run]) -> None:
    run = stage(make_run, uneven(12))
    train.execute(run)
    assert sum(one["teraflop"] for one in log_of(run)) == pytest.approx(
        train.plan_of(run)["petaflop"] * 1000
    )
