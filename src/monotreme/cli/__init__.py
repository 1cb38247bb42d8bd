"""The command line: `app` (what the commands share), `stages` (do), `windows` (look), `answers` (ask)."""

import os
import sys

import typer

from monotreme.cli import answers, stages, windows
from monotreme.cli.app import app
from monotreme.errors import MonotremeError

__all__ = ["answers", "app", "main", "stages", "windows"]


def main() -> None:
    """Entry point: a MonotremeError becomes one line on stderr and its exit status."""
    # Waiting threads sleep: spinning ones take a busy machine's cores from the work they wait for
    # (a training step of the pocket model: 0.1 s alone, 6 s spinning beside another program).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not sys.stderr.isatty():  # other libraries' bars are no use in a log either
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app()
    except MonotremeError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
