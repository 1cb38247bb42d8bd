"""What is asked of whom: candidates, sheets of questions for all of them, and the answers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from monotreme.records import digest
from monotreme.scoring.spans import EXAMPLES_END

# Characters of a portion: about 260,000 tokens, sixteen of the default's passes. The paper's four benchmarks
# make 57; what is read again at their beginnings is .5 % of MMLU's tokens and less than .01 % of the others'.
PORTION = 2**20

ANSWERS = pa.schema(
    [
        pa.field("log_likelihoods", pa.list_(pa.float64())),
        pa.field("num_tokens", pa.list_(pa.int64())),
        pa.field("greedy", pa.list_(pa.bool_())),
        pa.field("num_truncated", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that is scored.

    Attributes:
        name: what its records call it; in a run "base", "adapter" or "merged-" and the merge's id.
        adapter: folder of the adapter to put on it.
        digest: what identifies its weights.
    """

    name: str
    folder: Path
    adapter: Path | None
    digest: str
    trust_remote_code: bool


@dataclass(frozen=True)
class Sheet:
    """Questions that are put to every candidate, or texts that are scored whole.

    Attributes:
        name: the benchmark's id.
        choices: of each context; none of a text.
    """

    name: str
    contexts: Sequence[str]
    choices: Sequence[Sequence[str]]

    @property
    def are_texts(self) -> bool:
        return not any(self.choices)

    @cached_property
    def order(self) -> list[int]:
        """Indices of the questions, those that begin alike beside each other."""
        return sorted(range(len(self.contexts)), key=lambda i: self.contexts[i])

    @cached_property
    def digest(self) -> str:
        questions = zip(self.contexts, self.choices, strict=True)
        return digest(*(digest(context, *choices) for context, choices in questions))

    def portions(self) -> Iterator[tuple[int, int]]:
        """Ranges of `order`, each of `PORTION` characters where examples in common count once."""
        edges, size, examples = [0], 0, ""
        for place, index in enumerate(self.order):
            context, choices = self.contexts[index], self.choices[index]
            head = context.rpartition(EXAMPLES_END)[0]
            whole = len(context) + sum(map(len, choices))
            new = whole - len(head) * (head == examples)
            if size and size + new > PORTION:
                edges.append(place)
                size, new = 0, whole
            size, examples = size + new, head
        return pairwise([*edges, len(self.order)]) if self.order else iter(())

    def num_scored(self, first: int, last: int) -> int:
        """Choices of a range of `order`, or texts."""
        return sum(len(self.choices[i]) or 1 for i in self.order[first:last])

    def pairs(self, indices: Sequence[int]) -> list[tuple[str, str]]:
        """What is scored of some questions: a context and a choice each."""
        return [(self.contexts[i], f" {choice}") for i in indices for choice in self.choices[i]]


@dataclass(frozen=True, slots=True)
class Answers:
    """A candidate's answers to a sheet.

    Attributes:
        rows: of `ANSWERS`, one a question in the sheet's order. Lists have an entry a choice; of a text,
            log_likelihoods and num_tokens have one and greedy none.
        way: how they were scored: "shared" where prefixes were throughout, or "plain".
    """

    rows: pa.Table
    way: str

    def losses(self) -> list[dict[str, Any]]:
        """Of texts: log_loss and num_tokens of each."""
        columns = zip(
            self.rows["log_likelihoods"].to_pylist(),
            self.rows["num_tokens"].to_pylist(),
            strict=True,
        )
        return [{"log_loss": -total, "num_tokens": num} for (total,), (num,) in columns]


def way_of(answers: Iterable[Answers]) -> str:
    """How a candidate's answers were scored: plain if any were."""
    return "shared" if {each.way for each in answers} == {"shared"} else "plain"
