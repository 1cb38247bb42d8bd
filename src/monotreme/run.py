"""The run folder: what each stage read, left and measured, and whether that is still true.

`runs/<name>/` holds recipe.yaml (every default filled in), run.json (versions, machine, pinned
revisions) and a folder a stage with its files and record.json. The record is written last, so a
folder without one is unfinished work.
"""

import json
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from monotreme import hub
from monotreme.errors import BusyError, InputError
from monotreme.recipe import (
    IntoRef,
    ModelRef,
    Recipe,
    dump_recipe,
    load_recipe,
    locate,
    must_be_local,
)
from monotreme.records import Counts, digest
from monotreme.storage import sha256, storage_errors, writing

_COMMIT = re.compile(r"[0-9a-f]{40}")
PACKAGES = (
    "monotreme",
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "safetensors",
    "datasets",
    "pyarrow",
    "numpy",
)


class StageWork:
    """One execution of a stage: where it writes, and what its record will say.

    Attributes:
        counts: set by the stage; must balance.
        facts: anything else it measured, as plain JSON values.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts = Counts()
        self.facts: dict[str, Any] = {}
        self.outputs: dict[str, dict[str, Any]] = {}

    @contextmanager
    def file(self, name: str, rows: int | None = None) -> Iterator[Path]:
        """Write one output file (or folder of files) that appears whole or not at all."""
        self.forget()
        path = self.folder / name
        with writing(path) as temporary:
            yield temporary
        self.register(name, rows)

    def table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet output."""
        self.tables(name, table.schema, [table])

    def tables(self, name: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
        """Write a Parquet output piece by piece, never all of it in memory."""
        rows = 0
        with self.file(name) as path, pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table)
                rows += table.num_rows
        self.outputs[name]["rows"] = rows

    def json(self, name: str, value: Any) -> None:
        """Write a JSON output."""
        with self.file(name) as path:
            path.write_text(_json(value), encoding="utf-8")

    def text(self, name: str, text: str) -> None:
        """Write a text output."""
        with self.file(name) as path:
            path.write_text(text, encoding="utf-8")

    def register(
        self, name: str, rows: int | None = None, known: Mapping[str, str] | None = None
    ) -> None:
        """Record a file or folder that stands in the stage's folder as an output.

        Args:
            known: path within the stage's folder → SHA-256, of files that were hashed already.
        """
        path = self.folder / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                key = file.relative_to(self.folder).as_posix()
                sha = (known or {}).get(key) or sha256(file)
                entry = {"sha256": sha, "bytes": file.stat().st_size}
                self.outputs[key] = entry if rows is None else {**entry, "rows": rows}

    def forget(self) -> None:
        """The stage is about to change its folder: what the old record says holds no longer."""
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "record.json").unlink(missing_ok=True)


