"""Several processes on this machine."""

import os
import shutil
import signal
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, ProcessPoolExecutor
from contextlib import suppress
from functools import cached_property
from multiprocessing import get_context
from multiprocessing.reduction import ForkingPickler  # what processes speak among themselves
from pathlib import Path
from typing import Any

import numpy as np

from monotreme.engine import Died, Engine, M, R, Shared, T, Work
from monotreme.engine.worker import end_with_parent, limit_memory, out_of_memory, perform, received
from monotreme.errors import EngineError

_Call = tuple[int, Work[Any, Any, Any], Callable[[], Any]]  # a number of its own, work, make
AHEAD = 2  # items a worker that wait for it, so that it never waits for one


class _InFile(Shared[T]):
    """A value in a file of the engine's own folder: arrays are mapped, so all workers share them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def value(self) -> T:
        if self.path.suffix == ".npy":
            array: T = np.load(self.path, mmap_mode="r", allow_pickle=False)
            return array
        value: T = ForkingPickler.loads(self.path.read_bytes())
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return _InFile, (self.path,)


class Processes(Engine):
    """A pool of processes, started at the first need and anew when one of them dies.

    Each has its share of the processor's threads.
    """

    def __init__(self, num_workers: int, worker_bytes: int | None) -> None:
        self.num_workers = num_workers
        self._worker_bytes = worker_bytes
        self._pool: ProcessPoolExecutor | None = None
        self._alone: ProcessPoolExecutor | None = None  # one process, for items of a broken pool
        self._folder: Path | None = None
        self._num_shared = 0
        self._num_calls = 0

    def share(self, value: T) -> Shared[T]:
        try:
            return self._filed(value)
        except OSError as error:
            raise EngineError(
                f"what the workers share cannot be written to {self._folder} ({error.strerror})",
                "Make room there, or name a larger folder in TMPDIR; what was finished is kept",
            ) from None

    def _filed(self, value: T) -> Shared[T]:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="monotreme-"))
        self._num_shared += 1
        path = self._folder / str(self._num_shared)
        if isinstance(value, np.ndarray):
            path = path.with_suffix(".npy")
        shared: Shared[T] = _InFile(path)
        weakref.finalize(shared, path.unlink, missing_ok=True)  # who has mapped it, keeps it
        with path.open("w+b") as file:  # "wb" NumPy would go round, and lose why it cannot write
            if isinstance(value, np.ndarray):
                np.save(file, value, allow_pickle=False)
            else:
                file.write(ForkingPickler.dumps(value))
        return shared

    def outcomes(
        self,
        work: Work[M, T, R],
        items: Iterable[T],
        make: Callable[[], M],
        on_gpu: bool = False,  # noqa: ARG002 - each sees what the machine has
    ) -> Iterator[R | Died]:
        self._num_calls += 1
        call = (self._num_calls, work, make)
        waiting: deque[tuple[T, ProcessPoolExecutor, Future[Any]]] = deque()
        try:
            for item in items:
                waiting.append((item, *self._submit(call, item)))
                if len(waiting) > AHEAD * self.num_workers:
                    yield self._outcome(call, *waiting.popleft())
            while waiting:
                yield self._outcome(call, *waiting.popleft())
        finally:
            self._end_alone()

    def _submit(self, call: _Call, item: Any) -> tuple[ProcessPoolExecutor, Future[Any]]:
        if self._pool is None:
            self._pool = self._start(self.num_workers)
        try:
            return self._pool, _submitted(self._pool, call, item)
        except BrokenExecutor:  # one died, and nobody has asked for its result yet
            _end(self._pool)
            self._pool = self._start(self.num_workers)
            return self._pool, _submitted(self._pool, call, item)

    def _outcome(
        self, call: _Call, item: Any, pool: ProcessPoolExecutor, future: Future[Any]
    ) -> Any:
        with suppress(BrokenExecutor, CancelledError):
            return self._result(future)
        if self._pool is pool:
            self._pool = None
        _end(pool)
        if self._alone is None:
            self._alone = self._start(1)  # who died in company may not have been the reason
        try:
            return self._result(_submitted(self._alone, call, item))
        except BrokenExecutor as error:
            self._end_alone()
            return Died(str(error).rstrip(".").lower())

    def _result(self, future: Future[Any]) -> Any:
        try:
            return received(future.result())
        except MemoryError:  # on the way back
            raise out_of_memory(self._worker_bytes) from None

    def _end_alone(self) -> None:
        if self._alone is not None:
            _end(self._alone)
            self._alone = None

    def _start(self, num_workers: int) -> ProcessPoolExecutor:
        threads = max(1, (os.cpu_count() or 1) // num_workers)
        return ProcessPoolExecutor(
            num_workers,
            get_context("spawn"),  # a forked child may hold a lock of a thread it does not have
            initializer=_begin,
            initargs=(threads, self._worker_bytes),
        )

    def close(self) -> None:
        self._end_alone()
        if self._pool is not None:
            _end(self._pool)
            self._pool = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _submitted(pool: ProcessPoolExecutor, call: _Call, item: Any) -> Future[Any]:
    """Pickled here, so that a worker unpickles it where it minds its memory.

    Each time anew: what is sent of a tensor can be received but once.
    """
    return pool.submit(_perform, call[0], bytes(ForkingPickler.dumps((*call[1:], item))))


def _end(pool: ProcessPoolExecutor) -> None:
    """End a pool's processes at once, whatever they do."""
    for process in list((pool._processes or {}).values()):  # 3.14 has kill_workers for this
        process.kill()
    pool.shutdown(cancel_futures=True)


def _begin(threads: int, worker_bytes: int | None) -> None:
    """Make a fresh process a worker; nothing that counts threads is imported yet."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to handle
    limit_memory(worker_bytes)
    threading.Thread(target=end_with_parent, daemon=True).start()


def _perform(task: int, sent: bytes) -> Any:
    return perform(task, lambda: ForkingPickler.loads(sent))
