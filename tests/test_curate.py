"""curate from file to record: what goes has a reason, what stays does not depend on order."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from monotreme import curate
from monotreme.errors import InputError
from monotreme.records import read_questions
from monotreme.run import Run

ROWS = [
    ("How many legs does a spider have?", "A spider has eight legs. The answer is 8."),
    ("What is the number of legs that a spider has?", "The answer is 8."),
    ("How many legs does an ant have?", "An ant is an insect, so it has six. The answer is 6."),
    ("how many  legs does an ant have?", "The answer is 6."),
    ("Name the largest planet of the solar system.", "Jupiter is the largest. The answer is Jupiter."),
    ("Which planet of the solar system is the largest one?", "The answer is Jupiter."),
    ("Why does ice float on water?", "Its density is lower. The answer is density."),
]  # fmt: skip


@pytest.fixture
def mine(tmp_path: Path, make_run: Callable[..., Run]) -> Callable[..., Run]:
    """A run over one file of the user's own."""

    def make(rows: list[tuple[str, str]] = ROWS, **settings: Any) -> Run:
        path = tmp_path / "mine.jsonl"
        lines = (json.dumps({"instruction": i, "output": o}) for i, o in rows)
        path.write_text("\n".join(lines) + "\n")
        source = {"id": "mine", "path": str(path), "license": "CC0-1.0"}
        return make_run(curate={"sources": [source], **settings})

    return make


def table(run: Run, name: str) -> list[dict[str, Any]]:
    return pq.read_table(run.output("curate", name)).to_pylist()


def test_every_row_is_kept_or_has_a_reason_and_a_twin(mine):
    run = mine()
    curate.execute(run)
    kept = read_questions(run.output("curate", "questions.parquet"))
    assert {q.instruction for q in kept} == {ROWS[i][0] for i in (0, 2, 4, 6)}
    dropped = {row["instruction"]: row for row in table(run, "dropped.parquet")}
    ids = {q.instruction: q.id for q in kept}
    assert dropped[ROWS[3][0]]["reason"] == "exact_duplicate"
    assert dropped[ROWS[1][0]]["reason"] == "near_duplicate"
    assert dropped[ROWS[1][0]]["twin"] == ids[ROWS[0][0]]
    assert dropped[ROWS[5][0]]["twin"] == ids[ROWS[4][0]]
    assert 0.8 < dropped[ROWS[1][0]]["similarity"] <= 1
    record = run.record("curate")
    assert record["counts"] == {
        "read": 7, "kept": 4, "dropped": 3,
        "by_source": {"mine": {"read": 7, "kept": 4, "dropped": 3}},
        "by_reason": {"exact_duplicate": 1, "near_duplicate": 2},
    }  # fmt: skip
    for promise in ("pairs_over_threshold_among_kept", "dropped_without_kept_neighbour"):
        assert record["facts"][promise] == 0
    assert record["facts"]["dropped_although_more_verbose"] == 0


def test_the_order_of_the_file_changes_no_byte(mine):
    digests = set()
    for seed in range(3):
        rows = random.Random(seed).sample(ROWS, len(ROWS))
        run = mine(rows)
        curate.execute(run)
        outputs = run.record("curate")["outputs"]
        digests.add(tuple(outputs[n]["sha256"] for n in ("questions.parquet", "dropped.parquet")))
    assert len(digests) == 1


def test_protected_look_alikes_stay(mine):
    rows = [
        ("Tom has 3 apples and buys 4 more. How many has he?", "3 + 4 = 7. The answer is 7."),
        ("Tom has 5 apples and buys 4 more. How many has he?", "5 + 4 = 9. The answer is 9."),
    ]
    for rule, num in [("none", 1), ("different_answer", 2), ("different_numbers", 2)]:
        run = mine(rows, protect=rule)
        curate.execute(run)
        assert run.record("curate")["counts"]["kept"] == num
        assert run.record("curate")["facts"]["protected_pairs"] == num - 1


def test_a_source_can_stay_out_of_the_exclusion(tmp_path, make_run, mine):
    mine()
    ref = {"id": "mine", "path": str(tmp_path / "mine.jsonl"), "license": "CC0-1.0"}
    run = make_run(curate={"sources": [{**ref, "exclusion": False}]})
    curate.execute(run)
    assert run.record("curate")["counts"]["by_reason"] == {"exact_duplicate": 1}


