"""curate from file to record: what goes has a reason, what stays does not depend on order."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import rows_of
from hypothesis import given
from hypothesis import strategies as st

from monotreme import curate, similar
from monotreme.curate.duplicates import apply_exclusion, drop_exact_duplicates
from monotreme.curate.fates import Fates
from monotreme.curate.filters import drop_replaced, drop_unfree
from monotreme.curate.reading import Rows
from monotreme.encoders import MiniLM
from monotreme.errors import InputError
from monotreme.exclusion import verbosity_order
from monotreme.neighbors import Pairs
from monotreme.recipe import SourceRef
from monotreme.records import Question, read_questions
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


def test_the_record_says_which_pairs_were_compared(mine, monkeypatch):
    run = mine()
    curate.execute(run)
    assert run.record("curate")["facts"]["join"] == {"pairs": "all"}
    monkeypatch.setattr(similar, "MOST_EXACT", 5)
    curate.execute(run)
    join = run.record("curate")["facts"]["join"]
    assert (join["pairs"], join["lists"], join["lists_a_row"]) == ("lists", 2, 2)
    assert join["recall_share"] == 1.0
    assert join["recall_low"] < join["recall_high"] == 1.0
    assert (join["recall_num_texts"], join["recall_num_pairs"]) == (6, 2)
    run = mine(exact=True)
    curate.execute(run)
    assert run.record("curate")["facts"]["join"] == {"pairs": "all"}


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


def test_an_answer_in_other_words_is_no_other_answer(mine):
    rows = [
        ("Which city is the capital of France?", "Paris."),
        ("Which city is the capital of France today?", "That would be Paris, on the river Seine, which has been the capital for centuries."),
    ]  # fmt: skip
    run = mine(rows, protect="different_answer")
    curate.execute(run)
    assert run.record("curate")["counts"]["kept"] == 1
    assert run.record("curate")["facts"]["dropped_with_another_final_answer"] == 0


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
    rows = rows_of([first, second, theirs])
    fates = Fates(rows)
    drop_replaced(rows, fates, np.arange(3), "prm800k", "sums")
    assert fates.stays.tolist() == [False, True, True]
    assert (fates.reason[0], fates.twin[0]) == ("replaced", 2)


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


def test_an_optional_source_that_is_broken_is_left_out_and_the_stage_is_up_to_date(
    mine, make_run, tmp_path
):
    mine()
    ref = {"id": "mine", "path": str(tmp_path / "mine.jsonl"), "license": "CC0-1.0"}
    (tmp_path / "broken.json").write_text("[1, 2")
    broken = {"id": "broken", "path": str(tmp_path / "broken.json"), "license": "CC0-1.0"}
    run = make_run(curate={"sources": [ref, {**broken, "optional": True}]})
    curate.execute(run)
    assert run.record("curate")["facts"]["left_out"] == ["broken"]
    assert run.is_current("curate", curate.inputs(run))


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
    (near,) = [row for row in dropped if row["reason"] == "near_duplicate"]
    assert f"that was {near['id'][:12]}, which went too" in copy["detail"]
    assert copy["similarity"] == near["similarity"] < 1


def test_an_encoder_folder_that_changes_makes_the_stage_stale(mine, tmp_path):
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text("{}")
    run = mine(encoder="encoder")
    before = curate.inputs(run)["encoder"]
    (tmp_path / "encoder" / "config.json").write_text("{} ")
    assert curate.inputs(run)["encoder"] != before


# ── licences and authors ────────────────────────────────────────────────────────────────────────


def licensed(*licenses: str) -> tuple[Rows, list[SourceRef]]:
    """A question of each of some sources, and these."""
    refs = [SourceRef(id=f"s{i}", path="x.jsonl", license=name) for i, name in enumerate(licenses)]
    return rows_of([Question(f"q{r.id}?", "", "a", r.id, r.license, False) for r in refs]), refs


@pytest.mark.parametrize(
    ("allowed", "kept"),
    [
        ("any", [0, 1, 2, 3]),
        ("commercial", [0, 3]),
        (["CC-BY-NC-4.0", "MIT"], [0, 1, 3]),
        (["MIT"], [0, 3]),
        ([], []),
    ],
)
def test_only_permitted_licences_enter_and_the_rest_is_named(allowed, kept):
    rows, refs = licensed("MIT", "CC-BY-NC-4.0", "unknown", "MIT OR CC-BY-NC-4.0")
    fates = Fates(rows)
    drop_unfree(rows, fates, refs, allowed)
    assert np.flatnonzero(fates.stays).tolist() == kept
    for row in np.flatnonzero(~fates.stays):
        assert fates.reason[row] == "license"
        assert refs[row].license in fates.detail[row]


def test_answers_by_a_language_model_can_be_left_out(mine, make_run, tmp_path):
    mine()
    path = str(tmp_path / "mine.jsonl")
    sources = [
        {"id": "human", "path": path, "license": "MIT", "exclusion": False},
        {"id": "model", "path": path, "license": "CC-BY-NC-4.0", "llm_written": True},
    ]
    for settings, reason in (({"llm_written": "drop"}, "llm_written"), ({"licenses": "commercial"}, "license")):  # fmt: skip
        run = make_run(curate={"sources": sources, **settings})
        curate.execute(run)
        counts = run.record("curate")["counts"]
        assert counts["by_reason"][reason] == len(ROWS)
        assert counts["by_source"]["model"]["kept"] == 0


def test_a_source_that_loses_nearly_everything_is_named(mine, capsys):
    question = "How many legs does a spider have?"
    run = mine([(question + " " * i, "a" * i) for i in range(1, 12)] + [("Why is ice cold?", "x")])
    curate.execute(run)
    (line,) = run.record("curate")["facts"]["heavy_losses"]
    assert line == "mine lost 83% of its 12 rows, most of them (10) as exact_duplicate"
    assert line.split(" rows")[0] in " ".join(capsys.readouterr().err.split())
    mild = mine(ROWS)
    curate.execute(mild)
    assert mild.record("curate")["facts"]["heavy_losses"] == []


# ── another threshold, another source, long texts ───────────────────────────────────────────────


def test_another_threshold_embeds_nothing_and_another_source_only_what_is_new(mine, monkeypatch):
    curate.execute(mine())
    encoded: list[int] = []
    encode = MiniLM.encode

    def counting(self: MiniLM, windows: list[Any], exact: bool) -> Any:
        encoded.append(0 if exact else len(windows))
        return encode(self, windows, exact)

    monkeypatch.setattr(MiniLM, "encode", counting)
    curate.execute(mine(threshold=0.95))
    assert sum(encoded) == 0
    curate.execute(mine([*ROWS, ("Is glass a liquid?", "No, it is a solid.")]))
    assert sum(encoded) == 1


STORY = "Ann walks to the market with her two dogs and buys apples, pears and a loaf of bread. "
ENDS = [
    "Explain in which order photosynthesis, respiration and transpiration happen in a green leaf.",
    "Prove that the square root of two is irrational by an argument about even and odd numbers.",
]


def test_the_end_of_a_long_text_counts_unless_it_is_cut(mine):
    """Unlike beginnings and one ending: windows find it, the paper's way cannot."""
    other = (
        "The treaty was signed by nine ministers after a winter of talks about tariffs on steel. "
    )
    ending = (ENDS[0] + " " + ENDS[1] + " ") * 10
    rows = [(STORY * 20 + ending, "long"), (other * 20 + ending, "short")]
    found = {}
    for truncate in (False, True):
        run = mine(rows, truncate=truncate)
        curate.execute(run)
        found[truncate] = run.record("curate")["counts"]["by_reason"]
    assert found == {False: {"near_duplicate": 1}, True: {}}


