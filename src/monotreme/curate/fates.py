"""What becomes of each row: it stays, or goes for a reason, in favour of another or of none."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from monotreme.curate.reading import Rows
from monotreme.records import DROPPED_SCHEMA, QUESTION_SCHEMA, Counts

WRITTEN_AT_ONCE = 10_000  # rows


class Fates:
    """The fates of N rows.

    Attributes:
        reason: (N,) "" while a row stays.
        detail: (N,) the rule in words.
        twin: (N,) the row that a dropped one yields to, -1 where there is none.
        similarity: (N,) cosine with it, nan where none was measured.
    """

    def __init__(self, rows: Rows) -> None:
        self.reason, self.detail = rows.reason.copy(), rows.detail.copy()
        self.twin = np.full(len(rows), -1, np.int64)
        self.similarity = np.full(len(rows), np.nan)

    @property
    def stays(self) -> np.ndarray:
        """(N,) bool."""
        return np.asarray(self.reason == "")

    def drop(
        self,
        rows: np.ndarray,
        reason: str,
        detail: str | Sequence[str],
        twin: np.ndarray | int = -1,
        similarity: np.ndarray | float = np.nan,
    ) -> None:
        """Let some rows go; those that went before keep their first reason."""
        self.reason[rows], self.detail[rows] = reason, detail
        self.twin[rows], self.similarity[rows] = twin, similarity

    def follow_twins(self, rows: Rows) -> None:
        """Let each dropped row name one that stays: where its twin went too, that one's twin.

        The similarity is then that of those two; the detail says so.
        """
        end, similarity = self.twin.copy(), self.similarity.copy()
        while True:
            onward = np.flatnonzero((end >= 0) & ~self.stays[end] & (self.twin[end] >= 0))
            if not len(onward):
                break
            similarity[onward] = self.similarity[end[onward]]
            end[onward] = self.twin[end[onward]]
        for row in np.flatnonzero(end != self.twin):
            went = rows.ids[self.twin[row]].decode()[:12]
            via = f"; that was {went}, which went too: what took its place is named"
            self.detail[row] += via
        self.twin, self.similarity = end, similarity

    def counts(self, rows: Rows) -> Counts:
        """Rows read, kept and dropped, by source and by reason."""
        names = np.array(rows.sources, object)[rows.source]
        gone = np.flatnonzero(~self.stays)
        return Counts.tally(names[self.stays], zip(names[gone], self.reason[gone], strict=True))

    def kept_order(self, rows: Rows) -> np.ndarray:
        """Rows that stay, by source and content digest."""
        kept = np.flatnonzero(self.stays)
        return kept[np.lexsort((rows.ids[kept], rows.source[kept]))]

    def dropped_order(self, rows: Rows) -> np.ndarray:
        """Rows that went, by source, content digest, reason and detail."""
        gone = np.flatnonzero(~self.stays)
        columns = (self.detail, self.reason, rows.ids)
        _, *places = (
            np.unique(column[gone], return_inverse=True)[1] for column in (rows.source, *columns)
        )
        return gone[np.lexsort((*places, rows.source[gone]))]


def dropped_tables(rows: Rows, fates: Fates, order: np.ndarray) -> Iterator[pa.Table]:
    """Dropped questions with `DROPPED_SCHEMA`, in this order, piece by piece."""
    ids = np.append(rows.ids, b"")  # the id of no twin, at -1
    for start in range(0, len(order), WRITTEN_AT_ONCE):
        part = order[start : start + WRITTEN_AT_ONCE]
        questions = rows.questions.take(part).select(QUESTION_SCHEMA.names)
        evidence = [
            fates.reason[part],
            fates.detail[part],
            [name.decode() for name in ids[fates.twin[part]]],
            pa.array(fates.similarity[part], from_pandas=True),  # nan is null
        ]
        columns = [*questions.columns, *(pa.array(column) for column in evidence)]
        yield pa.Table.from_arrays(columns, schema=DROPPED_SCHEMA)
