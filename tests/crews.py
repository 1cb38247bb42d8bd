"""Commands with workers, as tests start them, watch them and hurt them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pyarrow.parquet as pq
import yaml

from monotreme.cli import app

HERE = Path(__file__).parent
SOURCE = Path(sys.modules["monotreme"].__file__ or "").parents[1]
POCKET = SOURCE / "monotreme" / "pocket"
SUBJECTS = ("science", "arithmetic", "logic")
POISON = "xyzzy"  # in a question: what a test adds to the modules kills at it
SECONDS = 280  # for anything, on a machine with much else to do

# Every process has its share of a small machine, and says nothing of what it downloads.
QUIET = {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}

# Added to a module: a worker, not the first process of a command or a test, dies of the poison.
DIE = f"""
def _is_deadly(text):
    import multiprocessing, os, sys
    in_worker = multiprocessing.parent_process() is not None or "default_worker.py" in sys.argv[0]
    if in_worker and {POISON!r} in text:
        os.kill(os.getpid(), 9)
"""
DIES_READING = {
    "monotreme.wording": DIE
    + """
_normalize = normalize
def normalize(text):
    _is_deadly(text)
    return _normalize(text)
"""
}
DIES_EMBEDDING = {
    "monotreme.encoders": DIE
    + """
_windows = MiniLM.windows
def _deadly_windows(self, texts):
    _is_deadly(" ".join(texts))
    return _windows(self, texts)
MiniLM.windows = _deadly_windows
"""
}


def waits(folder: Path, sign: str = "") -> dict[str, str]:
    """Added to the encoder: a worker says that it has begun on texts, and waits while `hold` is there.

    It leaves `begun-<its parent>-<itself>`.

    Args:
        sign: do so only where a text has this in it.
    """
    code = f"""
_unhindered = MiniLM.windows
def _windows_after_hold(self, texts):
    import os, pathlib, time
    folder = pathlib.Path({str(folder)!r})
    if {sign!r} in " ".join(texts):
        (folder / f"begun-{{os.getppid()}}-{{os.getpid()}}").touch()
        while (folder / "hold").exists():
            time.sleep(0.02)
    return _unhindered(self, texts)
MiniLM.windows = _windows_after_hold
"""
    return {"monotreme.encoders": code}


def both(*added: Mapping[str, str]) -> dict[str, str]:
    """Several additions as one."""
    modules = {module for each in added for module in each}
    return {module: "\n".join(each.get(module, "") for each in added) for module in modules}


def sizes(values: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Constants to be added, as code: module → name → value."""
    return {
        module: "\n".join(f"{name} = {value!r}" for name, value in names.items())
        for module, names in values.items()
    }


# ── a small recipe ──────────────────────────────────────────────────────────────────────────────


