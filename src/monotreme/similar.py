"""Texts → the pairs over a threshold, as exact float32 vectors have them.

Where the encoder has quick vectors, they propose. A pair whose similarity is farther from the
threshold than the encoder's `error` is decided by them; the texts of the others are embedded again,
exactly. Should an exact similarity differ from a quick one by more than `error`, the quick vectors
are given up and everything is embedded exactly. So the set of pairs over the threshold is float32's;
a stored similarity away from the threshold may be off by what `Precision` states.
"""

import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np

from monotreme.embed import Vectors, embed
from monotreme.encoders import Encoder
from monotreme.engine import HERE, Engine
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
from monotreme.records import digest
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
    """Texts to compare, with what turns them into vectors, and where that is done."""

    texts: Sequence[str]
    encoder: Encoder
    cache: Path
    engine: Engine = HERE
    set_aside: bool = False  # texts that kill their worker, instead of raising


class Spill:
    """Pairs on disk, in blocks of ascending order, in a file without a name; read as often as wanted."""

    def __init__(self, folder: Path, blocks: Iterable[Pairs]) -> None:
        self._places: list[int] = []
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as this
            weakref.finalize(self, self._file.close)
            for block in blocks:
                self._places.append(self._file.tell())
                for column in block:
                    np.save(self._file, column, allow_pickle=False)

    def __iter__(self) -> Iterator[Pairs]:
        for place in self._places:  # another reader may stand elsewhere in the file
            self._file.seek(place)
            yield Pairs(*(np.load(self._file, allow_pickle=False) for _ in Pairs._fields))


@dataclass(frozen=True)
class Similar:
    """Every pair of texts over a floor.

    Attributes:
        spill: all pairs, with quick similarities.
        cut: the pairs over it are settled.
        near: the settled ones of each block of `spill`.
        precision: of the similarities.
        missing: texts that were set aside, ascending.
        lists: None where all pairs were compared.
    """

    spill: Spill
    cut: float
    near: Spill
    precision: Precision
    missing: np.ndarray
    lists: Lists | None

    def over(self, threshold: float) -> "Over":
        """The pairs over the threshold that was asked for, or a higher one: exact."""
        return Over(self.near, threshold)

    def blocks(self, floor: float) -> Iterator[Pairs]:
        """All pairs over the floor, in ascending order, never all of them in memory."""
        for block, settled in zip(self.spill, self.near, strict=True):
            block.similarity[block.similarity > self.cut] = settled.similarity
            yield block.over(floor)


class Over:
    """The pairs of some blocks that are over a threshold, read as often as wanted."""

    def __init__(self, blocks: Iterable[Pairs], threshold: float) -> None:
        self._blocks, self._threshold = blocks, threshold

    def __iter__(self) -> Iterator[Pairs]:
        return (block.over(self._threshold) for block in self._blocks)


def similar_within(side: Texts, threshold: float, floor: float, exact: bool = False) -> Similar:
    """Pairs i < j of texts: those over the threshold exactly, those over the floor for the record.

    Args:
        floor: at most the threshold.
        exact: compare all pairs, however many texts there are.
    """
    all_pairs = exact or len(side.texts) <= MOST_EXACT
    error = side.encoder.error
    quick = _quick(side)
    missing = quick.missing(len(side.texts))
    spill, lists = _compare(side, quick, threshold, min(floor, threshold - error), all_pairs)
    near = Over(spill, threshold - error)
    settled = _settle(near, side, side, lambda similarity: similarity <= threshold + error)
    if settled is not None:
        return Similar(spill, threshold - error, *settled, missing, lists)
    vectors = _exactly(side, np.arange(len(side.texts)))
    spill, lists = _compare(side, vectors, threshold, floor, all_pairs)
    near_exact = Spill(side.cache, Over(spill, threshold))
    return Similar(spill, threshold, near_exact, Precision(), missing, lists)


