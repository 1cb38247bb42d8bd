"""The texts as which a question is compared: a leak may come without its options or its passage.

Options dilute the cosine of a copied stem, and so does a passage; a stem alone may say nothing
without them. The highest similarity of any two views counts.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from monotreme.engine import HERE, Engine, Given
from monotreme.mapped import MappedColumn, spilled
from monotreme.progress import progress
from monotreme.records import BenchmarkQuestion, Question
from monotreme.triage.sides import LEAST_QUESTION, question_alone, split_options

ALONE = "question alone"
QUESTIONS_AT_ONCE = 2_000
VIEW_SCHEMA = pa.schema([("row", pa.int64()), ("name", pa.string()), ("text", pa.string())])


@dataclass(frozen=True)
class Views:
    """V texts of questions.

    Attributes:
        row: (V,) the question, ascending.
        name: (V,) which part of it the text is.
        texts: V of them; they may lie on disk.
    """

    row: np.ndarray
    name: np.ndarray
    texts: Sequence[str]

    def places(self, row: int) -> range:
        """Where the views of a question stand."""
        return range(*np.searchsorted(self.row, [row, row + 1]).tolist())


def benchmark_views(benchmark: Sequence[BenchmarkQuestion]) -> Views:
    """Stem; stem and options; passage and stem; and what a long stem asks at its end.

    What several questions ask in the same words tells none of them from the others ("Which of these
    weakens the argument?") and is left out.
    """
    views = [
        (row, name, text)
        for row, item in enumerate(benchmark)
        for name, text in _benchmark_texts(item).items()
    ]
    asked = Counter(text for _, name, text in views if name == ALONE)
    views = [view for view in views if view[1] != ALONE or asked[view[2]] == 1]
    rows, names, texts = zip(*views, strict=True) if views else ((), (), ())
    return Views(np.array(rows, np.int64), np.array(names, object), texts)


def training_views(questions: Sequence[Question], folder: Path, engine: Engine = HERE) -> Views:
    """Instruction and input; the instruction; without options; what a long text asks at its end.

    Each depends on its question alone: what else is in the set hides no leak.

    Args:
        folder: where the texts lie while they are used, in a file without a name.
    """

    def tables() -> Iterator[pa.Table]:
        with progress("Cutting questions", len(questions)) as done:
            parts = engine.map(_views_of, parts_of(questions), Given(None))
            for table, (start, end) in zip(parts, part_bounds(len(questions)), strict=True):
                yield table
                done(end - start)

    batches = spilled(folder, VIEW_SCHEMA, tables())
    row = np.concatenate([np.empty(0, np.int64), *(np.asarray(batch["row"]) for batch in batches)])
    names = [name for batch in batches for name in batch["name"].to_pylist()]
    return Views(row, np.array(names, object), MappedColumn(batches, "text"))


def parts_of(questions: Sequence[Question]) -> Iterator[tuple[int, list[Question]]]:
    """Some thousands of questions at a time, with the number of the first."""
    each = iter(questions)
    start = 0
    while part := list(islice(each, QUESTIONS_AT_ONCE)):
        yield start, part
        start += len(part)


def part_bounds(num: int) -> Iterator[tuple[int, int]]:
    """Of so many questions the first of each part of `parts_of`, and the one behind its last."""
    for start in range(0, num, QUESTIONS_AT_ONCE):
        yield start, min(start + QUESTIONS_AT_ONCE, num)


def _views_of(_: None, part: tuple[int, list[Question]]) -> pa.Table:
    start, questions = part
    views = [
        {"row": row, "name": name, "text": text}
        for row, question in enumerate(questions, start)
        for name, text in _training_texts(question).items()
    ]
    return pa.Table.from_pylist(views, VIEW_SCHEMA)


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
