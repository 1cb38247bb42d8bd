"""What says nothing because many benchmark questions have it: templates, stock stems, stock answers.

33,544 of the 34,205 look-alike pairs between MMLU's test and its dev and validation questions are
one template. Runs of eight words are the n-grams of open-r1's decontamination; eight questions with
a run are more than quote one text by chance.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from monotreme.records import BenchmarkQuestion
from monotreme.wording import words

WIDTH = 8
MANY = 8


@dataclass(frozen=True, slots=True)
class Background:
    """Attributes:
    runs: runs of eight words (or whole shorter stems) in many questions.
    answers: words of right answers that many questions have.
    """

    runs: frozenset[str] = frozenset()
    answers: frozenset[tuple[str, ...]] = frozenset()

    def is_stock(self, found: tuple[str, ...]) -> list[bool]:
        """For each word of a text, whether it lies in a run that many questions have."""
        marks = [False] * len(found)
        for start, run in enumerate(_runs(found)):
            if run in self.runs:
                marks[start : start + WIDTH] = [True] * len(marks[start : start + WIDTH])
        return marks


NOTHING = Background()


def background(benchmark: Iterable[BenchmarkQuestion]) -> Background:
    """Count runs and answers over the distinct questions of the benchmarks that are checked."""
    distinct = {question.id: question for question in benchmark}.values()
    stems = [tuple(words(question.stem)) for question in distinct]
    counts = Counter(
        hash(run) for stem in stems for run in set(_runs(stem))
    )  # a tenth of the memory
    answers: Counter[tuple[str, ...]] = Counter()
    for question in distinct:
        answers.update({tuple(words(answer)) for answer in question.answers})
    return Background(
        frozenset(run for stem in stems for run in _runs(stem) if counts[hash(run)] >= MANY),
        frozenset(answer for answer, num in answers.items() if num >= MANY),
    )


def _runs(found: tuple[str, ...]) -> list[str]:
    if not found:
        return []
    return [" ".join(found[i : i + WIDTH]) for i in range(max(len(found) - WIDTH + 1, 1))]
