"""A training that is stopped anywhere ends with the bytes of one that was not; no other uses its state."""

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import write_model
from tiny_training import build, checkpoints, same
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from monotreme import train
from monotreme.errors import MismatchError, StorageError
from monotreme.run import Run
from monotreme.train.checkpoint import KEEP, LOG, Checkpoints

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True, scope="module")
def _save_often() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "SAVE_STEPS", 4)
        yield


@pytest.fixture
def make(tiny_model: Path, tmp_path: Path) -> Callable[..., Run]:
    return lambda name="test", **change: build(tmp_path / name, tiny_model, **change)


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The training that nothing interrupts."""
    run = build(tmp_path_factory.mktemp("runs") / "whole", tiny_model)
    train.execute(run)
    return run


@contextmanager
def signalled(number: int, forward: int) -> Iterator[None]:
    """Send this process a signal at the so-manieth forward pass of the whole model."""
    seen = 0

    def count(module: nn.Module, _args: Any) -> None:
        nonlocal seen
        seen += type(module).__name__ == "PeftModelForCausalLM"
        if seen == forward:
            seen += 1
            signal.raise_signal(number)

    hook = register_module_forward_pre_hook(count)
    try:
        yield
    finally:
        hook.remove()


def stop(run: Run, forward: int, number: int = signal.SIGTERM) -> None:
    with signalled(number, forward), pytest.raises(SystemExit) as caught:
        train.execute(run)
    assert caught.value.code == 128 + number


# ── interrupted ──────────────────────────────────────────────────────────────────────────────────


def test_stopped_again_and_again_equals_uninterrupted(
    make: Callable[..., Run], whole: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    """Between checkpoints, at one, by both signals, in the middle of a step's rows."""
    run = make()
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    for forward, number in ((5, signal.SIGTERM), (12, signal.SIGINT), (29, signal.SIGTERM)):
        stop(run, forward, number)
        assert not (run.folder / "train/record.json").exists()
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    said = capfd.readouterr().err
    assert "stopped after step" in said
    assert "damaged" not in said
    train.execute(run)
    assert same(run, whole)
    assert not (run.folder / "train/checkpoints").exists()


def test_a_stop_saves_the_step_it_is_in(make: Callable[..., Run]) -> None:
    run = make()
    stop(run, 3)  # two passes check that questions are apart; the third begins step 1
    (folder,) = checkpoints(run)
    assert folder.name == "step-1"
    assert len((folder / LOG).read_text(encoding="utf-8").splitlines()) == 1


def test_a_full_disk_while_saving_keeps_the_checkpoint_before(
    make: Callable[..., Run], whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy of the log fails once, after weights and optimizer are written."""
    run = make()
    copy = shutil.copyfile

    def fail(source: Path, target: Path) -> None:
        if target.parent.name.startswith(".step-12."):
            raise OSError(28, "No space left on device")
        copy(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", fail)
        with pytest.raises(StorageError, match="step-12"):
            train.execute(run)
    assert [p.name for p in checkpoints(run)] == ["step-4", "step-8"]
    train.execute(run)
    assert same(run, whole)


# ── another training's ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num": 29}, "data"),
        ({"learning_rate": 5e-3}, "settings"),
        ({"base": "other"}, "base"),
    ],
)
def test_another_training_never_uses_it(
    make: Callable[..., Run], tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    """Other questions, settings or base: refused by name, kept for its own, passed by with --force."""
    write_model(tmp_path / "other", seed=7)
    stop(make(), 30)
    before = checkpoints(make())
    with pytest.raises(MismatchError, match=f"of a training with other {named}") as refused:
        train.execute(make(**change))
    assert "--force" in str(refused.value)
    assert checkpoints(make()) == before
    train.execute(forced := replace(make(**change), force=True))
    train.execute(clean := make("clean", **change))
    assert same(forced, clean)


def test_what_was_refused_goes_on_under_its_own_recipe(
    make: Callable[..., Run], whole: Run
) -> None:
    stop(make(), 30)
    with pytest.raises(MismatchError):
        train.execute(make(learning_rate=5e-3))
    train.execute(run := make())
    assert same(run, whole)


def test_how_often_it_saves_is_not_another_training(
    make: Callable[..., Run], whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(make(), 30)
    monkeypatch.setattr(train, "SAVE_STEPS", 7)
    run = make()
    newest = checkpoints(run)[-1].name
    stop(run, 4)
    assert [newest, *(p.name for p in checkpoints(run))].count(newest) == 2  # it went on from there
    train.execute(run)
    assert same(run, whole)


def test_the_last_two_are_kept_and_state_is_exact(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.arange(4.0))
    optimizer = torch.optim.AdamW([weight])
    (tmp_path / "log").write_text("", encoding="utf-8")
    saved = Checkpoints(tmp_path / "checkpoints", {"data": "1"})
    for step in (2, 9, 10):
        weight.grad = torch.full((4,), float(step))
        optimizer.step()
        saved.save(step, {"w": weight}, optimizer, tmp_path / "log")
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"step-9", "step-10"}
    assert KEEP == 2
    other = nn.Parameter(torch.zeros(4))
    fresh = torch.optim.AdamW([other])
    assert saved.restore({"w": other}, fresh, tmp_path / "log") == 10
    assert torch.equal(other, weight)
    for key, value in optimizer.state[weight].items():
        assert torch.equal(fresh.state[other][key], value)


def test_without_checkpoints_it_starts_with_an_empty_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("of another training\n", encoding="utf-8")
    weight = nn.Parameter(torch.zeros(1))
    none = Checkpoints(tmp_path / "checkpoints", {})
    assert none.restore({"w": weight}, torch.optim.AdamW([weight]), tmp_path / "log") == 0
    assert (tmp_path / "log").stat().st_size == 0
