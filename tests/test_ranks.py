"""Processes of one command: none outlives the first, none is waited for once it has failed, and what it
said last is told."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from monotreme import ranks
from monotreme.errors import InputError
from monotreme.ranks import Follower, started


@contextmanager
def follower(code: str) -> Iterator[Follower]:
    with started(["-c", code], 2, 0) as (only,):
        yield only


def ended(process: Follower) -> InputError | None:
    process.process.wait(60)
    return process.failure()


def test_a_process_that_fails_is_told_with_its_last_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with follower("import sys; print('one'); sys.exit('two')") as process:
        failure = ended(process)
    assert "rank 1 of 2 ended with status 1: two." in str(failure)
    said = capsys.readouterr().err
    assert said.index("rank 1: one") < said.index("rank 1: two")


def test_a_process_that_is_killed_is_told_by_the_signals_name() -> None:
    with follower("import os; os.kill(os.getpid(), 9)") as process:
        assert "rank 1 of 2 was killed (SIGKILL), and said nothing" in str(ended(process))


def test_a_process_that_has_done_its_work_has_not_failed() -> None:
    with follower("pass") as process:
        assert process.failure() is None
        assert ended(process) is None


def test_each_is_told_who_it_is_and_takes_as_many_threads_as_the_first() -> None:
    """Another number of threads would change sums in their last bits."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
    code = f"import os, sys; sys.exit(' '.join(os.environ[name] for name in {names}))"
    threads = torch.get_num_threads()
    with started(["-c", code], 3, 4567) as both:
        for rank, one in enumerate(both, 1):
            assert f"{rank} {rank} 3 127.0.0.1 4567 {threads}." in str(ended(one))


def test_all_are_gone_when_the_block_ends() -> None:
    with follower("import time; time.sleep(600)") as process:
        assert process.process.poll() is None
    assert process.process.returncode == -signal.SIGKILL


# ── one is gone while another waits ─────────────────────────────────────────────────────────────

LEADER = """
import sys, time
from monotreme.ranks import started, watched
with started(["-c", sys.argv[1]], 2, 0) as followers:
    print(followers[0].process.pid, flush=True)
    with watched(followers):
        time.sleep(600)  # as in a sum over GPUs, from which no exception leads
"""


@contextmanager
def leader(code: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that has started another, which runs the code, and waits; and the other's id."""
    process = subprocess.Popen(
        [sys.executable, "-c", LEADER, code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process, int(process.stdout.readline())
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_who_waits_for_a_process_that_is_gone_ends_with_what_it_said() -> None:
    code = "import sys, time; time.sleep(1); sys.exit('no room')"
    with leader(code) as (process, _):
        _, said = process.communicate(timeout=60)
    assert process.returncode == InputError.exit_code
    assert "error: rank 1 of 2 ended with status 1: no room." in said


def test_who_notices_in_another_way_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(ranks, "LOOK_SECONDS", 0.01)
    with follower("raise SystemExit(1)") as process:
        process.process.wait(60)
        with ranks.watched([process]):
            pass
        time.sleep(0.5)  # still here


def test_no_process_outlives_the_first() -> None:
    """Not even one that was killed and could tell nobody."""
    code = "import time; from monotreme.ranks import end_with_leader; end_with_leader(); print('ready', flush=True); time.sleep(600)"
    with leader(code) as (process, other):
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGKILL)
        end = time.monotonic() + 60
        while _lives(other) and time.monotonic() < end:
            time.sleep(0.1)
        assert not _lives(other)


def _lives(pid: int) -> bool:
    """A process that nobody has fetched the status of is gone all the same."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
