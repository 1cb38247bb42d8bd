"""Pairs over the threshold that were both kept, because `curate.protect` keeps them apart."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monotreme.records import read_table
from monotreme.report import terminal
from monotreme.report.terminal import SIDES
from monotreme.run import Run


def protected_pairs(run: Run, source: str | None = None) -> pa.Table:
    """Ids and similarity of the pairs; the exclusion lets no other pair over the threshold stand.

    Args:
        source: only pairs of which a question is of this source.
    """
    over = pc.field("similarity") > run.record("curate")["settings"]["threshold"]
    pairs = read_table(run.output("curate", "pairs.parquet"), filters=over)
    kept = read_table(run.output("curate", "questions.parquet"), columns=["id", "source"])
    wanted = _sides_among(pairs, kept).all(axis=0)
    if source is not None:
        wanted &= _sides_among(pairs, kept.filter(pc.equal(kept["source"], source))).any(axis=0)
    return pairs.filter(pa.array(wanted))


def _sides_among(pairs: pa.Table, questions: pa.Table) -> np.ndarray:
    """(2, P) bool."""
    return np.array([np.asarray(pc.is_in(pairs[side], questions["id"])) for side in SIDES])


def rows(run: Run, source: str | None, limit: int) -> list[dict[str, Any]]:
    """The first protected pairs, the most alike first: similarity, `left` and `right` question.

    Raises:
        UsageError: there is no such source.
    """
    terminal.check_source(run, "curate", source)
    order = [("similarity", "descending"), *((side, "ascending") for side in SIDES)]
    pairs = protected_pairs(run, source).sort_by(order).slice(0, limit).to_pylist()
    texts = terminal.questions_of(run, sorted({pair[side] for pair in pairs for side in SIDES}))
    return [{**pair, **{side: texts[pair[side]] for side in SIDES}} for pair in pairs]
