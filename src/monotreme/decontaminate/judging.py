"""A pair that may be a leak → triage's verdict on it, and people's where they gave one."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from monotreme.decontaminate.finding import Found, Likeness
from monotreme.engine import HERE, Engine, Shared
from monotreme.llm_judge import Service, ask
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


def judge(
    questions: Sequence[Question],
    benchmark: Sequence[BenchmarkQuestion],
    pairs: Found,
    threshold: float,
    settled: Mapping[tuple[str, str], Settled] | None = None,
    engine: Engine = HERE,
) -> list[Match]:
    """Triage every pair, in the pairs' order.

    A whole stem within a text that is otherwise unlike it (under the threshold) is a copy: what
    else the text says, triage would take for differences.

    Args:
        settled: (question id, benchmark question id) → what people said.
    """
    asked = ((questions[i], benchmark[j], likeness) for (i, j), likeness in pairs.items())
    parts = iter(lambda: list(islice(asked, PAIRS_AT_ONCE)), [])
    make = partial(_background, engine.share(list(benchmark)), threshold)
    matches = []
    with progress("Judging pairs", len(pairs)) as done:
        for proposed in engine.map(_propose, parts, make):
            matches += proposed
            done(len(proposed))
    return [_with_verdict(match, settled) for match in matches] if settled else matches


def _background(
    benchmark: Shared[list[BenchmarkQuestion]], threshold: float
) -> tuple[Background, float]:
    return background(benchmark.value), threshold


def _propose(
    made: tuple[Background, float], part: Sequence[tuple[Question, BenchmarkQuestion, Likeness]]
) -> list[Match]:
    known, threshold = made
    return [
        Match(question, item, likeness, _proposal(question, item, likeness, known, threshold))
        for question, item, likeness in part
    ]


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


def _with_verdict(match: Match, settled: Mapping[tuple[str, str], Settled]) -> Match:
    said = settled.get((match.question.id, match.benchmark.id))
    return replace(match, settled=said) if said else match


def ask_about_undecided(
    matches: Sequence[Match], service: Service, cache: Path
) -> tuple[list[Match], dict[str, Any]]:
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
    said = ask(service, [(matches[p].question, matches[p].benchmark) for p in places], cache)
    found = list(matches)
    for place, judgement in zip(places, said, strict=True):
        found[place] = replace(matches[place], proposed=judgement or matches[place].proposed)
    reasons = Counter(judgement.reason for judgement in said if judgement)
    asked = {"model": service.model, "undecided": len(open_), "asked": reasons.total()}
    return found, asked | dict(sorted(reasons.items()))


def gravest_verdicts(said: Iterable[tuple[str, Verdict]]) -> dict[str, Verdict]:
    """Id → the gravest verdict said of it."""
    worst: dict[str, Verdict] = {}
    for id_, verdict in said:
        worst[id_] = min(worst.get(id_, VERDICTS[-1]), verdict, key=VERDICTS.index)
    return worst


def count_verdicts(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many there are of each."""
    found = Counter(verdicts)
    return {verdict: found[verdict] for verdict in VERDICTS}


def gravest(matches: Iterable[Match]) -> dict[str, Match]:
    """Question id → its gravest match."""
    worst: dict[str, Match] = {}
    for match in matches:
        id_ = match.question.id
        if id_ not in worst or match.gravity < worst[id_].gravity:
            worst[id_] = match
    return worst
