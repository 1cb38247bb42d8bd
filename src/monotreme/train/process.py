"""How the process behaves while it trains: it stops between steps, and computes the same bits again."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Give what tells whether the process was told to stop; exit with its signal at the end."""
    received: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        os.write(2, b"stopping after this step; press again to stop at once\n")
        _restore(before)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    try:
        yield lambda: bool(received)
    finally:
        _restore(before)
    if received:
        raise SystemExit(128 + received[0])  # the shell's exit status for a signal


def _restore(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextmanager
def deterministic() -> Iterator[None]:
    """Prefer algorithms that give the same bits each time; they cost next to nothing here."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic  # its one attribute is a property without a type
    fill, memory.fill_uninitialized_memory = memory.fill_uninitialized_memory, False  # only slow
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill
