"""What is read once: rows sorted so that neighbours share prefixes, and cut into forward passes.

    spans → rows of different tokens, sorted → of each the tokens that the row before had not → passes

A cache holds the keys and values of one path from a row's beginning; a row keeps what it shares with
the row before and writes the rest behind it. So the examples of a subject are read once for all its
questions, and a question once for all its choices.

Shapes: N new tokens of a pass, T scored tokens of a span.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from monotreme.scoring.plain import by_tokens
from monotreme.scoring.spans import Span, Tokens

# A prefix shorter than this share of a row is read again: attention from the first token on needs no
# mask and computes half, which is worth more than the tokens that a few common words save.
WORTH_SHARING = 1 / 8


@dataclass(frozen=True, slots=True)
class Segment:
    """New tokens of a row: `length` of them, `place` in the pass, behind `depth` in the cache."""

    place: int
    depth: int
    length: int


@dataclass
class Pass:
    """One forward pass.

    Attributes:
        tokens: new tokens, (N,) when joined. positions: of each in its row, likewise.
        segments: where they belong, in the order in which the cache must see them.
        spans: indices of the spans that are scored by it.
        places: of each span, (T,) the places in the pass that predict its tokens.
    """

    tokens: list[Tokens] = field(default_factory=list)
    positions: list[NDArray[np.int64]] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    spans: list[int] = field(default_factory=list)
    places: list[NDArray[np.int64]] = field(default_factory=list)
    num_tokens: int = 0
    num_predicting: int = 0


def passes(spans: Sequence[Span], batch_tokens: int, most_predicting: int) -> Iterator[Pass]:
    """The passes that score all spans, to be made in this order with one cache.

    Args:
        batch_tokens: new tokens of a pass; one longer row goes alone.
        most_predicting: places of a pass whose logits are needed, likewise.
    """
    readers = by_tokens(spans)
    path = np.zeros(max((len(span.read) for span in spans), default=0), np.int64)
    done = 0  # tokens of the passes before this one; a path's numbers count on through all
    current, before = Pass(), np.zeros(0, np.int32)
    for key in sorted(readers):
        row = spans[readers[key][0]].read
        first = min(spans[index].start for index in readers[key]) - 1
        shared = _worth_sharing(before, row)
        depth = first if (path[first:shared] < done).any() else shared
        if current.segments and (
            current.num_tokens + len(row) - depth > batch_tokens
            or current.num_predicting + len(row) - first > most_predicting
        ):
            yield current
            done += current.num_tokens
            current = Pass()
            depth = min(shared, first)  # the logits of the pass before are gone
        path[depth : len(row)] = done + current.num_tokens + np.arange(len(row) - depth)
        _add(current, row, depth, first)
        for index in readers[key]:
            current.spans.append(index)
            current.places.append(path[spans[index].start - 1 : len(row)] - done)
        before = row
    if current.segments:
        yield current


def _add(current: Pass, row: Tokens, depth: int, first: int) -> None:
    current.segments.append(Segment(current.num_tokens, depth, len(row) - depth))
    current.tokens.append(row[depth:])
    current.positions.append(np.arange(depth, len(row)))
    current.num_tokens += len(row) - depth
    current.num_predicting += len(row) - first


def _worth_sharing(before: Tokens, row: Tokens) -> int:
    """Length of the common prefix of two different rows, 0 where it is not worth a mask."""
    num = min(len(before), len(row))
    differ = np.flatnonzero(before[:num] != row[:num])
    shared = int(differ[0]) if len(differ) else num
    return shared if shared >= WORTH_SHARING * len(row) else 0
