"""Laws of training together: every question is dealt to one rank; the gradient of two ranks is that of
one but for the order of a sum; the run ends as if there were one; a lost process is one clear error."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import finish, sums
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from monotreme import pipeline, train
from monotreme.errors import InputError
from monotreme.run import Run
from monotreme.train import parallel
from monotreme.train.parallel import deal


@given(st.lists(st.integers(1, 4096), min_size=1, max_size=40), st.integers(1, 9))
def test_every_question_is_dealt_once_and_no_rank_is_overburdened(
    lengths: list[int], size: int
) -> None:
    ranks = deal(lengths, size)
    assert sorted(np.concatenate(ranks).tolist()) == list(range(len(lengths)))
    loads = [sum(lengths[i] for i in mine.tolist()) for mine in ranks]
    # Graham's bound for the longest first: 4/3 − 1/3m times the best, and no best is under these
    best = max(max(lengths), -(-sum(lengths) // size), *([sorted(lengths)[-size] + sorted(lengths)[-size - 1]] if len(lengths) > size else [0]))  # fmt: skip
    assert max(loads) <= (4 / 3) * best + 1


def prepared(make_run: Callable[..., Run], name: str, **more: Any) -> Run:
    run = make_run(train={"dropout": 0.1, "rank": 4, "batch_size": 5, "warmup_steps": 2, **more})
    run = replace(run, folder=run.folder.with_name(name))
    with run.open():
        finish(run, "decontaminate", sums(18))
    return run


def outcome(run: Run) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    lines = (run.folder / "train/log.jsonl").read_text().splitlines()
    weights = load_file(run.folder / "train/adapter/adapter_model.safetensors")
    return weights, [json.loads(line) for line in lines]


def test_two_ranks_train_what_one_trains(make_run: Callable[..., Run]) -> None:
    """In float32, where a sum of five numbers in another order differs in the last bits."""
    one, two = prepared(make_run, "one"), replace(prepared(make_run, "two"), num_gpus=2)
    train.execute(one)
    train.execute(two)
    (weights, lines), (others, other_lines) = outcome(one), outcome(two)
    for ours, theirs in zip(lines, other_lines, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-6)
        assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=1e-5)
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=1e-4, atol=1e-6)
    assert two.record("train")["facts"]["num_ranks"] == 2


def test_more_ranks_than_questions_of_a_step_are_refused(make_run: Callable[..., Run]) -> None:
    run = replace(prepared(make_run, "many"), num_gpus=6)
    with pytest.raises(InputError, match="6 processes for a batch of 5 questions"):
        train.execute(run)


@pytest.mark.slow
def test_torchrun_leads_and_follows_too(make_run: Callable[..., Run], tmp_path: Path) -> None:
    one, two = prepared(make_run, "one"), prepared(make_run, "two")
    train.execute(one)
    finish(two, "curate", sums(18))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tests_follow", str(two.folder)]  # fmt: skip
    script = tmp_path / "tests_follow.py"
    script.write_text(
        "import os, sys\nfrom pathlib import Path\nfrom monotreme import train\n"
        "from monotreme.run import open_run\nrun = open_run(Path(sys.argv[1]))\n"
        "train.follow(run) if os.environ['RANK'] == '1' else train.execute(run)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (weights, _), (others, _) = outcome(one), outcome(two)
    for name, weight in weights.items():
        torch.testing.assert_close(others[name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_lost_follower_is_one_line_and_the_next_run_finishes(
    make_run: Callable[..., Run],
) -> None:
    run = prepared(make_run, "lost", epochs=200)
    code = f"""
import sys
from dataclasses import replace
from pathlib import Path
from monotreme import pipeline, train
from monotreme.errors import InputError
from monotreme.run import open_run
try:
    train.execute(replace(open_run(Path({str(run.folder)!r})), num_gpus=2))
except InputError as error:
    sys.exit(str(error))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    leader = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment)  # fmt: skip
    log = run.folder / "train/log.jsonl"
    end = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") > 3) and time.monotonic() < end:
        time.sleep(0.1)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"monotreme.train.follow" in words and str(run.folder).encode() in words:
            os.kill(int(process.name), signal.SIGKILL)
    _, said = leader.communicate(timeout=120)
    assert leader.returncode == 1
    assert "rank 1 of 2 was killed (SIGKILL)" in said
    assert "Traceback" not in said
    short = replace(prepared(make_run, "lost", epochs=1), force=True)
    train.execute(short)
    assert short.record("train")["facts"]["num_steps"] == 4


def test_a_follower_that_ends_before_it_meets_is_not_waited_for(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = replace(prepared(make_run, "early"), num_gpus=2)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    started = time.monotonic()
    with pytest.raises(InputError, match="rank 1 of 2 ended with status 1, and said nothing"):
        train.execute(run)
    assert time.monotonic() - started < 60


def test_torchrun_of_what_is_up_to_date_ends(
    make_run: Callable[..., Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 has nothing to do and never meets the other."""
    run = prepared(make_run, "done")
    finish(run, "curate", sums(18))
    train.execute(run)
    met: list[Run] = []
    monkeypatch.setattr(train, "follow", lambda run: met.append(run))
    pipeline.follow(run.folder, tmp_path)
    assert not met
    pipeline.follow(run.folder, tmp_path, force=True)
    (run.folder / "train/record.json").unlink()
    pipeline.follow(run.folder, tmp_path)
    assert len(met) == 2


@pytest.mark.slow
def test_ranks_that_are_all_told_to_stop_end_after_the_step(make_run: Callable[..., Run]) -> None:
    """As torchrun tells them, and a terminal's Ctrl-C: nothing of the steps done is lost."""
    run = prepared(make_run, "stopped", epochs=500)
    with run.open():
        pass
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom monotreme import train\n"
        "from monotreme.run import open_run\nrun = open_run(Path(sys.argv[1]))\n"
        "train.follow(run) if os.environ['RANK'] == '1' else train.execute(run)\n"
    )
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(parallel._free_port())}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(run.folder)],
            env={**os.environ, **place, "RANK": str(rank), "WORLD_SIZE": "2"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    log = run.folder / "train/log.jsonl"
    end = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") > 3) and time.monotonic() < end:
        time.sleep(0.1)
    for rank in ranks[::-1]:
        rank.send_signal(signal.SIGTERM)
    said = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [128 + signal.SIGTERM] * 2, said
    (checkpoint,) = (run.folder / "train/checkpoints").glob("step-*")
    assert int(checkpoint.name[5:]) == log.read_text().count("\n")
