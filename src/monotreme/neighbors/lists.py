"""Pairs over a threshold among so many rows that not all can be compared: through lists.

Spherical k-means (Dhillon and Modha 2001, Machine Learning 42) of a sample gives centroids, each of
them a list; every row is entered in its few nearest lists, and all pairs of rows that share a list
are compared as in tiles.py: proposed by a product with a proven margin, decided by the float64
product of the stored rows. So nothing is found that the exact join would not find, with the same
similarity; what is missed are pairs that share no list. A row has as many lists as a sample of
neighbours needs to meet, at least two; what was missed in the end is measured on another sample.

Who shares a list is a matter of whole numbers (`_whole`), so that it is the same to the last bit on
any machine, with any number of workers and in whatever order the rows come. Legend: R rows, D numbers a row, K lists, M lists a row.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import torch
from scipy.special import betaincinv

from monotreme.engine import HERE, Engine, Shared
from monotreme.neighbors.kept import kept
from monotreme.neighbors.pairs import Pairs, Rows, Side, similarities
from monotreme.neighbors.tiles import TILES, Tiles, pairs_between, propose, shared
from monotreme.progress import progress
from monotreme.storage import storage_errors

FEWEST, MOST = 2, 16  # lists a row
AIM = 0.999  # share of a sample's pairs that must meet: room to the 99.5 % that is promised
SAMPLE = 8192  # rows or texts whose neighbours are all looked for
ROWS_A_LIST = 32  # of the sample that the centroids are made of
ITERATIONS = 8
SCALE = 2048  # of whole numbers
ASSIGNED_AT_ONCE = 256  # rows: so few that their products with all centroids stay in the cache
STEP = 256  # lists are filled up to multiples of it: matrix libraries are slow at each new shape
RANGES = 64  # files that proposed pairs are sorted into by their left text
DECIDED_AT_ONCE = 2**18  # pairs


class Lists(NamedTuple):
    """The lists that rows are entered in.

    Attributes:
        num: K.
        nearest: (R, M) int32, the lists of each row, nearest first.
    """

    num: int
    nearest: np.ndarray


class Recall(NamedTuple):
    """Share of the pairs over a threshold that were found, with its 95 % interval.

    Attributes:
        num_texts: how many were drawn.
        num_pairs: pairs over the threshold that they are part of.
    """

    share: float
    low: float
    high: float
    num_texts: int
    num_pairs: int


# ── pairs ───────────────────────────────────────────────────────────────────────────────────────


def pairs_in_lists(
    side: Side,
    lists: Lists,
    threshold: float,
    folder: Path,
    engine: Engine = HERE,
    done_before: Path | None = None,
) -> Iterator[Pairs]:
    """Every pair i < j of texts that share a list, with cosine > threshold, in ascending blocks.

    Args:
        folder: where proposed pairs lie for the time; not all of them are in memory at once.
        done_before: folder of these rows, lists and threshold alone: a list whose proposed pairs
            lie there is not compared again, those of others are left there.

    Raises:
        StorageError: the folder is full or cannot be written.
    """
    make = partial(_Given, shared(side, engine), threshold)
    with _Proposed(folder, _num_texts(side)) as proposed:
        members = {f"{number:06}": rows for number, rows in enumerate(_members(lists))}
        compare = partial(_compare, make, engine)
        for block in kept(done_before, members, compare, Keys):
            proposed.add(block.keys)
        yield from engine.map(_decide, proposed.unique(), make)


@dataclass(frozen=True)
class _Given:
    side: Side
    threshold: float


class Keys(NamedTuple):
    """Pairs of texts that share a list, as ascending numbers: left text · texts + right text."""

    keys: np.ndarray


def _compare(
    make: Callable[[], _Given], engine: Engine, members: list[np.ndarray]
) -> Iterator[Keys]:
    """The proposed pairs of some lists."""
    with progress("Comparing lists", len(members)) as done:
        for block in engine.map(_propose, members, make, on_gpu=True):
            yield block
            done(1)


def _num_texts(side: Side) -> int:
    return int(side.owner[-1]) + 1 if len(side.owner) else 0


def _members(lists: Lists) -> Iterator[np.ndarray]:
    """(n,) ascending rows of each list."""
    entries = lists.nearest.ravel()
    rows = np.argsort(entries, kind="stable") // lists.nearest.shape[1]
    yield from np.split(rows, np.bincount(entries, minlength=lists.num).cumsum()[:-1])


def _propose(given: _Given, members: np.ndarray) -> Keys:
    """The pairs of one list that may be over the threshold."""
    members = np.pad(members, (0, -len(members) % STEP if len(members) else 0), mode="edge")
    some = Rows(given.side.rows[members], given.side.owner[members])
    tiles = Tiles(some, None, given.threshold)
    height, _ = TILES[tiles.place]
    proposed = [np.empty(0, np.int64)]
    for start in range(0, len(members), height):
        for i, j in propose(tiles, slice(start, start + height)):
            proposed.append(some.owner[i] * _num_texts(given.side) + some.owner[j])
    return Keys(np.unique(np.concatenate(proposed)))


def _decide(given: _Given, keys: np.ndarray) -> Pairs:
    i, j = np.divmod(keys, _num_texts(given.side))
    cosines = similarities(given.side, given.side, i, j)
    return Pairs(i, j, cosines).over(given.threshold)


class _Proposed:
    """Pairs of texts on disk, by ranges of the left one, in files without names."""

    def __init__(self, folder: Path, num_texts: int) -> None:
        self._folder = folder
        self._starts = np.arange(1, RANGES) * num_texts // RANGES * num_texts
        self._open = ExitStack()
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._files = [
                self._open.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
                for _ in range(RANGES)
            ]

    def add(self, keys: np.ndarray) -> None:
        parts = np.split(keys, np.searchsorted(keys, self._starts))
        with storage_errors(self._folder):
            for file, part in zip(self._files, parts, strict=True):
                file.write(part.tobytes())

    def unique(self) -> Iterator[np.ndarray]:
        """Each once, ascending, some at a time."""
        for file in self._files:
            with storage_errors(self._folder):
                file.seek(0)
                keys = np.unique(np.frombuffer(file.read(), np.int64))
            for start in range(0, len(keys), DECIDED_AT_ONCE):
                yield keys[start : start + DECIDED_AT_ONCE]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()


# ── lists ───────────────────────────────────────────────────────────────────────────────────────


def make_lists(side: Side, threshold: float, engine: Engine = HERE) -> Lists:
    """√R lists, and for each row as many as it takes that pairs over the threshold meet."""
    if not len(side.rows):
        return Lists(0, np.empty((0, FEWEST), np.int32))
    centroids = _centroids(side.rows, round(len(side.rows) ** 0.5))
    num = _lists_needed(side, centroids, threshold, engine)
    make = partial(_Assign, engine.share(side.rows), centroids, num)
    height = 64 * ASSIGNED_AT_ONCE
    parts = [slice(start, start + height) for start in range(0, len(side.rows), height)]
    with progress("Entering rows in lists", len(parts)) as done:
        nearest = np.empty((len(side.rows), num), np.int32)
        for part, found in zip(parts, engine.map(_assign, parts, make), strict=True):
            nearest[part] = found
            done(1)
    return Lists(len(centroids), nearest)


@dataclass(frozen=True)
class _Assign:
    rows: Shared[np.ndarray]
    centroids: torch.Tensor
    num: int


def _assign(given: _Assign, part: slice) -> np.ndarray:
    return _nearest(_whole(given.rows.value[part]), given.centroids, given.num).numpy()


def _whole(rows: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Unit rows in whole numbers, (n, D) float32, whose products no computation rounds.

    Rounding moves a row of length SCALE by at most √D/2. By the inequality of Cauchy and Schwarz the
    terms of a product of two such rows, and so all their partial sums, stay within
    (2¹¹ + √D/2)² < 2²⁴ for D < 2²⁴: float32 adds them without an error, in any order. Each number
    has 11 bits, so TF32 takes it whole too.
    """
    return torch.as_tensor(rows * SCALE).round().float()


