"""A file of questions → a file of answers, a line a question, in the questions' order.

Lines are appended as soon as they are known. Beside the file lies `<file>.job.json`, which says
whose answers these are; the same command after a kill keeps every whole line and goes on.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from monotreme.errors import BusyError, InputError, RefusedError
from monotreme.generate.answerer import Answer, Answerer, Ids
from monotreme.progress import progress
from monotreme.records import digest
from monotreme.rows import BadRow, RawRow, cell, mistyped, read_file
from monotreme.storage import storage_errors, writing

INSTRUCTION = ("instruction", "question", "prompt")  # names of the column; the first there is


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of the file."""

    instruction: str
    input: str


def read_questions(path: Path) -> list[Asked]:
    """The questions of a CSV, JSON Lines, JSON or Parquet file.

    Raises:
        InputError: the file or a row cannot be read; a row has no instruction; there is no row.
    """
    found = [_question(path, row) for row in read_file(path)]
    if not found:
        raise InputError(f"{path} holds no questions", "Name another file")
    return found


def _question(path: Path, row: RawRow | BadRow) -> Asked:
    if isinstance(row, BadRow):
        raise _bad_row(path, row)
    try:
        instruction, input_ = cell(row.values, *INSTRUCTION), row.values.get("input") or ""
        if not isinstance(instruction, str) or not instruction.strip():
            raise mistyped(instruction, INSTRUCTION[0], "a text that is not empty")
        if not isinstance(input_, str):
            raise mistyped(input_, "input", "a text")
    except ValueError as error:
        raise _bad_row(path, BadRow(row.where, str(error))) from None
    return Asked(instruction, input_)


def _bad_row(path: Path, row: BadRow) -> InputError:
    return InputError(f"{path}: {row.where} {row.problem}", "Mend the row, or take it out")


def answer_file(
    answerer: Answerer,
    identity: str,
    asked: Sequence[Asked],
    out: Path,
    max_new_tokens: int,
    batch_tokens: int,
) -> int:
    """Answer what is not answered yet.

    Args:
        identity: of the model and how it is loaded; other answers are not added to its own.
        out: JSON Lines: row (from 1), instruction, input, response, num_tokens, finished.
        batch_tokens: of questions and answers that are worked on at once, padding included.

    Returns:
        The number of answers that were there already.

    Raises:
        InputError: a question that is too long, or too little memory.
        RefusedError: `out` holds something else.
        BusyError: another command is writing it.
    """
    prompts = [answerer.encode(one.instruction, one.input) for one in asked]
    _check_lengths(prompts, max_new_tokens, answerer.max_length)
    questions = (part for one in asked for part in (one.instruction, one.input))
    job = {"key": digest(identity, str(max_new_tokens), *questions)}
    with _held(out):
        done = _begin(out, {**job, "max_new_tokens": max_new_tokens, "questions": len(asked)})
        with storage_errors(out), out.open("ab") as file, progress("Answering", len(asked)) as tell:
            tell(done)
            for batch in batches(list(map(len, prompts)), max_new_tokens, batch_tokens):
                if batch.stop <= done:
                    continue
                answers = _answer(answerer, prompts[batch.start : batch.stop], max_new_tokens)
                for row, answer in zip(batch, answers, strict=True):
                    if row >= done:
                        file.write(_line(row, asked[row], answer))
                        tell(1)
                file.flush()
                os.fsync(file.fileno())
    return done


def batches(lengths: Sequence[int], max_new_tokens: int, batch_tokens: int) -> Iterator[range]:
    """Runs of neighbours whose rows, each as long as the longest with its answer, fit the budget.

    They depend on nothing that was done before, so that a resumed file is the uninterrupted one.
    """
    start = width = 0
    for row, length in enumerate(lengths):
        width = max(width, length + max_new_tokens)
        if row > start and (row + 1 - start) * width > batch_tokens:
            yield range(start, row)
            start, width = row, length + max_new_tokens
    if lengths:
        yield range(start, len(lengths))


def _answer(answerer: Answerer, prompts: Sequence[Ids], max_new_tokens: int) -> list[Answer]:
    try:
        return answerer.answer(prompts, max_new_tokens)
    except torch.OutOfMemoryError:
        raise InputError(
            f"{len(prompts)} questions at once do not fit the device's memory",
            "Give a smaller --batch-tokens; what was finished is kept",
        ) from None


def _line(row: int, asked: Asked, answer: Answer) -> bytes:
    values = {
        "row": row + 1,
        "instruction": asked.instruction,
        "input": asked.input,
        "response": answer.text,
        "num_tokens": answer.num_tokens,
        "finished": answer.finished,
    }
    return (json.dumps(values, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def _check_lengths(prompts: Sequence[Ids], max_new_tokens: int, max_length: int) -> None:
    longest = max(range(len(prompts)), key=lambda row: len(prompts[row]))
    if len(prompts[longest]) + max_new_tokens > max_length:
        raise InputError(
            f"question {longest + 1} has {len(prompts[longest]):,} tokens, and {max_new_tokens:,} "
            f"for its answer: the model takes {max_length:,}",
            "Give a smaller --max-new-tokens, or shorten the question",
        )


def _begin(out: Path, job: dict[str, Any]) -> int:
    """Make `out` ready to be appended to; the number of its whole lines."""
    note = out.with_name(f"{out.name}.job.json")
    if out.exists():
        if not note.exists() or _key(note) != job["key"]:
            raise RefusedError(
                f"{out} holds other answers: of another model, other questions or another limit",
                "Name another --out, or delete it",
            )
        return _cut_to_whole_lines(out)
    with writing(note) as temporary:
        temporary.write_text(json.dumps(job, indent=2) + "\n", encoding="utf-8")
    return 0


def _key(note: Path) -> str | None:
    try:
        key = json.loads(note.read_text(encoding="utf-8"))["key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(key)


def _cut_to_whole_lines(out: Path) -> int:
    """Drop the beginning of a line that a kill left at the end."""
    with storage_errors(out), out.open("r+b") as file:
        whole = num = 0
        for line in file:
            if line.endswith(b"\n"):
                whole += len(line)
                num += 1
        file.truncate(whole)
    return num


@contextmanager
def _held(out: Path) -> Iterator[None]:
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out.with_name(f".{out.name}.lock"), timeout=0)
    try:
        with storage_errors(out):
            held = lock.acquire()
    except Timeout:
        raise BusyError(f"another command is writing {out}", "Wait for it to end") from None
    with held:
        yield
