"""A training that is killed at any moment, or finds its checkpoints damaged, ends with the bytes of one that was not.

Every death is a real SIGKILL of a process of its own.
"""

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from tiny_training import build, checkpoints, same

from monotreme import train
from monotreme.run import Run
from monotreme.train.checkpoint import ADAPTER, LOG, OPTIMIZER, STATE, Checkpoints

pytestmark = pytest.mark.usefixtures("one_thread", "_save_often")

SAVE_STEPS = 2
THIRD = 3 * SAVE_STEPS  # the first save that removes an older checkpoint
SYSTEM = {"posix", "_io", "safetensors._safetensors_rust"}  # modules whose functions touch files
HARMLESS = {
    "__exit__", "close", "fspath", "getpid", "stat", "lstat", "fstat", "is_dir", "scandir", "fileno", "readable", "readinto",
}  # fmt: skip


@pytest.fixture
def _save_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "SAVE_STEPS", SAVE_STEPS)


def ten_steps(folder: Path, model: Path, **change: Any) -> Run:
    return build(folder, model, 20, epochs=2, **change)


@pytest.fixture
def make(tiny_model: Path, tmp_path: Path) -> Callable[[str], Run]:
    return lambda name: ten_steps(tmp_path / name, tiny_model)


@pytest.fixture(scope="module")
def whole(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The training that nothing disturbs."""
    run = ten_steps(tmp_path_factory.mktemp("runs") / "whole", tiny_model)
    train.execute(run)
    return run


# ── processes to kill ────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Death:
    """When a process is killed: after so long, or before the so-manieth operation of a step's save."""

    seconds: float | None = None
    step: int = 0
    operation: int = 0


@pytest.fixture(scope="module")
def dies(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Run, Death], bool]]:
    """Train in a process of its own; gives whether that was killed before it was done."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    warm = ten_steps(tmp_path_factory.mktemp("warm") / "up", tiny_model)
    server = spawn.Process(target=_serve, args=(there, warm))
    server.start()
    there.close()
    here.recv()

    def dies(run: Run, death: Death) -> bool:
        here.send((run, death))
        exitcode = here.recv()
        assert exitcode in (0, -signal.SIGKILL)
        return exitcode != 0

    yield dies
    here.close()
    server.join()


def _serve(pipe: Connection, warm: Run) -> None:
    """Fork a process for each training: libraries are loaded and have filled their caches once."""
    torch.set_num_threads(1)
    train.SAVE_STEPS = SAVE_STEPS
    train.execute(warm)
    pipe.send(None)  # ready
    with suppress(EOFError):  # the test has closed its end
        while True:
            run, death = pipe.recv()
            process = multiprocessing.get_context("fork").Process(target=_train, args=(run, death))
            process.start()
            process.join(death.seconds)
            process.kill()
            process.join()
            pipe.send(process.exitcode)


def _train(run: Run, death: Death) -> None:
    save = Checkpoints.save

    def watched(checkpoints: Checkpoints, step: int, *rest: Any) -> None:
        if step == death.step:
            sys.setprofile(_killer(death.operation))
        save(checkpoints, step, *rest)
        sys.setprofile(None)

    Checkpoints.save = watched  # type: ignore[method-assign]
    train.execute(run)


def _killer(operation: int) -> Callable[[FrameType, str, Any], None]:
    """What Python calls at every call of C code: it kills before the so-manieth that changes files.

    So whatever a save does, now or later, is met between its parts, without a list of them.
    """
    seen = 0

    def watch(_frame: FrameType, event: str, function: Any) -> None:
        nonlocal seen
        if event != "c_call" or function.__name__ in HARMLESS:
            return
        owner = function.__module__ or type(function.__self__).__module__
        seen += owner in SYSTEM
        if seen == operation:
            os.kill(os.getpid(), signal.SIGKILL)

    return watch


# ── killed ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_killed_between_any_two_file_operations_of_a_save(
    make: Callable[[str], Run],
    dies: Callable[[Run, Death], bool],
    whole: Run,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """No more than the steps since the save before is lost, and nothing half written is met."""
    for operation in count(1):
        run = make(f"killed-{operation}")
        if not dies(run, Death(step=THIRD, operation=operation)):
            break  # it has no more of them
        assert checkpoints(run)[-1].name in ("step-4", "step-6"), operation
        train.execute(run)
        assert "damaged" not in capfd.readouterr().err, operation
        assert same(run, whole), operation
        assert not list(run.folder.rglob("*.tmp")), operation
    assert operation > 20  # four files made and synced, a rename, a removal


def test_killed_twenty_times_at_random_moments(
    make: Callable[[str], Run], dies: Callable[[Run, Death], bool], whole: Run
) -> None:
    """Other moments in every execution of the test; a training is killed until it is done."""
    draw = random.Random(seed := random.SystemRandom().getrandbits(32))
    begun = time.monotonic()
    assert not dies(make("timed"), Death())
    span, kills = time.monotonic() - begun, 0
    while kills < 20:
        run = make(f"after-{kills}")
        while dies(run, Death(draw.uniform(0, span))):
            kills += 1
        assert same(run, whole), f"seed {seed}, {kills} kills"


# ── damaged ──────────────────────────────────────────────────────────────────────────────────────


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _of_another_step(path: Path) -> None:
    shutil.copyfile(path.parent.with_name("step-4") / path.name, path)


def _of_another_training(path: Path) -> None:
    shutil.copyfile(
        path.parents[3].with_name("other") / "train/checkpoints/step-6" / path.name, path
    )


@pytest.fixture(scope="module")
def halfway(
    tiny_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
    dies: Callable[[Run, Death], bool],
) -> Path:
    """Two trainings that were killed with step-4 and step-6 behind them: `halfway` and `other`."""
    folder = tmp_path_factory.mktemp("halfway")
    for name, rate in (("halfway", 1e-2), ("other", 2e-2)):
        run = ten_steps(folder / name, tiny_model, learning_rate=rate)
        assert dies(run, Death(step=4 * SAVE_STEPS, operation=1))
        assert [p.name for p in checkpoints(run)] == ["step-4", "step-6"]
    return folder


@pytest.fixture
def stopped(halfway: Path, make: Callable[[str], Run]) -> Run:
    """A copy of `halfway`, with `other` beside it."""
    run = make("halfway")
    shutil.copytree(halfway, run.folder.parent, dirs_exist_ok=True)
    return run


@pytest.mark.parametrize("name", [ADAPTER, OPTIMIZER, LOG, STATE])
@pytest.mark.parametrize(
    "damage", [_cut, _flip, _empty, Path.unlink, _of_another_step, _of_another_training]
)
def test_a_damaged_checkpoint_is_passed_over(
    stopped: Run,
    whole: Run,
    capfd: pytest.CaptureFixture[str],
    name: str,
    damage: Callable[[Path], None],
) -> None:
    """The one before it is used; what remains of the damaged one does no harm."""
    _, newest = checkpoints(stopped)
    damage(newest / name)
    train.execute(stopped)
    said = capfd.readouterr().err.replace("\n", "")
    assert "step-6 is damaged and is passed over" in said
    assert "step-4" not in said
    assert same(stopped, whole)


def test_with_every_checkpoint_damaged_it_starts_anew(
    stopped: Run, whole: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    for folder in checkpoints(stopped):
        _cut(folder / ADAPTER)
    train.execute(stopped)
    assert capfd.readouterr().err.count("is damaged and is passed over") == 2
    assert same(stopped, whole)


def test_a_whole_checkpoint_under_another_steps_name_goes_on_from_its_own_step(
    stopped: Run, whole: Run
) -> None:
    before, newest = checkpoints(stopped)
    shutil.rmtree(newest)
    before.rename(newest)
    train.execute(stopped)
    assert same(stopped, whole)
