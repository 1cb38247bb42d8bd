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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from monotreme import hub, stores
from monotreme.engine import HERE, Engine
from monotreme.errors import BusyError, InputError
from monotreme.recipe import (
    IntoRef,
    ModelRef,
    Recipe,
    dump_recipe,
    is_url,
    load_recipe,
    locate,
    must_be_local,
)
from monotreme.records import digest
from monotreme.storage import remove_strangers, sha256, storage_errors, writing
from monotreme.work import StageWork, json_text

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


@dataclass(frozen=True)
class Run:
    """A run folder with its recipe.

    Attributes:
        folder: `runs/<name>`.
        recipe_folder: what relative paths of the recipe are relative to.
        num_gpus: processes that train or score together.
        force: whether stages are done anew, from their beginning.
        engine: where the work on many rows is done; no result depends on it.
    """

    folder: Path
    recipe: Recipe
    recipe_folder: Path
    num_gpus: int = 1
    force: bool = False
    engine: Engine = HERE
    _pins: dict[str, str] = field(default_factory=dict)

    # ── what a stage asks ────────────────────────────────────────────────────────────────────

    def locate(self, path: str) -> Path:
        """The file that a path of the recipe means; of a URL the local copy, fetched once."""
        if is_url(path):
            return stores.fetched(path, self.cache("inputs"))
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
        remove_strangers(work.folder, work.outputs)
        with writing(work.folder / "record.json") as path:
            path.write_text(json_text(record), encoding="utf-8")
        stores.push(self.folder)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Take the run for this command and write down its recipe.

        Raises:
            BusyError: another command holds it.
        """
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / stores.LOCK, timeout=0)
        try:
            with storage_errors(self.folder):
                held = lock.acquire()
        except Timeout:
            raise BusyError(
                f"another command is working on {self.folder}", "Wait for it to end"
            ) from None
        with held:
            with writing(self.folder / "recipe.yaml") as path:
                path.write_text(dump_recipe(self.recipe), encoding="utf-8")
            self._pins.update(_read_json_or(self.folder / "run.json", {}).get("revisions", {}))
            self._write_about()
            stores.push(self.folder)  # what an earlier command finished and could not send
            yield
            stores.push(self.folder)

    def _write_about(self) -> None:
        about = {
            "recipe_folder": str(self.recipe_folder),
            "recipe_folder_from_here": os.path.relpath(self.recipe_folder, self.folder),
            "revisions": dict(sorted(self._pins.items())),
            "versions": versions(),
            "machine": {"system": platform.platform(), "processor": platform.machine()},
        }
        with writing(self.folder / "run.json") as path:
            path.write_text(json_text(about), encoding="utf-8")


def open_run(folder: Path) -> Run:
    """The run that stands in a folder.

    Raises:
        InputError: there is none.
    """
    if not (folder / "run.json").exists():
        raise no_run(folder)
    about = _read_json(folder / "run.json")
    recipe_folder = Path(about["recipe_folder"])
    if not recipe_folder.is_dir():  # both were moved together
        recipe_folder = (folder / about["recipe_folder_from_here"]).resolve()
    return Run(folder, load_recipe(folder / "recipe.yaml"), recipe_folder)


def no_run(folder: Path) -> InputError:
    """What to raise where a run is meant and none stands; it names those that stand beside."""
    beside = [str(about.parent) for about in sorted(folder.parent.glob("*/run.json"))]
    known = f"There are {', '.join(beside)}" if beside else f"{folder.parent} holds none"
    return InputError(f"there is no run {folder}", f"{known}; a recipe ends in .yaml")


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


def _reset_peak() -> None:
    with suppress(OSError):  # Linux only; elsewhere the peak is the process's
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


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
