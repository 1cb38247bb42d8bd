"""Where pure functions run: in this process, in several, or on a Ray cluster.

An engine calls `work(made, item)` for each item and gives the results in the items' order, so that
what comes out is a function of the items, not of how many workers there are or which of them did
what. `make()` is called once in each worker, before its first item: there a model is loaded, or the
side that every item is compared with made ready.

A worker that dies takes nothing with it: what it was doing is done again. An item that kills its
worker every time is named (`Died`), and `sift` finds the one row of it that does.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from monotreme.errors import EngineError, UsageError

# of a worker's memory: torch, the built-in encoder and a batch of texts
LEAST_BYTES = 1_000_000_000
M = TypeVar("M")
T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[M, T], R]


@dataclass(frozen=True)
class Died:
    """In place of a result: the worker died of the item, each time that it was tried."""

    how: str


class Shared(ABC, Generic[T]):
    """A value that every worker can have; arrays are mapped, not copied, where that is possible."""

    @property
    @abstractmethod
    def value(self) -> T: ...


@dataclass(frozen=True)
class _Here(Shared[T]):
    """A value in this process."""

    given: T

    @property
    def value(self) -> T:
        return self.given


@dataclass(frozen=True)
class Given(Generic[T]):
    """A `make` that gives what is there already."""

    value: T

    def __call__(self) -> T:
        return self.value


class Engine(ABC):
    """Runs functions of module level, whose arguments and results can be pickled.

    One call of `map` must have ended before the next begins.

    Attributes:
        num_workers: items that are worked on at one time.
    """

    num_workers: int

    @abstractmethod
    def share(self, value: T) -> Shared[T]:
        """Make a value ready to be given to all workers, as part of `make`."""

    @abstractmethod
    def outcomes(
        self, work: Work[M, T, R], items: Iterable[T], make: Callable[[], M], on_gpu: bool = False
    ) -> Iterator[R | Died]:
        """As `map`, but an item that kills its worker has `Died` in place of its result."""

    def map(
        self, work: Work[M, T, R], items: Iterable[T], make: Callable[[], M], on_gpu: bool = False
    ) -> Iterator[R]:
        """`work(made, item)` of each item, in the items' order; never more than a few at once.

        Args:
            make: gives each worker what its work needs beside the item.
            on_gpu: give each worker a GPU, where the engine has some.

        Raises:
            EngineError: an item kills every worker that tries it, or needs more memory than it may.
            MonotremeError: as `work` raises it.
        """
        for place, outcome in enumerate(self.outcomes(work, items, make, on_gpu)):
            if isinstance(outcome, Died):
                raise EngineError(
                    f"part {place + 1} of this step kills every worker that tries it ({outcome.how})",
                    "Look for a row that is broken or very large in the data",
                )
            yield outcome

    def sift(
        self,
        work: Work[M, Sequence[T], R],
        items: Iterable[Sequence[T]],
        make: Callable[[], M],
        on_gpu: bool = False,
    ) -> Iterator[tuple[Sequence[T], R | Died]]:
        """As `map` over sequences of rows, each beside its result; a killing one is cut in two.

        So every row is in just one of what is given, and a row that kills its worker stands alone
        beside its `Died`. The parts of a sequence that was cut come last.

        Raises:
            EngineError: workers die although they are given no row.
        """
        given: deque[Sequence[T]] = deque()
        control: Sequence[T] | None = None

        def passing(parts: Iterable[Sequence[T]]) -> Iterator[Sequence[T]]:
            for part in parts:
                given.append(part)
                yield part

        while True:
            died: list[tuple[Sequence[T], Died]] = []
            for outcome in self.outcomes(work, passing(items), make, on_gpu):
                part = given.popleft()
                if isinstance(outcome, Died):
                    died.append((part, outcome))
                else:
                    yield part, outcome
            if not died:
                return
            if control is None:
                control = died[0][0][:0]
                self._check_rows_are_to_blame(work, control, make, on_gpu)
            yield from ((part, outcome) for part, outcome in died if len(part) == 1)
            items = [half for part, _ in died if len(part) > 1 for half in _halves(part)]

    def _check_rows_are_to_blame(
        self, work: Work[M, T, R], nothing: T, make: Callable[[], M], on_gpu: bool
    ) -> None:
        for outcome in self.outcomes(work, [nothing], make, on_gpu):
            if isinstance(outcome, Died):
                raise EngineError(
                    f"workers die before they are given a row ({outcome.how})",
                    "See whether the machine has the memory for them; give --workers fewer, or "
                    "--worker-memory more",
                )

    def close(self) -> None:
        """End the workers."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _halves(part: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    middle = len(part) // 2
    return part[:middle], part[middle:]


class InProcess(Engine):
    """No engine: one item after the other, in this very process, with all its threads."""

    num_workers = 1

    def share(self, value: T) -> Shared[T]:
        return _Here(value)

    def outcomes(
        self,
        work: Work[M, T, R],
        items: Iterable[T],
        make: Callable[[], M],
        on_gpu: bool = False,  # noqa: ARG002 - this process has what it has
    ) -> Iterator[R | Died]:
        made = make()
        for item in items:
            yield work(made, item)


HERE = InProcess()


def open_engine(name: str, num_workers: int | None, worker_bytes: int | None) -> Engine:
    """An engine by its name.

    Args:
        name: "local", "ray" (the cluster of this environment, else one on this machine) or
            "ray:ADDRESS".
        num_workers: None is one for "local", as many as the cluster has processors for "ray".
        worker_bytes: the most memory of its own that a worker may take; None is no limit.

    Raises:
        UsageError: there is no such engine.
        EngineError: it is not installed, or cannot be reached.
    """
    if worker_bytes is not None and worker_bytes < LEAST_BYTES:
        raise EngineError(
            f"a worker may take {worker_bytes:,} bytes, and needs {LEAST_BYTES:,} to start",
            "Give --worker-memory more",
        )
    kind, _, address = name.partition(":")
    if kind == "ray":
        from monotreme.engine.cluster import OnRay

        return OnRay(address or None, num_workers, worker_bytes)
    if name != "local":
        raise UsageError(f"there is no engine {name!r}", "Known are local, ray and ray:ADDRESS")
    if (num_workers or 1) == 1 and worker_bytes is None:
        return HERE
    from monotreme.engine.processes import Processes

    return Processes(num_workers or 1, worker_bytes)