def _nearest(whole: torch.Tensor, centroids: torch.Tensor, num: int) -> torch.Tensor:
    """(n, num) int32 centroids with the largest products; of equal ones the lower number."""
    found = torch.empty(len(whole), num, dtype=torch.int32)
    behind = torch.arange(len(centroids), dtype=torch.float64)
    for start in range(0, len(whole), ASSIGNED_AT_ONCE):
        part = slice(start, start + ASSIGNED_AT_ONCE)
        product = (whole[part] @ centroids.T).double() * len(centroids) - behind
        found[part] = product.topk(num).indices.int()
    return found


def _centroids(rows: np.ndarray, num: int) -> torch.Tensor:
    """(K, D) whole numbers; K is less than `num` where there are fewer different rows."""
    chosen = _drawn(rows, np.arange(len(rows)), ROWS_A_LIST * num, 0)
    sample = torch.from_numpy(np.unique(_whole(rows[chosen]).numpy(), axis=0))
    first = np.random.default_rng(0).choice(len(sample), min(len(sample), num), replace=False)
    centroids = sample[torch.from_numpy(first)]
    for _ in range(ITERATIONS):
        sums = torch.zeros(centroids.shape, dtype=torch.float64)
        for part in torch.split(sample, ASSIGNED_AT_ONCE):
            sums.index_add_(0, _nearest(part, centroids, 1)[:, 0], part.double())
        length = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
        centroids = torch.where(length > 0, _whole(sums / length), centroids)
    return centroids


