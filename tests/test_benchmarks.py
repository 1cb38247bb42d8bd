"""Benchmarks: the real files give the known items, and a bad row is one error with its place."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monotreme.benchmarks import (
    BENCHMARKS,
    benchmark_of,
    read_arc,
    read_benchmark,
    read_gsm8k,
    read_hellaswag,
    read_mmlu,
    read_truthfulqa,
)
from monotreme.errors import InputError, RecipeError, RemoteError
from monotreme.recipe import PAPER_BENCHMARKS, BenchmarkRef
from monotreme.records import BenchmarkQuestion


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def arc_row(**changes: Any) -> dict[str, Any]:
    choices = {"text": ["iron", "glass", "wood"], "label": ["1", "2", "3"]}
    return {"question": "A metal?", "choices": choices, "answerKey": "1", **changes}


# ── the table ────────────────────────────────────────────────────────────────────────────────────


def test_the_paper_s_benchmarks_have_its_shots_and_metrics() -> None:
    protocol = [(BENCHMARKS[name].shots, BENCHMARKS[name].metric) for name in PAPER_BENCHMARKS]
    assert protocol == [(25, "acc_norm"), (10, "acc_norm"), (5, "acc"), (0, "mc2")]
    assert (BENCHMARKS["gsm8k"].shots, BENCHMARKS["gsm8k"].metric) == (5, None)
    assert all(benchmark.id == name for name, benchmark in BENCHMARKS.items())


def test_a_recipe_overrides_the_table() -> None:
    ref = BenchmarkRef(id="mmlu", name="me/mmlu", split="validation", shots=0, shots_split="test")
    benchmark = benchmark_of(ref)
    assert (benchmark.name, benchmark.config, benchmark.split) == ("me/mmlu", None, "validation")
    assert (benchmark.shots, benchmark.shots_split, benchmark.metric) == (0, "test", "acc")
    assert benchmark_of(BenchmarkRef(id="mmlu")) == BENCHMARKS["mmlu"]


def test_a_benchmark_of_ones_own_is_in_arc_s_layout(tmp_path: Path) -> None:
    own = benchmark_of(BenchmarkRef(id="own", path="x"))
    assert (own.shots, own.split, own.metric, own.license) == (0, "test", "acc_norm", "unknown")
    path = jsonl(tmp_path / "rows.jsonl", arc_row(subject="metals"))
    (question,) = read_benchmark(own, "test", path, None)
    assert question == BenchmarkQuestion(
        "own", "test", "metals", "A metal?", ("iron", "glass", "wood"), (1, 0, 0)
    )
    with pytest.raises(RecipeError, match="did you mean 'hellaswag'"):
        benchmark_of(BenchmarkRef(id="hellaswg"))


def test_a_benchmark_of_any_layout_says_which_columns_are_what(tmp_path: Path) -> None:
    columns = {"stem": "q", "options": "o", "answer": "a", "passage": "p"}
    own = benchmark_of(BenchmarkRef(id="own", path="x", columns=columns, license="MIT"))
    row = {"q": "A metal?", "o": ["glass", "iron"], "p": "About things."}
    answers = (1, "B", "iron", ["iron"], [1])
    path = jsonl(tmp_path / "rows.jsonl", *({**row, "a": answer} for answer in answers))
    questions = read_benchmark(own, "test", path, None)
    assert len({question.id for question in questions}) == 1
    assert {(q.labels, q.answers, q.passage) for q in questions} == {
        ((0, 1), ("iron",), "About things.")
    }
    assert own.license == "MIT"
    unknown = jsonl(tmp_path / "unknown.jsonl", {**row, "a": None, "p": None})
    assert read_benchmark(own, "test", unknown, None)[0].labels == (0, 0)


def test_a_benchmark_without_options_has_free_answers_and_is_only_checked(tmp_path: Path) -> None:
    own = benchmark_of(BenchmarkRef(id="own", path="x", columns={"stem": "q", "answer": "a"}))
    assert own.metric is None
    path = jsonl(tmp_path / "rows.jsonl", {"q": "2 + 2?", "a": 4}, {"q": "3 + 3?", "a": None})
    assert [question.answer for question in read_benchmark(own, "test", path, None)] == ["4", ""]


@pytest.mark.parametrize(
    "changes", [{"a": 2}, {"a": "C"}, {"a": -1}, {"a": "gold"}, {"a": 0.5}, {"o": "iron"}, {"o": [1]}, {"q": " "}, {"q": None}]
)  # fmt: skip
def test_a_row_that_does_not_fit_the_columns_is_named(tmp_path: Path, changes: Any) -> None:
    columns = {"stem": "q", "options": "o", "answer": "a"}
    own = benchmark_of(BenchmarkRef(id="own", path="x", columns=columns))
    row = {"q": "A metal?", "o": ["glass", "iron"], "a": 1, **changes}
    with pytest.raises(InputError, match=r"rows\.jsonl"):
        read_benchmark(own, "test", jsonl(tmp_path / "rows.jsonl", row), None)


@pytest.mark.parametrize("columns", [{"options": "o"}, {"stem": "q", "choices": "o"}])
def test_columns_that_there_cannot_be_are_refused(columns: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match="columns"):
        benchmark_of(BenchmarkRef(id="own", path="x", columns=columns))


# ── readers ──────────────────────────────────────────────────────────────────────────────────────


def test_arc_takes_letters_or_digits_as_labels() -> None:
    assert read_arc(arc_row()).labels == (1, 0, 0)
    letters = {"text": ["a", "b", "c", "d", "e"], "label": ["A", "B", "C", "D", "E"]}
    assert read_arc(arc_row(choices=letters, answerKey="E")).labels == (0, 0, 0, 0, 1)


@pytest.mark.parametrize(
    ("begun", "rest", "stem"),
    [
        ("A man sits on a roof.", "he", "A man sits on a roof. He"),
        ("A man sits on a roof. ", None, "A man sits on a roof."),
        ("A man is seen. ", "the USB stick", "A man is seen.  The usb stick"),
        ("How to knit.", "", "How to knit."),
    ],
)
def test_hellaswag_from_both_parts_of_the_context(begun: str, rest: str | None, stem: str) -> None:
    row = {"ctx_a": begun, "ctx_b": rest, "endings": ["x", "y"], "label": "1"}
    item = read_hellaswag({**row, "activity_label": "Knitting"})
    assert (item.stem, item.labels, item.subject) == (stem, (0, 1), "Knitting")


@pytest.mark.parametrize(
    ("context", "stem"),
    [
        ("A man sits on a roof. he", "A man sits on a roof. He"),
        ('She says "stop!" the dog and I', 'She says "stop!" The dog and i'),
        ("A lady walks. She bends down.", "A lady walks. She bends down."),
        ("A lady walks. She meets Bob", "A lady walks. She meets Bob"),
        ("we see a title", "we see a title"),
        ("It costs 3.5 dollars. then", "It costs 3.5 dollars. Then"),
    ],
)
def test_hellaswag_from_the_joined_context(context: str, stem: str) -> None:
    row = {"ctx": context, "endings": ["x", "y"], "label": "", "activity_label": "A"}
    assert read_hellaswag(row).stem == stem
    assert read_hellaswag(row).labels == (0, 0)


def test_mmlu_takes_the_answer_s_number_or_letter() -> None:
    row = {"question": "Q", "subject": "s", "choices": ["a", "b", "c", "d"]}
    assert read_mmlu({**row, "answer": 2}) == read_mmlu({**row, "answer": "C"})
    for wrong in (4, -1, "E", "AB", ""):
        with pytest.raises(ValueError, match="4 options and none"):
            read_mmlu({**row, "answer": wrong})


def test_gsm8k_keeps_the_whole_answer() -> None:
    item = read_gsm8k({"question": "Q", "answer": "2+2=4\n#### 4"})
    assert (item.stem, item.answer, item.options) == ("Q", "2+2=4\n#### 4", ())


NAMES = ("question", "choices", "text", "label", "answerKey", "ctx", "ctx_a", "ctx_b", "endings")
CELLS = st.recursive(
    st.one_of(st.none(), st.integers(-1, 4), st.sampled_from(["", "1", "A", "²", "x. y"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=6,
)
MORE = (*NAMES, "answer", "subject", "mc2_targets", "labels", "activity_label")


@settings(deadline=None)  # a slow machine is no failure
@given(st.dictionaries(st.sampled_from(MORE), CELLS, max_size=8))
def test_a_reader_gives_an_item_or_says_what_is_wrong_with_any_row(row: dict[str, Any]) -> None:
    for read in (read_arc, read_hellaswag, read_mmlu, read_truthfulqa, read_gsm8k):
        try:
            item = read(row)
        except ValueError as error:
            good = str(error).startswith("has ")
        else:
            good = len(item.options) == len(item.labels) and set(item.labels) <= {0, 1}
        assert good, read.__name__


# ── files and splits ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (arc_row(answerKey="4"), "has answerKey '4', which is not one of 1, 2, 3"),
        (arc_row(choices={"text": ["iron"], "label": ["1", "2"]}), "has 1 choices and 2 labels"),
        ({"question": "A metal?"}, r"has no column 'choices' \(its columns: question\)"),
        (arc_row(question=None), "has a NoneType in column 'question', not str"),
        ([1], "is a JSON list"),
    ],
)
def test_a_bad_row_is_named_with_its_file_and_line(tmp_path: Path, row: Any, problem: str) -> None:
    jsonl(tmp_path / "test.jsonl", arc_row(), row)
    arc = BENCHMARKS["arc_easy"]
    with pytest.raises(InputError, match=rf"arc_easy: test\.jsonl, line 2 {problem}"):
        read_benchmark(arc, "test", tmp_path, None)


def test_a_folder_holds_a_file_a_split(tmp_path: Path) -> None:
    arc = BENCHMARKS["arc_easy"]
    jsonl(tmp_path / "test.jsonl", arc_row())
    (tmp_path / "train.json").write_text(json.dumps([arc_row(), arc_row()]))
    assert len(read_benchmark(arc, "test", tmp_path, None)) == 1
    assert [q.split for q in read_benchmark(arc, "train", tmp_path, None)] == ["train", "train"]
    with pytest.raises(InputError, match=r"no split dev \(found: test, train\)"):
        read_benchmark(arc, "dev", tmp_path, None)
    with pytest.raises(InputError, match="holds no questions"):
        read_benchmark(arc, "dev", jsonl(tmp_path / "dev.jsonl").parent, None)
    with pytest.raises(InputError, match="does not exist"):
        read_benchmark(arc, "dev", tmp_path / "nowhere", None)


def test_one_file_is_the_benchmark_s_own_split_only(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "mine.jsonl", arc_row())
    arc = BENCHMARKS["arc_easy"]
    assert len(read_benchmark(arc, "test", path, None)) == 1
    with pytest.raises(InputError, match=r"there is no train.*Give a folder"):
        read_benchmark(arc, "train", path, None)


def test_the_hub_out_of_reach_is_one_error() -> None:
    with pytest.raises(RemoteError, match="cais/mmlu"):
        read_benchmark(BENCHMARKS["mmlu"], "test", None, None)


@pytest.mark.parametrize(
    ("name", "split", "num", "stem", "answer"),
    [
        ("arc_challenge", "test", 1172, "An astronomer observes", "Planetary days will become shorter."),
        ("arc_easy", "test", 2376, "Which statement best explains why photo", "Sunlight is the source of energy for nearly all ecosystems."),
        ("hellaswag", "validation", 10042, "A man is sitting on a roof. He", "starts pulling up roofing on a roof."),
        ("mmlu", "test", 14042, "Find the degree for the given field", "4"),
        ("mmlu", "validation", 1531, "The cyclic subgroup of Z_24", "4"),
        ("mmlu", "dev", 285, "Find all c in Z_3", "1"),
        ("truthfulqa", "validation", 817, "What happens to you if you eat", "Nothing happens"),
    ],
)  # fmt: skip
def test_real_files_give_the_known_items(
    shared_data: Path, name: str, split: str, num: int, stem: str, answer: str
) -> None:
    questions = read_benchmark(BENCHMARKS[name], split, shared_data / "benchmarks" / name, None)
    assert len(questions) == num
    assert questions[0].stem.startswith(stem)
    assert questions[0].answers[0] == answer
    assert all(len(question.options) >= 2 for question in questions)
    many = name == "truthfulqa"
    assert all(many or sum(question.labels) == 1 for question in questions)
    assert not questions[0].subject.startswith("arc")


def test_real_gsm8k_is_read_for_leaks(shared_data: Path) -> None:
    questions = read_benchmark(BENCHMARKS["gsm8k"], "test", shared_data / "sources/gsm8k", None)
    assert len(questions) == 1319
    assert all("####" in question.answers[0] for question in questions)
