"""Questions × benchmark questions → the pairs that may be one: alike in sense, or word for word."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from monotreme.decontaminate.views import View, benchmark_views, training_views
from monotreme.encoders import Encoder
from monotreme.records import BenchmarkQuestion, Question
from monotreme.similar import Precision, Texts, similar_between, similarity_of
from monotreme.verbatim import RUN, find_verbatim
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
) -> tuple[Found, Precision]:
    """All pairs over the threshold or holding a copy, in ascending order."""
    ours, theirs = training_views(questions), benchmark_views(benchmark)
    pairs, precision = similar_between(
        _texts(ours, encoder, cache), _texts(theirs, encoder, cache), threshold
    )
    best = _best(ours, theirs, zip(*(column.tolist() for column in pairs), strict=True))
    copies = verbatim_pairs(questions, benchmark)
    best |= _likeness_of(sorted(copies.keys() - best.keys()), ours, theirs, encoder, cache)
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
    ours, theirs = training_views(questions), benchmark_views(benchmark)
    return _likeness_of(pairs, ours, theirs, encoder, cache)


def _likeness_of(
    pairs: Sequence[tuple[int, int]],
    ours: Sequence[View],
    theirs: Sequence[View],
    encoder: Encoder,
    cache: Path,
) -> Found:
    of_question, of_benchmark = _places(ours), _places(theirs)
    rows = np.array(
        [(i, j) for left, right in pairs for i in of_question[left] for j in of_benchmark[right]],
        np.int64,
    ).reshape(-1, 2)
    cosines = similarity_of(
        _texts(ours, encoder, cache), _texts(theirs, encoder, cache), rows[:, 0], rows[:, 1]
    )
    return _best(ours, theirs, zip(*rows.T.tolist(), cosines.tolist(), strict=True))


def _texts(views: Sequence[View], encoder: Encoder, cache: Path) -> Texts:
    return Texts([view.text for view in views], encoder, cache)


def _places(views: Sequence[View]) -> dict[int, list[int]]:
    """Question number → where its views stand."""
    places: dict[int, list[int]] = {}
    for place, view in enumerate(views):
        places.setdefault(view.row, []).append(place)
    return places


def _best(
    ours: Sequence[View], theirs: Sequence[View], pairs: Iterable[tuple[int, int, float]]
) -> Found:
    """Pairs of views with their similarity → pairs of questions with the highest."""
    best: Found = {}
    for i, j, similarity in pairs:
        key = (ours[i].row, theirs[j].row)
        if key not in best or similarity > best[key].similarity:
            best[key] = Likeness(similarity, theirs[j].name, ours[i].name)
    return best


def verbatim_pairs(
    questions: Sequence[Question], benchmark: Sequence[BenchmarkQuestion]
) -> dict[tuple[int, int], float]:
    """(question, benchmark question) rows → share of the stem in question or answer, if most of it.

    A stem of a few words is common property ("Which statement is true?"): it must come with its
    options.
    """
    texts = [words(f"{q.text}\n\n{q.output}") for q in questions]
    stems = [words(item.stem) for item in benchmark]
    return {
        (text, stem): share
        for text, stem, share in find_verbatim(texts, stems, VERBATIM)
        if len(stems[stem]) >= RUN or _holds_options(texts[text], benchmark[stem])
    }


def _holds_options(text: Sequence[str], item: BenchmarkQuestion) -> bool:
    whole = f" {' '.join(text)} "
    return bool(item.options) and all(f" {' '.join(words(o))} " in whole for o in item.options)
