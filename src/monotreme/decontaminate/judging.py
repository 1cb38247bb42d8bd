"""A pair that may be a leak → triage's verdict on it, and people's where they gave one."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar, overload

import pyarrow as pa

from monotreme.decontaminate.finding import Key, Likeness
from monotreme.engine import HERE, Engine, Shared
from monotreme.llm_judge import Service, ask
from monotreme.mapped import MappedRows, spilled
from monotreme.progress import progress
from monotreme.records import VERDICTS, BenchmarkQuestion, Judgement, Question, Verdict
from monotreme.triage import CERTAIN, Background, background, triage
from monotreme.verdicts import Settled

PAIRS_AT_ONCE = 64
EVIDENCE = (
    ("verdict", pa.string()), ("proposed", pa.string()), ("reason", pa.string()),
    ("confidence", pa.float64()), ("reviewers", pa.list_(pa.string())),
    ("similarity", pa.float64()), ("view", pa.string()), ("question_view", pa.string()),
    ("verbatim", pa.float64()), ("benchmark", pa.string()), ("benchmark_id", pa.string()),
    ("benchmark_passage", pa.string()), ("benchmark_stem", pa.string()),
    ("benchmark_options", pa.list_(pa.string())), ("benchmark_answers", pa.list_(pa.string())),
)  # fmt: skip
JUDGED_SCHEMA = pa.schema(
    [
        ("question", pa.int64()), ("item", pa.int64()), ("similarity", pa.float64()),
        ("view", pa.string()), ("question_view", pa.string()), ("verbatim", pa.float64()),
        ("verdict", pa.string()), ("reason", pa.string()), ("confidence", pa.float64()),
    ]
)  # fmt: skip
Id = TypeVar("Id", bound=Hashable)


class Pairs(Protocol):
    """Pairs in ascending order, and how alike they are."""

    def __len__(self) -> int: ...
    def items(self) -> Iterable[tuple[Key, Likeness]]: ...


@dataclass(frozen=True, slots=True)
class Match:
    """A pair that was judged: a question, a benchmark question, how alike, and the verdict.

    Attributes:
        proposed: triage's.
        settled: people's, None where nobody judged it.
    """

    question: Question
    benchmark: BenchmarkQuestion
    likeness: Likeness
    proposed: Judgement
    settled: Settled | None = None

    @property
    def verdict(self) -> Verdict:
        return self.settled.verdict if self.settled else self.proposed.verdict

    @property
    def evidence(self) -> dict[str, Any]:
        """A row of `EVIDENCE`."""
        return {
            **asdict(self.proposed),
            **self.likeness._asdict(),
            "verdict": self.verdict,
            "proposed": self.proposed.verdict,
            "reviewers": list(self.settled.reviewers) if self.settled else [],
            "benchmark": self.benchmark.benchmark,
            "benchmark_id": self.benchmark.id,
            "benchmark_passage": self.benchmark.passage,
            "benchmark_stem": self.benchmark.stem,
            "benchmark_options": list(self.benchmark.options),
            "benchmark_answers": list(self.benchmark.answers),
        }

    @property
    def gravity(self) -> tuple[int, bool, float, float]:
        """Sorts the gravest first; of equal ones, what people said."""
        grave = VERDICTS.index(self.verdict)
        return grave, not self.settled, -self.proposed.confidence, -self.likeness.similarity


class Matches(Sequence[Match]):
    """Judged pairs in ascending order; their figures on disk, a text is read when it is asked for.

    Args:
        rows: with `JUDGED_SCHEMA`.
        settled: (question id, benchmark question id) → what people said.
        said: place of a pair → what a language model said of it.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        benchmark: Sequence[BenchmarkQuestion],
        rows: Sequence[Mapping[str, Any]],
        settled: Mapping[tuple[str, str], Settled],
        said: Mapping[int, Judgement],
    ) -> None:
        self._questions, self._benchmark, self._rows = questions, benchmark, rows
        self._settled, self._said = settled, said

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Match: ...
    @overload
    def __getitem__(self, place: slice) -> list[Match]: ...
    def __getitem__(self, place: int | slice) -> Match | list[Match]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        row = self._rows[place]
        return self._match(place, row, self._questions[row["question"]])

    def __iter__(self) -> Iterator[Match]:
        last, question = -1, None
        for place, row in enumerate(self._rows):
            if question is None or row["question"] != last:  # a question may stand in many pairs
                last = row["question"]
                question = self._questions[last]
            yield self._match(place, row, question)

    def _match(self, place: int, row: Mapping[str, Any], question: Question) -> Match:
        item = self._benchmark[row["item"]]
        likeness = Likeness(**{name: row[name] for name in Likeness._fields})
        proposed = self._said.get(place) or Judgement(
            row["verdict"], row["reason"], row["confidence"]
        )
        settled = self._settled.get((question.id, item.id)) if self._settled else None
        return Match(question, item, likeness, proposed, settled)

    def with_said(self, said: Mapping[int, Judgement]) -> "Matches":
        """The same, with another judgement proposed at some places."""
        return Matches(self._questions, self._benchmark, self._rows, self._settled, said)


