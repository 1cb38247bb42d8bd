"""A run in a store: worked on in a local copy, of which every finished stage is sent, its record last.

Beside the runs of a copy `.store` names the URL. In a run `.store.json` says which version of each
file the store is known to hold, and its SHA-256: nothing is sent or fetched that is there already,
and what was changed on both sides is noticed.
"""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from monotreme.errors import InputError, MismatchError, RefusedError
from monotreme.progress import progress
from monotreme.storage import remove_strangers, sha256, storage_errors, writing
from monotreme.stores.store import Entry, Store

LOCK = ".lock"  # of the command that works on a run
STORE, KNOWN, RECORD, VERDICTS = ".store", ".store.json", "record.json", "verdicts.jsonl"


def mirror(url: str) -> Path:
    """The local folder for runs of a store: `$XDG_CACHE_HOME/monotreme/stores/s3/bucket/runs`.

    Raises:
        InputError: the URL leads out of its store.
        StorageError: the folder cannot be made.
    """
    url = url.rstrip("/")
    kind, _, rest = url.partition("://")
    if ".." in PurePosixPath(rest).parts:
        raise InputError(f"{url} leads out of its store", "Name it without ..")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "monotreme" / "stores" / kind / rest.strip("/")
    with writing(folder / STORE) as path:
        path.write_text(url, encoding="utf-8")
    return folder


def working_copy(url: str, weights: bool = True) -> Path:
    """The local copy of a run of a store, with what the store has of it.

    Args:
        url: of the run's folder, perhaps with `:model` after it, which the path then has, too.
        weights: fetch the models' weights, too.

    Raises:
        InputError: there is no run.
        RemoteError, RefusedError, StorageError: as `pull`.
    """
    runs, _, last = url.rstrip("/").rpartition("/")
    name, colon, model = last.partition(":")
    folder = mirror(runs) / name
    pull(folder, weights)
    if not (folder / "run.json").is_file():
        raise InputError(
            f"{runs}/{name} is no run", "Name the folder of one, s3://bucket/runs/NAME"
        )
    return folder.with_name(f"{name}{colon}{model}")


def pull(folder: Path, weights: bool = True) -> None:
    """Fetch what the store has of a run and this machine lacks; nothing for a run that is in none.

    Left alone where another command holds the run: it has fetched, and works on it.

    Raises:
        RefusedError: a stage was done here and elsewhere.
        MismatchError: a file is not what its record says.
        InputError, RemoteError, StorageError: as `Store.get`.
    """
    _alone(folder, lambda copy: copy.pull(weights))


def push(folder: Path) -> None:
    """Send what a run has and its store lacks; nothing for a run that is in none.

    Every stage that has finished is sent file by file, and then its record; while that lasts the
    store has no record of it. Whoever calls holds the run.

    Raises:
        RefusedError: a stage was done elsewhere since it was fetched.
        InputError, RemoteError, StorageError: as `Store.put`.
    """
    if copy := _copy_of(folder):
        copy.push()


def send(folder: Path) -> None:
    """`push`, unless a command holds the run: that one sends at its end."""
    _alone(folder, lambda copy: copy.push())


def _alone(folder: Path, do: Callable[["_Copy"], None]) -> None:
    if copy := _copy_of(folder):
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with suppress(Timeout), FileLock(folder / LOCK, timeout=0):
            do(copy)


def _copy_of(folder: Path) -> "_Copy | None":
    beside = folder.parent / STORE
    return _Copy(folder, beside.read_text(encoding="utf-8")) if beside.is_file() else None


