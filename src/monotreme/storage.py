"""Files that are either whole or absent: temporary name, sync, rename; and their digests."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from monotreme.errors import InputError, MonotremeError, StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CUT_SHORT = re.compile(r"^(\d+ requested and \d+ written|Not enough free space to write)")  # numpy
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # safetensors
_OWN = 0o600  # mode of a file that safetensors has written
_UMASK = os.umask(0o077)  # there is no asking without setting
os.umask(_UMASK)
_BARRED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success sync it and rename it into place.

    What is written may be a file or a folder. On any failure the temporary is removed and what
    stood at `path` before stands there still.

    Raises:
        StorageError: the disk is full or the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # another command may write too
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(temporary)
        try:
            yield temporary
            _sync(temporary)
            _replace(temporary, path)
        finally:
            remove(temporary)
        _sync_one(path.parent)


@contextmanager
def resuming(path: Path, key: str) -> Iterator[Path]:
    """Give an unfinished folder beside `path`; on success sync it and rename it into place.

    What was done when the process was killed, interrupted or out of room stands in the folder at
    the next call with the same key. After an error that doing more would not mend it is removed,
    and so is the unfinished work of other keys.

    Args:
        key: hex digest of all that the folder's content depends on.

    Raises:
        StorageError: the disk is full or the place cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.{key[:16]}.part")
    other = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}\.part")
    with storage_errors(path):
        unfinished.mkdir(parents=True, exist_ok=True)
        for beside in path.parent.iterdir():
            if other.fullmatch(beside.name) and beside != unfinished:
                remove(beside)
        try:
            yield unfinished
        except MonotremeError as error:
            if not isinstance(error, StorageError):
                remove(unfinished)
            raise
        _sync(unfinished)
        _replace(unfinished, path)
        _sync_one(path.parent)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a failure to write `path` into a StorageError; other errors pass.

    safetensors and numpy report a full disk by their text alone (their errors carry no errno).
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL | _BARRED and not _CUT_SHORT.search(str(error)):
            raise
        raise _storage_error(path, error.strerror or str(error)) from error
    except Exception as error:
        number = _OS_ERROR.search(str(error))
        if type(error).__name__ != "SafetensorError" or number is None:
            raise
        raise _storage_error(path, os.strerror(int(number[1]))) from error


def _storage_error(path: Path, what: str) -> StorageError:
    try:
        free = f", {shutil.disk_usage(_existing(path)).free:,} bytes free"
    except OSError:
        free = ""
    return StorageError(
        f"cannot write {path}: {what}{free}",
        "Make room or name another folder with --runs, then give the same command again; "
        "what was finished is kept",
    )


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def remove_strangers(folder: Path, outputs: Collection[str]) -> None:
    """Delete what an earlier execution with other settings left: a folder holds what its record says."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(folder).as_posix() not in outputs:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def remove(path: Path) -> None:
    """Delete a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _replace(temporary: Path, path: Path) -> None:
    if path.is_dir():  # a folder with files in it cannot be renamed over
        remove(path)
    temporary.replace(path)


def _sync(path: Path) -> None:
    """A file, or a folder with what is in it: a name in a folder is only on disk with the folder.

    Files get the mode of any other; safetensors writes its own for their owner alone.
    """
    for each in [path, *path.rglob("*")]:
        if each.is_file() and each.stat().st_mode & 0o777 == _OWN:
            each.chmod(0o666 & ~_UMASK)
        _sync_one(each)


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file, or of a folder's file names and contents.

    Raises:
        InputError: nothing is there.
    """
    if path.is_dir():
        return _folder_sha256(path)
    try:
        state = path.stat()
        return _file_sha256(path, state.st_size, state.st_mtime_ns)
    except OSError as error:
        remedy = "Correct the path, or who may read it"
        raise InputError(f"{path} cannot be read ({error.strerror})", remedy) from None


@lru_cache(maxsize=4096)
def _file_sha256(path: Path, _size: int, _modified: int) -> str:
    """Size and time of change only serve the cache: one command reads a file once."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _folder_sha256(path: Path) -> str:
    sha = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        sha.update(f"{file.relative_to(path).as_posix()}\0{sha256(file)}\n".encode())
    return sha.hexdigest()
