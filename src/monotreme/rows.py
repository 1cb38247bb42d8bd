"""Raw rows of local files and of the Hub, each with the place where it stands.

A row that cannot be read is handed on as a `BadRow`, so that whoever counts rows counts it too. A
file that cannot be read at all is an InputError. Who reads a row's columns says what is wrong with
it by a ValueError whose text is a predicate of the row.
"""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from monotreme.errors import InputError, RemoteError
from monotreme.hub import hub_errors

Row = dict[str, Any]

# The longest text of the eleven sources is under 100 kB. A hundred times that is no question but a
# broken file, and the row must still fit into memory several times over.
MAX_ROW_BYTES = 10_000_000
# A JSON array is parsed as a whole and takes several times its size in memory.
MAX_ARRAY_BYTES = 500_000_000
_PARQUET_BATCH_ROWS = 256  # Arrow holds one batch at a time; 256 rows are well under a second


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as it was read; `where` is such as "train.jsonl, line 3"."""

    where: str
    values: Row


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be read, as a predicate of it: "is not JSON (…)"."""

    where: str
    problem: str


Rows = Iterator[RawRow | BadRow]


def cell(row: Row, *names: str) -> Any:
    """The value of the first of these columns that the row has.

    Raises:
        ValueError: it has none; the text is a predicate of the row and names the columns it has.
    """
    for name in names:
        if name in row:
            return row[name]
    there = ", ".join(str(name) for name in list(row)[:20]) or "none"
    raise ValueError(f"has no column {names[0]!r} (its columns: {there})")


def mistyped(value: Any, name: str, wanted: str) -> ValueError:
    """The error to raise for a value that is not what its column should hold."""
    return ValueError(f"has a {type(value).__name__} in column {name!r}, not {wanted}")


def read_file(path: Path, patterns: Sequence[str] = ()) -> Rows:
    """Rows of a file, or of all data files of a folder in the order of their names.

    Args:
        patterns: names of the files to read in a folder, such as "*.json"; all when empty.

    Raises:
        InputError: nothing is there, no reader for the ending, or the file as a whole is broken.
    """
    if not path.is_dir():
        yield from _reader(path)(path, path.name)
        return
    for file in data_files(path, patterns):
        yield from _reader(file)(file, file.relative_to(path).as_posix())


def data_files(folder: Path, patterns: Sequence[str] = ()) -> list[Path]:
    """The data files under a folder in the order of their names; hidden ones are left out.

    Raises:
        InputError: there is none.
    """
    found = []
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        wanted = not patterns or any(fnmatch(file.name, pattern) for pattern in patterns)
        if file.suffix in _READERS and wanted and not hidden and file.is_file():
            found.append(file)
    if not found:
        names = ", ".join(patterns or (f"*{ending}" for ending in _READERS))
        raise InputError(f"folder {folder} holds no {names}", "Name the folder with the data")
    return found


def read_hub(
    name: str, config: str | None, split: str, revision: str | None, files: Sequence[str] = ()
) -> Rows:
    """Rows of a Hub dataset.

    Args:
        split: of the dataset that the `datasets` library makes of the repository.
        files: patterns of the repository's files to read as they are, instead of a split; files
            whose columns differ, which `datasets` refuses to join, can be read so.

    Raises:
        RemoteError: no such dataset, configuration, split or revision, or no connection.
        InputError: the repository holds no such files, or one of them is broken.
    """
    if files:
        yield from read_file(_download(name, revision, files), files)
        return
    where = "/".join(part for part in (name, config, split) if part)
    dataset = _load(name, config, split, revision)
    # Pictures stay bytes: no reader looks at them, and decoding them takes one more library.
    for number, values in enumerate(dataset.to_iterable_dataset().decode(False), 1):
        yield _checked(f"{where}, row {number}", values)


