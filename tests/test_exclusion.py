"""The exclusion's guarantees, against brute force and under permutation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monotreme.exclusion import exclude, twins, verbosity_order
from monotreme.neighbors import Pairs


@st.composite
def graphs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rank, left, right) of up to 25 rows."""
    num = draw(st.integers(0, 25))
    rank = np.array(draw(st.permutations(range(num))), np.int64)
    every = [(i, j) for i in range(num) for j in range(i + 1, num)]
    pairs = draw(st.lists(st.sampled_from(every), unique=True)) if every else []
    edges = np.array(pairs, np.int64).reshape(-1, 2)
    return rank, edges[:, 0], edges[:, 1]


def one_by_one(rank: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The rule as one would say it: from the best down, keep what no kept row forbids."""
    neighbours = [set() for _ in rank]
    for i, j in zip(left.tolist(), right.tolist(), strict=True):
        neighbours[i].add(j)
        neighbours[j].add(i)
    kept = np.zeros(len(rank), bool)
    for row in np.argsort(rank).tolist():
        kept[row] = not any(kept[other] for other in neighbours[row])
    return kept


def in_blocks(
    left: np.ndarray, right: np.ndarray, similarity: np.ndarray | None = None
) -> list[Pairs]:
    """Pairs in blocks of three."""
    value = np.full(len(left), 0.9) if similarity is None else similarity
    cuts = range(0, len(left), 3)
    return [Pairs(left[c : c + 3], right[c : c + 3], value[c : c + 3]) for c in cuts]


def kept_of(rank: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return exclude(rank, in_blocks(left, right))


@settings(deadline=None)
@given(graphs())
def test_rounds_give_what_one_by_one_gives(graph):
    assert kept_of(*graph).tolist() == one_by_one(*graph).tolist()


@settings(deadline=None)
@given(graphs(), st.randoms())
def test_the_order_of_rows_does_not_matter(graph, random):
    rank, left, right = graph
    places = list(range(len(rank)))
    random.shuffle(places)
    place = np.array(places, np.int64)
    moved = np.empty_like(rank)
    moved[place] = rank
    again = kept_of(moved, place[left], place[right])
    assert again[place].tolist() == kept_of(rank, left, right).tolist()


@settings(deadline=None)
@given(graphs())
def test_guarantees(graph):
    rank, left, right = graph
    kept = kept_of(rank, left, right)
    assert not (kept[left] & kept[right]).any()
    similarity = np.linspace(0.8, 1, len(left))
    twin, cosine = twins(kept, rank, in_blocks(left, right, similarity))
    assert (twin[kept] == -1).all()
    for row in np.flatnonzero(~kept):
        assert kept[twin[row]]
        assert rank[twin[row]] < rank[row]
        with_kept = [
            s for i, j, s in zip(left, right, similarity, strict=True)
            for one, other in ((i, j), (j, i))
            if one == row and kept[other] and rank[other] < rank[row]
        ]  # fmt: skip
        assert cosine[row] == max(with_kept)
    assert np.isnan(cosine[kept]).all()


def test_a_row_names_its_most_similar_keeper():
    rank = np.array([0, 1, 2])
    left, right = np.array([0, 1]), np.array([2, 2])
    kept = kept_of(rank, left, right)
    assert kept.tolist() == [True, True, False]
    assert twins(kept, rank, in_blocks(left, right, np.array([0.85, 0.9]))).row.tolist() == [
        -1,
        -1,
        1,
    ]
    assert twins(kept, rank, in_blocks(left, right, np.array([0.9, 0.9]))).row.tolist() == [
        -1,
        -1,
        0,
    ]


def test_a_clique_of_thousands_keeps_its_best():
    num = 2000
    left, right = np.triu_indices(num, 1)
    rank = np.random.default_rng(0).permutation(num)
    assert np.flatnonzero(exclude(rank, [Pairs(left, right, left)])).tolist() == [
        int(np.argmin(rank))
    ]


def test_a_chain_keeps_every_other_row():
    rank = np.arange(1001)
    kept = exclude(rank, [Pairs(rank[:-1], rank[1:], rank[1:])])
    assert kept.tolist() == [i % 2 == 0 for i in range(1001)]


@pytest.mark.parametrize(
    ("answers", "questions", "priorities", "ids", "best"),
    [
        ((5, 9), (1, 1), (0, 0), ("a", "b"), 1),
        ((5, 5), (1, 2), (0, 0), ("a", "b"), 1),
        ((5, 5), (2, 2), (1, 0), ("a", "b"), 1),
        ((5, 5), (2, 2), (0, 0), ("b", "a"), 1),
    ],
)
def test_the_order_of_verbosity(answers, questions, priorities, ids, best):
    assert int(np.argmin(verbosity_order(answers, questions, priorities, ids))) == best
