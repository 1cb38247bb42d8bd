"""Of the same question asked twice one stays: exact duplicates, and the similarity exclusion."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from monotreme.exclusion import exclude, twins
from monotreme.neighbors import Pairs
from monotreme.records import Dropped, Question
from monotreme.wording import final_answer, normalize, numbers, same_answer


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
    """Let each dropped question name one that is kept: where its twin went too, that one's twin.

    The similarity is then that of those two; the detail says so.
    """
    onward = {d.question.id: d for d in dropped if d.twin not in ("", d.question.id)}
    followed = []
    for one in dropped:
        last = one
        while last.twin and last.twin not in kept and last.twin in onward:
            last = onward[last.twin]
        if last is not one:
            via = f"; that was {one.twin[:12]}, which went too: what took its place is named"
            one = replace(one, twin=last.twin, similarity=last.similarity, detail=one.detail + via)
        followed.append(one)
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
