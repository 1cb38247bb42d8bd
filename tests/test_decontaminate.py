"""Every leak is found, told apart from look-alikes, dropped by policy and counted."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import finish

from monotreme import decontaminate, verdicts
from monotreme.decontaminate import judging, views
from monotreme.decontaminate.finding import similar_pairs, verbatim_pairs
from monotreme.decontaminate.judging import judge
from monotreme.decontaminate.leaks import share_interval
from monotreme.decontaminate.views import ALONE, benchmark_views
from monotreme.encoders import BUILT_IN, find_encoder
from monotreme.records import BenchmarkQuestion, Question, digest, read_questions
from monotreme.run import Run

BENCHMARK = [
    ("How far does Tom ride if he rides 3 miles to school and 4 miles home?", ("7", "8", "1", "12"), "A"),
    ("Which planet of the solar system is the largest?", ("Mars", "Jupiter", "Venus", "Earth"), "B"),
    ("What do plants need to make food?", ("sunlight", "iron", "sand", "salt"), "A"),
]  # fmt: skip
VERBATIM = (
    "How far does Tom ride if he rides 3 miles to school and 4 miles home?",
    "The answer is 7.",
)
EDITED = ("Which planet of the solar system is the very largest?", "The answer is Jupiter.")
REWORDED = ("What is it that plants need in order to make their food?", "The answer is sunlight.")
LOOK_ALIKE = (
    "How far does Tom ride if he rides 5 miles to school and 6 miles home?",
    "The answer is 11.",
)
CLEAN = ("Why does ice float on water?", "Because its density is lower.")


def question(row: tuple[str, str], source: str = "mine") -> Question:
    return Question(row[0], "", row[1], source, "CC0-1.0", False)


def curated(make_run: Any, tmp_path: Path, rows: list[Question], **settings: Any) -> Run:
    """A run whose curate has left these questions, and a benchmark of the user's own."""
    lines = [
        {"question": stem, "choices": {"text": options, "label": list("ABCD")}, "answerKey": key}
        for stem, options, key in BENCHMARK
    ]
    path = tmp_path / "bench.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    benchmarks = [{"id": "bench", "path": str(path)}]
    sources = [{"id": name, "path": "x", "license": "CC0-1.0"} for name in ("mine", "other")]
    run = make_run(
        curate={"sources": sources}, decontaminate={"benchmarks": benchmarks, **settings}
    )
    finish(run, "curate", rows)
    return run


def kept(run: Run) -> set[str]:
    return {q.instruction for q in read_questions(run.output("decontaminate", "questions.parquet"))}


ALL = [VERBATIM, EDITED, REWORDED, LOOK_ALIKE, CLEAN]


def test_leaks_go_and_look_alikes_stay(make_run, tmp_path):
    run = curated(make_run, tmp_path, [question(row) for row in ALL])
    decontaminate.execute(run)
    assert kept(run) == {LOOK_ALIKE[0], CLEAN[0]}
    rows = pq.read_table(run.output("decontaminate", "leaked.parquet")).to_pylist()
    verdicts = {row["instruction"]: (row["verdict"], row["reason"]) for row in rows}
    assert verdicts[VERBATIM[0]] == ("duplicate", "same_text")
    assert verdicts[EDITED[0]] == ("duplicate", "near_text")
    assert verdicts[REWORDED[0]][0] == "gray_area"
    assert all(row["similarity"] > 0.8 and row["benchmark_stem"] for row in rows)


def test_the_papers_policy_drops_everything_over_the_threshold(make_run, tmp_path):
    drop = ["duplicate", "gray_area", "similar_but_different"]
    run = curated(make_run, tmp_path, [question(row) for row in ALL], drop=drop)
    decontaminate.execute(run)
    assert kept(run) == {CLEAN[0]}


def test_every_copy_goes_and_not_only_the_nearest(make_run, tmp_path):
    """The original removed the most similar training row of each benchmark question and left the rest."""
    copies = [question((f"{VERBATIM[0]}{' ' * n}", VERBATIM[1])) for n in range(3)]
    run = curated(make_run, tmp_path, [*copies, question(CLEAN)])
    decontaminate.execute(run)
    assert kept(run) == {CLEAN[0]}


