"""A URL as an input: fetched once into a folder that runs share, then read as any local file."""

from functools import lru_cache
from pathlib import Path, PurePosixPath

from monotreme.errors import InputError
from monotreme.progress import progress
from monotreme.records import digest
from monotreme.storage import resuming
from monotreme.stores.store import Entry, Store

REMEDY = "Give the same command again when it can be; what was fetched is kept"


def check(url: str) -> None:
    """See that something lies at a URL.

    Raises:
        InputError: nothing does, or its kind of store is not known.
        RemoteError: the store says no, or stays lost.
    """
    _files(Store(url, REMEDY))


@lru_cache(maxsize=1024)  # one command reads one version
def fetched(url: str, cache: Path) -> Path:
    """The local copy of a file or folder; its name is the URL's last part.

    It lies in `cache` under a digest of the URL and of the store's versions, so that what changes
    in the store is fetched anew. Files that arrived before an interruption are not fetched again.

    Raises:
        InputError, RemoteError: as `check`; or it changed meanwhile.
        StorageError: the disk is full.
    """
    store = Store(url, REMEDY)
    files = _files(store)
    key = digest(store.url, *(f"{name}\0{entry.version}" for name, entry in files.items()))
    folder, name = cache / key[:32], PurePosixPath(store.url).name
    if not folder.is_dir():
        with resuming(folder, key) as unfinished:
            _get_all(store, files, unfinished / name)
    return folder / name


def _files(store: Store) -> dict[str, Entry]:
    if found := store.files():
        return found
    raise InputError(f"{store.url} does not exist", "Correct the URL")


def _get_all(store: Store, files: dict[str, Entry], path: Path) -> None:
    with progress(f"fetching {store.url}", sum(entry.size for entry in files.values())) as advance:
        for name, entry in files.items():
            local = path / name if name else path
            if not local.exists():
                store.get(name, entry, local)
            advance(entry.size)
