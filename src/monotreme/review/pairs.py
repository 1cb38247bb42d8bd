"""The pairs of a run, those first on which a person's word does most."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from monotreme.errors import InputError
from monotreme.records import read_table
from monotreme.review.marks import mark
from monotreme.run import Run
from monotreme.triage.sides import split_options
from monotreme.verdicts import Pair

TITLE = 90  # characters of a question in the list
SHOWN = 100_000  # characters of a text on the page
IN_LIST = ("source", "benchmark", "proposed", "reason", "confidence", "similarity")
LONGEST_CELL = 2_000  # characters of a text in a spreadsheet


@dataclass(frozen=True)
class Pairs:
    """Pairs by their number on the page.

    Attributes:
        rows: of pairs.parquet, with `affected`, the number of questions like that benchmark
            question.
        questions: id → row of curate's questions.
        number: ids of a pair → its number.
    """

    rows: list[dict[str, Any]]
    questions: dict[str, dict[str, Any]]
    number: dict[Pair, int]

    def key(self, number: int) -> Pair:
        row = self.rows[number]
        return row["id"], row["benchmark_id"]

    def listed(self) -> list[list[Any]]:
        """A line of the list for each pair: `IN_LIST` and the beginning of the question."""
        return [
            [*(row[name] for name in IN_LIST), _title(self.questions[row["id"]])]
            for row in self.rows
        ]

    def detail(self, number: int) -> dict[str, Any]:
        """Everything that the page shows of one pair, texts in marked pieces."""
        row = self.rows[number]
        question = self.questions[row["id"]]
        ours = [question[name][:SHOWN] for name in ("instruction", "input")]
        theirs = [row[f"benchmark_{name}"][:SHOWN] for name in ("passage", "stem")]
        options = [option[:SHOWN] for option in row["benchmark_options"]]
        if split_options("\n".join(ours))[1]:  # else every option would be a difference
            left, right = mark(ours, [*theirs, *options])
        else:
            left, right = mark(ours, theirs)
            right += mark(options, options)[0]
        facts = {name: row[name] for name in FACTS} | {"affected": row["affected"]}
        about = {name: question[name] for name in ("source", "license", "llm_written", "subject")}
        return {
            **facts,
            "question": {**about, "id": row["id"], "instruction": left[0], "input": left[1], "output": question["output"][:SHOWN]},
            "benchmark": {
                "id": row["benchmark_id"], "name": row["benchmark"], "passage": right[0], "stem": right[1],
                "options": [[text, option in row["benchmark_answers"]] for text, option in zip(right[2:], row["benchmark_options"], strict=True)],
                "answers": row["benchmark_answers"],
            },
        }  # fmt: skip

    def search(self, text: str) -> list[int]:
        """The numbers of the pairs in one of whose texts all these words stand."""
        wanted = text.casefold().split()
        return [
            number
            for number, row in enumerate(self.rows)
            if _holds(_all_text(self.questions[row["id"]], row), wanted)
        ]

    def for_people(self) -> dict[Pair, dict[str, Any]]:
        """The columns of a spreadsheet that a person reads."""
        return {self.key(number): self._cells(number) for number in range(len(self.rows))}

    def _cells(self, number: int) -> dict[str, Any]:
        row, question = self.rows[number], self.questions[self.rows[number]["id"]]
        texts = {
            "question_text": f"{question['instruction']}\n{question['input']}".strip(),
            "question_answer": question["output"],
            "benchmark_text": "\n".join((row["benchmark_stem"], *row["benchmark_options"])),
            "benchmark_answer": " | ".join(row["benchmark_answers"]),
        }
        cut = {name: text[:LONGEST_CELL] for name, text in texts.items()}
        return {**{name: row[name] for name in IN_LIST}, **cut}


FACTS = ("similarity", "view", "question_view", "verbatim", "proposed", "reason", "confidence")


def read_pairs(run: Run) -> Pairs:
    """The pairs that `decontaminate` left, in the order of uncertainty × questions affected.

    Raises:
        InputError: the stage has not finished, or found nothing to judge.
    """
    rows = read_table(run.output("decontaminate", "pairs.parquet")).to_pylist()
    if not rows:
        raise InputError(
            f"decontaminate found no pair in {run.folder}", "There is nothing to judge"
        )
    affected = Counter(row["benchmark_id"] for row in rows)
    rows = [{**row, "affected": affected[row["benchmark_id"]]} for row in rows]
    rows.sort(key=_first)
    wanted = pc.field("id").isin(pa.array({row["id"] for row in rows}, pa.string()))
    table = read_table(run.output("curate", "questions.parquet"), filters=wanted)
    questions = {row["id"]: row for row in table.to_pylist()}
    number = {(row["id"], row["benchmark_id"]): n for n, row in enumerate(rows)}
    return Pairs(rows, questions, number)


def _first(row: Mapping[str, Any]) -> tuple[float, float, str, str]:
    """Sorts by uncertainty × questions affected, then by similarity."""
    weight = (1 - row["confidence"]) * row["affected"]
    return -weight, -row["similarity"], row["id"], row["benchmark_id"]


def _title(question: Mapping[str, Any]) -> str:
    return " ".join(f"{question['instruction'][: 2 * TITLE]} {question['input'][:TITLE]}".split())[
        :TITLE
    ]


def _all_text(question: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    ours = (question["instruction"], question["input"], question["output"])
    theirs = (row["benchmark_passage"], row["benchmark_stem"], *row["benchmark_options"])
    return "\n".join((*ours, *theirs)).casefold()


def _holds(text: str, wanted: list[str]) -> bool:
    return all(word in text for word in wanted)
