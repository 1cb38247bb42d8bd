"""The texts as which a question is compared: a leak may come without its options or its passage.

Options dilute the cosine of a copied stem, and so does a passage; a stem alone may say nothing
without them. The highest similarity of any two views counts.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from monotreme.records import BenchmarkQuestion, Question
from monotreme.triage.sides import LEAST_QUESTION, question_alone, split_options

ALONE = "question alone"


class View(NamedTuple):
    """One text of question number `row`; `name` says which part of it that is."""

    row: int
    name: str
    text: str


def benchmark_views(benchmark: Sequence[BenchmarkQuestion]) -> list[View]:
    """Stem; stem and options; passage and stem; and what a long stem asks at its end.

    What several questions ask in the same words tells none of them from the others ("Which of these
    weakens the argument?") and is left out.
    """
    views = [
        View(row, name, text)
        for row, item in enumerate(benchmark)
        for name, text in _benchmark_texts(item).items()
    ]
    asked = Counter(view.text for view in views if view.name == ALONE)
    return [view for view in views if view.name != ALONE or asked[view.text] == 1]


def training_views(questions: Sequence[Question]) -> list[View]:
    """Instruction and input; the instruction; without options; what a long text asks at its end.

    Each depends on its question alone: what else is in the set hides no leak.
    """
    return [
        View(row, name, text)
        for row, question in enumerate(questions)
        for name, text in _training_texts(question).items()
    ]


def _benchmark_texts(item: BenchmarkQuestion) -> dict[str, str]:
    texts = {"stem": item.stem}
    if item.options:
        texts["stem and options"] = "\n".join((item.stem, *item.options))
    if item.passage:
        texts["passage and stem"] = f"{item.passage}\n{item.stem}"
    alone = question_alone(item.stem)
    if _is_telling(alone):
        texts[ALONE] = alone
    if alone and item.options:
        texts["question alone and options"] = "\n".join((alone, *item.options))
    return texts


def _training_texts(question: Question) -> dict[str, str]:
    stem, options, _ = split_options(question.text)
    alone = question_alone(stem)
    texts = {"instruction and input": question.text}
    if question.input and _is_telling(question.instruction):
        texts["instruction"] = question.instruction
    if options:
        texts["without options"] = stem
    if _is_telling(alone):
        texts[ALONE] = alone
    return texts


def _is_telling(text: str) -> bool:
    return len(text.split()) >= LEAST_QUESTION
