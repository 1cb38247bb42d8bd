"""A model's records of a benchmark as arrays, and which of its questions are exposed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from monotreme.scoring.protocol import averages_subjects
from monotreme.scoring.statistics import Floats
from monotreme.scoring.subjects import GROUP_OF, GROUPS

EXPOSURES = ("leaked", "gray", "clean")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Exposure:
    """What decontaminate found of a benchmark's questions, by their ids.

    Attributes:
        listed: those of which a training question was a leak: not of the clean subset.
        levels: "leaked" or "gray", whatever the recipe drops; the others are "clean".
    """

    listed: frozenset[str]
    levels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Results:
    """A model's records of one benchmark.

    Attributes:
        scores: (N,) of each question, 0 to 1.
        subjects: (N,) "" where the benchmark has none.
        questions: (N,) ids.
        prompts: (N,) digests of what was asked.
        exposure: None where the benchmark was not checked for leaks.
    """

    model: str
    benchmark: str
    metric: str
    shots: int
    scores: Floats
    subjects: tuple[str, ...]
    questions: tuple[str, ...]
    prompts: tuple[str, ...]
    exposure: Exposure | None = None

    @property
    def averaged(self) -> tuple[str, ...]:
        """What is averaged first: MMLU's subjects, else everything at once."""
        return self.subjects if averages_subjects(self.benchmark) else ("",) * len(self.subjects)

    def subset(self, chosen_N: NDArray[np.bool_]) -> "Results":
        """The chosen questions alone, in their order."""
        places = np.flatnonzero(chosen_N).tolist()
        return replace(
            self,
            scores=self.scores[chosen_N],
            subjects=tuple(self.subjects[place] for place in places),
            questions=tuple(self.questions[place] for place in places),
            prompts=tuple(self.prompts[place] for place in places),
        )

    def by_subject(self) -> Iterator[tuple[str, "Results"]]:
        """Each subject's questions."""
        for subject in sorted({name for name in self.subjects if name}):
            yield subject, self.subset(np.array([name == subject for name in self.subjects]))

    def by_group(self) -> Iterator[tuple[str, "Results"]]:
        """The questions of each group of MMLU's subjects; those of unknown subjects are in none."""
        groups = [GROUP_OF.get(subject) for subject in self.subjects]
        for group in GROUPS:
            if averages_subjects(self.benchmark) and group in groups:
                yield group, self.subset(np.array([name == group for name in groups]))

    def clean(self) -> "Results | None":
        """The questions of which no leak was found; None where there are none, or none were sought."""
        if self.exposure is None:
            return None
        clean_N = np.array([question not in self.exposure.listed for question in self.questions])
        return self.subset(clean_N) if clean_N.any() else None

    def by_exposure(self) -> Iterator[tuple[str, "Results"]]:
        """The leaked, gray and clean questions, as far as there are any and they were sought."""
        if self.exposure is None:
            return
        levels = [self.exposure.levels.get(question, "clean") for question in self.questions]
        for level in EXPOSURES:
            if level in levels:
                yield level, self.subset(np.array([name == level for name in levels]))


def results_of(items: pa.Table, exposures: Mapping[str, Exposure] | None = None) -> list[Results]:
    """The records of the items table by model and benchmark, in the table's order.

    Args:
        exposures: benchmark → what was found of it, for those that were checked.
    """
    names = ["model", "benchmark", "metric", "shots", "subject"]
    names += ["question_id", "prompt_sha256", "score"]
    grouped: dict[tuple[str, str], list[Row]] = {}
    for row in items.select(names).to_pylist():
        grouped.setdefault((row["model"], row["benchmark"]), []).append(row)
    return [
        _results(model, benchmark, rows, (exposures or {}).get(benchmark))
        for (model, benchmark), rows in grouped.items()
    ]


def _results(model: str, benchmark: str, rows: Sequence[Row], exposure: Exposure | None) -> Results:
    return Results(
        model=model,
        benchmark=benchmark,
        metric=rows[0]["metric"],
        shots=rows[0]["shots"],
        scores=np.array([row["score"] for row in rows]),
        subjects=tuple(row["subject"] for row in rows),
        questions=tuple(row["question_id"] for row in rows),
        prompts=tuple(row["prompt_sha256"] for row in rows),
        exposure=exposure,
    )
