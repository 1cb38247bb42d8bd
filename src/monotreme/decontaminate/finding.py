"""Questions × benchmark questions → the pairs that may be one: alike in sense, or word for word."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from monotreme.decontaminate.views import (
    QUESTIONS_AT_ONCE,
    Views,
    benchmark_views,
    parts_of,
    training_views,
)
from monotreme.encoders import Encoder
from monotreme.engine import HERE, Engine, Shared
from monotreme.neighbors import Pairs
from monotreme.progress import progress
from monotreme.records import BenchmarkQuestion, Question
from monotreme.similar import Precision, Texts, similar_between, similarity_of
from monotreme.verbatim import RUN, Stems
from monotreme.wording import words

VERBATIM = 0.8  # share of a stem's runs of words; one changed word in forty costs a quarter of them


class Likeness(NamedTuple):
    """How alike a question and a benchmark question are.

    Attributes:
        similarity: the highest cosine of any two views.
        view: of the benchmark question, the one that has it.
        question_view: of the question.
        verbatim: share of the stem that stands word for word in question or answer, as far as
            looked for: 0 where less than `VERBATIM`.
    """

    similarity: float
    view: str
    question_view: str
    verbatim: float = 0.0


Found = dict[tuple[int, int], Likeness]  # (question, benchmark question) rows → how alike


def similar_pairs(
    questions: Sequence[Question],
    benchmark: Sequence[BenchmarkQuestion],
    encoder: Encoder,
    threshold: float,
    cache: Path,
    engine: Engine = HERE,
) -> tuple[Found, Precision]:
    """All pairs over the threshold or holding a copy, in ascending order."""
    sides = _sides(questions, benchmark, encoder, cache, engine)
    pairs, precision = similar_between(sides.ours, sides.theirs, threshold)
    best = sides.best(pairs)
    copies = verbatim_pairs(questions, benchmark, engine)
    best |= sides.likeness_of(sorted(copies.keys() - best.keys()))
    found = {key: best[key]._replace(verbatim=copies.get(key, 0.0)) for key in sorted(best)}
    return found, precision


def likeness_of(
    pairs: Sequence[tuple[int, int]],
    questions: Sequence[Question],
    benchmark: Sequence[BenchmarkQuestion],
    encoder: Encoder,
    cache: Path,
) -> Found:
    """How alike given pairs are in sense, over the threshold or not."""
    return _sides(questions, benchmark, encoder, cache, HERE).likeness_of(pairs)


class _Sides(NamedTuple):
    """The views of questions and of benchmark questions, and these as texts to compare."""

    our_views: Views
    their_views: Views
    ours: Texts
    theirs: Texts

    def likeness_of(self, pairs: Sequence[tuple[int, int]]) -> Found:
        rows = np.array(
            [
                (i, j)
                for left, right in pairs
                for i in self.our_views.places(left)
                for j in self.their_views.places(right)
            ],
            np.int64,
        ).reshape(-1, 2)
        cosines = similarity_of(self.ours, self.theirs, rows[:, 0], rows[:, 1])
        return self.best(Pairs(rows[:, 0], rows[:, 1], cosines))

    def best(self, pairs: Pairs) -> Found:
        """Pairs of views with their similarity → pairs of questions with the highest."""
        ours, theirs = self.our_views, self.their_views
        best: Found = {}
        for i, j, similarity in zip(*(column.tolist() for column in pairs), strict=True):
            key = (int(ours.row[i]), int(theirs.row[j]))
            if key not in best or similarity > best[key].similarity:
                best[key] = Likeness(similarity, theirs.name[j], ours.name[i])
        return best


def _sides(
    questions: Sequence[Question],
    benchmark: Sequence[BenchmarkQuestion],
    encoder: Encoder,
    cache: Path,
    engine: Engine,
) -> _Sides:
    ours, theirs = training_views(questions, cache, engine), benchmark_views(benchmark)
    texts = (Texts(views.texts, encoder, cache, engine) for views in (ours, theirs))
    return _Sides(ours, theirs, *texts)


def verbatim_pairs(
    questions: Sequence[Question],
    benchmark: Sequence[BenchmarkQuestion],
    engine: Engine = HERE,
) -> dict[tuple[int, int], float]:
    """(question, benchmark question) rows → share of the stem in question or answer, if most of it.

    A stem of a few words is common property ("Which statement is true?"): it must come with its
    options.
    """
    make = partial(_Copied, engine.share(list(benchmark)))
    found: dict[tuple[int, int], float] = {}
    with progress("Looking for verbatim copies", len(questions)) as done:
        for copies in engine.map(_copies_in, parts_of(questions), make):
            found |= copies
            done(min(QUESTIONS_AT_ONCE, len(questions)))
    return found


class _Copied:
    """The benchmark side as a worker needs it."""

    def __init__(self, benchmark: Shared[list[BenchmarkQuestion]]) -> None:
        self.items = benchmark.value
        stems = [words(item.stem) for item in self.items]
        self.lengths = [len(stem) for stem in stems]
        self.stems = Stems(stems)


def _copies_in(made: _Copied, part: tuple[int, list[Question]]) -> dict[tuple[int, int], float]:
    start, questions = part
    texts = [words(f"{q.text}\n\n{q.output}") for q in questions]
    return {
        (start + text, stem): share
        for text, stem, share in made.stems.found_in(texts, VERBATIM)
        if made.lengths[stem] >= RUN or _holds_options(texts[text], made.items[stem])
    }


def _holds_options(text: Sequence[str], item: BenchmarkQuestion) -> bool:
    whole = f" {' '.join(text)} "
    return bool(item.options) and all(f" {' '.join(words(o))} " in whole for o in item.options)
