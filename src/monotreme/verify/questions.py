"""The released questions: their counts, their ids, and that none is there twice or nearly so."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from monotreme.curate.duplicates import Unprotected
from monotreme.decontaminate.leaks import share_interval
from monotreme.encoders import Encoder
from monotreme.errors import InputError
from monotreme.neighbors import Pairs, joined
from monotreme.recipe import Curate
from monotreme.records import QUESTION_SCHEMA, Question, digest
from monotreme.release.record import QuestionsClaim
from monotreme.similar import Texts, similar_between, similar_within
from monotreme.verify.check import Check, compared, left_open
from monotreme.wording import normalize

TRAIN, PROVENANCE = "data/train.parquet", "data/provenance.parquet"
TEXTS = ("instruction", "input", "output")
NOT_RIGHT = "files are not as recorded"
NAMED, SHOWN = 5, 12  # rows that are named, and characters of an id that are enough for it
# Float32 vectors of one text differ between processors; so near the threshold nobody is told wrong.
# Largest difference of a cosine seen between instruction sets: docs/verify.md.
ROUNDING = 1e-5


class Released(NamedTuple):
    """What a released data set holds.

    Attributes:
        ids: as the folder has them, row for row.
    """

    questions: list[Question]
    ids: list[str]

    @property
    def content_digest(self) -> str:
        return digest(*(question.id for question in self.questions))


class Sample(NamedTuple):
    """The rows that are compared with all others.

    Attributes:
        rows: ascending; all of them where everything is compared.
        total: rows of the set.
        seed: of the draw.
    """

    rows: np.ndarray
    total: int
    seed: int

    @property
    def is_all(self) -> bool:
        return len(self.rows) == self.total

    def says(self, what: str, count: int) -> str:
        """What the sample tells of the whole: a share with Wilson's 95 % interval."""
        if self.is_all:
            return f"{count:,} of all {self.total:,} rows have {what}"
        drawn = len(self.rows)
        low, high = share_interval(count, drawn)
        return (
            f"{count:,} of {drawn:,} rows drawn (--seed {self.seed}) have {what}; of all "
            f"{self.total:,} therefore {low:.2%} to {high:.2%} (95 %)"
        )


def draw(total: int, num: int | None, seed: int) -> Sample:
    """`num` of the rows, or all for None; whoever makes a set cannot know which."""
    if num is None or num >= total:
        return Sample(np.arange(total), total, seed)
    rows = random.Random(seed).sample(range(total), num)
    return Sample(np.array(sorted(rows), np.int64), total, seed)


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def read_released(folder: Path) -> Released:
    """The questions of a released data set with where they come from.

    Raises:
        InputError: a file is no Parquet, lacks a column or a value, or their rows do not match.
    """
    train = _table(folder / TRAIN, TEXTS)
    origin = _table(folder / PROVENANCE, [n for n in QUESTION_SCHEMA.names if n not in TEXTS])
    if train.num_rows != origin.num_rows:
        raise InputError(
            f"{TRAIN} has {train.num_rows:,} rows, {PROVENANCE} {origin.num_rows:,}",
            "Get the folder again",
        )
    columns = {name: train[name] for name in TEXTS}
    columns |= {name: origin[name] for name in origin.column_names if name != "id"}
    try:
        rows, ids = pa.table(columns).to_pylist(), origin["id"].to_pylist()
    except ValueError as error:  # bytes that are no UTF-8
        raise _unreadable(folder / TRAIN, error) from None
    return Released([Question(**row) for row in rows], ids)


def _table(path: Path, columns: Sequence[str]) -> pa.Table:
    try:
        schema = pq.read_schema(path)
        for name in columns:
            if (
                name not in schema.names
                or schema.field(name).type != QUESTION_SCHEMA.field(name).type
            ):
                problem = (
                    f"{path} has no column {name!r} of type {QUESTION_SCHEMA.field(name).type}"
                )
                raise InputError(problem, "Get the folder again")
        table = pq.read_table(path, columns=list(columns))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    for name in columns:
        if table[name].null_count:
            raise InputError(f"{path} has a row without {name}", "Get the folder again")
    return table


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"{path} is not a readable Parquet file ({reason})", "Get the folder again")


# ── checking ─────────────────────────────────────────────────────────────────────────────────────


def check_counts(released: Released, claim: QuestionsClaim) -> Check:
    """Whether there are as many questions as recorded, in all and by source."""
    found = dict(Counter(question.source for question in released.questions))
    problems = [
        f"{source} has {found.get(source, 0):,} rows, recorded are {claim.by_source.get(source, 0):,}"
        for source in sorted(found.keys() | claim.by_source.keys())
        if found.get(source, 0) != claim.by_source.get(source, 0)
    ]
    if claim.rows != len(released.questions):
        problems.insert(0, f"{len(released.questions):,} rows, recorded are {claim.rows:,}")
    detail = f"{claim.rows:,} rows of {len(claim.by_source):,} sources"
    return compared("counts", detail, problems)


