"""Stage 1: sources → keyword search → exact duplicates → similarity exclusion (paper, section 2.2).

Leaves questions.parquet (kept), dropped.parquet (each with its reason and, where it yields to
another question, that twin and their similarity) and pairs.parquet (every pair over the floor).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa

from monotreme.curate.duplicates import (
    Exclusion,
    apply_exclusion,
    drop_exact_duplicates,
    follow_twins,
)
from monotreme.curate.filters import apply_switches, heavy_losses
from monotreme.encoders import encoder_identity, find_encoder
from monotreme.errors import InputError, RemoteError
from monotreme.exclusion import verbosity_order
from monotreme.progress import console, progress
from monotreme.recipe import SourceRef
from monotreme.records import Counts, Dropped, Question, digest, dropped_table, question_table
from monotreme.run import Run
from monotreme.similar import Similar, Texts, similar_within
from monotreme.sources import read_source, source_of

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


def _read(run: Run, digests: dict[str, str]) -> tuple[list[Question], list[Dropped]]:
    """Every row of every source as a question or a dropped one, in the recipe's order.

    An optional source that fails is said and noted in `digests` as absent.
    """
    kept: list[Question] = []
    dropped: list[Dropped] = []
    refs = run.recipe.curate.sources
    with progress("Reading sources", len(refs)) as done:
        for ref in refs:
            try:
                rows = _rows(run, ref) if digests[f"sources/{ref.id}"] != "absent" else []
            except (InputError, RemoteError) as error:
                if not ref.optional:
                    raise
                rows, digests[f"sources/{ref.id}"] = [], "absent"
                console.print(str(error), markup=False)
            if digests[f"sources/{ref.id}"] == "absent":
                console.print(f"source {ref.id} is optional and cannot be read: going on without")
            kept += [row for row in rows if isinstance(row, Question)]
            dropped += [row for row in rows if isinstance(row, Dropped)]
            done(1)
    return kept, dropped


def _rows(run: Run, ref: SourceRef) -> list[Question | Dropped]:
    source = source_of(ref)
    path, revision = run.dataset(ref.path, source.name, source.revision)
    seed, on_bad_row = run.recipe.seed, run.recipe.curate.on_bad_row
    return list(read_source(ref, path, revision, seed=seed, on_bad_row=on_bad_row))


def _rank(questions: Sequence[Question], priority: dict[str, int]) -> np.ndarray:
    return verbosity_order(
        [len(q.output) for q in questions],
        [len(q.text) for q in questions],
        [priority[q.source] for q in questions],
        [q.id for q in questions],
    )


def _near_duplicates(
    run: Run, questions: list[Question], rank: np.ndarray
) -> tuple[Exclusion, Iterator[pa.Table]]:
    """Exclude among the sources that take part; the pairs they form, for the record."""
    table = run.recipe.curate
    takes_part = {ref.id for ref in table.sources if ref.exclusion}
    rows = np.array([i for i, q in enumerate(questions) if q.source in takes_part], np.int64)
    encoder = find_encoder(*run.encoder())
    texts = Texts([questions[i].text for i in rows], encoder, run.cache("embeddings"))
    floor = min(FLOOR, table.threshold)
    similar = similar_within(texts, table.threshold, floor)
    close = similar.over(table.threshold)
    close = close._replace(left=rows[close.left], right=rows[close.right])
    result = apply_exclusion(questions, rank, close, table.protect)
    result.facts["encoder"] = encoder.name
    result.facts["encoder_digest"] = encoder.digest
    result.facts["floor"] = floor
    result.facts["similarity"] = asdict(similar.precision)
    return result, _pair_tables([questions[i].id for i in rows], similar, floor)


def _pair_tables(ids: Sequence[str], similar: Similar, floor: float) -> Iterator[pa.Table]:
    names = np.array(ids, dtype=object)
    for block in similar.blocks(floor):
        columns = [names[block.left], names[block.right], block.similarity]
        yield pa.Table.from_arrays([pa.array(column) for column in columns], schema=PAIR_SCHEMA)


def execute(run: Run) -> None:
    """Curate, and leave the record.

    Raises:
        InputError: a source cannot be read, or nothing is left.
    """
    digests = inputs(run)
    with run.stage("curate", digests) as work:
        questions, dropped = _read(run, digests)
        present = [r for r in run.recipe.curate.sources if digests[f"sources/{r.id}"] != "absent"]
        questions, gone = apply_switches(run.recipe.curate, present, questions)
        dropped += gone
        priority = {ref.id: place for place, ref in enumerate(run.recipe.curate.sources)}
        rank = _rank(questions, priority)
        unique, gone = drop_exact_duplicates(questions, rank)
        dropped += gone
        questions = [questions[i] for i in unique]
        result, pairs = _near_duplicates(run, questions, rank[unique].argsort().argsort())
        dropped += [
            _yielded(questions[i], questions[result.twin[i]], float(result.similarity[i]))
            for i in np.flatnonzero(~result.kept)
        ]
        kept = [questions[i] for i in np.flatnonzero(result.kept)]
        if not kept:
            raise InputError("curate: no question is left", "Add sources or loosen the settings")
        kept.sort(key=lambda q: (priority[q.source], q.id))
        dropped = follow_twins(dropped, {q.id for q in kept})
        dropped.sort(key=lambda d: (priority[d.question.source], d.question.id, d.reason, d.detail))
        work.table("questions.parquet", question_table(kept))
        work.table("dropped.parquet", dropped_table(dropped))
        work.tables("pairs.parquet", PAIR_SCHEMA, pairs)
        work.counts = Counts.tally(
            (q.source for q in kept), ((d.question.source, d.reason) for d in dropped)
        )
        losses = heavy_losses(work.counts, dropped)
        for loss in losses:
            console.print(f"warning: {loss}", markup=False)
        work.facts = {
            **result.facts,
            "heavy_losses": losses,
            "content_digest": digest(*(q.id for q in kept)),
        }


def _yielded(question: Question, twin: Question, similarity: float) -> Dropped:
    detail = f"answer of {len(question.output)} characters yields to {len(twin.output)}"
    return Dropped(question, "near_duplicate", detail, twin.id, similarity)
