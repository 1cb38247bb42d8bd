"""Progress bars with rate and time left on a terminal; nothing when the output goes elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

console = Console(stderr=True)


def notice(text: str) -> None:
    """Tell the user one line on stderr."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed or 0
        return Text(f"{1 / speed:.1f} s each" if 0 < speed < 1 else f"{speed:,.0f}/s")


class Advance(Protocol):
    def __call__(self, done: int, note: str = "") -> None:
        """Say how many units were just done, and what is worth seeing beside the bar."""


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Advance]:
    """Show a bar for `total` units of work; call what is given with the units just done.

    Args:
        total: None where nobody knows before the end.
    """
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(),
    )  # fmt: skip
    quiet = not sys.stderr.isatty() or console.quiet
    with Progress(*columns, console=console, disable=quiet, transient=True) as bars:
        task = bars.add_task(what, total=total)

        def advance(done: int, note: str = "") -> None:
            bars.update(task, advance=done, description=f"{what} {note}".rstrip())

        yield advance