def _download(name: str, revision: str | None, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    with hub_errors(f"dataset {name}"):
        return Path(
            snapshot_download(
                name, repo_type="dataset", revision=revision, allow_patterns=list(files)
            )
        )


def _load(name: str, config: str | None, split: str, revision: str | None) -> Any:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    with hub_errors(f"dataset {name}"):
        try:
            return load_dataset(name, config, split=split, revision=revision)
        except (DatasetsError, ValueError, RuntimeError) as error:
            says = " ".join(str(error).split())[:300]
            raise RemoteError(
                f"dataset {name} (config {config}, split {split}) cannot be loaded: {says}",
                "Correct name, revision and split in the recipe, or give it a local `path`",
            ) from None


# ── one reader an ending ─────────────────────────────────────────────────────────────────────────


def _read_lines(path: Path, label: str) -> Rows:
    for number, line in _lines(path):
        where = f"{label}, line {number}"
        if line is None:
            yield BadRow(where, f"is longer than {MAX_ROW_BYTES:,} bytes")
        elif line.strip():
            yield _parsed(where, line)


def _parsed(where: str, line: bytes) -> RawRow | BadRow:
    try:
        return _checked(where, json.loads(line.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        return BadRow(where, f"is not UTF-8 at byte {error.start + 1}")
    except (ValueError, RecursionError) as error:
        return BadRow(where, f"is not JSON ({error})")


def _read_json(path: Path, label: str) -> Rows:
    """An array of objects; one object; or, as some call it .json too, JSON Lines."""
    raw = _whole(path)
    try:
        data = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if not raw.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
            yield from _read_lines(path, label)
            return
        raise InputError(
            f"{path} is not JSON ({error})", "Mend the file, or write one object a line (.jsonl)"
        ) from None
    for number, values in enumerate(data if isinstance(data, list) else [data], 1):
        yield _checked(f"{label}, row {number}", values)


def _read_csv(path: Path, label: str) -> Rows:
    """Comma-separated, with a header; every value is a text."""
    # The module's own limit, 128 KiB, is less than a row's; it is one for the whole process.
    before = csv.field_size_limit(MAX_ROW_BYTES)
    try:
        yield from _csv_rows(path, label)
    finally:
        csv.field_size_limit(before)


def _csv_rows(path: Path, label: str) -> Rows:
    reader = csv.reader(_text_lines(path), strict=True)
    header = _csv_header(path, reader)
    while True:
        where = f"{label}, line {reader.line_num + 1}"
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(where, f"is not CSV ({error})")
            continue
        if len(fields) == len(header):
            yield _checked(where, dict(zip(header, fields, strict=True)))
        elif fields:
            yield BadRow(where, f"has {len(fields)} fields, the header {len(header)}")


def _csv_header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise InputError(f"the header of {path} is not CSV ({error})", "Mend the file") from None
    if not header or len(set(header)) < len(header):
        raise InputError(
            f"{path} has no header with a different name for each column", "Mend the first line"
        )
    return header


def _read_parquet(path: Path, label: str) -> Rows:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH_ROWS):
                for values in batch.to_pylist():
                    number += 1
                    yield _checked(f"{label}, row {number}", values)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        says = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is not readable Parquet ({says})", "Make it anew") from None


_READERS: dict[str, Callable[[Path, str], Rows]] = {
    ".jsonl": _read_lines,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
ENDINGS = tuple(_READERS)


def _reader(path: Path) -> Callable[[Path, str], Rows]:
    if not path.exists():
        raise InputError(f"{path} does not exist", "Correct the path")
    if path.suffix not in _READERS:
        raise InputError(
            f"{path} ends in {path.suffix or 'nothing'}, not in one of {', '.join(ENDINGS)}",
            "Convert it to one of these",
        )
    return _READERS[path.suffix]


# ── bytes, and what every row must be ────────────────────────────────────────────────────────────


def _lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Lines with their numbers from 1; None for one over the limit, which is never held whole."""
    number = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(MAX_ROW_BYTES + 1):
                number += 1
                fits = len(line) <= MAX_ROW_BYTES
                yield number, line if fits else None
                while not fits and line and not line.endswith(b"\n"):
                    line = file.readline(MAX_ROW_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from None


def _text_lines(path: Path) -> Iterator[str]:
    """Lines as text; bytes that are not UTF-8 become lone surrogates, which `_checked` reports."""
    for number, line in _lines(path):
        if line is None:
            raise InputError(
                f"{path}, line {number} is longer than {MAX_ROW_BYTES:,} bytes",
                "Mend the file, or write it as JSON Lines",
            )
        yield line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")


def _whole(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size <= MAX_ARRAY_BYTES:
            return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from None
    raise InputError(
        f"{path} has {size:,} bytes, a .json file may have {MAX_ARRAY_BYTES:,}",
        "Write it as JSON Lines (.jsonl), which may be of any size",
    )


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be read ({error.strerror})", "Correct the path or its rights")


def _checked(where: str, values: Any) -> RawRow | BadRow:
    if not isinstance(values, dict):
        return BadRow(where, f"is a JSON {type(values).__name__}, not an object with columns")
    try:
        size = _num_bytes(values)
    except UnicodeEncodeError:
        return BadRow(where, "holds a character that is not UTF-8")
    except RecursionError:
        return BadRow(where, "is nested too deeply")
    if size > MAX_ROW_BYTES:
        return BadRow(where, f"holds {size:,} bytes of text, the limit is {MAX_ROW_BYTES:,}")
    return RawRow(where, values)


def _num_bytes(value: Any) -> int:
    """Bytes of all texts in a value; raises UnicodeEncodeError at a lone surrogate."""
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, dict):
        return sum(_num_bytes(key) + _num_bytes(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return sum(_num_bytes(inner) for inner in value)
    return 0