def test_the_table_counts_questions_by_source_and_verdict(make_run, tmp_path):
    rows = [
        question(VERBATIM),
        question(REWORDED, "other"),
        question(LOOK_ALIKE, "other"),
        question(CLEAN),
    ]
    run = curated(make_run, tmp_path, rows)
    decontaminate.execute(run)
    leaks = json.loads(run.output("decontaminate", "leaks.json").read_text())
    mine = {"duplicate": 1, "gray_area": 0, "similar_but_different": 0}
    other = {"duplicate": 0, "gray_area": 1, "similar_but_different": 1}
    rows = [
        (row["source"], row["benchmark"], row["read"], row["proposed"]) for row in leaks["table"]
    ]
    assert rows == [("mine", "bench", 2, mine), ("other", "bench", 2, other)]
    for row, counts in zip(leaks["table"], (mine, other), strict=True):
        assert {verdict: row[verdict] for verdict in counts} == counts
        assert row["intervals"] == {
            verdict: list(share_interval(count, 2)) for verdict, count in counts.items()
        }
    assert leaks["dropped_by_source"] == {"mine": 1, "other": 1}
    items = decontaminate.read_scored(run, run.recipe.decontaminate.benchmarks[0]).items
    assert leaks["benchmarks"] == [
        {
            "id": "bench",
            "split": "test",
            "license": "unknown",
            "num_questions": 3,
            "questions_digest": digest(*(item.id for item in items)),
        }
    ]
    assert len(leaks["leaked_benchmark_ids"]["bench"]) == 2
    assert [(row["source"], row["leaked"], row["read"]) for row in leaks["rates"]] == [
        ("mine", 1, 2),
        ("other", 1, 2),
    ]
    assert all(row["interval"][0] < 0.5 < row["interval"][1] for row in leaks["rates"])
    counts = run.record("decontaminate")["counts"]
    assert counts["by_reason"] == {"duplicate": 1, "gray_area": 1}


def test_options_in_the_copy_do_not_hide_it(make_run, tmp_path):
    stem, options, _ = BENCHMARK[1]
    leaked = question(("\n".join([stem, *options]), "B"))
    run = curated(make_run, tmp_path, [leaked, question(CLEAN)])
    decontaminate.execute(run)
    assert kept(run) == {CLEAN[0]}


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_questions_does_not_matter(make_run, tmp_path, order):
    run = curated(make_run, tmp_path, [question(row) for row in ALL][::order])
    decontaminate.execute(run)
    leaked = pq.read_table(run.output("decontaminate", "leaked.parquet"))["instruction"].to_pylist()
    assert sorted(leaked) == sorted([VERBATIM[0], EDITED[0], REWORDED[0]])


NOISE = "The harbour master counted barrels, sails and gulls before the fog came in. "


def test_a_copy_inside_a_long_text_or_an_answer_is_found_by_its_words(make_run, tmp_path):
    """Cosine cannot see it: the text around it is about something else."""
    within = question((f"{NOISE * 6}{VERBATIM[0]} {NOISE * 6}", "It does not say."))
    answer = question(("Tell me a story.", f"{NOISE * 6} Then he asked: {VERBATIM[0]} {NOISE}"))
    few_words = question((NOISE * 3, "Which planet of the solar system?"))
    run = curated(make_run, tmp_path, [within, answer, few_words, question(CLEAN)])
    decontaminate.execute(run)
    assert kept(run) == {CLEAN[0], few_words.instruction}
    rows = pq.read_table(run.output("decontaminate", "leaked.parquet")).to_pylist()
    for row in rows:
        assert (row["verdict"], row["reason"], row["verbatim"]) == ("duplicate", "contains_text", 1)
        assert row["similarity"] < 0.8