def write_recipe(folder: Path, num: int, on_bad_row: str = "drop") -> Path:
    """Some pocket questions of each subject with their planted twins, and the benchmark they leak.

    Beside them a question twice, one of several windows, a source that is not there and, where bad
    rows are dropped, a line that is no JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for subject in SUBJECTS:
        lines = (POCKET / f"{subject}.jsonl").read_text().splitlines()
        (folder / f"{subject}.jsonl").write_text("\n".join(lines[-num:]) + "\n")
    texts = ["How many legs has a spider?", "How many LEGS has a spider?", " ".join(["2 + 3"] * 90)]
    extra = ["no JSON"] * (on_bad_row == "drop") + [json.dumps(question(text)) for text in texts]
    with (folder / "science.jsonl").open("a") as file:
        file.writelines(f"{line}\n" for line in extra)
    benchmark = (POCKET / "benchmark.jsonl").read_text().splitlines()
    (folder / "benchmark.jsonl").write_text("\n".join(benchmark[::2]) + "\n")
    sources = [{"id": s, "path": f"{s}.jsonl", "license": "Apache-2.0"} for s in SUBJECTS]
    sources.append({"id": "absent", "path": "no.jsonl", "license": "MIT", "optional": True})
    tables = {
        "name": "small",
        "curate": {"sources": sources, "on_bad_row": on_bad_row, "protect": "different_answer"},
        "decontaminate": {"benchmarks": [{"id": "pocket", "path": "benchmark.jsonl"}]},
        "train": {"base": "pocket:base"},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tables))
    return path


def question(text: str) -> dict[str, str]:
    return {"instruction": text, "output": "The answer is 4."}


def add_question(recipe: Path, subject: str, text: str) -> None:
    """A line in the middle of a source's file."""
    path = recipe.with_name(f"{subject}.jsonl")
    lines = path.read_text().splitlines()
    lines.insert(len(lines) // 2, json.dumps(question(text)))
    path.write_text("\n".join(lines) + "\n")


def result(runs: Path, stage: str = "curate") -> dict[str, Any]:
    """All that a record says but for time and memory: the outputs' digests, counts, facts."""
    record = json.loads((runs / "small" / stage / "record.json").read_text())
    return {key: value for key, value in record.items() if key not in ("seconds", "peak_bytes")}


def bad_rows(runs: Path) -> list[dict[str, Any]]:
    """Rows that were dropped as such, but for the line that is no JSON."""
    rows = pq.read_table(runs / "small/curate/dropped.parquet").to_pylist()
    return [row for row in rows if row["reason"] == "bad_row" and "JSON" not in row["detail"]]


# ── commands ────────────────────────────────────────────────────────────────────────────────────


def monotreme(*arguments: object) -> None:
    """A command in this very process; only its workers are others."""
    app([*map(str, arguments), "--quiet"], standalone_mode=False)


def environment(folder: Path, added: Mapping[str, str]) -> dict[str, str]:
    """What processes need to find this package, the tests, and what is added to modules."""
    path = folder / f"added-{uuid4().hex}.json"
    path.write_text(json.dumps(dict(added)))
    paths = os.pathsep.join(map(str, (HERE / "everywhere", HERE, SOURCE)))
    return {**QUIET, "PYTHONPATH": paths, "EVERYWHERE": str(path)}


class Command:
    """A command in a process group of its own, as a shell starts it."""

    def __init__(self, folder: Path, added: Mapping[str, str], *arguments: object) -> None:
        self.mark = uuid4().hex
        own = {"MONOTREME_TEST": self.mark}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "monotreme.cli", *map(str, arguments)],
            env={**os.environ, **environment(folder, added), **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def end(self) -> tuple[int, str]:
        """Exit status and what it said on stderr."""
        _, said = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, said

    def others(self) -> list[psutil.Process]:
        """Its workers and whatever they started, wherever they hang in the tree of processes."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                is_own = process.environ().get("MONOTREME_TEST") == self.mark
                if is_own and process.pid != self.process.pid:
                    found.append(process)
        return found

    def workers(self, folder: Path) -> list[psutil.Process]:
        """Those that wait on `hold` in this folder."""
        pids = (int(mark.name.split("-")[2]) for mark in folder.glob("begun-*"))
        return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]

    def interrupt(self) -> None:
        """Ctrl-C: the whole group gets it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def sweep(self) -> None:
        """End what a failed test would leave."""
        for process in [*self.others(), self.process]:
            with suppress(psutil.Error, ProcessLookupError):
                process.kill()


@contextmanager
def started(folder: Path, added: Mapping[str, str], *arguments: object) -> Iterator[Command]:
    command = Command(folder, added, *arguments)
    try:
        yield command
    finally:
        command.sweep()
        command.process.communicate()


def done(folder: Path, added: Mapping[str, str], *arguments: object) -> tuple[int, str]:
    """Exit status and stderr of a command that nothing disturbs."""
    with started(folder, added, *arguments) as command:
        return command.end()


def until(holds: Callable[[], Any], seconds: float = SECONDS) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def marks(folder: Path) -> Sequence[Path]:
    """Of the workers that have begun on texts."""
    return list(folder.glob("begun-*"))