def judge(
    questions: Sequence[Question],
    benchmark: Sequence[BenchmarkQuestion],
    pairs: Pairs,
    threshold: float,
    cache: Path,
    settled: Mapping[tuple[str, str], Settled] | None = None,
    engine: Engine = HERE,
) -> Matches:
    """Triage every pair, in the pairs' order.

    A whole stem within a text that is otherwise unlike it (under the threshold) is a copy: what
    else the text says, triage would take for differences.

    Args:
        cache: where the judgements lie for the time, in a file without a name.
        settled: (question id, benchmark question id) → what people said.
    """
    asked = ((questions[i], i, j, likeness) for (i, j), likeness in pairs.items())
    parts = iter(lambda: list(islice(asked, PAIRS_AT_ONCE)), [])
    make = partial(_background, engine.share(list(benchmark)), threshold)

    def tables() -> Iterator[pa.Table]:
        with progress("Judging pairs", len(pairs)) as done:
            for proposed in engine.map(_propose, parts, make):
                yield proposed
                done(len(proposed))

    rows = MappedRows(spilled(cache, JUDGED_SCHEMA, tables()))
    return Matches(questions, benchmark, rows, settled or {}, {})


_Made = tuple[list[BenchmarkQuestion], Background, float]


def _background(benchmark: Shared[list[BenchmarkQuestion]], threshold: float) -> _Made:
    return benchmark.value, background(benchmark.value), threshold


def _propose(made: _Made, part: Sequence[tuple[Question, int, int, Likeness]]) -> pa.Table:
    """Rows with `JUDGED_SCHEMA`; runs in a worker."""
    benchmark, known, threshold = made
    rows = [
        {
            "question": i,
            "item": j,
            **likeness._asdict(),
            **asdict(_proposal(question, benchmark[j], likeness, known, threshold)),
        }
        for question, i, j, likeness in part
    ]
    return pa.Table.from_pylist(rows, JUDGED_SCHEMA)


def _proposal(
    question: Question,
    item: BenchmarkQuestion,
    likeness: Likeness,
    known: Background,
    threshold: float,
) -> Judgement:
    if likeness.verbatim == 1 and likeness.similarity <= threshold:
        return Judgement("duplicate", "contains_text", CERTAIN["contains_text"])
    return triage(question, item, known)


def ask_about_undecided(
    matches: Matches, service: Service, cache: Path
) -> tuple[Matches, dict[str, Any]]:
    """The language model's word on pairs that neither triage nor people could decide.

    Returns:
        The matches in their order, and what was asked: numbers for the record.

    Raises:
        RemoteError: the service refuses to be asked.
    """
    open_ = [
        place
        for place, match in enumerate(matches)
        if match.proposed.reason == "undecided" and match.settled is None
    ]
    places = open_[: service.max_pairs]
    asked = [(matches[place].question, matches[place].benchmark) for place in places]
    replies = zip(places, ask(service, asked, cache), strict=True)
    said = {place: judgement for place, judgement in replies if judgement}
    reasons = Counter(judgement.reason for judgement in said.values())
    told = {"model": service.model, "undecided": len(open_), "asked": reasons.total()}
    return matches.with_said(said), told | dict(sorted(reasons.items()))


def gravest_verdicts(said: Iterable[tuple[Id, Verdict]]) -> dict[Id, Verdict]:
    """Id → the gravest verdict said of it."""
    worst: dict[Id, Verdict] = {}
    for id_, verdict in said:
        worst[id_] = min(worst.get(id_, VERDICTS[-1]), verdict, key=VERDICTS.index)
    return worst


def count_verdicts(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many there are of each."""
    found = Counter(verdicts)
    return {verdict: found[verdict] for verdict in VERDICTS}


def gravest(matches: Iterable[Match]) -> dict[str, int]:
    """Question id → the place of its gravest match."""
    worst: dict[str, tuple[tuple[int, bool, float, float], int]] = {}
    for place, match in enumerate(matches):
        id_ = match.question.id
        if id_ not in worst or match.gravity < worst[id_][0]:
            worst[id_] = (match.gravity, place)
    return {id_: place for id_, (_, place) in worst.items()}
