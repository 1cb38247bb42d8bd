"""A Ray cluster: the same items to actors on many machines (Ray's core alone).

What items need and give travels through Ray's object store, so that the machines share nothing but
the program; files stay with the first process.
"""

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from monotreme.engine import Died, Engine, M, R, Shared, T, Work
from monotreme.engine.worker import limit_memory, out_of_memory, perform, received
from monotreme.errors import EngineError

AHEAD = 4  # results a worker that wait until those before them are there
TRIES = 3  # of an item whose worker dies: two machines may go, the third death is the item's own
START_SECONDS = 300  # until some worker is up: a cluster that grows at need takes minutes for it


class _Put(Shared[T]):
    """A value in Ray's object store: each machine gets it once, for all its workers."""

    def __init__(self, ref: Any) -> None:
        self.ref = ref

    @cached_property
    def value(self) -> T:
        import ray

        value: T = ray.get(self.ref)
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return _Put, (self.ref,)


@dataclass
class _Job:
    """An item under way."""

    place: int
    item: Any
    deaths: int = 0

    def died(self) -> int:
        """Count a worker's death of it; gives how many that were."""
        self.deaths += 1
        return self.deaths


class OnRay(Engine):
    """Actors on a Ray cluster, one a processor, or a GPU each for work that wants one."""

    def __init__(
        self, address: str | None, num_workers: int | None, worker_bytes: int | None
    ) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        address = address or os.environ.get("RAY_ADDRESS")
        if not address:  # listen on loopback; read at import, and not only on Windows and OSX
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        try:
            import ray
        except ImportError:
            raise EngineError(
                "engine ray is not installed", "pip install 'monotreme[ray]'"
            ) from None
        self._ray: Any = ray
        self._began = not ray.is_initialized()
        if self._began:
            _connect(address, num_workers)
        has = self._ray.available_resources()  # what others' work leaves free
        self.num_workers = num_workers or max(1, int(has.get("CPU", 1)))
        self._num_gpus = int(has.get("GPU", 0))
        self._worker_bytes = worker_bytes
        self._actors: dict[bool, list[Any]] = {}
        self._failed_starts = 0

    def share(self, value: T) -> Shared[T]:
        return _Put(self._ray.put(value))

    def outcomes(
        self, work: Work[M, T, R], items: Iterable[T], make: Callable[[], M], on_gpu: bool = False
    ) -> Iterator[R | Died]:
        on_gpu = on_gpu and self._num_gpus > 0
        workers = self._workers(on_gpu)
        coming_up = {worker.is_up.remote(): worker for worker in workers}
        call = self._ray.put((work, make))
        coming = (_Job(place, item) for place, item in enumerate(items))
        again: deque[_Job] = deque()
        idle: list[Any] = []
        busy: dict[Any, tuple[_Job, Any]] = {}
        done: dict[int, Any] = {}
        given = 0
        while True:
            while idle and (again or len(busy) + len(done) < AHEAD * len(workers)):
                job = again.popleft() if again else next(coming, None)
                if job is None:
                    break
                worker = idle.pop()
                busy[worker.perform.remote(call.hex(), call, job.item)] = (job, worker)
            if idle and not busy:
                return
            ref = self._first(list(busy), list(coming_up))
            alive, outcome = self._outcome(ref)
            job, worker = busy.pop(ref, None) or (None, coming_up.pop(ref))
            if alive:
                idle.append(worker)
            else:
                fresh = self._replace(worker, on_gpu)
                coming_up[fresh.is_up.remote()] = fresh
            if job is None:
                self._count_start(alive, outcome)
            elif alive or job.died() == TRIES:
                done[job.place] = outcome if alive else Died(outcome)
            else:
                again.append(job)
            while given in done:
                yield done.pop(given)
                given += 1

    def _first(self, busy: list[Any], coming_up: list[Any]) -> Any:
        """The one that is ready first.

        A worker comes up when the cluster has a processor for it, which may be never, as after the
        loss of a machine; that is no matter while others work.
        """
        patience = None if busy else START_SECONDS
        ready, _ = self._ray.wait([*busy, *coming_up], num_returns=1, timeout=patience)
        if not ready:
            raise EngineError(
                f"no worker came up within {patience} s on the Ray cluster",
                "See with `ray status` what it has free and who else works there, then give the "
                "same command; what was finished is kept",
            )
        return ready[0]

    def _count_start(self, alive: bool, how: Any) -> None:
        """A machine may go while a worker comes up there; where none ever does, something else is wrong."""
        self._failed_starts = 0 if alive else self._failed_starts + 1
        if self._failed_starts == TRIES:
            raise EngineError(
                f"a worker cannot start on the Ray cluster ({how})",
                "Install the same monotreme, Python and Ray on each of its machines",
            )

    def _outcome(self, ref: Any) -> tuple[bool, Any]:
        """(True, result), or (False, why the worker or its machine is no more)."""
        lost = self._ray.exceptions
        try:
            return True, received(self._ray.get(ref))
        except lost.OutOfMemoryError:
            raise out_of_memory(None) from None
        except (lost.RayActorError, lost.WorkerCrashedError, lost.ObjectLostError) as error:
            return False, " ".join(str(error).split())[:200].rstrip(".")

    def _workers(self, on_gpu: bool) -> list[Any]:
        if on_gpu not in self._actors:
            num = self._num_gpus if on_gpu else self.num_workers
            self._actors[on_gpu] = [self._worker(on_gpu) for _ in range(num)]
        return list(self._actors[on_gpu])

    def _worker(self, on_gpu: bool) -> Any:
        needs = {"num_cpus": int(not on_gpu), "num_gpus": int(on_gpu)}
        return self._ray.remote(max_restarts=0, **needs)(_Worker).remote(self._worker_bytes)

    def _replace(self, actor: Any, on_gpu: bool) -> Any:
        self._ray.kill(actor)
        actors = self._actors[on_gpu]
        actors[actors.index(actor)] = fresh = self._worker(on_gpu)
        return fresh

    def close(self) -> None:
        for actor in (each for actors in self._actors.values() for each in actors):
            self._ray.kill(actor)
        self._actors = {}
        if self._began:
            self._ray.shutdown()


def _checked(failed: int, num_workers: int, why: str) -> int:
    """Workers that ended before they ran, one after the other.

    Raises:
        EngineError: they are too many to be an accident.
    """
    if failed > TRIES * num_workers:
        raise EngineError(f"no worker can be started ({why})", "Look at the cluster's machines")
    return failed


def _connect(address: str | None, num_workers: int | None) -> None:
    """Join the cluster of this address; without one, start one here that nobody else can reach."""
    import ray

    # "local", as else Ray joins what was started here last, dead or not
    here = {"address": "local", "num_cpus": num_workers}
    own = {"address": address} if address else here
    try:
        if address and ":" in address:  # Ray itself would try for minutes
            host, _, port = address.removeprefix("ray://").rpartition(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(**own, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"the Ray cluster at {address}" if address else "Ray on this machine"
        says = " ".join(str(error).split())[:200]
        raise EngineError(
            f"{where} cannot be used ({says})", "Start it with `ray start`, or correct the address"
        ) from None


class _Worker:
    """An actor: a process somewhere that does items."""

    def __init__(self, worker_bytes: int | None) -> None:
        limit_memory(worker_bytes)

    def is_up(self) -> None:
        """Answers as soon as what was asked before is done."""

    def perform(self, task: str, call: Any, item: Any) -> Any:
        return perform(task, lambda: (*call, item))
