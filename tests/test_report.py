"""What a run shows on a terminal: rows beside their twins, look-alikes of a question."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from monotreme import curate
from monotreme.errors import InputError
from monotreme.report import terminal
from monotreme.run import Run

ROWS = [
    ("How many legs does a spider have?", "A spider has eight legs. The answer is 8."),
    ("What is the number of legs that a spider has?", "The answer is 8."),
    ("How many legs does an ant have?", "An ant is an insect, so it has six. The answer is 6."),
    ("Why does ice float on water?", "Its density is [bold]lower[/bold]. \x1b[31mred"),
    ("why does ice float on water?", "Density."),
]


@pytest.fixture
def run(tmp_path: Path, make_run: Callable[..., Run]) -> Run:
    lines = [json.dumps({"instruction": i, "output": o}) for i, o in ROWS]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    source = {"id": "mine", "path": str(tmp_path / "mine.jsonl"), "license": "CC0-1.0"}
    run = make_run(curate={"sources": [source]})
    curate.execute(run)
    return run


def test_a_dropped_row_comes_with_its_twin(run, capsys):
    rows = terminal.rows(run, "dropped", None, 20)
    assert {(row["instruction"], row["twin_instruction"]) for row in rows} == {
        (ROWS[1][0], ROWS[0][0]),
        (ROWS[4][0], ROWS[3][0]),
    }
    terminal.print_rows(rows)
    printed = capsys.readouterr().out
    assert "\x1b[31m" not in printed
    assert rows[0]["id"][:12] in printed
    assert "eight" in printed
    assert "same text but for" in printed  # why a twin is one, where the texts alone do not tell
    assert terminal.rows(run, "dropped", "another", 20) == []


def test_look_alikes_come_nearest_first_with_what_became_of_them(run, capsys):
    spider = {row["instruction"]: row["id"] for row in terminal.rows(run, "dropped", None, 9)}
    found = terminal.similar_to(run, spider[ROWS[1][0]][:10], 20)
    assert [row["instruction"] for row in found][:2] == [ROWS[1][0], ROWS[0][0]]
    assert [row["state"] for row in found][:2] == ["near_duplicate", "kept"]
    similarities = [row["similarity"] for row in found[1:]]
    assert similarities == sorted(similarities, reverse=True)
    assert similarities[0] > 0.8
    assert len(terminal.similar_to(run, spider[ROWS[1][0]], 1)) == 2
    terminal.print_similar(found)
    assert "near_duplicate" in capsys.readouterr().out.replace("\n", "")


def test_a_question_that_is_not_there_or_not_one_is_named(run):
    with pytest.raises(InputError, match="no question's id begins with 'zz'"):
        terminal.similar_to(run, "zz", 5)
    with pytest.raises(InputError, match="5 questions' ids begin with ''"):
        terminal.similar_to(run, "", 5)
