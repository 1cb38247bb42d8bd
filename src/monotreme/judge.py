"""Judge pairs from a file, as `decontaminate` would, whatever their similarity."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from monotreme.decontaminate.finding import Key, Likeness, likeness_of, verbatim_pairs
from monotreme.decontaminate.judging import judge
from monotreme.encoders import BUILT_IN, find_encoder
from monotreme.errors import InputError
from monotreme.recipe import Decontaminate
from monotreme.records import BenchmarkQuestion, Question
from monotreme.rows import BadRow, read_file
from monotreme.storage import writing
from monotreme.triage.pairs import read_pair

THRESHOLD: float = Decontaminate.model_fields["threshold"].default


def judge_file(path: Path, cache: Path) -> list[dict[str, Any]]:
    """Each line of a file with its similarity, verdict, reason and confidence.

    Args:
        path: JSON Lines with `benchmark_question` and `train_instruction`; `benchmark_answer`,
            `benchmark_choices`, `train_input` and `train_output` where they are known.

    Raises:
        InputError: the file cannot be read, or a line lacks a column or has another type in it.
    """
    rows: list[dict[str, Any]] = []
    questions: list[Question] = []
    benchmark: list[BenchmarkQuestion] = []
    for row in read_file(path):
        if isinstance(row, BadRow):
            raise InputError(f"{row.where} {row.problem}", "Mend the line, or leave it out")
        question, item = read_pair(row.values, row.where)
        rows.append(row.values)
        questions.append(question)
        benchmark.append(item)
    if not rows:
        raise InputError(f"{path} holds no pair", "Give a line of JSON a pair")
    found = alike(questions, benchmark, cache)
    matches = judge(questions, benchmark, found, THRESHOLD, cache)
    return [
        {
            **{key: value for key, value in row.items() if key != "label"},
            "similarity": match.likeness.similarity,
            **asdict(match.proposed),
        }
        for row, match in zip(rows, matches, strict=True)
    ]


def alike(
    questions: Sequence[Question], benchmark: Sequence[BenchmarkQuestion], cache: Path
) -> dict[Key, Likeness]:
    """(i, i) → how alike question i and benchmark question i are."""
    encoder = find_encoder(BUILT_IN, Path(), str)
    pairs = [(i, i) for i in range(len(questions))]
    # Equal stems are one stem here: a file may hold many variants of a question, and what many
    # stems share would count as a template.
    stems = list(dict.fromkeys(item.stem for item in benchmark))
    first = {item.stem: item for item in benchmark}
    copies = {
        (i, j): share
        for block in verbatim_pairs(questions, [first[stem] for stem in stems])
        for i, j, share in zip(*(column.tolist() for column in block), strict=True)
    }
    place = {stem: number for number, stem in enumerate(stems)}
    return {
        (i, i): one._replace(verbatim=copies.get((i, place[benchmark[i].stem]), 0.0))
        for (i, _), one in likeness_of(pairs, questions, benchmark, encoder, cache).items()
    }


def write_lines(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write rows as JSON Lines, whole or not at all."""
    with writing(path) as temporary:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        temporary.write_text(lines, encoding="utf-8")
