"""Similarity exclusion: of two near-duplicates the more verbose stays.

Greedy by verbosity, that is the lexicographically first maximal independent set of the graph of
pairs under a total order of the rows. Nothing kept is paired with anything kept; every dropped row
has a kept neighbour that comes before it in the order; the result is a function of the set of rows,
not of the order in which they came. (The paper, section 2.2, keeps "the more verbose" of two; how
chains are settled is ours.)
"""

from collections.abc import Sequence

import numpy as np

UNDECIDED, KEPT, DROPPED = 0, 1, 2


def verbosity_order(
    answers: Sequence[int], questions: Sequence[int], priorities: Sequence[int], ids: Sequence[str]
) -> np.ndarray:
    """Rank of each row, 0 for the one that yields to none; shape (N,), int64.

    The order: longer answer, longer question (both in characters), lower source priority number,
    lower content digest.
    """
    rows = range(len(ids))
    order = sorted(rows, key=lambda i: (-answers[i], -questions[i], priorities[i], ids[i]))
    rank = np.empty(len(ids), np.int64)
    rank[order] = np.arange(len(ids))
    return rank


def exclude(rank: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Which rows stay.

    Priority rounds: a row that outranks all its undecided neighbours is kept and its neighbours are
    dropped; repeat. Every round decides at least the best undecided row, so it ends, and the rounds
    give what the sequential greedy gives (Blelloch, Fineman and Shun 2012).

    Args:
        rank: (N,) a permutation; lower stays before higher.
        left, right: (P,) rows of each pair, in any order.

    Returns:
        (N,) bool, True for kept.
    """
    before = np.where(rank[left] < rank[right], left, right)
    after = np.where(rank[left] < rank[right], right, left)
    state = np.full(len(rank), UNDECIDED, np.int8)
    while len(before):
        blocked = np.zeros(len(rank), bool)
        blocked[after] = True
        winners = (state == UNDECIDED) & ~blocked
        state[winners] = KEPT
        state[after[winners[before]]] = DROPPED
        open_pairs = (state[before] == UNDECIDED) & (state[after] == UNDECIDED)
        before, after = before[open_pairs], after[open_pairs]
    return np.asarray(state != DROPPED)


def twins(
    kept: np.ndarray, rank: np.ndarray, left: np.ndarray, right: np.ndarray, similarity: np.ndarray
) -> np.ndarray:
    """For every dropped row its most similar kept neighbour that outranks it; -1 for kept rows.

    Equal similarities are settled by the lower rank. Arguments as in `exclude`; shape (N,), int64.
    """
    dropped = np.concatenate([right, left])
    keeper = np.concatenate([left, right])
    value = np.concatenate([similarity, similarity])
    valid = ~kept[dropped] & kept[keeper] & (rank[keeper] < rank[dropped])
    dropped, keeper, value = dropped[valid], keeper[valid], value[valid]
    worst_first = np.lexsort((-rank[keeper], value))
    twin = np.full(len(kept), -1, np.int64)
    twin[dropped[worst_first]] = keeper[worst_first]  # the last write to a row is its best
    return twin
