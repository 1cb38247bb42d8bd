"""Pairs from JSON Lines: a benchmark question and a training question, with or without a label.

Fields: `benchmark_question`, `benchmark_choices` (optional), `benchmark_answer` (a text, an option's
letter or number, or ""), `train_instruction`, `train_output`.
"""

from collections.abc import Mapping
from typing import Any

from monotreme.errors import InputError
from monotreme.records import BenchmarkQuestion, Question
from monotreme.wording import same_answer


def read_pair(row: Mapping[str, Any], where: str = "a pair") -> tuple[Question, BenchmarkQuestion]:
    """Both sides of a line; `where` names it in errors.

    Raises:
        InputError: a text is missing or is not a text, or the choices are not a list of texts.
    """
    options = row.get("benchmark_choices") or []
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise InputError(f"{where} has no list of texts in 'benchmark_choices'", "Correct the line")
    answer = _text(row, where, "benchmark_answer", "")
    question = Question(
        _text(row, where, "train_instruction"), _text(row, where, "train_input", ""), _text(row, where, "train_output", ""),
        "pairs", "unknown", False,
    )  # fmt: skip
    benchmark = BenchmarkQuestion(
        "pairs", "test", "", _text(row, where, "benchmark_question"), tuple(options),
        tuple(int(right) for right in _right(options, answer)), "" if options else answer,
    )  # fmt: skip
    return question, benchmark


def _text(row: Mapping[str, Any], where: str, name: str, default: str | None = None) -> str:
    value = row.get(name, default)
    value = default if value is None else value
    if isinstance(value, int | float) and default is not None:
        return str(value)
    if not isinstance(value, str):
        there = ", ".join(list(row)[:20])
        raise InputError(f"{where} has no text in {name!r}", f"Its columns are {there}")
    return value


def _right(options: list[str], answer: str) -> list[bool]:
    """Which options are right: by text, else by letter, else by number from 0; none when unknown."""
    by_text = [bool(answer) and same_answer(option, answer) for option in options]
    if any(by_text):
        return by_text
    letter = answer.strip().upper()
    place = ord(letter) - ord("A") if len(letter) == 1 and letter.isalpha() else None
    place = int(letter) if letter.isdigit() and len(letter) < 3 else place
    return [number == place for number in range(len(options))]
