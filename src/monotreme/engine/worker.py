"""What happens inside a worker, whatever engine started it."""

import os
import resource
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler  # as errors of workers travel
from typing import Any

from monotreme.errors import EngineError, MonotremeError

# How libraries say it: torch, the system (as torch and the dynamic linker pass it on), C++, threads.
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "out of memory",
    "not enough memory",
    "cannot allocate memory",
    "bad_alloc",
    "can't start new thread",
    "could not create a memory object",
)
LONGEST_TEXT = 300  # characters of an error's text
_made: tuple[object, Any] = (None, None)  # of which task, what its `make` gave


@dataclass(frozen=True)
class Raised:
    """An error on its way to whoever asked for the work: not every transport keeps its class."""

    error: MonotremeError


def limit_memory(num_bytes: int | None) -> None:
    """Let this process have so much memory of its own; what it maps from files is not counted."""
    if num_bytes is not None:
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (num_bytes, most))


def perform(
    task: object, read: Callable[[], tuple[Callable[[Any, Any], Any], Callable[[], Any], Any]]
) -> Any:
    """`work(made, item)`, with `make()` called at a task's first item; or what it `Raised`.

    Args:
        task: equal for items that share what is made.
        read: gives work, make and item.
    """
    global _made
    try:
        work, make, item = read()
        if _made[0] != task:
            _made = (None, None)  # what the last task needed goes before this one's comes
            _made = (task, make())
        return work(_made[1], item)
    except MonotremeError as error:
        return Raised(error if _can_travel(error) else _failed(error))
    except Exception as error:
        if _tells_of_memory(error):
            return Raised(out_of_memory(_limit()))
        if _can_travel(error):
            raise
        return Raised(_failed(error))


def received(outcome: Any) -> Any:
    """What `perform` gave, with its error raised here."""
    if isinstance(outcome, Raised):
        raise outcome.error
    return outcome


def out_of_memory(limit: int | None) -> EngineError:
    """The error for a worker that would need more memory than it may have."""
    allowed = f"its {limit:,} bytes of" if limit else "the machine's"
    return EngineError(
        f"a worker needs more than {allowed} memory",
        "Give --worker-memory more or --workers fewer, then the same command; "
        "what was finished is kept",
    )


def _failed(error: Exception) -> EngineError:
    """In place of an error that the first process could not be given."""
    says = " ".join(str(error).split())
    return EngineError(
        f"a worker failed with {type(error).__name__}: {says[:LONGEST_TEXT].rstrip('.')}",
        "Give the same command without --workers and --engine to see where; "
        "what was finished is kept",
    )


def _can_travel(error: Exception) -> bool:
    """Whether it comes out of a pipe as it went in; some classes cannot be made of their text alone."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:
        return False
    return True


def _tells_of_memory(error: Exception) -> bool:
    says = str(error).lower()
    return isinstance(error, MemoryError) or any(words in says for words in _OUT_OF_MEMORY)


def _limit() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return None if soft == resource.RLIM_INFINITY else soft


def end_with_parent() -> None:
    """Wait for the process that started this one, and end when it does: kill -9 leaves no orphans."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        with suppress(OSError):
            parent.join()
        os._exit(1)
