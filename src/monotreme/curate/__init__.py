"""Stage 1: sources → keyword search → exact duplicates → similarity exclusion (paper, section 2.2).

Leaves questions.parquet (kept), dropped.parquet (each with its reason and, where it yields to
another question, that twin and their similarity) and pairs.parquet (every pair over the floor).
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from monotreme.curate.duplicates import apply_exclusion, drop_exact_duplicates
from monotreme.curate.fates import Fates, dropped_tables
from monotreme.curate.filters import apply_switches, heavy_losses
from monotreme.curate.reading import Rows, read_rows
from monotreme.encoders import encoder_identity, find_encoder
from monotreme.errors import InputError, RemoteError
from monotreme.exclusion import verbosity_order
from monotreme.neighbors import Pairs
from monotreme.progress import console
from monotreme.recipe import SourceRef
from monotreme.records import DROPPED_SCHEMA, QUESTION_SCHEMA, digest
from monotreme.run import Run
from monotreme.similar import Lists, Similar, Texts, similar_within
from monotreme.sources import source_of

PAIR_SCHEMA = pa.schema(
    [("left", pa.string()), ("right", pa.string()), ("similarity", pa.float64())]
)
FLOOR = 0.7  # pairs are stored down to here, so that another threshold needs no new comparison


def inputs(run: Run) -> dict[str, str]:
    """Digest of each source and of the encoder; an optional source that cannot be had is absent."""
    sources = {f"sources/{ref.id}": _source_digest(run, ref) for ref in run.recipe.curate.sources}
    return {**sources, "encoder": encoder_identity(*run.encoder())}


def _source_digest(run: Run, ref: SourceRef) -> str:
    try:
        source = source_of(ref)
        return run.dataset_digest(ref.path, source.name, source.revision)
    except (InputError, RemoteError):
        if ref.optional:
            return "absent"
        raise


def _rank(rows: Rows) -> np.ndarray:
    return verbosity_order(rows.answer, rows.question, rows.source, rows.ids)


def _near_duplicates(
    run: Run, rows: Rows, fates: Fates, rank: np.ndarray
) -> tuple[dict[str, Any], Iterator[pa.Table]]:
    """Exclude among the sources that take part; facts, and the pairs they form, for the record."""
    table = run.recipe.curate
    takes_part = {ref.id for ref in table.sources if ref.exclusion}
    part = np.flatnonzero(
        np.isin(rows.source, [rows.sources.index(s) for s in rows.sources if s in takes_part])
        & fates.stays
    )
    encoder = find_encoder(*run.encoder())
    cache = run.cache("embeddings")
    texts = Texts(rows.questions.texts(part), encoder, cache, run.engine, set_aside=True)
    floor = min(FLOOR, table.threshold)
    similar = similar_within(texts, table.threshold, floor, table.exact)
    _set_aside(run, rows, fates, part[similar.missing])
    close = InRows(similar.over(table.threshold), part)
    result = apply_exclusion(rows.questions, rank, close, table.protect, cache, run.engine)
    gone = np.flatnonzero(~result.kept)
    lengths = zip(rows.answer[gone], rows.answer[result.twin[gone]], strict=True)
    detail = [f"answer of {ours} characters yields to {theirs}" for ours, theirs in lengths]
    fates.drop(gone, "near_duplicate", detail, result.twin[gone], result.similarity[gone])
    facts = {
        **result.facts,
        "encoder": encoder.name,
        "encoder_digest": encoder.digest,
        "floor": floor,
        "similarity": asdict(similar.precision),
        "join": _join(similar.lists),
    }
    return facts, _pair_tables(rows.ids[part], similar, floor)


def _join(lists: Lists | None) -> dict[str, Any]:
    """Which pairs were compared; of lists, what share of those over the threshold they found."""
    if lists is None:
        return {"pairs": "all"}
    recall = {f"recall_{name}": value for name, value in lists.recall._asdict().items()}
    return {"pairs": "lists", "lists": lists.num, "lists_a_row": lists.a_row, **recall}


class InRows:
    """Blocks of pairs, renumbered: place in a part → row of the whole."""

    def __init__(self, blocks: Iterable[Pairs], rows: np.ndarray) -> None:
        self._blocks, self._rows = blocks, rows

    def __iter__(self) -> Iterator[Pairs]:
        for pairs in self._blocks:
            left, right = self._rows[pairs.left], self._rows[pairs.right]
            yield pairs._replace(left=left, right=right)


def _set_aside(run: Run, rows: Rows, fates: Fates, gone: np.ndarray) -> None:
    """Rows that no worker could embed and live: dropped as bad rows, or the end, as the recipe says.

    Raises:
        InputError: the recipe says that a bad row stops the run.
    """
    what = "kills every worker that embeds it"
    if len(gone) and run.recipe.curate.on_bad_row == "fail":
        question = rows.questions[int(gone[0])]
        raise InputError(
            f"source {question.source}: the question {question.text[:80]!r} {what}",
            "Take it out of the data, or set curate.on_bad_row: drop",
        )
    fates.drop(gone, "bad_row", what)


def _pair_tables(ids: np.ndarray, similar: Similar, floor: float) -> Iterator[pa.Table]:
    for block in similar.blocks(floor):
        names = (ids[block.left].astype(str), ids[block.right].astype(str))
        columns = [*(pa.array(side, pa.string()) for side in names), pa.array(block.similarity)]
        yield pa.Table.from_arrays(columns, schema=PAIR_SCHEMA)


def execute(run: Run) -> None:
    """Curate, and leave the record.

    Raises:
        InputError: a source cannot be read, or nothing is left.
    """
    digests = inputs(run)
    with run.stage("curate", digests) as work:
        rows = read_rows(run, digests)
        fates, rank = Fates(rows), _rank(rows)
        refs = run.recipe.curate.sources
        present = [ref for ref in refs if ref.id in rows.sources]
        apply_switches(run.recipe.curate, present, rows, fates, rank)
        drop_exact_duplicates(rows, fates, rank)
        facts, pairs = _near_duplicates(run, rows, fates, rank)
        kept = fates.kept_order(rows)
        if not len(kept):
            raise InputError("curate: no question is left", "Add sources or loosen the settings")
        fates.follow_twins(rows)
        work.tables("questions.parquet", QUESTION_SCHEMA, rows.questions.tables(kept))
        gone = fates.dropped_order(rows)
        work.tables("dropped.parquet", DROPPED_SCHEMA, dropped_tables(rows, fates, gone))
        work.tables("pairs.parquet", PAIR_SCHEMA, pairs)
        work.counts = fates.counts(rows)
        losses = heavy_losses(rows, fates)
        for loss in losses:
            console.print(f"warning: {loss}", markup=False)
        work.facts = {
            **facts,
            "heavy_losses": losses,
            "left_out": [ref.id for ref in refs if ref.id not in rows.sources],
            "content_digest": digest(*(name.decode() for name in rows.ids[kept])),
        }
