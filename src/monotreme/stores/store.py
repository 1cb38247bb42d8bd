"""A folder or an object in a store: list it, get, put and remove files, and be patient with the network."""

import errno
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from monotreme.errors import InputError, RemoteError, StorageError
from monotreme.progress import notice
from monotreme.storage import writing

PATIENCE_SECONDS = 120.0  # of trying again from the first failure on
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 15.0
NOTICE_SECONDS = 20.0  # between two lines that say how long it will still be tried
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
# What tells one version of an object from another, as S3, GCS, the web, and others name it.
MARKS = ("ETag", "etag", "generation", "mtime", "created", "Last-Modified", "last_modified")
_FULL = {errno.ENOSPC, errno.EDQUOT}
# What s3fs makes of an answer that says no, which asking again would not change.
_NO = {errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENAMETOOLONG, errno.EFBIG, errno.EMSGSIZE}
_LOST = (
    "botocore.exceptions.ConnectionError",
    "botocore.exceptions.HTTPClientError",
    "aiohttp.client_exceptions.ClientError",
    "google.auth.exceptions.TransportError",
)
_CLIENTS = ("botocore", "aiobotocore", "aiohttp", "gcsfs", "google")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """An object as the store lists it.

    Attributes:
        version: changes when the object does: its size and the store's own mark.
    """

    size: int
    version: str


class Store:
    """What lies under a URL; every call tries again for PATIENCE_SECONDS when the store is lost.

    Args:
        url: of a folder or of one object.
        remedy: what to do when the store stays lost, as a sentence without a full stop.

    Raises:
        InputError: no package for that kind of store is installed.
    """

    def __init__(self, url: str, remedy: str) -> None:
        from fsspec.core import url_to_fs

        self.url, self.remedy = url.rstrip("/"), remedy
        kind = url.partition("://")[0]
        if kind in ("file", "local"):
            raise InputError(f"{url} is on this machine", "Name its path, without file://")
        try:
            self._files, self._path = url_to_fs(self.url, use_listings_cache=False)
        except ImportError as error:
            extra = EXTRAS.get(kind)
            mend = f"pip install 'monotreme[{extra}]'" if extra else "Install what it names"
            raise InputError(f"{url} cannot be opened ({_line(error)})", mend) from None
        except ValueError as error:
            raise InputError(f"{url} cannot be opened ({_line(error)})", "Correct it") from None

    def files(self) -> dict[str, Entry]:
        """Every file by its path under the URL, in the order of names; "" is the URL's own object.

        Raises:
            InputError: a name that leads out of the folder.
            RemoteError: the store says no, or stays lost.
        """
        return self._patiently(self.url, self._list)

    def _list(self) -> dict[str, Entry]:
        try:
            about = self._files.info(self._path)
        except FileNotFoundError:
            return {}
        if about["type"] == "file":
            return {"": _entry(about)}
        found = {}
        for key, about in sorted(self._files.find(self._path, detail=True).items()):
            name = key.removeprefix(self._path).removeprefix("/")
            if ".." in PurePosixPath(name).parts or name.startswith("/"):
                raise InputError(f"{self.url} holds {name!r}, which leads out of it", "Rename it")
            if name and not name.endswith("/"):  # a folder's own marker
                found[name] = _entry(about)
        return found

    def read(self, name: str) -> bytes:
        """The bytes of a small file."""
        data: bytes = self._patiently(self._url(name), lambda: self._files.cat_file(self._at(name)))
        return data

    def get(self, name: str, entry: Entry, path: Path) -> None:
        """Fetch a file to `path`, where it appears whole or not at all.

        Raises:
            InputError: it is not there.
            RemoteError: it is another than `entry`, the store says no, or stays lost.
            StorageError: the disk is full.
        """
        with writing(path) as temporary:
            self._patiently(self._url(name), lambda: self._get(name, entry, temporary))

    def _get(self, name: str, entry: Entry, path: Path) -> None:
        self._files.get_file(self._at(name), str(path))
        if _entry(self._files.info(self._at(name))) != entry:
            problem = f"{self._url(name)} was changed while it was fetched"
            raise RemoteError(problem, "Give the same command again when it stays as it is")
        _check_size(path.stat().st_size, entry.size)

    def put(self, path: Path, name: str) -> Entry:
        """Send a file; what stood there is replaced.

        Raises:
            InputError: there is no such bucket.
            RemoteError: the store says no, or stays lost.
            StorageError: the store is full.
        """
        try:
            return self._patiently(self._url(name), lambda: self._put(path, name))
        except OSError as error:
            problem = f"cannot write {self._url(name)}: {_line(error)}"
            raise StorageError(problem, f"Make room there. {self.remedy}") from None

    def _put(self, path: Path, name: str) -> Entry:
        self._files.put_file(str(path), self._at(name))
        entry = _entry(self._files.info(self._at(name)))
        _check_size(entry.size, path.stat().st_size)
        return entry

    def remove(self, name: str) -> None:
        """Delete a file."""
        self._patiently(self._url(name), lambda: self._files.rm_file(self._at(name)))

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path

    def _url(self, name: str) -> str:
        return f"{self.url}/{name}" if name else self.url

    def _patiently(self, url: str, do: Callable[[], T]) -> T:
        """Do it, again with growing pauses where the store is lost.

        Raises:
            InputError, RemoteError: as the callers say.
            OSError: a full disk.
        """
        end, pause, said = 0.0, FIRST_PAUSE_SECONDS, -math.inf
        while True:
            try:
                return do()
            except Exception as error:
                if not _is_lost(error):
                    raise _told(url, error) from None
                now = time.monotonic()
                end = end or now + PATIENCE_SECONDS
                if now < end and now - said >= NOTICE_SECONDS:
                    notice(f"{url} cannot be reached; trying for {end - now:.0f} s")
                    said = now
                if now >= end:
                    problem = f"{url} cannot be reached for {PATIENCE_SECONDS:.0f} s"
                    raise RemoteError(f"{problem} ({_line(error)})", self.remedy) from None
                time.sleep(min(pause, end - now))
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _entry(about: Mapping[str, Any]) -> Entry:
    mark = next((about[key] for key in MARKS if about.get(key)), "")
    if isinstance(mark, datetime):  # one file's answer may have this where a folder's has seconds
        mark = mark.timestamp()
    return Entry(int(about["size"]), f"{about['size']} {mark}".strip())


def _check_size(there: int, wanted: int) -> None:
    if there != wanted:
        raise ConnectionError(f"{there:,} of {wanted:,} bytes arrived")


def _is_lost(error: Exception) -> bool:
    """Whether the same call may succeed later: no connection, a broken one, a store that is busy."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    if isinstance(status, int):  # an answer by HTTP: 408 and 429 ask for patience
        return status >= 500 or status in (408, 429)
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return False
    if isinstance(error, OSError):
        return error.errno not in _FULL | _NO
    return any(f"{kind.__module__}.{kind.__name__}" in _LOST for kind in type(error).__mro__)


def _told(url: str, error: Exception) -> Exception:
    """What to raise for an error that is no lost connection; a defect stays what it is."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"{url} does not exist", "Correct the URL, or make its bucket")
    refused = isinstance(error, PermissionError) or getattr(error, "errno", None) in _NO
    if refused or type(error).__module__.partition(".")[0] in _CLIENTS:
        remedy = "Correct the credentials, or what they may do there"
        return RemoteError(f"{url} is refused ({_line(error)})", remedy)
    return error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
