"""Judge pairs from a file, as `decontaminate` would, whatever their similarity."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monotreme.decontaminate import Likeness, judge, verbatim_pairs, views
from monotreme.encoders import BUILT_IN, find_encoder
from monotreme.errors import InputError
from monotreme.recipe import Decontaminate
from monotreme.records import BenchmarkQuestion, Question
from monotreme.rows import BadRow, RawRow, read_file
from monotreme.similar import Texts, similarity_of
from monotreme.storage import writing

THRESHOLD: float = Decontaminate.model_fields["threshold"].default


def judge_file(path: Path, cache: Path) -> list[dict[str, Any]]:
    """Each line of a file with its similarity, verdict, reason and confidence.

    Args:
        path: JSON Lines with `benchmark_question` and `train_instruction`; `benchmark_answer`,
            `benchmark_choices`, `train_input` and `train_output` where they are known.

    Raises:
        InputError: the file cannot be read, or a line lacks a column or has another type in it.
    """
    rows, questions, benchmark = [], [], []
    for row in read_file(path):
        if isinstance(row, BadRow):
            raise InputError(f"{row.where} {row.problem}", "Mend the line, or leave it out")
        rows.append(row.values)
        questions.append(_train(row))
        benchmark.append(_benchmark(row))
    if not rows:
        raise InputError(f"{path} holds no pair", "Give a line of JSON a pair")
    likeness = alike(questions, benchmark, cache)
    matches = judge(
        questions, benchmark, {(i, i): one for i, one in enumerate(likeness)}, THRESHOLD
    )
    return [
        {
            **{key: value for key, value in row.items() if key != "label"},
            "similarity": match.likeness.similarity,
            "verdict": match.judgement.verdict,
            "reason": match.judgement.reason,
            "confidence": match.judgement.confidence,
        }
        for row, match in zip(rows, matches, strict=True)
    ]


def alike(
    questions: Sequence[Question], benchmark: Sequence[BenchmarkQuestion], cache: Path
) -> list[Likeness]:
    """How alike question i and benchmark question i are."""
    encoder = find_encoder(BUILT_IN, Path(), str)
    shown = [(row, *view) for row, item in enumerate(benchmark) for view in views(item).items()]
    ours = Texts([question.text for question in questions], encoder, cache)
    theirs = Texts([text for _, _, text in shown], encoder, cache)
    owner = np.array([row for row, _, _ in shown])
    cosines = similarity_of(ours, theirs, owner, np.arange(len(shown)))
    best = [Likeness(-1.0, "")] * len(questions)
    for (row, view, _), cosine in zip(shown, cosines.tolist(), strict=True):
        best[row] = max(best[row], Likeness(cosine, view))
    # Equal stems are one stem here: a file may hold many variants of a question, and what many
    # stems share would count as a template.
    stems = list(dict.fromkeys(item.stem for item in benchmark))
    first = {item.stem: item for item in benchmark}
    copies = verbatim_pairs(questions, [first[stem] for stem in stems])
    place = {stem: number for number, stem in enumerate(stems)}
    return [
        one._replace(verbatim=copies.get((i, place[benchmark[i].stem]), 0.0))
        for i, one in enumerate(best)
    ]


def _train(row: RawRow) -> Question:
    return Question(
        instruction=_text(row, "train_instruction"),
        input=_text(row, "train_input", ""),
        output=_text(row, "train_output", ""),
        source="file",
        license="unknown",
        llm_written=False,
    )


def _benchmark(row: RawRow) -> BenchmarkQuestion:
    """The right option is known only where the answer is the text of one."""
    options = row.values.get("benchmark_choices") or []
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise InputError(f"{row.where} has no list of texts in 'benchmark_choices'", "Mend it")
    answer = _text(row, "benchmark_answer", "")
    return BenchmarkQuestion(
        benchmark="file",
        split="",
        subject="",
        stem=_text(row, "benchmark_question"),
        options=tuple(options),
        labels=tuple(int(option == answer) for option in options),
        answer="" if options else answer,
    )


def _text(row: RawRow, column: str, default: str | None = None) -> str:
    value = row.values.get(column)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        there = ", ".join(list(row.values)[:20])
        raise InputError(f"{row.where} has no text in {column!r}", f"Its columns are {there}")
    return value


def write_lines(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows as JSON Lines, whole or not at all."""
    with writing(path) as temporary:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        temporary.write_text(lines, encoding="utf-8")