def test_the_keyword_search_is_a_switch(tmp_path, make_run, mine):
    mine([("What is the derivative of x?", "It is one."), ("Write a poem on love.", "Roses.")])
    ref = {"id": "mine", "path": str(tmp_path / "mine.jsonl"), "license": "CC0-1.0"}
    run = make_run(curate={"sources": [{**ref, "keywords": True}]})
    curate.execute(run)
    (gone,) = table(run, "dropped.parquet")
    assert (gone["instruction"], gone["reason"]) == ("Write a poem on love.", "no_keyword")


def test_prm800k_replaces_the_same_math_problem():
    from conftest import sums

    first, second = sums(2)
    theirs = type(first)(first.instruction, "", "another solution", "prm800k", "MIT", True)
    kept, dropped = curate.drop_replaced([first, second, theirs], "prm800k", "sums")
    assert kept == [second, theirs]
    assert [(d.question, d.reason, d.twin) for d in dropped] == [(first, "replaced", theirs.id)]


def test_a_bad_row_stops_or_is_dropped_by_name(mine, tmp_path):
    run = mine()
    path = tmp_path / "mine.jsonl"
    path.write_text(path.read_text() + '{"instruction": "half a li')
    with pytest.raises(InputError, match=r"mine\.jsonl, line 8"):
        curate.execute(run)
    run = mine(on_bad_row="drop")
    path.write_text(path.read_text() + '{"instruction": "half a li')
    curate.execute(run)
    assert run.record("curate")["counts"]["by_reason"]["bad_row"] == 1


def test_an_optional_source_may_be_absent(mine, make_run, tmp_path):
    mine()
    ref = {"id": "mine", "path": str(tmp_path / "mine.jsonl"), "license": "CC0-1.0"}
    gone = {"id": "gone", "path": "absent.jsonl", "license": "CC0-1.0"}
    with pytest.raises(InputError, match=r"absent\.jsonl cannot be read"):
        curate.execute(make_run(curate={"sources": [ref, gone]}))
    run = make_run(curate={"sources": [ref, {**gone, "optional": True}]})
    curate.execute(run)
    assert run.record("curate")["inputs"]["sources/gone"] == "absent"


def test_nothing_left_is_an_error(mine, tmp_path, make_run):
    mine([("Write a poem on love.", "Roses.")])
    ref = {"id": "mine", "path": str(tmp_path / "mine.jsonl"), "license": "CC0-1.0"}
    with pytest.raises(InputError, match="no question is left"):
        curate.execute(make_run(curate={"sources": [{**ref, "keywords": True}]}))


def test_a_limit_reads_the_first_rows(tmp_path, make_run, mine):
    mine()
    ref = {"id": "mine", "path": str(tmp_path / "mine.jsonl"), "license": "CC0-1.0", "limit": 2}
    run = make_run(curate={"sources": [ref]})
    curate.execute(run)
    assert run.record("curate")["counts"]["read"] == 2


def test_every_twin_is_a_question_that_stays(mine):
    """The copy of a near-duplicate names what both yield to, not the near-duplicate, which went."""
    rows = [*ROWS[:2], (ROWS[1][0].upper(), "8")]
    run = mine(rows)
    curate.execute(run)
    (kept,) = read_questions(run.output("curate", "questions.parquet"))
    dropped = table(run, "dropped.parquet")
    assert {row["reason"] for row in dropped} == {"exact_duplicate", "near_duplicate"}
    assert {row["twin"] for row in dropped} == {kept.id}
    (copy,) = [row for row in dropped if row["reason"] == "exact_duplicate"]
    assert "went too" in copy["detail"]
    assert 0.8 < copy["similarity"] < 1


def test_an_encoder_folder_that_changes_makes_the_stage_stale(mine, tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text("{}")
    run = mine(encoder="encoder")
    before = curate.inputs(run)["encoder"]
    (tmp_path / "encoder" / "config.json").write_text("{} ")
    assert curate.inputs(run)["encoder"] != before