@dataclass(frozen=True)
class Run:
    """A run folder with its recipe.

    Attributes:
        folder: `runs/<name>`.
        recipe_folder: what relative paths of the recipe are relative to.
        num_gpus: processes that train or score together.
        force: whether stages are done anew, from their beginning.
    """

    folder: Path
    recipe: Recipe
    recipe_folder: Path
    num_gpus: int = 1
    force: bool = False
    _pins: dict[str, str] = field(default_factory=dict)

    # ── what a stage asks ────────────────────────────────────────────────────────────────────

    def locate(self, path: str) -> Path:
        """The file that a path of the recipe means."""
        return locate(path, self.recipe_folder)

    def output(self, stage: str, name: str) -> Path:
        """A file that an earlier stage left.

        Raises:
            InputError: the stage has not finished, or has no such output.
        """
        path = self.folder / stage / name
        if not (self.folder / stage / "record.json").exists():
            raise InputError(
                f"{stage} has not finished in {self.folder}", f"Run `monotreme {stage}` first"
            )
        if not path.exists():
            raise InputError(f"{path} is missing", f"Run `monotreme {stage} --force`")
        return path

    def record(self, stage: str) -> dict[str, Any]:
        """A finished stage's record.

        Raises:
            InputError: the stage has not finished, or its record is not readable.
        """
        record: dict[str, Any] = _read_json(self.output(stage, "record.json"))
        return record

    def merges(self) -> dict[str, IntoRef]:
        """The merges of this run by id: all of `merge.into`, and the candidate that was chosen.

        Raises:
            InputError: there are candidates, and merge has not finished.
        """
        settings = self.recipe.merge
        found = {into.id: into for into in settings.into}
        if settings.candidates:
            chosen = _read_json(self.output("merge", "choice.json"))["chosen"]
            found |= {each.id: each for each in settings.candidates if each.id == chosen}
        return found

    def encoder(self) -> tuple[str, Path, Callable[[str], str], bool]:
        """The recipe's encoder, as `find_encoder` and `encoder_identity` take it."""
        name, truncate = self.recipe.curate.encoder, self.recipe.curate.truncate
        return name, self.locate(name), lambda hub: self.pin("model", hub, None), truncate

    def cache(self, name: str) -> Path:
        """A folder that all runs beside this one share; safe to delete."""
        return self.folder.parent / ".cache" / name

    def pin(self, kind: Literal["dataset", "model"], name: str, revision: str | None) -> str:
        """The commit of a Hub repository; a name, branch or tag is resolved once in a run."""
        if revision is not None and _COMMIT.fullmatch(revision):
            return revision
        key = f"{kind}:{name}" if revision is None else f"{kind}:{name}@{revision}"
        if key not in self._pins:
            self._pins.update(_read_json_or(self.folder / "run.json", {}).get("revisions", {}))
        if key not in self._pins:
            self._pins[key] = hub.resolve(kind, name, revision)
            self._write_about()
        return self._pins[key]

    def model(self, ref: ModelRef, weights: bool = True) -> Path:
        """The local folder of a model; downloads it, or all but its weights, if it is a Hub name."""
        path = self.locate(ref.model)
        if path.is_dir():
            return path
        if must_be_local(ref.model):
            raise InputError(
                f"model folder {path} does not exist", "Correct the path in the recipe"
            )
        commit = self.pin("model", ref.model, ref.revision)
        return hub.download_model(ref.model, commit, ref.trust_remote_code, weights)

    def model_digest(self, ref: ModelRef) -> str:
        """What identifies a model: its Hub commit, or the SHA-256 of its local folder."""
        path = self.locate(ref.model)
        if path.is_dir() or must_be_local(ref.model):
            return sha256(path)
        return f"{ref.model}@{self.pin('model', ref.model, ref.revision)}"

    def dataset(
        self, path: str | None, name: str, revision: str | None
    ) -> tuple[Path | None, str | None]:
        """Where data are: (local path, None), or (None, Hub commit); `name` "" is not on the Hub.

        Raises:
            InputError: neither a path nor a Hub name is known.
            RemoteError: the commit cannot be resolved.
        """
        if path is not None:
            return self.locate(path), None
        if not name:
            raise InputError("a data set has neither a path nor a Hub name", "Give it a `path`")
        return None, self.pin("dataset", name, revision)

    def dataset_digest(self, path: str | None, name: str, revision: str | None) -> str:
        """What identifies data: the SHA-256 of a local file or folder, or a Hub commit."""
        local, commit = self.dataset(path, name, revision)
        return sha256(local) if local is not None else f"{name}@{commit}"

    # ── doing a stage ────────────────────────────────────────────────────────────────────────

    def settings(self, stage: str) -> dict[str, Any]:
        """The part of the recipe that a stage depends on."""
        return {**getattr(self.recipe, stage).model_dump(mode="json"), "seed": self.recipe.seed}

    def is_current(self, stage: str, inputs: Mapping[str, str]) -> bool:
        """Whether the stage's record tells of these inputs and settings and its files still stand."""
        record = _read_json_or(self.folder / stage / "record.json", None)
        if record is None or record["inputs"] != dict(inputs):
            return False
        if record["settings_digest"] != _settings_digest(self.settings(stage)):
            return False
        return all(
            _stands(self.folder / stage / name, entry) for name, entry in record["outputs"].items()
        )

    @contextmanager
    def stage(self, name: str, inputs: Mapping[str, str]) -> Iterator[StageWork]:
        """Do a stage's work inside; its record is written at the end, if nothing failed.

        Raises:
            ValueError: the counts do not balance (a defect of the stage).
        """
        work = StageWork(self.folder / name)
        started = time.perf_counter()
        _reset_peak()
        yield work
        work.counts.check()
        settings = self.settings(name)
        record = {
            "stage": name,
            "seed": self.recipe.seed,
            "settings": settings,
            "settings_digest": _settings_digest(settings),
            "inputs": dict(inputs),
            "outputs": work.outputs,
            "counts": asdict(work.counts),
            "facts": work.facts,
            "seconds": round(time.perf_counter() - started, 3),
            "peak_bytes": _peak_bytes(),
            "versions": versions(),
        }
        work.forget()
        _remove_strangers(work.folder, work.outputs)
        with writing(work.folder / "record.json") as path:
            path.write_text(_json(record), encoding="utf-8")

    @contextmanager
    def open(self) -> Iterator[None]:
        """Take the run for this command and write down its recipe.

        Raises:
            BusyError: another command holds it.
        """
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            with storage_errors(self.folder):
                lock.acquire()
        except Timeout:
            raise BusyError(
                f"another command is working on {self.folder}", "Wait for it to end"
            ) from None
        with lock:
            with writing(self.folder / "recipe.yaml") as path:
                path.write_text(dump_recipe(self.recipe), encoding="utf-8")
            self._pins.update(_read_json_or(self.folder / "run.json", {}).get("revisions", {}))
            self._write_about()
            yield

    def _write_about(self) -> None:
        about = {
            "recipe_folder": str(self.recipe_folder),
            "recipe_folder_from_here": os.path.relpath(self.recipe_folder, self.folder),
            "revisions": dict(sorted(self._pins.items())),
            "versions": versions(),
            "machine": {"system": platform.platform(), "processor": platform.machine()},
        }
        with writing(self.folder / "run.json") as path:
            path.write_text(_json(about), encoding="utf-8")


def open_run(folder: Path) -> Run:
    """The run that stands in a folder.

    Raises:
        InputError: there is none.
    """
    about = _read_json(folder / "run.json")
    recipe_folder = Path(about["recipe_folder"])
    if not recipe_folder.is_dir():  # both were moved together
        recipe_folder = (folder / about["recipe_folder_from_here"]).resolve()
    return Run(folder, load_recipe(folder / "recipe.yaml"), recipe_folder)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _settings_digest(settings: Mapping[str, Any]) -> str:
    return digest(json.dumps(settings, sort_keys=True))


def _stands(path: Path, entry: Mapping[str, Any]) -> bool:
    """Size only: whoever reads the file hashes it, and a wrong hash makes that stage stale."""
    return path.is_file() and path.stat().st_size == entry["bytes"]


def _remove_strangers(folder: Path, outputs: Mapping[str, Any]) -> None:
    """Delete what an earlier execution with other settings left: a folder holds what its record says."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(folder).as_posix() not in outputs:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _reset_peak() -> None:
    with suppress(OSError):  # Linux only; elsewhere the peak is the process's
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist", "Name the folder of a run, such as runs/pocket"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is not readable ({error})", "Run the stage again with --force"
        ) from None


def _read_json_or(path: Path, default: Any) -> Any:
    return _read_json(path) if path.exists() else default
