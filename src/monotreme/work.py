"""One execution of a stage: the files that it leaves, each whole or absent, and what they are."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from monotreme.records import Counts
from monotreme.storage import sha256, storage_errors, writing

GROUP_ROWS = 65_536  # of a Parquet file's row group


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
            for table in _of_one_size(tables, schema):
                writer.write_table(table)
                rows += table.num_rows
        self.outputs[name]["rows"] = rows

    def json(self, name: str, value: Any) -> None:
        """Write a JSON output."""
        with self.file(name) as path:
            path.write_text(json_text(value), encoding="utf-8")

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


def _of_one_size(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in pieces of `GROUP_ROWS`, so that a file's bytes tell nothing of the pieces."""
    held, num = [schema.empty_table()], 0
    for table in tables:
        held.append(table)
        num += table.num_rows
        if num >= GROUP_ROWS:
            whole = pa.concat_tables(held)
            ends = num - num % GROUP_ROWS
            for start in range(0, ends, GROUP_ROWS):
                yield whole.slice(start, GROUP_ROWS).combine_chunks()
            held, num = [whole.slice(ends)], num - ends
    if num:
        yield pa.concat_tables(held).combine_chunks()


def json_text(value: Any) -> str:
    """A record as it is written: indented, with a line break at its end."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
