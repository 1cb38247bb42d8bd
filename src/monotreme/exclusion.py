"""Similarity exclusion: of two near-duplicates the more verbose stays.

Greedy by verbosity, that is the lexicographically first maximal independent set of the graph of
pairs under a total order of the rows. Nothing kept is paired with anything kept; every dropped row
has a kept neighbour that comes before it in the order; the result is a function of the set of rows,
not of the order in which they came. (The paper, section 2.2, keeps "the more verbose" of two; how
chains are settled is ours.)

The pairs come in blocks that are read anew for each pass, so that they need not fit into memory.
Legend: N rows, P pairs of a block.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from monotreme.engine import HERE, Engine, Shared

UNDECIDED, KEPT, DROPPED = 0, 1, 2


class Edges(Protocol):
    """A block of pairs.

    Attributes:
        left, right: (P,) rows of each pair, in any order.
        similarity: (P,) their cosine.
    """

    @property
    def left(self) -> np.ndarray: ...
    @property
    def right(self) -> np.ndarray: ...
    @property
    def similarity(self) -> np.ndarray: ...


class Twins(NamedTuple):
    """What dropped rows yield to.

    Attributes:
        row: (N,) the most similar kept neighbour that comes before it; -1 for kept rows.
        similarity: (N,) the cosine with it; nan for kept rows.
    """

    row: np.ndarray
    similarity: np.ndarray


def verbosity_order(
    answers: Sequence[int] | np.ndarray,
    questions: Sequence[int] | np.ndarray,
    priorities: Sequence[int] | np.ndarray,
    ids: Sequence[str] | np.ndarray,
) -> np.ndarray:
    """Rank of each row, 0 for the one that yields to none; shape (N,), int64.

    The order: longer answer, longer question (both in characters), lower source priority number,
    lower content digest.
    """
    lengths = (-np.asarray(questions, np.int64), -np.asarray(answers, np.int64))
    order = np.lexsort((np.asarray(ids, "S"), np.asarray(priorities, np.int64), *lengths))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


def exclude(rank: np.ndarray, blocks: Iterable[Edges], engine: Engine = HERE) -> np.ndarray:
    """Which rows stay.

    Priority rounds: a row that outranks all its undecided neighbours is kept and its neighbours are
    dropped; repeat. Every round decides at least the best undecided row, so it ends, and the rounds
    give what the sequential greedy gives (Blelloch, Fineman and Shun 2012). In each round the blocks
    are looked at on their own, against the state that all of them share.

    Args:
        rank: (N,) a permutation; lower stays before higher.
        blocks: every pair once; read anew in each round.

    Returns:
        (N,) bool, True for kept.
    """
    state = np.full(len(rank), UNDECIDED, np.int8)
    shared_rank = engine.share(rank)
    while True:
        blocked = np.zeros(len(rank), bool)
        make = partial(_Round, shared_rank, engine.share(state.copy()))
        for rows in engine.map(_outranked, blocks, make):
            blocked[rows] = True
        if not blocked.any():
            return np.asarray(state != DROPPED)
        state[(state == UNDECIDED) & ~blocked] = KEPT
        make = partial(_Round, shared_rank, engine.share(state.copy()))
        for rows in engine.map(_beaten, blocks, make):
            state[rows] = DROPPED


class _Round:
    """What every block of a round is looked at with."""

    def __init__(self, rank: Shared[np.ndarray], state: Shared[np.ndarray]) -> None:
        self.rank, self.state = rank.value, state.value

    def ordered(self, edges: Edges) -> tuple[np.ndarray, np.ndarray]:
        """(P,) the row of each pair that comes before the other, and the other."""
        first = self.rank[edges.left] < self.rank[edges.right]
        before = np.where(first, edges.left, edges.right)
        return before, np.where(first, edges.right, edges.left)


def _outranked(round_: _Round, edges: Edges) -> np.ndarray:
    """Undecided rows that an undecided neighbour comes before."""
    before, after = round_.ordered(edges)
    is_open = (round_.state[before] == UNDECIDED) & (round_.state[after] == UNDECIDED)
    return np.unique(after[is_open])


def _beaten(round_: _Round, edges: Edges) -> np.ndarray:
    """Undecided rows that a kept neighbour comes before."""
    before, after = round_.ordered(edges)
    is_beaten = (round_.state[before] == KEPT) & (round_.state[after] == UNDECIDED)
    return np.unique(after[is_beaten])


def twins(kept: np.ndarray, rank: np.ndarray, blocks: Iterable[Edges]) -> Twins:
    """For every dropped row its most similar kept neighbour that outranks it.

    Equal similarities are settled by the lower rank. Arguments as in `exclude`.
    """
    best = Twins(np.full(len(kept), -1, np.int64), np.full(len(kept), np.nan))
    for edges in blocks:
        dropped = np.concatenate([edges.right, edges.left])
        keeper = np.concatenate([edges.left, edges.right])
        value = np.concatenate([edges.similarity, edges.similarity])
        valid = ~kept[dropped] & kept[keeper] & (rank[keeper] < rank[dropped])
        known = np.flatnonzero(best.row[dropped[valid]] >= 0)  # what earlier blocks found competes
        again = np.unique(dropped[valid][known])
        dropped = np.concatenate([dropped[valid], again])
        keeper = np.concatenate([keeper[valid], best.row[again]])
        value = np.concatenate([value[valid], best.similarity[again]])
        worst_first = np.lexsort((-rank[keeper], value))
        best.row[dropped[worst_first]] = keeper[worst_first]  # the last write to a row is its best
        best.similarity[dropped[worst_first]] = value[worst_first]
    return best