def _lists_needed(side: Side, centroids: torch.Tensor, threshold: float, engine: Engine) -> int:
    """The fewest lists a row with which the share AIM of a sample's pairs of rows meet."""
    places = np.arange(len(side.rows))
    alone, drawn = Rows(side.rows, places), _drawn(side.rows, places, SAMPLE, 1)
    most = min(MOST, len(centroids))
    theirs = _nearest(_whole(side.rows[drawn]), centroids, most).numpy()
    meeting, total = np.zeros(most + 1, np.int64), 0  # pairs that meet first with so many lists
    for pairs in _neighbours(alone, drawn, threshold, engine):
        rows, place = np.unique(pairs.left, return_inverse=True)
        ours = _nearest(_whole(side.rows[rows]), centroids, most).numpy()
        meeting += _meeting(ours[place], theirs[np.searchsorted(drawn, pairs.right)])
        total += len(place)
    for num in range(FEWEST, most):
        if meeting[: num + 1].sum() >= AIM * total:
            return num
    return most


def _meeting(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(M + 1,) how many pairs of rows have a list in common from 0, 1, … M lists a row on.

    Args:
        left, right: (P, M) lists of each row, nearest first.
    """
    most = left.shape[1]
    meeting = np.zeros(most + 1, np.int64)
    for num in range(1, most + 1):
        last_left, last_right = left[:, num - 1 : num], right[:, num - 1 : num]
        meet = (last_left == right[:, :num]).any(1) | (left[:, :num] == last_right).any(1)
        meeting[num] = meet.sum()
        left, right = left[~meet], right[~meet]
    return meeting


# ── what is missed ──────────────────────────────────────────────────────────────────────────────


def measure_recall(
    side: Side, found: Iterable[Pairs], threshold: float, engine: Engine = HERE
) -> Recall:
    """Compare with all the neighbours of a sample of texts.

    Pairs of one text are found or missed together, more or less. So the interval is that of Clopper
    and Pearson at an effective size (Korn and Graubard 1998, Survey Methodology 24), for which we
    take the least there can be, as if all pairs of a text were one observation: (Σ t)² / Σ t² with
    t the pairs of each sampled text (Kish 1965, Survey Sampling).
    """
    num_texts = _num_texts(side)
    _, first = np.unique(side.owner, return_index=True)
    texts = side.owner[_drawn(side.rows, first, SAMPLE, 2)]
    drawn = np.zeros(num_texts, bool)
    drawn[texts] = True
    counts = np.zeros(num_texts, np.int64)
    for near in _neighbours(side, texts, threshold, engine):
        again = drawn[near.left] & (near.left > near.right)  # of two texts that were both drawn
        np.add.at(counts, near.right[~again], 1)
    total = int(counts.sum())
    if not total:
        return Recall(1.0, 0.0, 1.0, len(texts), 0)
    # whatever is found is true, so that those among the neighbours need only be counted
    known = (pairs.where(drawn[pairs.left] | drawn[pairs.right]).over(threshold) for pairs in found)
    share = sum(len(pairs.left) for pairs in known) / total
    size = total**2 / float((counts.astype(np.float64) ** 2).sum())
    return Recall(share, *_interval(share * size, size), len(texts), total)


def _interval(count: float, size: float) -> tuple[float, float]:
    """Clopper and Pearson's 95 % interval (Biometrika 1934), also between whole numbers."""
    missed = size - count
    low = float(betaincinv(count, missed + 1, 0.025)) if count else 0.0
    high = float(betaincinv(count + 1, missed, 0.975)) if missed else 1.0
    return low, high


def _drawn(rows: np.ndarray, among: np.ndarray, num: int, seed: int) -> np.ndarray:
    """Ascending places of a sample of rows, by what they hold: their order does not matter.

    Args:
        among: the places that may be drawn.
    """
    limits = np.iinfo(np.int64)
    draw = np.random.default_rng(seed)
    weights = draw.integers(limits.min, limits.max, size=rows.shape[1])
    keys = np.empty(len(among), np.int64)
    for start in range(0, len(among), ASSIGNED_AT_ONCE):
        part = slice(start, start + ASSIGNED_AT_ONCE)
        keys[part] = _whole(rows[among[part]]).numpy().astype(np.int64) @ weights  # modulo 2⁶⁴
    return np.sort(among[keys.argsort(kind="stable")[:num]])


def _neighbours(side: Side, texts: np.ndarray, threshold: float, engine: Engine) -> Iterator[Pairs]:
    """Every pair (another text, one of `texts`) over the threshold, in blocks of ascending texts."""
    rows = np.flatnonzero(np.isin(side.owner, texts))
    some = Rows(side.rows[rows], side.owner[rows])
    for pairs in pairs_between(side, some, threshold, engine):
        yield pairs.where(pairs.left != pairs.right)