def test_how_questions_and_pairs_are_cut_changes_nothing(tmp_path, monkeypatch):
    """Found by sense, by words, or both; a question in many pairs, and one in none."""
    asked = [
        *(question(row) for row in (CLEAN, *ALL)),
        question((f"{NOISE * 6}{VERBATIM[0]} {NOISE * 6}", "It does not say.")),
    ]
    items = [BenchmarkQuestion("b", "test", "", stem, o, (1, 0, 0, 0)) for stem, o, _ in BENCHMARK]
    encoder = find_encoder(BUILT_IN, Path(), str)

    def found() -> list[tuple[Any, ...]]:
        pairs, _ = similar_pairs(asked, items, encoder, 0.5, tmp_path)
        matches = judge(asked, items, pairs, 0.5, tmp_path)
        assert len(pairs) == len(matches)
        assert [matches[place] for place in range(len(matches))] == list(matches)
        keys = [key for key, _ in pairs.items()]
        assert keys == sorted(set(keys))
        return [*pairs.items(), *matches]

    whole = found()
    assert any(likeness.similarity < 0.5 for _, likeness in whole[: len(whole) // 2])
    monkeypatch.setattr(views, "QUESTIONS_AT_ONCE", 2)
    monkeypatch.setattr(judging, "PAIRS_AT_ONCE", 3)
    assert found() == whole


def test_a_short_stem_inside_a_text_counts_only_with_its_options():
    item = BenchmarkQuestion(
        "bench", "test", "", "Which statement is always true?", ("Ice sinks", "Ice floats"), (0, 1)
    )
    alone = question((f"{NOISE}Which statement is always true? {NOISE}", "None."))
    both = question((f"{NOISE}Which statement is always true? Ice sinks. Ice floats.", "B"))
    (found,) = verbatim_pairs([alone, both], [item])
    assert [column.tolist() for column in found] == [[1], [0], [1.0]]


def test_another_encoder_makes_the_stage_stale(make_run, tmp_path):
    run = curated(make_run, tmp_path, [question(CLEAN)])
    decontaminate.execute(run)
    inputs = decontaminate.inputs(run)
    assert run.is_current("decontaminate", inputs)
    assert not run.is_current("decontaminate", {**inputs, "encoder": "another"})


# ── views ───────────────────────────────────────────────────────────────────────────────────────

PASSAGE = (
    "The harbour of the old town was dug by hand in the dry summer of the year the mill burned. "
    "Carts took the stone to the hill, where masons from the valley built a wall of it, and for two "
    "winters nobody was allowed to carry anything else over the narrow bridge by the church."
)
ASK = "Which material did the masons from the valley use to build the long wall?"
HISTORY = BenchmarkQuestion(
    "bench", "test", "", f"{PASSAGE}\n{ASK}", ("stone", "brick", "timber", "clay"), (1, 0, 0, 0)
)
LEAKED_AS = {
    "without the passage": Question(ASK, "", "stone", "mine", "CC0-1.0", False),
    "with options only": Question(f"{ASK}\nA. stone\nB. brick\nC. timber\nD. clay", "", "A", "mine", "CC0-1.0", False),
    "under another passage": Question(f"{NOISE * 5}\n{ASK}", "", "stone", "mine", "CC0-1.0", False),
    "as instruction to an input": Question(ASK, NOISE * 5, "stone", "mine", "CC0-1.0", False),
}  # fmt: skip


@pytest.mark.parametrize("way", LEAKED_AS)
def test_a_question_is_found_without_its_passage_and_beside_other_text(way, tmp_path):
    encoder = find_encoder(BUILT_IN, Path(), str)
    found, _ = similar_pairs([LEAKED_AS[way]], [HISTORY], encoder, 0.8, tmp_path)
    assert dict(found.items())[0, 0].similarity > 0.95


def test_what_several_benchmark_questions_ask_is_no_view_of_its_own():
    """ "Which of these weakens the argument?" under two passages is nobody's question."""
    other = BenchmarkQuestion("bench", "test", "", f"{NOISE * 5}\n{ASK}", ("gold", "tin"), (1, 0))
    assert ALONE in benchmark_views([HISTORY]).name
    assert ALONE not in benchmark_views([HISTORY, other]).name


# ── between splits ──────────────────────────────────────────────────────────────────────────────


def test_leaks_between_the_splits_of_a_benchmark_are_reported(make_run, tmp_path):
    folder = tmp_path / "bench"
    folder.mkdir()
    benchmarks = [{"id": "bench", "path": str(folder)}]
    run = curated(make_run, tmp_path, [question(CLEAN)], benchmarks=benchmarks)
    lines = (tmp_path / "bench.jsonl").rename(folder / "test.jsonl").read_text().splitlines()
    (folder / "train.jsonl").write_text(lines[1])
    (folder / "validation.jsonl").write_text(lines[0].replace("3 miles", "30 miles"))
    decontaminate.execute(run)
    train, validation = json.loads(run.output("decontaminate", "leaks.json").read_text())[
        "between_splits"
    ]
    assert (train["other_split"], train["duplicate"], len(train["duplicate_ids"])) == (
        "train",
        1,
        1,
    )
    assert (validation["duplicate"], validation["similar_but_different"]) == (0, 1)
    assert kept(run) == {CLEAN[0]}
    rows = pq.read_table(run.output("decontaminate", "splits.parquet")).to_pylist()
    assert [row["source"] for row in rows] == ["train", "validation"]


# ── people ──────────────────────────────────────────────────────────────────────────────────────


def say(run: Run, verdict: Any, reviewer: str = "one") -> None:
    """A verdict on each pair of the run."""
    rows = pq.read_table(run.output("decontaminate", "pairs.parquet")).to_pylist()
    lines = [
        verdicts.Line(row["id"], row["benchmark_id"], verdict, reviewer, "2026-01-01T00:00:00Z")
        for row in rows
    ]
    verdicts.append(run.folder / verdicts.FILE, lines)


def test_what_people_said_goes_before_triage_and_holds_in_every_rerun(make_run, tmp_path):
    run = curated(make_run, tmp_path, [question(row) for row in (VERBATIM, LOOK_ALIKE, CLEAN)])
    decontaminate.execute(run)
    before = decontaminate.inputs(run)
    say(run, "similar_but_different")
    assert not run.is_current("decontaminate", decontaminate.inputs(run))
    decontaminate.execute(run)
    assert kept(run) == {VERBATIM[0], LOOK_ALIKE[0], CLEAN[0]}
    leaks = json.loads(run.output("decontaminate", "leaks.json").read_text())
    (row,) = leaks["table"]
    assert (row["duplicate"], row["proposed"]["duplicate"]) == (0, 1)
    said = {"duplicate": 0, "gray_area": 0, "similar_but_different": 1}
    assert leaks["review"] == {
        "pairs": 2,
        "judged": 2,
        "changed": 1,
        "verdicts": [
            {"proposed": "duplicate", "judged": said},
            {"proposed": "similar_but_different", "judged": said},
        ],
        "reviewers": ["one"],
    }
    say(run, None)
    assert decontaminate.inputs(run) == before


def test_of_two_reviewers_the_graver_verdict_holds(make_run, tmp_path):
    run = curated(make_run, tmp_path, [question(row) for row in (LOOK_ALIKE, CLEAN)])
    decontaminate.execute(run)
    say(run, "similar_but_different", "one")
    say(run, "gray_area", "two")
    decontaminate.execute(run)
    assert kept(run) == {CLEAN[0]}
    (row,) = pq.read_table(run.output("decontaminate", "leaked.parquet")).to_pylist()
    assert (row["verdict"], row["proposed"]) == ("gray_area", "similar_but_different")
    assert row["reviewers"] == ["one", "two"]


def test_the_interval_of_a_share_is_wilsons():
    """Figures from the formula by hand: (p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)."""
    assert share_interval(2, 10) == pytest.approx((0.0567, 0.5098), abs=1e-4)
    assert share_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
