"""What a run shows on a terminal: rows beside their twins, look-alikes of a question."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from monotreme import curate
from monotreme.errors import UsageError
from monotreme.report import protected, terminal
from monotreme.report.facts import facts
from monotreme.report.page import html, markdown
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


def test_a_copy_to_the_letter_yields_to_a_row_that_is_named(tmp_path, make_run):
    line = json.dumps({"instruction": ROWS[0][0], "output": ROWS[0][1]})
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(line)
    refs = [{"id": n, "path": str(tmp_path / f"{n}.jsonl"), "license": "MIT"} for n in "ab"]
    run = make_run(curate={"sources": refs})
    curate.execute(run)
    (row,) = terminal.rows(run, "dropped", None, 9)
    assert row["id"] == row["twin"]
    assert (row["source"], row["twin_source"], row["twin_row"]) == ("b", "a", 0)
    assert terminal.because(row).startswith("a, kept as row 0\n")


def test_a_source_that_is_none_is_an_error_and_one_without_rows_is_not(tmp_path, make_run):
    for name, text in (("a", ROWS[0][0]), ("b", "Why is the sky blue?")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"instruction": text, "output": "x"}))
    refs = [{"id": n, "path": str(tmp_path / f"{n}.jsonl"), "license": "MIT"} for n in "ab"]
    run = make_run(curate={"sources": refs})
    curate.execute(run)
    assert terminal.rows(run, "dropped", "a", 9) == protected.rows(run, "a", 9) == []
    for rows in (partial(terminal.rows, run, "dropped"), partial(protected.rows, run)):
        with pytest.raises(UsageError, match=r"no source 'nope'\. Known are a, b"):
            rows("nope", 9)


APPLES = [
    ("Tom has 3 apples and buys 4 more. How many has he?", "3 + 4 = 7. The answer is 7."),
    ("Tom has 5 apples and buys 4 more. How many has he?", "5 + 4 = 9. The answer is 9."),
    ("Tom has 5 apples and buys 4 more. How many does he have?", "The answer is 9."),
    ("Which planet is the largest?", "Jupiter."),
]


def test_pairs_that_protect_kept_are_shown_and_told_apart(tmp_path, make_run, capsys):
    lines = [json.dumps({"instruction": i, "output": o}) for i, o in APPLES]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    source = {"id": "mine", "path": str(tmp_path / "mine.jsonl"), "license": "CC0-1.0"}
    run = make_run(curate={"sources": [source], "protect": "different_answer"})
    with run.open():
        curate.execute(run)
    measured = run.record("curate")["facts"]
    assert (measured["pairs_over_threshold_among_kept"], measured["protected_pairs"]) == (0, 1)
    (pair,) = protected.rows(run, "mine", 9)
    assert {pair[side]["instruction"] for side in terminal.SIDES} == {APPLES[0][0], APPLES[1][0]}
    terminal.print_pairs([pair])
    assert f"{pair['similarity']:.3f}" in capsys.readouterr().out
    told = facts(run)
    assert sum(bar["protected"] for bar in told["similarity"]["curate"]["bars"]) == 1
    page = markdown(told)
    assert "| unprotected pairs over the threshold among the kept | 0 |" in page
    assert "| protected pairs over the threshold, of which both are kept | 1 |" in page
    assert "both stay: protected" in html(told)


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
    with pytest.raises(UsageError, match="no question's id begins with 'zz'"):
        terminal.similar_to(run, "zz", 5)
    with pytest.raises(UsageError, match="5 questions' ids begin with ''"):
        terminal.similar_to(run, "", 5)
