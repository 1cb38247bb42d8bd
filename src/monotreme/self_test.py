"""How many planted leaks `decontaminate` finds, and how many look-alikes it takes for leaks.

Copies of benchmark questions, altered in known ways, go the way the user's own questions go. Every
question is judged by itself, so what lies around a copy changes nothing; the user's questions are
therefore not embedded again, only counted: those that the run dropped stand in its own record.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from monotreme.decontaminate import against, read_scored
from monotreme.decontaminate.finding import similar_pairs
from monotreme.decontaminate.judging import judge
from monotreme.decontaminate.leaks import share_interval
from monotreme.encoders import find_encoder
from monotreme.errors import InputError
from monotreme.recall import FILE
from monotreme.records import BenchmarkQuestion, Question
from monotreme.run import Run, versions
from monotreme.storage import writing
from monotreme.triage.sides import question_alone

NUM_EACH = 100  # copies of a kind and benchmark: an error of at most 10 points at 95 %
CONTROL = "number_changed"  # the one kind that is no leak
_NUMBER = re.compile(r"(?<![\w.^_{\\])\d+(?![\w.}])")
_OPENINGS = (
    "Please answer this question: {}", "Here is a problem for you. {}", "Consider the following. {}",
    "{} Explain how you found it.", "I would like to know this: {}", "Question: {}\nThink it through.",
)  # fmt: skip
_SYNONYMS = (
    ("how many", "what number of"), ("which of the following", "which one of these"),
    ("what is", "what would be"), ("find", "determine"), ("calculate", "work out"),
    ("because", "since"), ("begin", "start"), ("large", "big"), ("largest", "biggest"),
    ("needs", "requires"), ("each", "every"), ("buys", "purchases"), ("happens", "occurs"),
    ("mainly", "mostly"), ("approximately", "about"), ("children", "kids"), ("shows", "displays"),
    ("usually", "normally"), ("also", "in addition"), ("people", "persons"), ("gets", "receives"),
    ("best describes", "describes best"), ("most likely", "very probably"), ("following", "below"),
)  # fmt: skip


class Copy(NamedTuple):
    """A planted copy: its kind, the benchmark question it is of, and the training question."""

    kind: str
    item: BenchmarkQuestion
    question: Question


class Found(NamedTuple):
    """Copies of one kind and benchmark, and how many of them were taken for leaks."""

    benchmark: str
    kind: str
    planted: int
    caught: int

    @property
    def interval(self) -> tuple[float, float]:
        return share_interval(self.caught, self.planted)


# ── the copies: each function gives the text, or nothing where the kind makes no sense ──────────


def verbatim(item: BenchmarkQuestion, _: random.Random) -> str | None:
    """Passage, stem and options as they stand."""
    return "\n".join(filter(None, (item.passage, item.stem, *item.options)))


def option_stripped(item: BenchmarkQuestion, _: random.Random) -> str | None:
    """The stem without its options."""
    return "\n".join(filter(None, (item.passage, item.stem))) if item.options else None


def passage_dropped(item: BenchmarkQuestion, _: random.Random) -> str | None:
    """Stem and options without the passage that they are about."""
    alone = item.stem if item.passage else question_alone(item.stem)
    return "\n".join((alone, *item.options)) if alone else None


def reworded(item: BenchmarkQuestion, rng: random.Random) -> str | None:
    """The stem in another frame, with words replaced by others of the same sense."""
    text = item.stem
    for old, new in _SYNONYMS:
        text = re.sub(rf"\b{old}\b", new, text)
        text = re.sub(rf"\b{old.capitalize()}\b", new.capitalize(), text)
    return rng.choice(_OPENINGS).format(text)


def number_changed(item: BenchmarkQuestion, rng: random.Random) -> str | None:
    """Another question: every whole number of the stem is another one."""
    numbers = set(_NUMBER.findall(item.stem))
    if not numbers:
        return None
    other = {number: str(int(number) + rng.randint(2, 9)) for number in sorted(numbers)}
    return _NUMBER.sub(lambda match: other[match.group()], item.stem)


KINDS: dict[str, Callable[[BenchmarkQuestion, random.Random], str | None]] = {
    "verbatim": verbatim,
    "option_stripped": option_stripped,
    "passage_dropped": passage_dropped,
    "reworded": reworded,
    CONTROL: number_changed,
}


def _answer(item: BenchmarkQuestion, kind: str, rng: random.Random) -> str:
    """The right answer, or for another question another one."""
    right = item.answers[0] if item.answers else ""
    if kind != CONTROL:
        return f"The answer is {right}." if right else ""
    wrong = [option for option in item.options if option not in item.answers]
    return f"The answer is {rng.choice(wrong) if wrong else _another_number(right)}."


def _another_number(answer: str) -> str:
    try:
        return str(Fraction(answer.rsplit("####", 1)[-1].replace(",", "").strip()) + 7)
    except (ValueError, ZeroDivisionError):
        return "another"


def copies(items: Sequence[BenchmarkQuestion], seed: int, num_each: int) -> list[Copy]:
    """Up to `num_each` copies of each kind, of questions drawn by the seed."""
    found = []
    for kind, make in KINDS.items():
        rng = random.Random(f"{seed} {kind}")
        made = 0
        for item in rng.sample(list(items), len(items)):
            text = make(item, rng)
            if text and made < num_each:
                answer = _answer(item, kind, rng)
                found.append(Copy(kind, item, Question(text, "", answer, kind, "unknown", False)))
                made += 1
    return found


# ── the test ────────────────────────────────────────────────────────────────────────────────────


def self_test(run: Run, num_each: int = NUM_EACH) -> list[Found]:
    """Plant copies of the recipe's benchmark questions and count what the recipe's policy drops.

    Leaves the figures in self_test.json of the run, where recall.py reads them.

    Raises:
        InputError: a benchmark cannot be read.
    """
    table = run.recipe.decontaminate
    items = {ref.id: read_scored(run, ref).items for ref in table.benchmarks}
    planted = [
        copy for found in items.values() for copy in copies(found, run.recipe.seed, num_each)
    ]
    if not planted:
        raise InputError("the recipe names no benchmark question", "Add `decontaminate.benchmarks`")
    every = [item for found in items.values() for item in found]
    questions = [copy.question for copy in planted]
    encoder, cache = find_encoder(*run.encoder()), run.cache("embeddings")
    pairs, _ = similar_pairs(questions, every, encoder, table.threshold, cache)
    caught = {
        match.question
        for match in judge(questions, every, pairs, table.threshold, cache)
        if match.verdict in table.drop
    }
    found = _tally(planted, caught)
    record = {
        "settings": run.settings("decontaminate"),
        "inputs": against(run),
        "versions": versions(),
        "found": figures(found),
    }
    with writing(run.folder / FILE) as path:
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return found


def _tally(planted: Sequence[Copy], caught: set[Question]) -> list[Found]:
    found = []
    for name in dict.fromkeys(copy.item.benchmark for copy in planted):
        for kind in KINDS:
            own = [c.question for c in planted if (c.item.benchmark, c.kind) == (name, kind)]
            if own:
                found.append(Found(name, kind, len(own), sum(q in caught for q in own)))
    return found


def figures(found: Sequence[Found]) -> list[dict[str, Any]]:
    """The figures as plain JSON."""
    return [
        {**one._asdict(), "is_leak": one.kind != CONTROL, "interval": one.interval} for one in found
    ]


def print_figures(found: Sequence[Found]) -> None:
    """A line a benchmark and kind: what was planted, what was caught, and the interval of it."""
    table = Table("benchmark", "planted", "how many", "taken for a leak", "95 % interval")
    table.title = f"Planted copies; all but {CONTROL} are leaks"
    for one in found:
        low, high = one.interval
        share = f"{one.caught / one.planted:.0%}"
        span = f"{low:.0%} … {high:.0%}"
        table.add_row(escape(one.benchmark), one.kind, str(one.planted), share, span)
    Console().print(table)
