"""Pairs from a file are judged as the stage judges them, whatever their similarity."""

import json
from pathlib import Path

import pytest

from monotreme.errors import InputError
from monotreme.judge import judge_file, write_lines

PAIR = {
    "id": "one",
    "label": "gray_area",
    "benchmark_question": "How far does Tom ride if he rides 3 miles to school and 4 miles home?",
    "benchmark_answer": "7",
    "train_instruction": "How far does Tom ride if he rides 3 miles to school and 4 miles home?",
    "train_output": "The answer is 7.",
}
OTHER = {**PAIR, "id": "two", "train_instruction": "How far does Tom ride if he rides 5 miles to school and 6 miles home?", "train_output": "The answer is 11."}  # fmt: skip
UNLIKE = {"benchmark_question": "Why is the sky blue?", "train_instruction": "List three fruits."}
INSIDE = {**PAIR, "train_instruction": f"{'The fog came in over the harbour. ' * 30}{PAIR['benchmark_question']}"}  # fmt: skip
OPTIONS = {**PAIR, "benchmark_choices": ["7", "8"], "train_instruction": f"{PAIR['benchmark_question']}\n7\n8"}  # fmt: skip


def judged(tmp_path: Path, *pairs: object) -> list[dict[str, object]]:
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(pair) for pair in pairs))
    return judge_file(path, tmp_path / "cache")


def test_each_line_comes_back_with_what_was_found(tmp_path: Path):
    rows = judged(tmp_path, PAIR, OTHER, UNLIKE, INSIDE, OPTIONS)
    assert [row["verdict"] for row in rows][:2] == ["duplicate", "similar_but_different"]
    assert [row["verdict"] for row in rows][3:] == ["duplicate", "duplicate"]
    assert "label" not in rows[0]
    assert rows[0]["id"] == "one"
    assert rows[0]["similarity"] > 0.999 > rows[1]["similarity"] > 0.8 > rows[2]["similarity"]
    assert all(0 < row["confidence"] <= 1 and row["reason"] for row in rows)


def test_other_lines_do_not_matter(tmp_path: Path):
    alone = [judged(tmp_path, pair)[0] for pair in (PAIR, OTHER, UNLIKE)]
    assert judged(tmp_path, UNLIKE, OTHER, PAIR, *[OTHER] * 9)[:3] == alone[::-1]


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ({"benchmark_question": "a"}, "line 1 has no text in 'train_instruction'"),
        ({**PAIR, "benchmark_choices": "A"}, "line 1 has no list of texts in 'benchmark_choices'"),
        ({**PAIR, "train_output": []}, "line 1 has no text in 'train_output'"),
        ([], "line 1 "),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path: Path, pair: object, says: str):
    with pytest.raises(InputError, match=says):
        judged(tmp_path, pair)


def test_what_is_written_is_what_was_found(tmp_path: Path):
    rows = judged(tmp_path, PAIR)
    write_lines(rows, tmp_path / "out.jsonl")
    assert [json.loads((tmp_path / "out.jsonl").read_text())] == rows