def _compare(
    side: Texts, vectors: Vectors, threshold: float, floor: float, all_pairs: bool
) -> tuple[Spill, Lists | None]:
    """All pairs over the floor; or those that meet in a list, and what share of them that is."""
    if all_pairs:
        # what was compared before, for this floor or a threshold above it, is not compared again
        folder = side.cache / "pairs" / digest(vectors.digest, repr(floor))[:32]
        return Spill(side.cache, pairs_within(vectors, floor, side.engine, folder)), None
    lists = make_lists(vectors, threshold, side.engine)
    found = pairs_in_lists(vectors, lists, floor, side.cache, side.engine)
    spill = Spill(side.cache, found)
    recall = measure_recall(vectors, spill, threshold, side.engine)
    return spill, Lists(lists.num, lists.nearest.shape[1], recall)


def similar_between(left: Texts, right: Texts, threshold: float) -> tuple[Pairs, Precision]:
    """Every pair (i of left, j of right) over the threshold, all similarities exact."""
    error = left.encoder.error
    ours, theirs = _quick(left), _quick(right)
    near = list(pairs_between(ours, theirs, threshold - error, left.engine))
    settled = _settle(near, left, right, lambda similarity: np.full(len(similarity), error > 0))
    if settled is None:
        ours, theirs = (_exactly(side, np.arange(len(side.texts))) for side in (left, right))
        return joined(list(pairs_between(ours, theirs, threshold, left.engine))), Precision()
    blocks, precision = settled
    return joined(list(Over(blocks, threshold))), replace(precision, bound=0.0)


def similarity_of(left: Texts, right: Texts, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """(P,) exact cosine of text i of one side and text j of the other."""
    texts_i, place_i = np.unique(i, return_inverse=True)
    texts_j, place_j = np.unique(j, return_inverse=True)
    return similarities(_exactly(left, texts_i), _exactly(right, texts_j), place_i, place_j)


def _settle(
    blocks: Iterable[Pairs],
    left: Texts,
    right: Texts,
    is_doubtful: Callable[[np.ndarray], np.ndarray],
) -> tuple[Spill, Precision] | None:
    """Exact similarities for the doubtful pairs; None where quick ones prove worse than stated.

    Args:
        blocks: read twice.
        is_doubtful: (P,) quick similarities → (P,) bool.
    """
    bound = left.encoder.error
    again_i, again_j = np.zeros(len(left.texts), bool), np.zeros(len(right.texts), bool)
    for pairs in blocks:
        doubtful = is_doubtful(pairs.similarity)
        again_i[pairs.left[doubtful]] = True
        again_j[pairs.right[doubtful]] = True
    if left is right:
        again_i |= again_j
        again_j = again_i
    rows_i, rows_j = np.flatnonzero(again_i), np.flatnonzero(again_j)
    ours = _exactly(left, rows_i)
    theirs = ours if left is right else _exactly(right, rows_j)
    largest = 0.0

    def settled() -> Iterator[Pairs]:
        nonlocal largest
        for pairs in blocks:
            doubtful = is_doubtful(pairs.similarity)
            places_i = np.searchsorted(rows_i, pairs.left[doubtful])
            places_j = np.searchsorted(rows_j, pairs.right[doubtful])
            exact = similarities(ours, theirs, places_i, places_j)
            off = np.abs(exact - pairs.similarity[doubtful])
            largest = max(largest, float(off.max(initial=0)))
            similarity = pairs.similarity.copy()
            similarity[doubtful] = exact
            yield pairs._replace(similarity=similarity)

    near = Spill(left.cache, settled())
    if largest > bound:
        return None
    num = len(rows_i) if left is right else len(rows_i) + len(rows_j)
    return near, Precision(bound, largest, num)


def _quick(side: Texts) -> Vectors:
    return embed(side.texts, side.encoder, side.cache, False, side.engine, side.set_aside)


def _exactly(side: Texts, rows: np.ndarray) -> Vectors:
    texts = _Some(side.texts, rows) if len(rows) < len(side.texts) else side.texts
    return embed(texts, side.encoder, side.cache, True, side.engine, side.set_aside)


class _Some(Sequence[str]):
    """Some of the texts, each read when it is asked for."""

    def __init__(self, texts: Sequence[str], rows: np.ndarray) -> None:
        self._texts, self._rows = texts, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self._texts[int(row)] for row in self._rows[place]]
        return self._texts[int(self._rows[place])]