def check_ids(released: Released, claim: QuestionsClaim) -> Check:
    """Whether each id is the digest of its question, and the recorded digest that of all."""
    problems = [
        f"row {row:,} has id {id_[:16]!r}, its content {question.id[:16]!r}"
        for row, (question, id_) in enumerate(zip(released.questions, released.ids, strict=True))
        if question.id != id_
    ]
    if released.content_digest != claim.content_digest:
        problems.append(
            f"the content digest is {released.content_digest[:16]}…, "
            f"recorded is {claim.content_digest[:16]}…"
        )
    return compared("ids", f"content digest {claim.content_digest}", problems)


def check_changed(folder: Path) -> Check:
    """Which questions and ids do not fit, where one of the two files is not as recorded.

    The record holds one digest of all ids; row by row they stand in the provenance alone.

    Raises:
        InputError: a file is no Parquet, or lacks a column or a value.
    """
    asked = _table(folder / TRAIN, TEXTS).to_pylist()
    found = [digest(*(row[name] for name in TEXTS)) for row in asked]
    claimed = _table(folder / PROVENANCE, ["id"])["id"].to_pylist()
    if len(found) == len(claimed):
        rows = enumerate(zip(claimed, found, strict=True))
        names = [f"row {row:,} ({ours[:SHOWN]})" for row, (ours, theirs) in rows if ours != theirs]
        told = [_first("changed", names)]
    else:
        missing, added = Counter(claimed) - Counter(found), Counter(found) - Counter(claimed)
        told = [
            _first(what, [id_[:SHOWN] for id_ in ids.elements()])
            for what, ids in (("missing", missing), ("added", added))
        ]
    problem = "; ".join(filter(None, told))
    if not problem:
        return left_open("questions", f"{NOT_RIGHT}, and every question fits its id")
    return compared("questions", "", [problem])


def _first(what: str, names: Sequence[str]) -> str:
    """How many rows are so, and the first few of them."""
    if not names:
        return ""
    more = ", …" if len(names) > NAMED else ""
    return f"{len(names):,} {what}: {', '.join(names[:NAMED])}{more}"


def check_exact(released: Released) -> Check:
    """Whether no two questions have one normal form."""
    first: dict[str, int] = {}
    problems = []
    for row, question in enumerate(released.questions):
        known = first.setdefault(normalize(question.text), row)
        if known != row:
            problems.append(f"row {row:,} asks the same as row {known:,}")
    return compared("exact duplicates", "none, by normal form", problems)


def check_near(
    questions: Sequence[Question], settings: Curate, sample: Sample, encoder: Encoder, cache: Path
) -> Check:
    """Whether no two questions are over the threshold that the recipe's rule does not protect."""
    left_out = [ref.id for ref in settings.sources if not ref.exclusion]
    part = np.array([i for i, q in enumerate(questions) if q.source not in left_out], np.int64)
    drawn, rest = np.intersect1d(part, sample.rows), np.setdiff1d(part, sample.rows)
    if len(part) and not len(drawn):
        return left_open("near-duplicates", "none of the rows drawn takes part in the exclusion")
    pairs = _pairs(questions, drawn, rest, settings.threshold, encoder, cache)
    close = pairs.over(settings.threshold + ROUNDING)
    (bound,) = Unprotected(questions, [close], settings.protect)
    sampled = Sample(drawn, len(part), sample.seed)
    rows = np.intersect1d(np.union1d(bound.left, bound.right), drawn)
    kept_apart = len(close.left) - len(bound.left)
    detail = (
        f"{sampled.says(f'an unprotected neighbour over {settings.threshold:g}', len(rows))}; "
        f"{len(part):,} texts embedded, {_share(len(drawn), len(part)):.1%} of their pairs compared, "
        f"{kept_apart:,} pairs kept by protect: {settings.protect}"
    )
    if left_out:
        detail += f"; left out by the recipe: {', '.join(left_out)}"
    found = [
        {"left": questions[i].id, "right": questions[j].id, "similarity": round(float(s), 6)}
        for i, j, s in zip(*bound, strict=True)
    ]
    return Check("near-duplicates", "failed" if found else "ok", detail, tuple(found))


def _pairs(
    questions: Sequence[Question],
    drawn: np.ndarray,
    rest: np.ndarray,
    threshold: float,
    encoder: Encoder,
    cache: Path,
) -> Pairs:
    """Pairs of a drawn row and any other, as rows of `questions`, i < j within the drawn."""
    ours = Texts([questions[i].text for i in drawn], encoder, cache)
    theirs = Texts([questions[i].text for i in rest], encoder, cache)
    parts = []
    if len(drawn) > 1:
        within = joined(
            list(similar_within(ours, threshold, threshold, exact=True).over(threshold))
        )
        parts.append(within._replace(left=drawn[within.left], right=drawn[within.right]))
    if len(drawn) and len(rest):
        between = joined(list(similar_between(ours, theirs, threshold)[0]))
        parts.append(between._replace(left=drawn[between.left], right=rest[between.right]))
    return joined(parts)


def _share(drawn: int, total: int) -> float:
    """Of the pairs of `total` rows, those that have a drawn one."""
    rest = total - drawn
    return 1 - rest * (rest - 1) / (total * (total - 1)) if total > 1 else 1
