"""Texts → the pairs over a threshold, as exact float32 vectors have them.

Where the encoder has quick vectors, they propose. A pair whose similarity is farther from the
threshold than the encoder's `error` is decided by them; the texts of the others are embedded again,
exactly. Should an exact similarity differ from a quick one by more than `error`, the quick vectors
are given up and everything is embedded exactly. So the set of pairs over the threshold is float32's;
a stored similarity away from the threshold may be off by what `Precision` states.
"""

import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from monotreme.embed import Vectors, embed
from monotreme.encoders import Encoder
from monotreme.neighbors import (
    Pairs,
    Recall,
    joined,
    make_lists,
    measure_recall,
    pairs_between,
    pairs_in_lists,
    pairs_within,
    similarities,
)
from monotreme.storage import storage_errors

MOST_EXACT = 1_000_000  # texts that are all compared with all, where nothing else is asked for


@dataclass(frozen=True)
class Lists:
    """Of a join through lists, in place of one of all pairs.

    Attributes:
        num: how many lists there were.
        a_row: in how many of them each row was.
        recall: what the join found of the pairs over the threshold.
    """

    num: int
    a_row: int
    recall: Recall


@dataclass(frozen=True)
class Precision:
    """How the similarities were found.

    Attributes:
        bound: how far a stored similarity may be from float32's; 0: they are float32's.
        largest_error: the largest difference seen where both were computed.
        embedded_again: texts that were embedded exactly after a quick embedding.
    """

    bound: float = 0.0
    largest_error: float = 0.0
    embedded_again: int = 0


@dataclass(frozen=True)
class Texts:
    """Texts to compare, with what turns them into vectors."""

    texts: Sequence[str]
    encoder: Encoder
    cache: Path


class Spill:
    """Pairs on disk, in blocks of ascending order, in a file without a name."""

    def __init__(self, folder: Path, blocks: Iterable[Pairs]) -> None:
        self._num_blocks = 0
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as this
            weakref.finalize(self, self._file.close)
            for block in blocks:
                self._num_blocks += 1
                for column in block:
                    np.save(self._file, column, allow_pickle=False)

    def __iter__(self) -> Iterator[Pairs]:
        self._file.seek(0)
        for _ in range(self._num_blocks):
            yield Pairs(*(np.load(self._file, allow_pickle=False) for _ in Pairs._fields))


@dataclass(frozen=True)
class Similar:
    """Every pair of texts over a floor.

    Attributes:
        near: the pairs whose quick similarity is over `cut`, settled.
        precision: of the similarities.
        lists: None where all pairs were compared.
    """

    spill: Spill
    cut: float
    near: Pairs
    precision: Precision
    lists: Lists | None

    def over(self, threshold: float) -> Pairs:
        """The pairs over the threshold that was asked for, or a higher one: exact."""
        return self.near.over(threshold)

    def blocks(self, floor: float) -> Iterator[Pairs]:
        """All pairs over the floor, in ascending order, never all of them in memory."""
        start = 0
        for block in self.spill:
            near = np.flatnonzero(block.similarity > self.cut)
            block.similarity[near] = self.near.similarity[start : start + len(near)]
            start += len(near)
            yield block.over(floor)


def similar_within(side: Texts, threshold: float, floor: float, exact: bool = False) -> Similar:
    """Pairs i < j of texts: those over the threshold exactly, those over the floor for the record.

    Args:
        floor: at most the threshold.
        exact: compare all pairs, however many texts there are.
    """
    all_pairs = exact or len(side.texts) <= MOST_EXACT
    error = side.encoder.error
    quick = embed(side.texts, side.encoder, side.cache)
    spill, lists = _compare(quick, threshold, min(floor, threshold - error), side.cache, all_pairs)
    near = joined([block.over(threshold - error) for block in spill])
    settled = _settle(near, side, side, near.similarity <= threshold + error)
    if settled is not None:
        return Similar(spill, threshold - error, *settled, lists)
    vectors = _exactly(side, np.arange(len(side.texts)))
    spill, lists = _compare(vectors, threshold, floor, side.cache, all_pairs)
    near = joined([block.over(threshold) for block in spill])
    return Similar(spill, threshold, near, Precision(), lists)


def _compare(
    vectors: Vectors, threshold: float, floor: float, folder: Path, all_pairs: bool
) -> tuple[Spill, Lists | None]:
    """All pairs over the floor, or those that lie in one list and what share of them that is."""
    if all_pairs:
        return Spill(folder, pairs_within(vectors, floor)), None
    lists = make_lists(vectors, threshold)
    spill = Spill(folder, pairs_in_lists(vectors, lists, floor, folder))
    recall = measure_recall(vectors, spill, threshold)
    return spill, Lists(lists.num, lists.nearest.shape[1], recall)


def similar_between(left: Texts, right: Texts, threshold: float) -> tuple[Pairs, Precision]:
    """Every pair (i of left, j of right) over the threshold, all similarities exact."""
    error = left.encoder.error
    ours, theirs = (embed(side.texts, side.encoder, side.cache) for side in (left, right))
    near = joined(list(pairs_between(ours, theirs, threshold - error)))
    settled = _settle(near, left, right, np.full(len(near.left), error > 0))
    if settled is None:
        ours, theirs = (_exactly(side, np.arange(len(side.texts))) for side in (left, right))
        return joined(list(pairs_between(ours, theirs, threshold))), Precision()
    pairs, precision = settled
    return pairs.over(threshold), replace(precision, bound=0.0)


def similarity_of(left: Texts, right: Texts, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """(P,) exact cosine of text i of one side and text j of the other."""
    texts_i, place_i = np.unique(i, return_inverse=True)
    texts_j, place_j = np.unique(j, return_inverse=True)
    return similarities(_exactly(left, texts_i), _exactly(right, texts_j), place_i, place_j)


def _settle(
    pairs: Pairs, left: Texts, right: Texts, doubtful: np.ndarray
) -> tuple[Pairs, Precision] | None:
    """Exact similarities for the doubtful pairs; None where quick ones prove worse than stated."""
    bound = left.encoder.error
    again = pairs.where(doubtful)
    if not len(again.left):
        return pairs, Precision(bound)
    exact = similarity_of(left, right, again.left, again.right)
    largest = float(np.abs(exact - again.similarity).max())
    if largest > bound:
        return None
    similarity = pairs.similarity.copy()
    similarity[doubtful] = exact
    num = len({left.texts[k] for k in again.left} | {right.texts[k] for k in again.right})
    return pairs._replace(similarity=similarity), Precision(bound, largest, num)


def _exactly(side: Texts, rows: np.ndarray) -> Vectors:
    return embed([side.texts[row] for row in rows], side.encoder, side.cache, exact=True)
