"""Of the same question asked twice one stays: exact duplicates, and the similarity exclusion."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import ne
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monotreme.curate.fates import Fates
from monotreme.curate.filters import first_with
from monotreme.curate.reading import Rows
from monotreme.engine import HERE, Engine
from monotreme.exclusion import exclude, twins
from monotreme.neighbors import Pairs
from monotreme.records import Question
from monotreme.similar import Spill
from monotreme.triage.answers import compare
from monotreme.triage.sides import Answers, training_answers
from monotreme.wording import numbers


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


def drop_exact_duplicates(rows: Rows, fates: Fates, rank: np.ndarray) -> None:
    """Of questions with one normal form the first in `rank` stays."""
    here = np.flatnonzero(fates.stays)
    best = first_with(rows.normal, here, rank, rows.normal[here])
    gone = best != here
    detail = "same text but for case, spaces and LaTeX spelling"
    fates.drop(here[gone], "exact_duplicate", detail, best[gone], 1.0)


class Unprotected:
    """The pairs of some blocks that no rule keeps apart; read as often as wanted.

    Args:
        rule: `different_answer` protects where final answers are definite, comparable and differ,
            `different_numbers` where the numbers in the questions do, `none` never.
    """

    def __init__(self, questions: Sequence[Question], blocks: Iterable[Pairs], rule: str) -> None:
        self._questions, self._blocks, self._rule = questions, blocks, rule

    def __iter__(self) -> Iterator[Pairs]:
        for pairs in self._blocks:
            yield pairs.where(~self.is_protected(pairs))

    def is_protected(self, pairs: Pairs) -> np.ndarray:
        """(P,) bool."""
        if self._rule == "none" or not len(pairs.left):
            return np.zeros(len(pairs.left), bool)
        tell, differ = _RULES[self._rule]
        rows = np.unique(np.concatenate([pairs.left, pairs.right])).tolist()
        told = {row: tell(self._questions[row]) for row in rows}
        both = zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)
        return np.array([differ(told[i], told[j]) for i, j in both])


def apply_exclusion(
    questions: Sequence[Question],
    rank: np.ndarray,
    close: Iterable[Pairs],
    rule: str,
    cache: Path,
    engine: Engine = HERE,
) -> Exclusion:
    """Greedy by verbosity over the unprotected pairs.

    Args:
        questions: N of them.
        rank: (N,) lower stays before higher.
        close: blocks of pairs over the threshold, read several times.
        rule: as in `Unprotected`.
        cache: where the unprotected pairs lie for the time, so that each answer is read once.
    """
    bound = close if rule == "none" else Spill(cache, Unprotected(questions, close, rule))
    kept = exclude(rank, bound, engine)
    twin, similarity = twins(kept, rank, bound)
    return Exclusion(kept, twin, similarity, _guarantees(questions, close, bound, kept, twin))


def _guarantees(
    questions: Sequence[Question],
    close: Iterable[Pairs],
    bound: Iterable[Pairs],
    kept: np.ndarray,
    twin: np.ndarray,
) -> dict[str, Any]:
    """The exclusion's promises, checked against the pairs rather than taken on trust."""
    among_kept = _num_within(bound, kept)
    dropped = np.flatnonzero(~kept)
    longer = other = 0
    for row, keeper in zip(dropped.tolist(), twin[dropped].tolist(), strict=True):
        question, yields_to = questions[row], questions[keeper]
        longer += len(question.output) > len(yields_to.output)
        other += _answers_differ(training_answers(question), training_answers(yields_to))
    return {
        "pairs_over_threshold_among_kept": among_kept,
        "dropped_without_kept_neighbour": int((twin[dropped] < 0).sum()),
        "dropped_although_more_verbose": longer,
        "dropped_with_another_final_answer": other,
        "protected_pairs": _num_within(close, kept) - among_kept,
    }


def _num_within(blocks: Iterable[Pairs], rows: np.ndarray) -> int:
    """Pairs whose rows are both among some, (N,) bool."""
    return sum(int((rows[pairs.left] & rows[pairs.right]).sum()) for pairs in blocks)


def _answers_differ(first: Answers, second: Answers) -> bool:
    return compare(first, second) == "differ"


def _numbers_of(question: Question) -> Any:
    return numbers(question.text)


_RULES: dict[str, tuple[Callable[[Question], Any], Callable[[Any, Any], bool]]] = {
    "different_answer": (training_answers, _answers_differ),
    "different_numbers": (_numbers_of, ne),
}
