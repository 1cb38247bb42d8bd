"""What is planted in the training sources on purpose, so that a run can be marked.

Duplicates repeat a training question; leaks repeat a benchmark question; look-alikes resemble a
benchmark question and have another answer, so that dropping one is a mistake.
"""

import random
from dataclasses import dataclass

from monotreme.pocket.problem import Asked, Problem, normalised

NUM_EACH = 48
DUPLICATES = ("exact_duplicate", "near_duplicate", "reworded_duplicate")
LEAKS = ("leak_verbatim", "leak_edited", "leak_reworded")
LOOK_ALIKE = "look_alike"

# Light edits: each keeps the sense. The first that changes the question is made.
EDITS = (
    ("How many", "What number of"), ("Where is", "Where exactly is"),
    ("What is", "What exactly is"), ("Where does", "Where exactly does"),
    ("How does", "How exactly does"), ("Who is", "Who then is"),
    ("What does", "What then does"), ("Which of these", "Which one of these"),
    ("What number", "Which number"), ("What colour", "Which colour"), ("In which", "In what"),
    ("On which", "On what"), ("Which is", "What is"), ("Which", "What"), ("Pick", "Choose"),
    ("Find", "Work out"), ("Name", "Give"), ("What", "What then"), ("Where", "Where then"),
)  # fmt: skip


@dataclass(frozen=True)
class Planted:
    """A planted row, its kind, the source it goes to, and the question it is the twin of."""

    kind: str
    subject: str
    row: dict[str, str]
    twin: str


def plant_duplicates(
    rng: random.Random, rows: list[tuple[Problem, dict[str, str]]], taken: set[str]
) -> list[Planted]:
    """Duplicates of training questions without an input, none of them a question twice planted."""
    alone = [
        (problem, row) for problem, row in rows if not row["input"] and _plantable(problem, taken)
    ]
    chosen = rng.sample(alone, NUM_EACH * len(DUPLICATES))
    planted = []
    for n, (problem, row) in enumerate(chosen):
        kind = DUPLICATES[n // NUM_EACH]
        text, output = {
            "exact_duplicate": (respaced(rng, problem.text), row["output"]),
            "near_duplicate": (edited(problem.text), brief(problem.asked)),
            "reworded_duplicate": (problem.reworded, brief(problem.asked)),
        }[kind]
        planted.append(_planted(kind, problem, text, output, row["instruction"]))
    return planted


def plant_leaks(
    rng: random.Random, named: list[tuple[str, Problem]], taken: set[str]
) -> list[Planted]:
    """Leaks of benchmark questions, and look-alikes of others; one a benchmark question."""
    able = [(name, problem) for name, problem in named if _plantable(problem, taken)]
    chosen = rng.sample(able, NUM_EACH * (len(LEAKS) + 1))
    planted = []
    for n, (name, problem) in enumerate(chosen):
        kind = (*LEAKS, LOOK_ALIKE)[n // NUM_EACH]
        asked = problem.look_alike if kind == LOOK_ALIKE else problem.asked
        text = {
            "leak_verbatim": problem.text,
            "leak_edited": edited(problem.text),
            "leak_reworded": problem.reworded,
            LOOK_ALIKE: asked.text,
        }[kind]
        output = f"{asked.answer}. {asked.steps} The answer is {asked.answer}."
        planted.append(_planted(kind, problem, text, output, name))
    return planted


def _planted(kind: str, problem: Problem, text: str, output: str, twin: str) -> Planted:
    row = {"instruction": text, "input": "", "output": output}
    return Planted(kind, problem.subject, row, twin)


def _plantable(problem: Problem, taken: set[str]) -> bool:
    """Whether none of the problem's variants is by chance a question that exists already."""
    variants = (edited(problem.text), problem.reworded, problem.look_alike.text)
    return not taken & {normalised(text) for text in variants}


def respaced(rng: random.Random, text: str) -> str:
    """The same words: verbatim, in other case, or with other spaces."""
    words = text.split()
    return rng.choice((text, text.upper(), text.lower(), "  ".join(words), f" {text} \n"))


def edited(text: str) -> str:
    """The question with a word or two changed and its sense kept."""
    for old, new in EDITS:
        if old in text:
            return text.replace(old, new, 1)
    return f"Please answer: {text}"


def brief(asked: Asked) -> str:
    """An answer less verbose than the original's, so that the original should be the one kept."""
    return f"The answer is {asked.answer}."
