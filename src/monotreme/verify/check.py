"""What a check says: ok, failed, or not checked and why."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from monotreme.errors import MonotremeError, RefusedError, RemoteError, StorageError
from monotreme.printable import printable

Status = Literal["ok", "failed", "not checked"]


class Check(NamedTuple):
    """One claim of a released folder, looked at.

    Attributes:
        detail: what was compared and found, or why it could not be.
        found: what speaks against the claim, as plain JSON values.
    """

    name: str
    status: Status
    detail: str
    found: tuple[Any, ...] = ()


def compared(name: str, detail: str, problems: Sequence[str]) -> Check:
    """Ok where nothing speaks against it; else the problems, of which the first is told."""
    if not problems:
        return Check(name, "ok", detail)
    found = tuple(printable(problem) for problem in problems)
    more = f" (and {len(found) - 1:,} more)" if len(found) > 1 else ""
    return Check(name, "failed", f"{found[0]}{more}", found)


def left_open(name: str, why: str) -> Check:
    return Check(name, "not checked", printable(why))


def guarded(name: str, check: Callable[[], Check]) -> Check:
    """What a check says; a file that it cannot read fails it, what is out of reach leaves it open."""
    try:
        return check()
    except StorageError:  # of this machine, not of the folder
        raise
    except (RemoteError, RefusedError) as error:
        return left_open(name, error.problem)
    except MonotremeError as error:
        return compared(name, "", [error.problem])
