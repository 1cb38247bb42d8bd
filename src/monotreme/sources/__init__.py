"""Training sources: every raw row becomes a `Question`, or a `Dropped` with the reason."""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Literal

from monotreme.errors import InputError, RecipeError
from monotreme.recipe import SourceRef
from monotreme.records import Dropped, Question
from monotreme.rows import BadRow, RawRow, Row, Rows, read_file, read_hub
from monotreme.sources.readers import COLUMNS, Fields, read_columns, theorem_key
from monotreme.sources.table import SOURCES, Source

__all__ = ["SOURCES", "RowReader", "Source", "raw_rows", "read_source", "row_reader", "source_of"]

OnBadRow = Literal["fail", "drop"]

THEOREMS_FILE = "all_theorems.json"


def source_of(ref: SourceRef) -> Source:
    """The table's entry with the recipe's overrides, or a source of the user's own.

    A Hub `name` or `split` of the recipe's stands for another layout than the table's: it is read
    in its default configuration, not by the table's file names.

    Raises:
        RecipeError: an unknown id with neither path nor name, or without a licence; an unknown
            field in `columns`.
        InputError: the source is not on the Hub and has no path.
    """
    unknown = sorted(set(ref.columns) - set(COLUMNS))
    if unknown:
        raise RecipeError(
            f"source {ref.id}: columns names {unknown[0]!r}", f"Map only {', '.join(COLUMNS)}"
        )
    source = SOURCES.get(ref.id) or _own(ref)
    if source.obtain and not ref.path and not ref.name:
        raise InputError(
            f"source {ref.id} has no `path` and cannot be read from the Hub", source.obtain
        )
    if ref.columns:
        source = replace(source, reader=partial(read_columns, columns=ref.columns), takes="")
    if ref.name:
        source = replace(source, name=ref.name, configs=(None,), data_files=())
    if ref.split:
        source = replace(source, splits=(ref.split,), data_files=())
    return replace(
        source,
        revision=ref.revision or source.revision,
        license=ref.license or source.license,
        llm_written=_given(ref.llm_written, source.llm_written),
        keywords=_given(ref.keywords, source.keywords),
    )


def _given(value: bool | None, default: bool) -> bool:
    return default if value is None else value


def _own(ref: SourceRef) -> Source:
    if not ref.path and not ref.name:
        near = difflib.get_close_matches(ref.id, SOURCES, n=1)
        meant = f"did you mean {near[0]!r}" if near else f"known are {', '.join(SOURCES)}"
        raise RecipeError(
            f"source {ref.id!r} is not in the table ({meant})", "Correct it, or give it a `path`"
        )
    if not ref.license:
        raise RecipeError(
            f"source {ref.id} has no license",
            'Give its SPDX identifier, or "unknown", as `license`',
        )
    reader = partial(read_columns, columns={})
    return Source(ref.id, ref.name or "", ref.license, False, ref.id, reader)


def read_source(
    ref: SourceRef,
    path: Path | None,
    revision: str | None,
    *,
    seed: int,
    on_bad_row: OnBadRow,
) -> Iterator[Question | Dropped]:
    """Read a source; every raw row gives exactly one question or one dropped question.

    Args:
        path: where `ref.path` lies; None reads the Hub.
        revision: Hub commit.
        seed: of what a reader draws; the draw depends on seed and row alone.
        on_bad_row: what a row that cannot be read does: stop, or be dropped as "bad_row".

    Raises:
        RecipeError, InputError: as `source_of`; the file, or with "fail" a row, cannot be read.
        RemoteError: the Hub does not have it or cannot be reached.
    """
    return map(
        row_reader(ref, path, seed=seed, on_bad_row=on_bad_row), raw_rows(ref, path, revision)
    )


def raw_rows(ref: SourceRef, path: Path | None, revision: str | None) -> Rows:
    """The raw rows of a source; arguments and errors as in `read_source`."""
    source = source_of(ref)
    return islice(_raw_rows(source, path, revision), ref.limit)


@dataclass(frozen=True)
class RowReader:
    """Makes a raw row a question or a dropped one; can be sent to another process."""

    source: Source
    fields: Callable[[Row], Fields]
    on_bad_row: OnBadRow

    def __call__(self, raw: RawRow | BadRow) -> Question | Dropped:
        if isinstance(raw, BadRow):
            return self.bad(raw)
        try:
            return _question(self.source, raw.where, self.fields(raw.values))
        except ValueError as error:
            return self.bad(BadRow(raw.where, str(error)))

    def bad(self, row: BadRow) -> Dropped:
        """What becomes of a row that cannot be read.

        Raises:
            InputError: the recipe says that it stops the run.
        """
        source = self.source
        if self.on_bad_row == "fail":
            raise InputError(
                f"source {source.id}: {row.where} {row.problem}",
                "Mend the row, or set curate.on_bad_row: drop",
            )
        nothing = Question("", "", "", source.id, source.license, source.llm_written)
        return Dropped(nothing, "bad_row", f"{row.where} {row.problem}")


def row_reader(ref: SourceRef, path: Path | None, *, seed: int, on_bad_row: OnBadRow) -> RowReader:
    """What makes questions of a source's raw rows; arguments as in `read_source`."""
    source = source_of(ref)
    return RowReader(source, _reader(source, path, seed), on_bad_row)


def _raw_rows(source: Source, path: Path | None, revision: str | None) -> Rows:
    if path is not None:
        yield from read_file(path, source.data_files)
    elif source.data_files:
        yield from read_hub(source.name, None, "", revision, source.data_files)
    else:
        for config, split in product(source.configs, source.splits):
            yield from read_hub(source.name, config, split, revision)


def _reader(source: Source, path: Path | None, seed: int) -> Callable[[Row], Fields]:
    if source.takes == "seed":
        return partial(source.reader, seed=seed)
    if source.takes == "theorems":
        return partial(source.reader, theorems=_theorems(path))
    return source.reader


def _theorems(path: Path | None) -> dict[str, str]:
    """Definitions by `theorem_key`, of the file beside the rows; empty when it is not there."""
    if path is None:
        return {}
    file = (path if path.is_dir() else path.parent) / THEOREMS_FILE
    if not file.exists():
        return {}
    rows = [row.values for row in read_file(file) if isinstance(row, RawRow)]
    return {
        theorem_key(name): text
        for row in rows
        for name, text in row.items()
        if isinstance(text, str)
    }


def _question(source: Source, where: str, fields: Fields) -> Question | Dropped:
    question = Question(
        instruction=fields.instruction,
        input=fields.input,
        output=fields.output,
        source=source.id,
        license=source.license,
        llm_written=source.llm_written,
        subject=fields.subject,
    )
    reason = fields.drop or _lacks(fields)
    return Dropped(question, reason, where) if reason else question


def _lacks(fields: Fields) -> str:
    if not fields.instruction:
        return "no_question"
    return "" if fields.output else "no_solution"
