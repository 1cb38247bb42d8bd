"""Processes that do one command together: which of them this is, and starting others beside it.

torchrun and Slurm start all of them and say in the environment which is which; with `--gpus` the first
starts the others on this machine and tells them in the same words, torch.distributed's: RANK of
WORLD_SIZE, LOCAL_RANK on its machine, and MASTER_ADDR and MASTER_PORT, where they meet.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO

import torch

from monotreme.errors import InputError
from monotreme.progress import notice

LAST_LINES = 12  # of what an ended process said: a traceback's end
ANSWER_SECONDS = (
    10  # for an end to be noticed where it is waited for, before this process ends, too
)
LOOK_SECONDS = 1


def are_given() -> bool:
    """Whether torchrun or Slurm started this process beside others."""
    return "WORLD_SIZE" in os.environ


def given() -> tuple[int, int]:
    """Rank and number of the processes that torchrun, Slurm or the first process started."""
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def check_gpus(num_ranks: int) -> None:
    """Raise InputError where there are GPUs, and fewer of them than processes on this machine."""
    if torch.cuda.is_available() and torch.cuda.device_count() < num_ranks:
        raise InputError(
            f"--gpus {num_ranks}: this machine has {torch.cuda.device_count()}", "Ask for fewer"
        )


def take_gpu(rank: int) -> None:
    """Make the GPU of this rank the one that is meant by `cuda`."""
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)))


# ── started here ────────────────────────────────────────────────────────────────────────────────


@dataclass
class Follower:
    """A process that the first one started.

    Attributes:
        said: what it writes, which is told if it fails.
    """

    rank: int
    size: int
    process: subprocess.Popen[bytes]
    said: IO[bytes] = field(repr=False)

    def failure(self) -> InputError | None:
        """What to say of a process that has failed; its last lines are told at once."""
        status = self.process.poll()
        if not status:
            return None
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").splitlines()[-LAST_LINES:]
        for line in lines:
            notice(f"rank {self.rank}: {line}")
        how = f"ended with status {status}"
        if status < 0:
            how = f"was killed ({signal.Signals(-status).name})"
        last = f": {lines[-1]}" if lines else ", and said nothing"
        return InputError(
            f"rank {self.rank} of {self.size} {how}{last}",
            "What was finished is kept; the same command goes on from there",
        )


@contextmanager
def started(
    arguments: Sequence[str], num_ranks: int, port: int, told: int | None = None
) -> Iterator[list[Follower]]:
    """Start all ranks but the first as Python with these arguments; they end with the block.

    Each is in a session of its own, so that Ctrl-C is for the first alone.

    Args:
        port: of this machine, where they meet.
        told: a file descriptor that they inherit, its number after their arguments.
    """
    inherited = () if told is None else (told,)
    followers: list[Follower] = []
    try:
        for rank in range(1, num_ranks):
            said = TemporaryFile()  # noqa: SIM115 - closed below, when the process has ended
            process = subprocess.Popen(
                [sys.executable, *arguments, *map(str, inherited)],
                env=_environment(rank, num_ranks, port),
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=said,
                start_new_session=True,
                pass_fds=inherited,
            )
            followers.append(Follower(rank, num_ranks, process, said))
        yield followers
    finally:
        for follower in followers:
            follower.process.kill()
            with follower.process, follower.said:
                pass


def _environment(rank: int, size: int, port: int) -> Mapping[str, str]:
    """The number of threads stays the first one's: another would change sums in their last bits."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    threads = {"OMP_NUM_THREADS": torch.get_num_threads(), "MASTER_ADDR": "127.0.0.1"}
    return {**os.environ, **{key: str(value) for key, value in (place | threads).items()}}


def end_with_leader() -> None:
    """In a process that `started` has started: end as soon as the first one is gone.

    Its end closes this one's standard input, whatever ended it.
    """

    def watch() -> None:
        os.read(0, 1)  # not by way of sys.stdin, whose lock an orderly end would wait for
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def watched(followers: Sequence[Follower]) -> Iterator[None]:
    """Inside, end this process soon after one of the others has failed.

    A sum over GPUs waits ten minutes for a rank that is gone, deep in a call that no exception
    reaches. Where the failure is noticed in another way, nothing is done here.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            if any(follower.process.poll() for follower in followers):
                break
        if not over.wait(ANSWER_SECONDS):
            _give_up(followers)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _give_up(followers: Sequence[Follower]) -> None:
    failure = next(filter(None, (follower.failure() for follower in followers)))
    notice(f"error: {failure}")
    for follower in followers:
        follower.process.kill()
    os._exit(failure.exit_code)