class _Copy:
    """A run's local folder, what its store holds, and what of that is known by its bytes."""

    def __init__(self, folder: Path, runs_url: str) -> None:
        self.folder = folder
        remedy = (
            f"What is finished is kept in {folder}; the same command fetches and sends the rest"
        )
        self.store = Store(f"{runs_url}/{folder.name}", remedy)
        self.theirs: dict[str, Entry] = {}
        known = folder / KNOWN
        self.known: dict[str, list[str]] = json.loads(known.read_text()) if known.exists() else {}

    def pull(self, weights: bool) -> None:
        self.theirs = self.store.files()
        for name in self.theirs:
            stage, slash, file = name.partition("/")
            if not slash and not name.startswith("."):
                self._pull_file(name)
            elif file == RECORD:
                self._pull_stage(stage, weights)

    def push(self) -> None:
        self.theirs = self.store.files()
        for path in sorted(self.folder.iterdir()):
            if path.is_file() and not path.name.startswith("."):
                self._put(path.name, sha256(path))
        for record in sorted(self.folder.glob(f"*/{RECORD}")):
            self._push_stage(record.parent.name)

    # ── files of the run itself ──────────────────────────────────────────────────────────────

    def _pull_file(self, name: str) -> None:
        """What is written anew by every command is the store's; verdicts of both sides stay."""
        path = self.folder / name
        if path.exists() and not self._is_new(name):
            return
        ours = path.read_text("utf-8").splitlines() if name == VERDICTS and path.exists() else []
        self._get(name)
        if not ours:
            return  # of the other files not even the encoding is known
        if missing := sorted(set(ours) - set(path.read_text("utf-8").splitlines()), key=ours.index):
            text = path.read_text("utf-8") + "".join(f"{line}\n" for line in missing)
            with writing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")

    # ── stages ───────────────────────────────────────────────────────────────────────────────

    def _pull_stage(self, stage: str, weights: bool) -> None:
        name, folder = f"{stage}/{RECORD}", self.folder / stage
        went_on = folder.is_dir() and self._changed(name)
        if went_on and not self._is_new(name):
            return  # from what the store has
        text = self.store.read(name)
        if went_on and (folder / RECORD).exists() and (folder / RECORD).read_bytes() != text:
            raise self._done_twice(stage)
        outputs = _outputs(text, f"{self.store.url}/{name}")
        missing = [
            file
            for file, entry in outputs.items()
            if (weights or not file.endswith(".safetensors"))
            and not self._stands(f"{stage}/{file}", entry, trusted=not went_on)
        ]
        if missing or self._is_new(name) or not (folder / RECORD).exists():
            self._take_stage(stage, outputs, missing, text)

    def _take_stage(
        self, stage: str, outputs: Mapping[str, Any], missing: list[str], text: bytes
    ) -> None:
        name, folder = f"{stage}/{RECORD}", self.folder / stage
        with storage_errors(folder):
            (self.folder / name).unlink(missing_ok=True)
        with progress(f"fetching {stage}", len(missing)) as advance:
            for file in missing:
                self._get(f"{stage}/{file}", outputs[file]["sha256"])
                advance(1)
        remove_strangers(folder, outputs)
        with writing(self.folder / name) as path:
            path.write_bytes(text)
        self._note(name, self.theirs[name], sha256(self.folder / name))

    def _push_stage(self, stage: str) -> None:
        name, folder = f"{stage}/{RECORD}", self.folder / stage
        outputs = _outputs((folder / RECORD).read_bytes(), str(folder / RECORD))
        if not all((folder / file).is_file() for file in outputs):
            return  # it must be done again, or its weights were not fetched
        shas = {f"{stage}/{file}": entry["sha256"] for file, entry in outputs.items()}
        record_sha = sha256(folder / RECORD)
        unsent = [file for file, sha in shas.items() if not self._holds(file, sha)]
        wanted = {*shas, name}
        strangers = [
            file for file in self.theirs if file.startswith(f"{stage}/") and file not in wanted
        ]
        if not unsent and not strangers and self._holds(name, record_sha):
            return
        if name in self.theirs:
            if self._is_new(name) and not self._changed(name):
                return  # only the other machine went on; the next command fetches that
            if self._is_new(name):
                raise self._done_twice(stage)
            self._remove(name)  # from now on the store has none of this stage
        for file in strangers:
            self._remove(file)
        with progress(f"sending {stage}", len(unsent)) as advance:
            for file in unsent:
                self._put(file, shas[file])
                advance(1)
        self._put(name, record_sha)

    def _done_twice(self, stage: str) -> RefusedError:
        return RefusedError(
            f"{stage} was done both in {self.folder} and, by another machine, in {self.store.url}",
            f"Delete {self.folder / stage} to take the store's, or {stage}/{RECORD} there to send yours",
        )

    # ── one file ─────────────────────────────────────────────────────────────────────────────

    def _is_new(self, name: str) -> bool:
        """Whether the store's file is another than the one that is known."""
        return self.theirs[name].version != self.known.get(name, [""])[0]

    def _changed(self, name: str) -> bool:
        """Whether the local file is gone, or another than the store's that is known."""
        path = self.folder / name
        return not path.exists() or sha256(path) != self.known.get(name, ["", ""])[1]

    def _holds(self, name: str, sha: str) -> bool:
        """Whether the store holds these bytes."""
        return name in self.theirs and self.known.get(name) == [self.theirs[name].version, sha]

    def _stands(self, name: str, entry: Mapping[str, Any], trusted: bool) -> bool:
        """Whether an output is here already; what is not trusted is read."""
        path, sha = self.folder / name, entry["sha256"]
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            return False
        return (trusted and self._holds(name, sha)) or sha256(path) == sha

    def _get(self, name: str, sha: str | None = None) -> None:
        path = self.folder / name
        if name not in self.theirs:
            raise MismatchError(
                f"{self.store.url}/{name} is missing, which its record names",
                "Give the same command again on the machine that made it",
            )
        self.store.get(name, self.theirs[name], path)
        found = sha256(path)
        if sha is not None and found != sha:
            path.unlink()
            raise MismatchError(
                f"{self.store.url}/{name} is not what its record says",
                f"Delete {name.partition('/')[0]}/{RECORD} there and run the stage again",
            )
        self._note(name, self.theirs[name], found)

    def _put(self, name: str, sha: str) -> None:
        if not self._holds(name, sha):
            self.theirs[name] = self.store.put(self.folder / name, name)
            self._note(name, self.theirs[name], sha)

    def _remove(self, name: str) -> None:
        self.store.remove(name)
        del self.theirs[name]

    def _note(self, name: str, entry: Entry, sha: str) -> None:
        self.known[name] = [entry.version, sha]
        with writing(self.folder / KNOWN) as path:
            path.write_text(json.dumps(self.known, indent=1, sort_keys=True), encoding="utf-8")


def _outputs(text: bytes, where: str) -> dict[str, dict[str, Any]]:
    try:
        outputs: dict[str, dict[str, Any]] = json.loads(text)["outputs"]
    except (ValueError, KeyError):
        raise InputError(f"{where} is no record", "Delete it and run the stage again") from None
    return outputs
