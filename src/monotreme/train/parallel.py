"""Several processes on one step: the leader deals out its questions, sums the gradients, updates.

Rank 0 leads: it alone has the optimizer, the log and the checkpoints. A follower is told each step and
the adapter's weights, and gives the gradient of its questions; the frozen base is on every rank. Masks
and weights of a question do not depend on who computes it, so the number of ranks changes a sum's
order and nothing else.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from select import select

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from monotreme import ranks
from monotreme.errors import InputError
from monotreme.ranks import Follower

Indices = NDArray[np.int64]
STOP, VALIDATE = -1, -2  # what a leader may announce instead of a step
PATIENCE_SECONDS = 30  # for a follower to end by itself
NOTICE_SECONDS = 3  # between a broken connection and the end of who broke it


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
    if ranks.are_given():
        with _joined(*ranks.given(), "env://") as team:
            yield team
        return
    if num_ranks == 1:
        yield Team()
        return
    ranks.check_gpus(num_ranks)
    port, (ready, told) = _free_port(), os.pipe()
    follow = ["-m", "monotreme.train.follow", str(folder)]
    with ranks.started(follow, num_ranks, port, told) as followers:
        os.close(told)
        _await_all(ready, followers)
        try:
            with (
                ranks.watched(followers),
                _joined(0, num_ranks, f"tcp://127.0.0.1:{port}") as team,
            ):
                yield team
        except RuntimeError as error:  # of a collective, which says nothing of who is gone
            if failure := _failure(followers):
                raise failure from error
            raise
        for follower in followers:
            with suppress(subprocess.TimeoutExpired):
                follower.process.wait(PATIENCE_SECONDS)


def _failure(followers: Sequence[Follower]) -> InputError | None:
    """What the first follower that failed is to be told as; None if none does so shortly."""
    end = time.monotonic() + NOTICE_SECONDS
    while time.monotonic() < end:
        for follower in followers:
            if failure := follower.failure():
                return failure
        time.sleep(0.1)
    return None


def _await_all(ready: int, followers: Sequence[Follower]) -> None:
    """Return when every follower is ready to meet; waiting for one that has ended would be for long.

    Args:
        ready: the end of a pipe to read, on which each writes a byte when it is ready.

    Raises:
        InputError: one has ended before.
    """
    waiting, came = len(followers), b"!"
    with open(ready, "rb", buffering=0) as pipe:
        while waiting and came and not any(follower.process.poll() for follower in followers):
            if select([pipe], [], [], 1)[0]:
                came = pipe.read(waiting)  # nothing, once none is left who could tell
                waiting -= len(came)
    if waiting:
        raise _failure(followers) or InputError(
            "a process of the training ended before it began", "Give the same command again"
        )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def _joined(rank: int, size: int, address: str) -> Iterator[Team]:
    ranks.take_gpu(rank)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, address, rank=rank, world_size=size)
    try:
        yield Team(rank, size)
    finally:
        dist.destroy_process_group()


@contextmanager
def following(told: int | None) -> Iterator[Team]:
    """The team as a follower that `leading` or torchrun has started sees it.

    Args:
        told: the end of a pipe that `leading` waits at for a byte.
    """
    if told is not None:
        os.write(told, b"!")
        os.close(told)
    with _joined(*ranks.given(), "env://") as team:
        yield team
