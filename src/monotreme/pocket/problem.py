"""One elementary problem, before it becomes a training row or a benchmark question."""

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Asked:
    """A question, its short answer, and a sentence that shows why or says it in full."""

    text: str
    answer: str
    steps: str


@dataclass(frozen=True)
class Problem:
    """A question with all that is needed to train on it, to test with it and to plant its likes.

    `key` names what is asked, whatever the wording: two problems of one key ask for the same
    knowledge, so training and benchmark never share a key. `story` is the part of the text that
    may travel as a row's input; it is empty where the question stands alone. `lead` says in prose
    what the question is about, so that the matter can be told without a question.
    """

    subject: str
    key: str
    asked: Asked
    reworded: str
    wrong: tuple[str, ...]
    look_alike: Asked
    lead: str
    story: str = ""

    @property
    def text(self) -> str:
        return f"{self.story} {self.asked.text}".strip()


def others(rng: random.Random, pool: Sequence[str], *taken: str, count: int = 3) -> tuple[str, ...]:
    """Distinct members of the pool that are none of those taken."""
    return tuple(rng.sample(sorted(set(pool) - set(taken)), count))


def with_article(noun: str) -> str:
    """The noun with its indefinite article; plurals, names and stuffs are given as they are."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def listed(words: Sequence[str], last: str = "or") -> str:
    """Words as a list in a sentence: "red, blue or green"."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def normalised(text: str) -> str:
    """Letters and digits in lower case: what two texts share when they ask the same words."""
    return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
