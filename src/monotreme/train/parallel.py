"""Several processes on one step: the leader deals out its questions, sums the gradients, updates.

Rank 0 leads: it alone has the optimizer, the log and the checkpoints. A follower is told each step and
the adapter's weights, and gives the gradient of its questions; the frozen base is on every rank. Masks
and weights of a question do not depend on who computes it, so the number of ranks changes a sum's
order and nothing else.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from select import select

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from monotreme.errors import InputError, MonotremeError

Indices = NDArray[np.int64]
STOP, VALIDATE = -1, -2  # what a leader may announce instead of a step
PATIENCE_SECONDS = 30  # for a follower to end by itself


class Team:
    """The ranks of a training; of one rank, where nothing has to be sent.

    Attributes:
        shares_base: whether each rank holds a part of the base alone (sharding.py). Then all ranks do
            the same number of passes.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size, self.shares_base = rank, size, False

    def share(self, lengths_Q: Sequence[int]) -> Indices:
        """Which questions of a step are this rank's, by their place in it."""
        return deal(lengths_Q, self.size)[self.rank]

    def announce(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Leader: the next step, or VALIDATE, with the adapter as it is now."""
        if self.size > 1:
            dist.broadcast(self._number(step, weights), 0)
            for weight in weights.values():
                dist.broadcast(weight.detach(), 0)

    def await_step(self, weights: Mapping[str, Tensor]) -> int:
        """Follower: what the leader announces, its weights taken over; STOP at the end."""
        number = self._number(0, weights)
        dist.broadcast(number, 0)
        step = int(number.item())
        if step != STOP:
            for weight in weights.values():
                dist.broadcast(weight.detach(), 0)
        return step

    def stop(self, weights: Mapping[str, Tensor]) -> None:
        """Leader: there is no further step."""
        if self.size > 1:
            dist.broadcast(self._number(STOP, weights), 0)

    def add_up(self, weights: Mapping[str, nn.Parameter], shares_Q: Tensor) -> Tensor:
        """Sum gradients and shares of the loss at the leader; returns the shares there.

        Args:
            shares_Q: of all questions of the step, 0 for those of other ranks.
        """
        if self.size > 1:
            for weight in weights.values():
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
                dist.reduce(weight.grad, 0)
        return self.total(shares_Q)

    def total(self, value: Tensor) -> Tensor:
        """Sum of all ranks' values, at the leader."""
        if self.size > 1:
            dist.reduce(value, 0)
        return value

    def any(self, mine: bool, device: torch.device) -> bool:
        """Whether a rank says so; every rank is told."""
        said = torch.tensor(int(mine), device=device)
        if self.size > 1:
            dist.all_reduce(said, dist.ReduceOp.MAX)
        return bool(said.item())

    @staticmethod
    def _number(value: int, weights: Mapping[str, Tensor]) -> Tensor:
        return torch.tensor(value, device=next(iter(weights.values())).device)


def deal(lengths_Q: Sequence[int], size: int) -> list[Indices]:
    """Places of the questions by rank, the longest first to whom has least (R. L. Graham, 1969)."""
    tokens, places = [0] * size, [[] for _ in range(size)]  # type: tuple[list[int], list[list[int]]]
    for place in np.argsort(-np.asarray(lengths_Q), kind="stable").tolist():
        rank = tokens.index(min(tokens))
        tokens[rank] += int(lengths_Q[place])
        places[rank].append(place)
    return [np.array(sorted(mine), np.int64) for mine in places]


def check_size(num_ranks: int, batch_size: int) -> None:
    """Raise InputError if a step has fewer questions than there are ranks, asked for or torchrun's."""
    size = int(os.environ.get("WORLD_SIZE", num_ranks))
    if size > batch_size:
        raise InputError(
            f"{size} processes for a batch of {batch_size} questions leave {size - batch_size} idle",
            f"Ask for at most {batch_size}, or raise train.batch_size",
        )


# ── making a team ───────────────────────────────────────────────────────────────────────────────


@contextmanager
def leading(num_ranks: int, folder: Path) -> Iterator[Team]:
    """The team of a training in a run's folder, started here or by torchrun.

    Raises:
        InputError: there are fewer GPUs than ranks, or a rank has ended early.
    """
    if "WORLD_SIZE" in os.environ:
        with _joined(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "env://") as team:
            yield team
        return
    if num_ranks == 1:
        yield Team()
        return
    if torch.cuda.is_available() and torch.cuda.device_count() < num_ranks:
        raise InputError(
            f"--gpus {num_ranks}: this machine has {torch.cuda.device_count()}", "Ask for fewer"
        )
    address = f"tcp://127.0.0.1:{_free_port()}"
    ready, told = os.pipe()
    followers = [_start(rank, num_ranks, address, folder, told) for rank in range(1, num_ranks)]
    os.close(told)
    try:
        _await_all(ready, followers)
        with _joined(0, num_ranks, address) as team:
            yield team
    except MonotremeError:
        for follower in followers:
            follower.kill()  # they wait for what will not come
        raise
    except RuntimeError as error:
        ended = [f for f in followers if f.poll() not in (None, 0)]
        if not ended:
            raise
        problem = f"{len(ended)} of {num_ranks} processes of the training ended ({error})"
        raise InputError(problem.split("\n")[0], "Look at what they said above") from error
    finally:
        for follower in followers:
            _end(follower)


def _start(rank: int, size: int, address: str, folder: Path, told: int) -> subprocess.Popen[bytes]:
    """A follower in a session of its own: Ctrl-C is for the leader, which tells it to stop.

    Args:
        told: the end of a pipe that it writes a byte to when it is ready to meet.
    """
    command = [sys.executable, "-m", "monotreme.train.follow", str(folder), address]
    environment = {**os.environ, "MONOTREME_RANK": f"{rank}/{size}", "MONOTREME_READY": str(told)}
    return subprocess.Popen(command, env=environment, start_new_session=True, pass_fds=[told])


def _await_all(ready: int, followers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Return when every follower is ready to meet; waiting for one that has ended would be for long.

    Raises:
        InputError: one has ended before.
    """
    waiting, came = len(followers), b"!"
    with open(ready, "rb", buffering=0) as pipe:
        while waiting and came and not any(f.poll() for f in followers):
            if select([pipe], [], [], 1)[0]:
                came = pipe.read(waiting)  # nothing, once none is left who could tell
                waiting -= len(came)
    if waiting:
        raise InputError(
            "a process of the training ended before it began", "Look at what it said above"
        )


def _end(follower: subprocess.Popen[bytes]) -> None:
    try:
        follower.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        follower.kill()
        follower.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def _joined(rank: int, size: int, address: str) -> Iterator[Team]:
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)))
    dist.init_process_group("nccl" if cuda else "gloo", address, rank=rank, world_size=size)
    try:
        yield Team(rank, size)
    finally:
        dist.destroy_process_group()


@contextmanager
def following(address: str) -> Iterator[Team]:
    """The team as a follower that `leading` or torchrun has started sees it."""
    given = os.environ.get("MONOTREME_RANK") or f"{os.environ['RANK']}/{os.environ['WORLD_SIZE']}"
    rank, _, size = given.partition("/")
    if "MONOTREME_READY" in os.environ:
        os.write(told := int(os.environ["MONOTREME_READY"]), b"!")
        os.close(told)
    with _joined(int(rank), int(size), address) as team:
        yield team
