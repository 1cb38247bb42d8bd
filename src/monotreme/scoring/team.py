"""The processes that score together: which takes which piece, how far all are, who is still there.

They send each other numbers alone, through a store of keys (torch.distributed's; a dictionary, where one
process is all). Rank 0 leads: it says what there is to do, and puts the answers together. Whoever is done
with a piece takes the next, so none waits for a slower one. Nobody waits in a collective: a process that
ends is missed by the signs of life that it gave.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial

from torch.distributed import HashStore, Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from monotreme import ranks
from monotreme.errors import InputError
from monotreme.progress import Advance, progress

ORDER, CLAIMED, DONE = "order", "claimed", "done"
NOTHING = "-"  # an order for followers who are not needed
ALL = 2**40  # pieces: more than there are
LOOK_SECONDS = 0.2
SIGN_SECONDS = 5  # between the signs of life of a follower
PATIENCE_SECONDS = 180  # without one, or before the first: Python and its libraries have to be read


class Team:
    """The processes as one of them sees them.

    Args:
        check: raises where another has failed.
        show: told what all have done since it was told last.
    """

    def __init__(
        self,
        store: Store,
        size: int,
        check: Callable[[], None] = lambda: None,
        show: Advance = lambda _done, _note="": None,
    ) -> None:
        self.size = size
        self._store, self._check, self._show = store, check, show
        self._shown = 0

    def claims(self, num: int) -> Iterator[int]:
        """Of the first `num` numbers those that no other process takes.

        Raises:
            InputError: another has failed.
        """
        while True:
            self._check()
            number = self._store.add(CLAIMED, 1) - 1
            if number >= num:
                return
            yield number

    def advance(self, done: int, note: str = "") -> None:
        """Say how many units were just done here; the leader shows what was done everywhere."""
        total = self._store.add(DONE, done)
        self._show(total - self._shown, note)
        self._shown = total

    # ── the leader ──────────────────────────────────────────────────────────────────────────────

    def publish(self, order: str) -> None:
        """Say to the others what there is to do."""
        self._store.set(ORDER, order)

    def await_others(self) -> None:
        """Return when every other process has ended its share.

        Raises:
            InputError: one has failed.
        """
        others = [_left(rank) for rank in range(1, self.size)]
        while others and not self._store.check(others):
            self._check()
            self.advance(0)
            time.sleep(LOOK_SECONDS)
        self.advance(0)

    # ── a follower ──────────────────────────────────────────────────────────────────────────────

    def await_order(self) -> str | None:
        """What there is to do; None for nothing."""
        while not self._store.check([ORDER]):
            time.sleep(LOOK_SECONDS)
        order = self._store.get(ORDER).decode()
        return None if order == NOTHING else order


def _left(rank: int) -> str:
    return f"left/{rank}"


def _signs(rank: int) -> str:
    return f"signs/{rank}"


# ── making a team ───────────────────────────────────────────────────────────────────────────────


@contextmanager
def leading(num_ranks: int, total: int) -> Iterator[Team]:
    """The team as its leader sees it: started here, or by torchrun or Slurm.

    Args:
        total: units of work of all processes, for the bar.

    Raises:
        InputError: there are fewer GPUs than ranks, or a rank has failed.
    """
    with _meeting(num_ranks) as (store, size, check), progress("scoring", total) as show:
        team = Team(store, size, check, show)
        yield team
        team.await_others()


@contextmanager
def _meeting(num_ranks: int) -> Iterator[tuple[Store, int, Callable[[], None]]]:
    """Where the processes meet, their number, and what raises if one has failed."""
    if ranks.are_given():
        rank, size = ranks.given()
        ranks.take_gpu(rank)
        yield _given_store(), size, Watch(_given_store(), size).check
    elif num_ranks == 1:
        yield HashStore(), 1, lambda: None
    else:
        ranks.check_gpus(num_ranks)
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        with ranks.started(["-m", "monotreme.scoring.follow"], num_ranks, store.port) as followers:
            yield store, num_ranks, partial(_check, followers)


def _check(followers: Sequence[ranks.Follower]) -> None:
    for follower in followers:
        if failure := follower.failure():
            raise failure


class Watch:
    """Looks for signs of life of processes that others started, maybe on other machines."""

    def __init__(self, store: Store, size: int) -> None:
        self._store, self._size = store, size
        self._last = dict.fromkeys(range(1, size), (0, time.monotonic()))

    def check(self) -> None:
        """Raise InputError if a process has long given no sign that it should have given."""
        now = time.monotonic()
        for rank, (before, since) in self._last.items():
            signs = self._store.add(_signs(rank), 0)
            if signs != before:
                self._last[rank] = (signs, now)
            elif now - since > PATIENCE_SECONDS and not self._store.check([_left(rank)]):
                raise InputError(
                    f"rank {rank} of {self._size} has given no sign of life for {now - since:.0f} s",
                    "Look at its machine; what was finished is kept, the same command goes on from there",
                )


@contextmanager
def following() -> Iterator[Team]:
    """The team as a follower sees it."""
    rank, size = ranks.given()
    ranks.take_gpu(rank)
    store, over = _given_store(), threading.Event()

    def live() -> None:
        try:
            while not over.wait(SIGN_SECONDS):
                store.add(_signs(rank), 1)
        except RuntimeError:  # the store is gone, and the leader with it
            os._exit(1)

    store.add(_signs(rank), 1)
    signs = threading.Thread(target=live, daemon=True)
    signs.start()
    try:
        yield Team(store, size)
    finally:
        over.set()
        signs.join()
    store.set(_left(rank), "")


def dismiss() -> None:
    """Leader of processes that torchrun or Slurm started: the others may end, and have when this returns.

    They are not needed, or no longer.
    """
    _, size = ranks.given()
    store = _given_store()
    store.compare_set(ORDER, "", NOTHING)
    store.add(CLAIMED, ALL)
    end = time.monotonic() + PATIENCE_SECONDS
    others = [_left(rank) for rank in range(1, size)]
    while others and not store.check(others) and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)


@cache
def _given_store() -> Store:
    """The store of the environment's MASTER_ADDR and MASTER_PORT; torchrun or rank 0 keeps it."""
    store: Store = next(rendezvous("env://"))[0]
    return store