# ── whatever comes in ───────────────────────────────────────────────────────────────────────────


def test_odd_texts_are_read_and_counted(mine):
    odd = [
        ("x" * 1_000_000, "a word of a million letters"),
        ("many words " * 90_000, "a million characters"),
        ("\x00\x07\x1b[31mred\x1b[0m \u202eright to left", "control characters"),
        ("什么是光合作用? Was ist Photosynthese? ما هو التمثيل الضوئي؟", "three languages"),
        ("🦆" * 500, "no letters"),
        ("\ufeff\u00a0?", "hardly anything"),
    ]
    run = mine(odd)
    curate.execute(run)
    counts = run.record("curate")["counts"]
    assert (counts["read"], counts["kept"] + counts["dropped"]) == (len(odd), len(odd))
    assert counts["kept"] >= 5
    assert "\x1b" in "".join(q.instruction for q in read_questions(run.output("curate", "questions.parquet")))  # fmt: skip


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_a_question_without_text_is_a_bad_row(mine, text):
    with pytest.raises(InputError, match="instruction"):
        curate.execute(mine([*ROWS, (text, "an answer")]))
    run = mine([*ROWS, (text, "an answer")], on_bad_row="drop")
    curate.execute(run)
    assert run.record("curate")["counts"]["by_reason"]["bad_row"] == 1


