"""Stage 1: sources → keyword search → exact duplicates → similarity exclusion (paper, section 2.2).

Leaves questions.parquet (kept), dropped.parquet (each with its reason and, where it yields to
another question, that twin and their similarity) and pairs.parquet (every pair over the floor).
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from monotreme.encoders import encoder_identity, find_encoder
from monotreme.errors import InputError, RemoteError
from monotreme.exclusion import exclude, twins, verbosity_order
from monotreme.keywords import has_keyword
from monotreme.licenses import COMMERCIAL, permits
from monotreme.neighbors import Pairs
from monotreme.progress import console, progress
from monotreme.recipe import Curate, SourceRef
from monotreme.records import Counts, Dropped, Question, digest, dropped_table, question_table
from monotreme.run import Run
from monotreme.similar import Similar, Texts, similar_within
from monotreme.sources import read_source, source_of
from monotreme.wording import final_answer, normalize, numbers, same_answer

PAIR_SCHEMA = pa.schema(
    [("left", pa.string()), ("right", pa.string()), ("similarity", pa.float64())]
)
HEAVY_LOSS = 0.8  # share of a source's rows: a larger loss is said aloud
FLOOR = 0.7  # pairs are stored down to here, so that another threshold needs no new comparison


class Exclusion(NamedTuple):
    """What the similarity exclusion decided over N questions.

    Attributes:
        kept: (N,) bool.
        twin: (N,) row of the kept question that a dropped one yields to, -1 for kept ones.
        similarity: (N,) cosine with the twin, nan for kept ones.
        facts: the guarantees, counted anew from the pairs.
    """

    kept: np.ndarray
    twin: np.ndarray
    similarity: np.ndarray
    facts: dict[str, Any]


def drop_unless(
    questions: Iterable[Question], keep: Callable[[Question], bool], reason: str, detail: str
) -> tuple[list[Question], list[Dropped]]:
    """Split questions by a rule."""
    kept, dropped = [], []
    for question in questions:
        if keep(question):
            kept.append(question)
        else:
            dropped.append(Dropped(question, reason, detail))
    return kept, dropped


def drop_replaced(
    questions: Sequence[Question], better: str, worse: str
) -> tuple[list[Question], list[Dropped]]:
    """Drop questions of source `worse` that source `better` has too (PRM800K's MATH problems)."""
    there = {normalize(q.text): q.id for q in questions if q.source == better}
    kept, dropped = [], []
    for question in questions:
        twin = there.get(normalize(question.text)) if question.source == worse else None
        if twin is None:
            kept.append(question)
        else:
            dropped.append(Dropped(question, "replaced", f"{better} has this problem", twin, 1.0))
    return kept, dropped


def drop_exact_duplicates(
    questions: Sequence[Question], rank: np.ndarray
) -> tuple[list[int], list[Dropped]]:
    """Of questions with one normal form the first in `rank` stays.

    Returns:
        Rows kept, in order, and what was dropped.
    """
    best: dict[str, int] = {}
    for row in np.argsort(rank):
        best.setdefault(normalize(questions[row].text), int(row))
    kept = sorted(best.values())
    dropped = []
    for row in sorted(set(range(len(questions))) - set(kept)):
        winner = questions[best[normalize(questions[row].text)]]
        detail = "same text but for case, spaces and LaTeX spelling"
        dropped.append(Dropped(questions[row], "exact_duplicate", detail, winner.id, 1.0))
    return kept, dropped


def follow_twins(dropped: Sequence[Dropped], kept: set[str]) -> list[Dropped]:
    """Let each dropped question name one that is kept: where its twin went too, that one's twin."""
    onward = {d.question.id: d for d in dropped if d.twin not in ("", d.question.id)}
    followed = []
    for one in dropped:
        last = one
        while last.twin and last.twin not in kept and last.twin in onward:
            last = onward[last.twin]
        via = f"; {one.twin[:12]} went too" if last is not one else ""
        followed.append(
            replace(one, twin=last.twin, similarity=last.similarity, detail=one.detail + via)
        )
    return followed


def protected(questions: Sequence[Question], pairs: Pairs, rule: str) -> np.ndarray:
    """Which pairs the rule keeps apart; shape (P,), bool.

    `different_answer` protects where both final answers are known and differ, `different_numbers`
    where the numbers in the questions do.
    """
    if rule == "none" or not len(pairs.left):
        return np.zeros(len(pairs.left), bool)
    differ = _answers_differ if rule == "different_answer" else _numbers_differ
    rows = zip(pairs.left, pairs.right, strict=True)
    return np.array([differ(questions[i], questions[j]) for i, j in rows])


def _answers_differ(one: Question, other: Question) -> bool:
    first, second = final_answer(one.output), final_answer(other.output)
    return first is not None and second is not None and not same_answer(first, second)


def _numbers_differ(one: Question, other: Question) -> bool:
    return numbers(one.text) != numbers(other.text)


def apply_exclusion(
    questions: Sequence[Question], rank: np.ndarray, close: Pairs, rule: str
) -> Exclusion:
    """Greedy by verbosity over the unprotected pairs, all of them over the threshold."""
    apart = protected(questions, close, rule)
    bound = close.where(~apart)
    kept = exclude(rank, bound.left, bound.right)
    twin = twins(kept, rank, *bound)
    similarity = np.full(len(questions), np.nan)
    lookup = {(int(i), int(j)): s for i, j, s in zip(*bound, strict=True)}
    for row in np.flatnonzero(twin >= 0):
        i, j = sorted((int(row), int(twin[row])))
        similarity[row] = lookup[i, j]
    facts = _guarantees(questions, bound, kept, twin)
    facts["protected_pairs"] = int((apart & kept[close.left] & kept[close.right]).sum())
    return Exclusion(kept, twin, similarity, facts)


def _guarantees(
    questions: Sequence[Question], bound: Pairs, kept: np.ndarray, twin: np.ndarray
) -> dict[str, Any]:
    """The exclusion's promises, checked against the pairs rather than taken on trust."""
    dropped = np.flatnonzero(~kept).tolist()
    yields_to = {i: questions[int(twin[i])] for i in dropped}
    longer = sum(len(questions[i].output) > len(yields_to[i].output) for i in dropped)
    other = sum(_answers_differ(questions[i], yields_to[i]) for i in dropped)
    return {
        "pairs_over_threshold_among_kept": int((kept[bound.left] & kept[bound.right]).sum()),
        "dropped_without_kept_neighbour": sum(int(twin[i]) < 0 for i in dropped),
        "dropped_although_more_verbose": longer,
        "dropped_with_another_final_answer": other,
    }


# ── the stage ───────────────────────────────────────────────────────────────────────────────────


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


def drop_unfree(
    questions: Sequence[Question], licenses: str | Collection[str]
) -> tuple[list[Question], list[Dropped]]:
    """Drop what the licences do not permit: `any`, `commercial`, or SPDX identifiers."""
    if licenses == "any":
        return list(questions), []
    allowed = COMMERCIAL if licenses == "commercial" else licenses
    permitted = {name: permits(name, allowed) for name in {q.license for q in questions}}
    kept = [question for question in questions if permitted[question.license]]
    dropped = [
        Dropped(question, "license", f"{question.license} is not among the licences allowed")
        for question in questions
        if not permitted[question.license]
    ]
    return kept, dropped


def _filter(
    table: Curate, refs: Sequence[SourceRef], questions: list[Question]
) -> tuple[list[Question], list[Dropped]]:
    """Licences, authorship, replaced problems and the keyword search, by the recipe's switches."""
    questions, dropped = drop_unfree(questions, table.licenses)
    questions, gone = drop_unless(
        questions,
        lambda q: table.llm_written == "keep" or not q.llm_written,
        "llm_written",
        "a language model wrote the answer",
    )
    dropped += gone
    for ref in refs:
        worse = source_of(ref).replaces
        if worse:
            questions, gone = drop_replaced(questions, ref.id, worse)
            dropped += gone
    searched = {ref.id for ref in refs if source_of(ref).keywords}
    questions, gone = drop_unless(
        questions,
        lambda q: q.source not in searched or has_keyword(f"{q.text}\n{q.output}"),
        "no_keyword",
        "no STEM or logic keyword in question or answer",
    )
    return questions, dropped + gone


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
        questions, gone = _filter(run.recipe.curate, present, questions)
        dropped += gone
        priority = {ref.id: place for place, ref in enumerate(run.recipe.curate.sources)}
        unique, gone = drop_exact_duplicates(questions, _rank(questions, priority))
        dropped += gone
        questions = [questions[i] for i in unique]
        result, pairs = _near_duplicates(run, questions, _rank(questions, priority))
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


def heavy_losses(counts: Counts, dropped: Iterable[Dropped]) -> list[str]:
    """A line for each source that lost more than 80 % of its rows, with the commonest reason."""
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for row in dropped:
        reasons[row.question.source][row.reason] += 1
    lines = []
    for source, rows in counts.by_source.items():
        if rows["dropped"] > HEAVY_LOSS * rows["read"]:
            reason, num = reasons[source].most_common(1)[0]
            share = rows["dropped"] / rows["read"]
            lines.append(
                f"{source} lost {share:.0%} of its {rows['read']:,} rows, most of them ({num:,}) "
                f"as {reason}"
            )
    return lines


def _yielded(question: Question, twin: Question, similarity: float) -> Dropped:
    detail = f"answer of {len(question.output)} characters yields to {len(twin.output)}"
    return Dropped(question, "near_duplicate", detail, twin.id, similarity)
