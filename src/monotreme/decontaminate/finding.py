"""Questions × benchmark questions → the pairs that may be one: alike in sense, or word for word.

The pairs lie on disk, cut as the questions are read: some thousands of questions at a time.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from monotreme.decontaminate.views import (
    Views,
    benchmark_views,
    part_bounds,
    parts_of,
    training_views,
)
from monotreme.encoders import Encoder
from monotreme.engine import HERE, Engine, Shared
from monotreme.neighbors import Pairs, joined
from monotreme.progress import progress
from monotreme.records import BenchmarkQuestion, Question
from monotreme.similar import Exactly, Precision, Spill, Texts, similar_between
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


class Alike(NamedTuple):
    """P pairs of questions and benchmark questions, in ascending order.

    Attributes:
        question, item: (P,) rows of both.
        similarity: (P,) as in `Likeness`, and so is `verbatim`.
        question_view, view: (P,) places among the views of both.
    """

    question: np.ndarray
    item: np.ndarray
    similarity: np.ndarray
    question_view: np.ndarray
    view: np.ndarray
    verbatim: np.ndarray


Key = tuple[int, int]  # rows of a question and of a benchmark question


class Found:
    """Pairs in ascending order, on disk, and how alike they are."""

    def __init__(self, sides: "_Sides", blocks: Spill[Alike]) -> None:
        self._sides, self._blocks = sides, blocks

    def __len__(self) -> int:
        return sum(len(block.item) for block in self._blocks)

    def items(self) -> Iterator[tuple[Key, Likeness]]:
        for block in self._blocks:
            yield from self._sides.told(block)


def similar_pairs(
    questions: Sequence[Question],
    benchmark: Sequence[BenchmarkQuestion],
    encoder: Encoder,
    threshold: float,
    cache: Path,
    engine: Engine = HERE,
) -> tuple[Found, Precision]:
    """All pairs over the threshold or holding a copy."""
    sides = _sides(questions, benchmark, encoder, cache, engine)
    views, precision = similar_between(sides.ours, sides.theirs, threshold)
    near = Spill(cache, map(sides.best, _cut(views, sides.stops(len(questions)))))
    copies = Spill(cache, verbatim_pairs(questions, benchmark, engine))
    apart = Spill(cache, map(sides.without, copies, near))
    exactly = Exactly(sides.ours, sides.theirs, map(sides.views_of, apart))
    unlike = (sides.exact(pairs, exactly) for pairs in apart)
    return Found(sides, Spill(cache, map(sides.merged, near, unlike, copies))), precision


def likeness_of(
    pairs: Sequence[Key],
    questions: Sequence[Question],
    benchmark: Sequence[BenchmarkQuestion],
    encoder: Encoder,
    cache: Path,
) -> dict[Key, Likeness]:
    """How alike given pairs are in sense, over the threshold or not."""
    sides = _sides(questions, benchmark, encoder, cache, HERE)
    rows = np.array(pairs, np.int64).reshape(-1, 2)
    given = Pairs(rows[:, 0], rows[:, 1], np.zeros(len(rows)))
    exactly = Exactly(sides.ours, sides.theirs, [sides.views_of(given)])
    return dict(sides.told(sides.exact(given, exactly)))


def _cut(blocks: Iterable[Pairs], stops: Iterable[int]) -> Iterator[Pairs]:
    """Blocks of ascending left texts anew: one with those up to each stop."""
    each, held = iter(blocks), joined([])
    for stop in stops:
        parts = [held]
        while not len(parts[-1].left) or parts[-1].left[-1] < stop:
            block = next(each, None)
            if block is None:
                break
            parts.append(block)
        whole = joined(parts)
        at = np.searchsorted(whole.left, stop)
        yield Pairs(*(column[:at] for column in whole))
        held = Pairs(*(column[at:] for column in whole))


class _Sides(NamedTuple):
    """The views of questions and of benchmark questions, and these as texts to compare."""

    our_views: Views
    their_views: Views
    ours: Texts
    theirs: Texts

    def stops(self, num_questions: int) -> Iterator[int]:
        """Behind which view the questions of each part end, as `parts_of` cuts them."""
        for _, end in part_bounds(num_questions):
            yield int(np.searchsorted(self.our_views.row, end))

    def best(self, pairs: Pairs) -> Alike:
        """Pairs of views with their similarity → pairs of questions with the highest.

        Of equal ones the first counts.
        """
        question, item = self.our_views.row[pairs.left], self.their_views.row[pairs.right]
        order = np.lexsort((pairs.right, pairs.left, -pairs.similarity, item, question))
        again = np.diff(question[order], prepend=-1) == 0
        order = order[~(again & (np.diff(item[order], prepend=-1) == 0))]
        columns = (question, item, pairs.similarity, pairs.left, pairs.right)
        return Alike(*(column[order] for column in (*columns, np.zeros(len(question)))))

    def views_of(self, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
        """Every view of a question with every one of the benchmark question, of pairs of both."""
        rows = [
            (i, j)
            for left, right in zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)
            for i in self.our_views.places(left)
            for j in self.their_views.places(right)
        ]
        i, j = np.array(rows, np.int64).reshape(-1, 2).T
        return i, j

    def exact(self, pairs: Pairs, exactly: Exactly) -> Alike:
        """Pairs of questions, with the exact similarity of their views."""
        i, j = self.views_of(pairs)
        return self.best(Pairs(i, j, exactly.of(i, j)))

    def without(self, pairs: Pairs, known: Alike) -> Pairs:
        """Pairs of questions that are not among others."""
        return pairs.where(~np.isin(self._keys(*pairs[:2]), self._keys(*known[:2])))

    def merged(self, near: Alike, unlike: Alike, copies: Pairs) -> Alike:
        """Both in one order, and the share of a copy where there is one."""
        both = Alike(*(np.concatenate(columns) for columns in zip(near, unlike, strict=True)))
        both = Alike(*(column[np.lexsort((both.item, both.question))] for column in both))
        keys, copied = self._keys(*both[:2]), self._keys(*copies[:2])
        held = np.isin(keys, copied)
        both.verbatim[held] = copies.similarity[np.searchsorted(copied, keys[held])]
        return both

    def _keys(self, question: np.ndarray, item: np.ndarray) -> np.ndarray:
        """(P,) a number for each pair, in the pairs' order."""
        return np.asarray(question * (self.their_views.row.max(initial=0) + 1) + item)

    def told(self, alike: Alike) -> Iterator[tuple[Key, Likeness]]:
        for i, j, similarity, ours, theirs, verbatim in zip(
            *(column.tolist() for column in alike), strict=True
        ):
            names = self.their_views.name[theirs], self.our_views.name[ours]
            yield (i, j), Likeness(similarity, *names, verbatim)


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
) -> Iterator[Pairs]:
    """Pairs of (question, benchmark question) rows of which most of the stem is in question or answer.

    A stem of a few words is common property ("Which statement is true?"): it must come with its
    options. What stands for their similarity is the share of the stem. A block for each part of the
    questions.
    """
    make = partial(_Copied, engine.share(list(benchmark)))
    with progress("Looking for verbatim copies", len(questions)) as done:
        parts = engine.map(_copies_in, parts_of(questions), make)
        for copies, (start, end) in zip(parts, part_bounds(len(questions)), strict=True):
            yield copies
            done(end - start)


class _Copied:
    """The benchmark side as a worker needs it."""

    def __init__(self, benchmark: Shared[list[BenchmarkQuestion]]) -> None:
        self.items = benchmark.value
        stems = [words(item.stem) for item in self.items]
        self.lengths = [len(stem) for stem in stems]
        self.stems = Stems(stems)


def _copies_in(made: _Copied, part: tuple[int, list[Question]]) -> Pairs:
    start, questions = part
    texts = [words(f"{q.text}\n\n{q.output}") for q in questions]
    found = [
        (start + text, stem, share)
        for text, stem, share in made.stems.found_in(texts, VERBATIM)
        if made.lengths[stem] >= RUN or _holds_options(texts[text], made.items[stem])
    ]
    text, stem, share = zip(*found, strict=True) if found else ((), (), ())
    return Pairs(np.array(text, np.int64), np.array(stem, np.int64), np.array(share))


def _holds_options(text: Sequence[str], item: BenchmarkQuestion) -> bool:
    whole = f" {' '.join(text)} "
    return bool(item.options) and all(f" {' '.join(words(o))} " in whole for o in item.options)
