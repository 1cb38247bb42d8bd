"""Two texts → each in pieces, with what a reviewer's eye should fall on."""

import difflib
import re
from collections.abc import Iterator, Sequence

from monotreme.triage.vocabulary import NEGATIONS

Piece = tuple[str, str]  # text, and its marks: "changed", "number", "negation", several or none

PUNCTUATION = frozenset(".,;:!?\"'()[]{}")  # is no difference
MOST_ALIGNED = 3_000  # words of both texts; the time of an alignment grows with the square
_TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+(?:[.,]\d+)*|\s+|[^\w\s]|_")


def mark(ours: Sequence[str], theirs: Sequence[str]) -> tuple[list[list[Piece]], list[list[Piece]]]:
    """Pieces of each text of both sides; a side's texts are compared as one after another."""
    left, right = ([_TOKEN.findall(text) for text in side] for side in (ours, theirs))
    changed_left, changed_right = _changed(_words(left), _words(right))
    return _pieces(left, changed_left), _pieces(right, changed_right)


def _words(texts: Sequence[Sequence[str]]) -> list[str]:
    return [token.casefold() for text in texts for token in text if _counts(token)]


def _counts(token: str) -> bool:
    return not token.isspace() and token not in PUNCTUATION


def _changed(left: Sequence[str], right: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Which words have no partner in place; in long texts, which the other does not have at all."""
    if len(left) + len(right) > MOST_ALIGNED:
        known = set(left), set(right)
        return [word not in known[1] for word in left], [word not in known[0] for word in right]
    marks = [True] * len(left), [True] * len(right)
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    for i, j, size in matcher.get_matching_blocks():
        marks[0][i : i + size] = marks[1][j : j + size] = [False] * size
    return marks


def _pieces(texts: Sequence[Sequence[str]], changed: Sequence[bool]) -> list[list[Piece]]:
    marks = iter(changed)
    return [_joined([(token, _marks(token, marks)) for token in text]) for text in texts]


def _marks(token: str, changed: Iterator[bool]) -> str:
    if not _counts(token):
        return ""
    word = token.casefold().replace("’", "'")
    negation = word in NEGATIONS or word.endswith("n't")
    kinds = {"changed": next(changed), "number": token[0].isdigit(), "negation": negation}
    return " ".join(kind for kind, holds in kinds.items() if holds)


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """Neighbours with the same marks as one piece; what stands between changed words is changed."""
    found: list[Piece] = []
    for place, (text, marks) in enumerate(pieces):
        after = pieces[place + 1][1] if place + 1 < len(pieces) else ""
        if found and not marks and found[-1][1] == after == "changed":
            marks = after
        if found and found[-1][1] == marks:
            found[-1] = (found[-1][0] + text, marks)
        else:
            found.append((text, marks))
    return found
