"""Questions on disk: as many as fit there, and in memory only those that are looked at."""

import mmap
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from monotreme.errors import InputError
from monotreme.records import QUESTION_SCHEMA, Question
from monotreme.storage import storage_errors

BATCH_ROWS = 4096  # some megabytes of text
_FIELDS = tuple(name for name in QUESTION_SCHEMA.names if name != "id")


def spilled(folder: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> list[pa.RecordBatch]:
    """Tables, one after the other, in a file without a name: mapped, so the system has its memory.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            with pa.ipc.new_file(file, schema) as writer:
                for table in tables:
                    writer.write_table(table.combine_chunks(), max_chunksize=BATCH_ROWS)
            file.flush()
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    reader = pa.ipc.open_file(pa.py_buffer(whole))
    return [reader.get_batch(number) for number in range(reader.num_record_batches)]


class _Batches:
    """Where rows lie in record batches."""

    def __init__(self, batches: Sequence[pa.RecordBatch]) -> None:
        self._batches = list(batches)
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)]).tolist()

    def _find(self, row: int) -> tuple[pa.RecordBatch, int]:
        """A row's batch, and its place there."""
        if not 0 <= row < self._starts[-1]:
            raise IndexError(row)
        number = bisect_right(self._starts, row) - 1
        return self._batches[number], row - self._starts[number]


class MappedQuestions(_Batches, Sequence[Question]):
    """Questions in record batches that hold the columns of `QUESTION_SCHEMA`, and maybe more."""

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, row: int) -> Question: ...
    @overload
    def __getitem__(self, row: slice) -> list[Question]: ...
    def __getitem__(self, row: int | slice) -> Question | list[Question]:
        if isinstance(row, slice):
            return [self[place] for place in range(*row.indices(len(self)))]
        batch, place = self._find(row)
        return Question(**{name: batch[name][place].as_py() for name in _FIELDS})

    def __iter__(self) -> Iterator[Question]:
        for batch in self._batches:
            for values in batch.select(_FIELDS).to_pylist():
                yield Question(**values)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All columns, batch by batch."""
        return iter(self._batches)

    def take(self, rows: np.ndarray) -> pa.Table:
        """Some rows, all columns, in the order asked for."""
        numbers = np.searchsorted(self._starts, rows, "right") - 1
        order = np.argsort(numbers, kind="stable")
        needed, first = np.unique(numbers[order], return_index=True)
        parts = [
            self._batches[number].take(rows[some] - self._starts[number])
            for number, some in zip(needed, np.split(order, first[1:]), strict=False)
        ]
        schema = self._batches[0].schema if self._batches else QUESTION_SCHEMA
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        return pa.Table.from_batches(parts, schema).take(back).combine_chunks()

    def tables(self, rows: np.ndarray) -> Iterator[pa.Table]:
        """Some rows with `QUESTION_SCHEMA`, in the order asked for, piece by piece."""
        for start in range(0, len(rows), BATCH_ROWS):
            yield self.take(rows[start : start + BATCH_ROWS]).select(QUESTION_SCHEMA.names)

    def column(self, name: str) -> np.ndarray:
        """(N,) objects: one column of all rows, which should be one of short values."""
        values = [np.asarray(batch[name].to_pylist(), object) for batch in self._batches]
        return np.concatenate([np.empty(0, object), *values])

    def texts(self, rows: np.ndarray) -> "MappedTexts":
        """What the similarity of these rows is measured on."""
        return MappedTexts(self, rows)


class MappedTexts(Sequence[str]):
    """The texts of a store's rows, each read when it is asked for."""

    def __init__(self, store: MappedQuestions, rows: np.ndarray) -> None:
        self._store, self._rows = store, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        return self._store[int(self._rows[place])].text

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), BATCH_ROWS):
            part = self._store.take(self._rows[start : start + BATCH_ROWS])
            for values in part.select(_FIELDS).to_pylist():
                yield Question(**values).text


class MappedRows(_Batches, Sequence[dict[str, Any]]):
    """Rows of any columns."""

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, row: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, row: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, row: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(row, slice):
            return [self[place] for place in range(*row.indices(len(self)))]
        batch, place = self._find(row)
        (found,) = batch.slice(place, 1).to_pylist()
        return dict(found)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self._batches:
            yield from batch.to_pylist()


class MappedColumn(_Batches, Sequence[str]):
    """A column of texts."""

    def __init__(self, batches: Sequence[pa.RecordBatch], name: str) -> None:
        super().__init__(batches)
        self._name = name

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[place] for place in range(*row.indices(len(self)))]
        batch, place = self._find(row)
        text: str = batch[self._name][place].as_py()
        return text

    def __iter__(self) -> Iterator[str]:
        for batch in self._batches:
            yield from batch[self._name].to_pylist()


def open_questions(path: Path, folder: Path) -> MappedQuestions:
    """The questions of a stage's Parquet file, in its order, unpacked into a file in `folder`.

    Raises:
        InputError: the file is missing or is not Parquet.
    """
    try:
        with pq.ParquetFile(path) as file:
            batches = file.iter_batches(BATCH_ROWS, columns=QUESTION_SCHEMA.names)
            tables = (pa.Table.from_batches([batch]) for batch in batches)
            return MappedQuestions(spilled(folder, QUESTION_SCHEMA, tables))
    except FileNotFoundError:
        raise InputError(f"{path} is missing", "Run the stage that makes it first") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{path} is not a readable Parquet file ({error})", "Delete it and run the stage again"
        ) from None
