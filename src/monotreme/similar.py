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
from typing import Generic, NamedTuple, TypeVar, overload

import numpy as np

from monotreme.embed import Vectors, embed, sha256
from monotreme.encoders import Encoder
from monotreme.engine import HERE, Engine
from monotreme.neighbors import (
    Pairs,
    Recall,
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


Block = TypeVar("Block", bound=NamedTuple)  # of arrays


class Spill(Generic[Block]):
    """Blocks of arrays, such as pairs, in a file without a name; read as often as wanted."""

    def __init__(self, folder: Path, blocks: Iterable[Block]) -> None:
        self._places: list[tuple[int, type[Block]]] = []
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as this
            weakref.finalize(self, self._file.close)
            for block in blocks:
                self._places.append((self._file.tell(), type(block)))
                for column in block:
                    np.save(self._file, column, allow_pickle=False)

    def __iter__(self) -> Iterator[Block]:
        for place, kind in self._places:  # another reader may stand elsewhere in the file
            self._file.seek(place)
            columns = [np.load(self._file, allow_pickle=False) for _ in kind._fields]
            yield kind._make(columns)


@dataclass(frozen=True)
class Similar:
    """Every pair of texts over a floor.

    Attributes:
        spill: all pairs of texts that were not set aside, with quick similarities.
        cut: the pairs over it are settled.
        near: the settled ones of each block of `spill`.
        precision: of the similarities.
        missing: texts that were set aside, ascending.
        lists: None where all pairs were compared.
    """

    spill: Iterable[Pairs]
    cut: float
    near: Spill[Pairs]
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


class Without:
    """The pairs of some blocks that none of some texts is part of, read as often as wanted."""

    def __init__(self, blocks: Iterable[Pairs], left: np.ndarray, right: np.ndarray) -> None:
        self._blocks, self._left, self._right = blocks, left, right

    def __iter__(self) -> Iterator[Pairs]:
        for block in self._blocks:
            gone = np.isin(block.left, self._left) | np.isin(block.right, self._right)
            yield block.where(~gone)


def similar_within(side: Texts, threshold: float, floor: float, exact: bool = False) -> Similar:
    """Pairs i < j of texts: those over the threshold exactly, those over the floor for the record.

    Args:
        floor: at most the threshold.
        exact: compare all pairs, however many texts there are.
    """
    all_pairs = exact or len(side.texts) <= MOST_EXACT
    error = side.encoder.error
    quick = _quick(side)
    spill, lists = _compare(side, quick, threshold, min(floor, threshold - error), all_pairs)
    near = Over(spill, threshold - error)
    settled = _settle(near, side, side, lambda similarity: similarity <= threshold + error)
    if settled is not None:
        missing = np.union1d(quick.missing(len(side.texts)), settled.lost)
        left = Without(spill, missing, missing)
        near_exact, precision = settled.near, settled.precision
        return Similar(left, threshold - error, near_exact, precision, missing, lists)
    vectors = _exactly(side, np.arange(len(side.texts)))
    spill, lists = _compare(side, vectors, threshold, floor, all_pairs)
    near_exact, missing = (
        Spill(side.cache, Over(spill, threshold)),
        vectors.missing(len(side.texts)),
    )
    return Similar(spill, threshold, near_exact, Precision(), missing, lists)


def _compare(
    side: Texts, vectors: Vectors, threshold: float, floor: float, all_pairs: bool
) -> tuple[Spill[Pairs], Lists | None]:
    """All pairs over the floor; or those that meet in a list, and what share of them that is."""
    # what was compared before, for this floor or a threshold above it, is not compared again
    told, folder = (vectors.digest, repr(floor)), side.cache / "pairs"
    if all_pairs:
        done_before = folder / digest(*told)[:32]
        return Spill(side.cache, pairs_within(vectors, floor, side.engine, done_before)), None
    lists = make_lists(vectors, threshold, side.engine)
    done_before = folder / digest(*told, sha256(lists.nearest))[:32]
    found = pairs_in_lists(vectors, lists, floor, side.cache, side.engine, done_before)
    spill = Spill(side.cache, found)
    recall = measure_recall(vectors, spill, threshold, side.engine)
    return spill, Lists(lists.num, lists.nearest.shape[1], recall)


def similar_between(
    left: Texts, right: Texts, threshold: float
) -> tuple[Iterable[Pairs], Precision]:
    """Every pair (i of left, j of right) over the threshold, all similarities exact.

    Returns:
        Blocks of ascending i, on disk, to be read as often as wanted; and how they were found.
    """
    error = left.encoder.error
    ours, theirs = _quick(left), _quick(right)
    near = Spill(left.cache, pairs_between(ours, theirs, threshold - error, left.engine))
    settled = _settle(near, left, right, lambda similarity: np.full(len(similarity), error > 0))
    if settled is None:
        ours, theirs = (_exactly(side, np.arange(len(side.texts))) for side in (left, right))
        found = pairs_between(ours, theirs, threshold, left.engine)
        return Spill(left.cache, found), Precision()
    return Over(settled.near, threshold), replace(settled.precision, bound=0.0)


class Exactly:
    """Exact cosines of pairs of texts; only texts that are in one are embedded exactly.

    Args:
        asked: (P,) texts of one side and (P,) of the other, some pairs at a time: all that will be
            asked of `of`.

    Attributes:
        lost: texts of each side that were set aside, ascending.
        num_texts: texts that were embedded.
    """

    def __init__(
        self, left: Texts, right: Texts, asked: Iterable[tuple[np.ndarray, np.ndarray]]
    ) -> None:
        in_i, in_j = np.zeros(len(left.texts), bool), np.zeros(len(right.texts), bool)
        for i, j in asked:
            in_i[i] = True
            in_j[j] = True
        if left is right:
            in_i |= in_j
            in_j = in_i
        self._rows_i, self._rows_j = np.flatnonzero(in_i), np.flatnonzero(in_j)
        self._ours = _exactly(left, self._rows_i)
        self._theirs = self._ours if left is right else _exactly(right, self._rows_j)
        self.num_texts = len(self._rows_i) + (0 if left is right else len(self._rows_j))
        self.lost = (
            self._rows_i[self._ours.missing(len(self._rows_i))],
            self._rows_j[self._theirs.missing(len(self._rows_j))],
        )

    def of(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """(P,) cosine of text i of one side and text j of the other; none of them may be lost."""
        places_i, places_j = np.searchsorted(self._rows_i, i), np.searchsorted(self._rows_j, j)
        return similarities(self._ours, self._theirs, places_i, places_j)


class _Settled(NamedTuple):
    """Pairs with exact similarities where quick ones were doubtful.

    Attributes:
        near: without those of texts that were set aside.
        lost: these texts of the left side, ascending.
    """

    near: Spill[Pairs]
    precision: Precision
    lost: np.ndarray


def _settle(
    blocks: Iterable[Pairs],
    left: Texts,
    right: Texts,
    is_doubtful: Callable[[np.ndarray], np.ndarray],
) -> _Settled | None:
    """Exact similarities for the doubtful pairs; None where quick ones prove worse than stated.

    Args:
        blocks: read twice.
        is_doubtful: (P,) quick similarities → (P,) bool.
    """
    bound = left.encoder.error
    doubtful = (pairs.where(is_doubtful(pairs.similarity)) for pairs in blocks)
    exactly = Exactly(left, right, ((pairs.left, pairs.right) for pairs in doubtful))
    largest = 0.0

    def settled() -> Iterator[Pairs]:
        nonlocal largest
        for pairs in Without(blocks, *exactly.lost):
            doubtful = is_doubtful(pairs.similarity)
            exact = exactly.of(pairs.left[doubtful], pairs.right[doubtful])
            off = np.abs(exact - pairs.similarity[doubtful])
            largest = max(largest, float(off.max(initial=0)))
            similarity = pairs.similarity.copy()
            similarity[doubtful] = exact
            yield pairs._replace(similarity=similarity)

    near = Spill(left.cache, settled())
    if largest > bound:
        return None
    return _Settled(near, Precision(bound, largest, exactly.num_texts), exactly.lost[0])


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
