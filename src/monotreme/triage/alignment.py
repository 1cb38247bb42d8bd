"""Where two texts of words differ: runs that stand on one side only, and what kind of edit each is."""

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from monotreme.triage.answers import contains
from monotreme.triage.sides import Text, content, read_text, stem_of
from monotreme.triage.vocabulary import OPPOSITES

LONG_RUN = 8  # words in common one after another: copied or a template, not chance
LONGEST = 400  # words that are aligned; the time grows with the square
SLACK = 40  # words by which a text may be longer than twice the other before a part is taken
SHORT_EDIT = 3  # words; more of them that move together are a clause, not a swap

_PREFIX = re.compile(r"(?:un|in|im|ir|il|non|dis|anti|counter|de)")


@dataclass(frozen=True, slots=True)
class Edit:
    """Words of the benchmark question that the training question has otherwise.

    Attributes:
        gone: words of the benchmark question alone.
        new: words of the training question alone.
        outer: before the first or after the last word in common.
    """

    gone: tuple[str, ...]
    new: tuple[str, ...]
    outer: bool


@dataclass(frozen=True, slots=True)
class Alignment:
    """Attributes:
    ratio: twice the words in common and in order over all words (difflib's).
    edits: in the order of the texts.
    copied: share of the benchmark question's words in long runs in common.
    rest: content words of training and benchmark question outside the long runs in common.
    """

    ratio: float
    edits: tuple[Edit, ...]
    copied: float
    rest: tuple[Counter[str], Counter[str]]


def align(train: Sequence[str], bench: Sequence[str]) -> Alignment:
    train, bench = train[-LONGEST:], bench[-LONGEST:]
    matcher = difflib.SequenceMatcher(None, train, bench, autojunk=False)
    edits, equal, copied = [], 0, 0
    rest_train: list[str] = []
    rest_bench: list[str] = []
    codes = matcher.get_opcodes()
    for place, (tag, i, i_end, j, j_end) in enumerate(codes):
        if tag == "equal":
            equal += i_end - i
        else:
            outer = place in (0, len(codes) - 1)
            edits.append(Edit(tuple(bench[j:j_end]), tuple(train[i:i_end]), outer))
        if tag != "equal" or i_end - i < LONG_RUN:
            rest_train += train[i:i_end]
            rest_bench += bench[j:j_end]
        else:
            copied += i_end - i
    total = len(train) + len(bench)
    rest = (Counter(content(rest_train)), Counter(content(rest_bench)))
    ratio = 2 * equal / total if total else 1.0
    return Alignment(ratio, tuple(edits), copied / len(bench) if bench else 0.0, rest)


def focus(text: Text, other: Text) -> Text:
    """The part of a much longer text that is most like the other; else the text itself."""
    width = len(other.words) + LONG_RUN
    if len(text.words) <= 2 * len(other.words) + SLACK or not other.words:
        return text
    if contains(text.words, other.words):
        return other
    wanted = other.content
    hits = [int(stem_of(word) in wanted) for word in text.words]
    best, place, inside = -1, 0, sum(hits[:width])
    for start in range(len(hits) - width + 1):
        if inside > best:
            best, place = inside, start
        if start + width < len(hits):
            inside += hits[start + width] - hits[start]
    return read_text(" ".join(text.words[place : place + width]))


def swapped(edits: Sequence[Edit]) -> int:
    """How many words are gone in one place and new in another, alone or nearly so: "A of B", "B of A"."""
    gone = {word for edit in edits if len(edit.gone) <= SHORT_EDIT for word in edit.gone}
    new = {word for edit in edits if len(edit.new) <= SHORT_EDIT for word in edit.new}
    return sum(1 for word in gone & new if _matters(word))


def _matters(word: str) -> bool:
    return bool(content([word])) or word.isdigit() or (len(word) == 1 and word.isalpha())


def opposed(train: Text, bench: Text, edits: Sequence[Edit]) -> bool:
    """Whether a word became its opposite, by the table or by a prefix (stable, unstable)."""
    gone, new = set(bench.words) - set(train.words), set(train.words) - set(bench.words)
    if any(
        len(pair & gone) == 1 and len(pair & new) == 1 and not pair & gone & new
        for pair in OPPOSITES
    ):
        return True
    return any(
        len(edit.gone) == len(edit.new) == 1 and _is_prefixed(edit.gone[0], edit.new[0])
        for edit in edits
    )


def _is_prefixed(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    return len(short) > 3 and long.endswith(short) and bool(_PREFIX.fullmatch(long[: -len(short)]))


def num_misspelt(edits: Sequence[Edit]) -> int:
    """How many content words stand for one that differs by a slip of the pen."""
    return sum(
        any(_is_misspelt(word, other) for other in content(edit.new))
        for edit in edits
        if len(edit.new) <= SHORT_EDIT
        for word in content(edit.gone)
        if word not in edit.new
    )


def _is_misspelt(one: str, other: str) -> bool:
    """Whether a letter was dropped, doubled, changed or moved by one place."""
    if abs(len(one) - len(other)) > 1 or min(len(one), len(other)) < 4:
        return False
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if at is None:
        return True
    tails = {one[at + 1 :], one[at:]} & {other[at + 1 :], other[at:]}
    moved = one[at + 2 :] == other[at + 2 :] and one[at : at + 2] == other[at : at + 2][::-1]
    return bool(tails) or moved
