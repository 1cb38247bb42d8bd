"""TensorBoard and W&B are told what the log says, every step of it."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from test_train import log_of, stage
from tiny_training import uneven

from monotreme import train
from monotreme.errors import InputError
from monotreme.run import Run
from monotreme.train import trackers


def test_a_line_is_numbers_by_path() -> None:
    line = {"step": 3, "loss": 1.5, "loss_by_source": {"a b": 1.0, "c": 2.0}}
    assert trackers.scalars(line) == {
        "loss": 1.5,
        "loss_by_source/a b": 1.0,
        "loss_by_source/c": 2.0,
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_holds_every_number_of_the_log(make_run: Callable[..., Run]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = stage(make_run, uneven(12), trackers=["tensorboard"])
    train.execute(run)
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    lines = log_of(run)
    for name in ("loss", "learning_rate", "grad_norm", "loss_by_source/source 0"):
        told = {event.step: event.value for event in events.Scalars(name)}
        logged = {one["step"]: trackers.scalars(one).get(name) for one in lines}
        assert told == pytest.approx({s: v for s, v in logged.items() if v is not None}, rel=1e-6)


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_is_told_offline(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = stage(make_run, uneven(12), trackers=["wandb"])
    train.execute(run)
    (record,) = (run.folder / "wandb").glob("offline-run-*/run-*.wandb")
    told = record.read_bytes()
    assert b"loss_by_source/source 0" in told
    assert json.dumps(log_of(run)[-1]["num_tokens"]).encode() in told


def test_a_tracker_that_is_not_installed_is_said_before_the_model_is_loaded(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda _name: None)
    monkeypatch.setattr(train, "load_base", lambda *_: pytest.fail("the base is being loaded"))
    run = stage(make_run, uneven(4), trackers=["wandb"])
    with pytest.raises(InputError, match="names wandb, which is not installed"):
        train.execute(run)
    assert not Path(run.folder / "train/record.json").exists()
