"""A process and all that it starts, watched from outside: memory and processor time by moment."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

TICK = os.sysconf("SC_CLK_TCK")


class Watched(NamedTuple):
    """What a process said last, and (S,) samples of it and its descendants.

    Attributes:
        at: seconds of the machine's monotonic clock.
        memory: bytes in all: proportional set sizes, so what several map counts once.
        own: those of them that are not pages of files, which the system may take back.
        others: processor seconds of the descendants so far.
    """

    said: dict[str, Any]
    at: np.ndarray
    memory: np.ndarray
    own: np.ndarray
    others: np.ndarray


def watch(command: list[str], env: dict[str, str] | None = None) -> Watched:
    """Run a command that ends with a line of JSON; a failure ends this process too."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=env)
        samples = list(_samples(process))
        out.seek(0)
        err.seek(0)
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{err.read()[-3_000:]}")
        said = json.loads(out.read().splitlines()[-1])
    return Watched(said, *np.array(samples).T)


def _samples(process: subprocess.Popen[str]) -> Iterator[tuple[float, int, int, float]]:
    spent: dict[int, float] = {}  # of descendants, also of those that have ended
    while process.poll() is None:
        at = time.monotonic()
        memory = own = 0
        for pid in _family(process.pid):
            with suppress(OSError):  # it may end while it is looked at
                sizes = _sizes(pid)
                memory, own = memory + sizes["Pss"], own + sizes["Pss"] - sizes["Pss_File"]
                if pid != process.pid:
                    spent[pid] = sum(map(int, _stat(pid)[11:13])) / TICK
        yield at, memory, own, sum(spent.values())
        time.sleep(max(0.05, 9 * (time.monotonic() - at)))  # a tenth of one processor at most


def _family(root: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                parents[int(entry.name)] = int(_stat(int(entry.name))[1])
    found = [root]
    for pid in found:  # grows while it is read
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _stat(pid: int) -> list[str]:
    """Fields after the name, which may hold spaces: state, parent, …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _sizes(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}