def test_the_same_row_many_times_stays_once(mine):
    run = mine([ROWS[0]] * 50)
    curate.execute(run)
    assert run.record("curate")["counts"]["kept"] == 1
    assert {row["twin"] for row in table(run, "dropped.parquet")} == {
        row["id"] for row in table(run, "questions.parquet")
    }


def test_a_column_that_is_not_there_is_named_with_those_that_are(mine, make_run, tmp_path):
    mine()
    source = {"id": "mine", "path": str(tmp_path / "mine.jsonl"), "license": "MIT"}
    run = make_run(curate={"sources": [{**source, "columns": {"instruction": "question"}}]})
    with pytest.raises(InputError, match=r"question.*instruction, output"):
        curate.execute(run)


# ── the exclusion over questions ────────────────────────────────────────────────────────────────

GRAPHS = st.integers(1, 9).flatmap(
    lambda num: st.tuples(
        st.lists(st.integers(0, 3), min_size=num, max_size=num),
        st.sets(st.tuples(st.integers(0, num - 1), st.integers(0, num - 1)).filter(lambda p: p[0] < p[1])),
    )
)  # fmt: skip


def excluded(sizes: list[int], edges: set[tuple[int, int]], order: list[int]) -> set[str]:
    """Ids kept of questions with answers of these sizes, laid out in this order."""
    place = {row: at for at, row in enumerate(order)}
    questions = [
        Question(f"q{row}", "", "a" * (sizes[row] + 1), "s", "MIT", False) for row in order
    ]
    pairs = sorted(tuple(sorted((place[i], place[j]))) for i, j in edges)
    columns = np.array(pairs, np.int64).reshape(-1, 2).T
    answers = [len(q.output) for q in questions]
    rank = verbosity_order(answers, [0] * len(order), [0] * len(order), [q.id for q in questions])
    close = Pairs(columns[0], columns[1], np.full(len(pairs), 0.9))
    result = apply_exclusion(questions, rank, [close], "none", Path())
    promises = ("pairs_over_threshold_among_kept", "dropped_without_kept_neighbour", "dropped_although_more_verbose")  # fmt: skip
    assert [result.facts[promise] for promise in promises] == [0, 0, 0]
    return {q.id for q, stays in zip(questions, result.kept, strict=True) if stays}


@given(GRAPHS, st.randoms())
def test_what_stays_does_not_depend_on_the_order_of_questions(graph, random):
    sizes, edges = graph
    shuffled = random.sample(range(len(sizes)), len(sizes))
    assert excluded(sizes, edges, shuffled) == excluded(sizes, edges, list(range(len(sizes))))


@given(GRAPHS)
def test_a_question_like_no_other_changes_nothing_else(graph):
    sizes, edges = graph
    num = len(sizes)
    more = excluded([*sizes, 2], edges, list(range(num + 1)))
    less = excluded(sizes, edges, list(range(num)))
    assert less < more
    assert len(more - less) == 1


@given(st.lists(st.sampled_from(["What is 2+2?", "what is  2+2?", "What is 3?", "Why?"]), max_size=8), st.randoms())  # fmt: skip
def test_exact_duplicates_leave_one_of_each_whatever_the_order(texts, random):
    def kept(rows: list[tuple[int, str]]) -> set[str]:
        questions = [Question(text, "", f"answer {i}", "s", "MIT", False) for i, text in rows]
        rank = verbosity_order([0] * len(rows), [0] * len(rows), [0] * len(rows), [q.id for q in questions])  # fmt: skip
        read = rows_of(questions)
        fates = Fates(read)
        drop_exact_duplicates(read, fates, rank)
        assert set(fates.twin[~fates.stays]) <= set(np.flatnonzero(fates.stays))
        return {questions[i].id for i in np.flatnonzero(fates.stays)}

    rows = list(enumerate(texts))
    assert kept(rows) == kept(random.sample(rows, len(rows)))
    assert len(kept(rows)) == len({" ".join(text.lower().split()) for text in texts})
