"""Benchmark questions that stand word for word inside longer texts, where a cosine cannot see them.

A stem is cut into runs of eight words (a shorter stem is one run); what share of its runs a text
holds says how much of the stem stands there. Runs that many stems share are a template and say
nothing ("Which of the following best describes …"), so they are not counted. Eight words are the
n-gram of open-r1's decontamination; 13, GPT-3's, would never see the 30 % of MMLU's stems that are
shorter.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

RUN = 8  # words
FEWEST_WORDS = 4  # of a stem: "What is this?" is nobody's
TEMPLATE = 8  # stems: a run that so many share is a template (33,544 of MMLU's 34,205 look-alikes)
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2⁶⁴ / golden ratio, odd: Knuth's multiplicative hashing


class Verbatim(NamedTuple):
    """A stem found in a text.

    Attributes:
        text, stem: their places.
        share: of the stem's runs that count, those that the text holds; 0…1.
    """

    text: int
    stem: int
    share: float


class Stems:
    """The runs of all stems that are no template, by their words; stems and texts given as words."""

    def __init__(self, stems: Sequence[Sequence[str]]) -> None:
        stems_of: dict[tuple[str, ...], set[int]] = defaultdict(set)
        for stem, words in enumerate(stems):
            for run in set(_runs(words)):
                stems_of[run].add(stem)
        self._runs = [run for run, having in stems_of.items() if len(having) < TEMPLATE]
        self._stems_of = [sorted(stems_of[run]) for run in self._runs]
        self._number = {run: number for number, run in enumerate(self._runs)}
        self._size: dict[int, int] = defaultdict(int)  # stem → its runs that count
        for having in self._stems_of:
            for stem in having:
                self._size[stem] += 1
        words = sorted({word for run in self._runs for word in run})
        self._word = {word: number for number, word in enumerate(words, start=1)}
        self._known = {
            length: np.unique(self._run_hashes(length))
            for length in sorted({len(run) for run in self._runs})
        }

    def _run_hashes(self, length: int) -> np.ndarray:
        """A hash of each run of so many words."""
        runs = [[self._word[w] for w in run] for run in self._runs if len(run) == length]
        return _hashes(np.array(runs, np.uint64).ravel(), length)[::length]

    def found_in(self, texts: Sequence[Sequence[str]], least: float) -> list[Verbatim]:
        """Stems of which a text holds at least a share, in ascending order."""
        return [
            Verbatim(text, stem, share)
            for text, held in sorted(self._runs_in(texts).items())
            for stem, share in self._shares(held)
            if share >= least
        ]

    def _runs_in(self, texts: Sequence[Sequence[str]]) -> dict[int, set[int]]:
        """Text → the runs that it holds.

        Windows of all texts at once are compared by a hash of their words; a match is then checked
        word by word.
        """
        words = np.array([self._word.get(w, 0) for text in texts for w in text], np.uint64)
        ends = np.cumsum([len(text) for text in texts])
        held: dict[int, set[int]] = defaultdict(set)
        for length, known in self._known.items():
            for start in np.flatnonzero(np.isin(_hashes(words, length), known)).tolist():
                text = int(np.searchsorted(ends, start, "right"))
                begin = start - (int(ends[text - 1]) if text else 0)
                number = self._number.get(tuple(texts[text][begin : begin + length]))
                if number is not None:
                    held[text].add(number)
        return held

    def _shares(self, runs: Iterable[int]) -> Iterator[tuple[int, float]]:
        """Stem → the share of its runs that are among these."""
        found: dict[int, int] = defaultdict(int)
        for run in runs:
            for stem in self._stems_of[run]:
                found[stem] += 1
        for stem in sorted(found):
            yield stem, found[stem] / self._size[stem]


def _runs(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    if len(words) < FEWEST_WORDS:
        return
    length = min(RUN, len(words))
    for start in range(len(words) - length + 1):
        yield tuple(words[start : start + length])


def _hashes(words: np.ndarray, length: int) -> np.ndarray:
    """A hash of each window of `length` words, uint64 with wrap-around; none where too few."""
    total = np.zeros(max(0, len(words) - length + 1), np.uint64)
    for place in range(length):
        total = (total + words[place : place + len(total)]) * _ODD
        total ^= total >> np.uint64(29)
    return total
