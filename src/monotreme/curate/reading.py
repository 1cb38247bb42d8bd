"""Sources → rows on disk: every raw row as a question, with what later steps ask of its text.

Rows are parsed here and made questions of by the engine's workers, some thousands at a time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monotreme.engine import Died, Given
from monotreme.errors import InputError, RemoteError
from monotreme.keywords import has_keyword
from monotreme.mapped import MappedQuestions, spilled
from monotreme.progress import console, progress
from monotreme.recipe import SourceRef
from monotreme.records import QUESTION_SCHEMA, Dropped, Question, digest, question_row
from monotreme.rows import BadRow, RawRow
from monotreme.run import Run
from monotreme.sources import RowReader, raw_rows, row_reader, source_of
from monotreme.wording import normalize

ROWS_AT_ONCE = 2_000
READ_SCHEMA = pa.schema(
    [
        *QUESTION_SCHEMA,
        pa.field("reason", pa.string()),  # "" for a question, else why the row is none
        pa.field("detail", pa.string()),
        pa.field("normal", pa.binary(16)),  # equal for texts of one normal form
        pa.field("keyword", pa.bool_()),  # whether it has one, where the search is asked for
    ]
)


@dataclass(frozen=True)
class Rows:
    """N rows that were read, and what is known of each without looking at its text.

    Attributes:
        questions: the rows, in the order in which they were read.
        sources: ids of the sources that could be read, in the recipe's order.
        source: (N,) number of the row's source.
        normal: (N,) equal for texts of one normal form, 16 bytes.
        keyword: (N,) bool.
        reason, detail: (N,) why a row is no question, "" where it is one.
        ids: (N,) content digests, 64 bytes of hex digits.
        answer, question: (N,) lengths in characters.
    """

    questions: MappedQuestions
    sources: list[str]
    source: np.ndarray
    normal: np.ndarray
    keyword: np.ndarray
    reason: np.ndarray
    detail: np.ndarray
    ids: np.ndarray
    answer: np.ndarray
    question: np.ndarray

    def __len__(self) -> int:
        return len(self.source)


def read_rows(run: Run, digests: Mapping[str, str]) -> Rows:
    """Every row of every source.

    An optional source that cannot be read is said and left out.

    Args:
        digests: of the sources, "absent" for those that are not there.

    Raises:
        InputError, RemoteError: a source cannot be read.
    """
    batches: list[pa.RecordBatch] = []
    sources: list[str] = []
    source: list[np.ndarray] = []
    for ref in run.recipe.curate.sources:
        found = _read_or_absent(run, ref, digests)
        if found is None:
            console.print(f"source {ref.id} is optional and cannot be read: going on without")
            continue
        source.append(np.full(sum(batch.num_rows for batch in found), len(sources), np.int16))
        sources.append(ref.id)
        batches += found
    return describe(
        MappedQuestions(batches), sources, np.concatenate([np.empty(0, np.int16), *source])
    )


def _read_or_absent(
    run: Run, ref: SourceRef, digests: Mapping[str, str]
) -> list[pa.RecordBatch] | None:
    if digests[f"sources/{ref.id}"] == "absent":
        return None
    try:
        return spilled(run.cache("rows"), READ_SCHEMA, _tables(run, ref))
    except (InputError, RemoteError) as error:
        if not ref.optional:
            raise
        console.print(str(error), markup=False)
        return None


def _tables(run: Run, ref: SourceRef) -> Iterator[pa.Table]:
    """The rows of a source, as the workers give them."""
    source = source_of(ref)
    path, revision = run.dataset(ref.path, source.name, source.revision)
    on_bad_row = run.recipe.curate.on_bad_row
    reader = row_reader(ref, path, seed=run.recipe.seed, on_bad_row=on_bad_row)
    parts = _parts(raw_rows(ref, path, revision))
    with progress(f"Reading {ref.id}", None) as done:
        for part, outcome in run.engine.sift(read_part, parts, Given((reader, source.keywords))):
            if isinstance(outcome, Died):
                outcome = table_of([reader.bad(_deadly(part[0], outcome))], searched=False)
            yield outcome
            done(len(part))


def _parts(rows: Iterator[RawRow | BadRow]) -> Iterator[list[RawRow | BadRow]]:
    while part := list(islice(rows, ROWS_AT_ONCE)):
        yield part


def _deadly(raw: RawRow | BadRow, died: Died) -> BadRow:
    return BadRow(raw.where, f"kills every worker that reads it ({died.how})")


def read_part(made: tuple[RowReader, bool], part: Sequence[RawRow | BadRow]) -> pa.Table:
    """Raw rows → `READ_SCHEMA`; runs in a worker.

    Args:
        made: what makes questions of them, and whether keywords are asked for.
    """
    reader, searched = made
    return table_of([reader(raw) for raw in part], searched)


def table_of(rows: Sequence[Question | Dropped], searched: bool) -> pa.Table:
    """Rows with `READ_SCHEMA`."""
    return pa.Table.from_pylist([_row(row, searched) for row in rows], READ_SCHEMA)


def _row(row: Question | Dropped, searched: bool) -> dict[str, Any]:
    dropped = row if isinstance(row, Dropped) else None
    question = row.question if isinstance(row, Dropped) else row
    return {
        **question_row(question),
        "reason": dropped.reason if dropped else "",
        "detail": dropped.detail if dropped else "",
        "normal": bytes.fromhex(digest(normalize(question.text))[:32]),
        "keyword": not searched or has_keyword(f"{question.text}\n{question.output}"),
    }


def describe(questions: MappedQuestions, sources: list[str], source: np.ndarray) -> Rows:
    """What is known of each row, of a store with `READ_SCHEMA`."""

    def column(take: Callable[[pa.RecordBatch], Any], kind: Any) -> np.ndarray:
        parts = [np.asarray(take(batch), kind) for batch in questions.batches()]
        return np.concatenate([np.empty(0, kind), *parts])

    def texts(name: str) -> np.ndarray:
        return column(lambda batch: batch[name].to_pylist(), object)

    return Rows(
        questions,
        sources,
        source,
        normal=column(lambda batch: batch["normal"].to_pylist(), "S16"),
        keyword=column(lambda batch: batch["keyword"].to_numpy(zero_copy_only=False), bool),
        reason=texts("reason"),
        detail=texts("detail"),
        ids=column(lambda batch: batch["id"].to_pylist(), "S64"),
        answer=column(lambda batch: pc.utf8_length(batch["output"]), np.int64),
        question=column(_question_length, np.int64),
    )


def _question_length(batch: pa.RecordBatch) -> Any:
    """Characters of `Question.text`: instruction and, on a line of its own, input."""
    more = pc.utf8_length(batch["input"])
    return pc.add(pc.utf8_length(batch["instruction"]), pc.add(more, pc.min_element_wise(more, 1)))
