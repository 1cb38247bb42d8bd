"""Sources: each raw row becomes one question or one dropped question, as its source's rows should."""

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monotreme.errors import InputError, MonotremeError, RecipeError
from monotreme.recipe import SourceRef
from monotreme.records import Dropped, Question
from monotreme.sources import SOURCES, read_source, source_of
from monotreme.sources.readers import (
    Fields,
    is_english,
    read_arb,
    read_columns,
    read_guanaco,
    read_leetcode,
    read_math,
    read_openbookqa,
    read_prm800k,
    read_reclor,
    read_scibench,
    read_scienceqa,
    read_theoremqa,
    read_tigerbot,
    unbox,
)

DOCS = Path(__file__).parents[1] / "docs" / "sources.md"


def read(path: Path, on_bad_row: Literal["fail", "drop"] = "fail", **ref: Any) -> list[Any]:
    source = SourceRef(**{"path": str(path), **ref})
    return list(read_source(source, path, None, seed=1, on_bad_row=on_bad_row))


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# ── the table ────────────────────────────────────────────────────────────────────────────────────


def test_the_table_holds_the_eleven_sources_and_openbookqa() -> None:
    words = {source.data_source for source in SOURCES.values()}
    released = "MATH/PRM-800K scienceqa scibench reclor theoremqa leetcode_ne airoboros"
    assert words == {*released.split(), "tigerbot-kaggle", "ARB", "guanaco", "openbookqa"}
    assert len(SOURCES) == 12
    assert all(source.id == name and source.license for name, source in SOURCES.items())
    assert SOURCES[SOURCES["prm800k"].replaces] is SOURCES["math"]


def test_the_docs_name_every_source_as_the_table_does() -> None:
    rows = [line.split("|") for line in DOCS.read_text("utf-8").splitlines() if line[:3] == "| `"]
    cells = {row[1].strip(" `"): [text.strip() for text in row[2:]] for row in rows}
    assert list(cells) == list(SOURCES)
    for name, (hub, license_, llm_written, *_) in cells.items():
        source = SOURCES[name]
        assert source.name in hub or hub.startswith("none")
        assert license_ == source.license
        assert llm_written == ("yes" if source.llm_written else "no")
        assert ("Needs `path`" in cells[name][4]) == bool(source.obtain)
        assert ("Keyword search" in cells[name][4]) == source.keywords


@pytest.mark.parametrize("name", [s.id for s in SOURCES.values() if s.obtain])
def test_a_source_that_the_hub_lacks_says_where_to_get_it(name: str) -> None:
    with pytest.raises(InputError, match="`path`"):
        source_of(SourceRef(id=name))
    assert source_of(SourceRef(id=name, path="here")).id == name


def test_a_recipe_overrides_the_table() -> None:
    ref = SourceRef(id="airoboros", name="me/mine", split="dev", keywords=False, llm_written=False)
    source = source_of(ref)
    assert (source.name, source.splits, source.data_files) == ("me/mine", ("dev",), ())
    assert (source.keywords, source.llm_written, source.license) == (False, False, "CC-BY-NC-4.0")
    assert source_of(SourceRef(id="math", name="me/math")).configs == (None,)
    assert source_of(SourceRef(id="math", license="CC0-1.0", path="x")).license == "CC0-1.0"


def test_the_hub_out_of_reach_is_one_error() -> None:
    for name in ("math", "scibench"):
        ref = SourceRef(id=name)
        with pytest.raises(MonotremeError, match=SOURCES[name].name):
            list(read_source(ref, None, None, seed=1, on_bad_row="drop"))


# ── each reader, on rows in its source's columns ─────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        (r"so $\boxed{\frac{1}{2}}$ and \boxed{3}", r"so $\frac{1}{2}$ and 3"),
        (r"\boxed{a \boxed{b} c}", "a b c"),
        (r"\boxed {\{1\}}", r"\{1\}"),
        (r"\boxed{ open { here }", r"\boxed{ open { here }"),
        (r"x \\ \boxed{y} } {z", r"x \\ y } {z"),
    ],
)
def test_unbox_keeps_braces_balanced(text: str, bare: str) -> None:
    assert unbox(text) == bare


@settings(deadline=None)  # a slow machine is no failure
@given(st.lists(st.sampled_from(["{", "}", "\\", "\\boxed{", "y"]), max_size=30).map("".join))
def test_unbox_takes_away_boxes_and_nothing_else(text: str) -> None:
    once = unbox(text)
    assert once.count("y") == text.count("y")
    assert text.count("{") - once.count("{") == text.count("}") - once.count("}")
    assert (text.count("{") - once.count("{")) == text.count("\\boxed") - once.count("\\boxed")


def test_math_with_a_solution_or_only_an_answer() -> None:
    row = {"problem": " 1+1? ", "type": "Algebra", "solution": r"It is $\boxed{2}$."}
    assert read_math(row) == Fields("1+1?", "It is $2$.", subject="Algebra")
    assert read_math({"problem": "1+1?", "answer": "2"}).output == "2"


def prm_row(*ends: str, finish: str = "solution", truth: str = "12") -> dict[str, Any]:
    """Two steps: one with a choice of right completions, then the given ends."""
    begins = [{"text": f"Way {i}.", "rating": rating} for i, rating in enumerate((1, 1, 1, 0, -1))]
    last = [{"text": end, "rating": 1} for end in ends]
    return {
        "question": {"problem": "3 times 4?", "ground_truth_answer": truth},
        "label": {
            "finish_reason": finish,
            "steps": [
                {"completions": begins, "human_completion": None, "chosen_completion": None},
                {"completions": last, "human_completion": None, "chosen_completion": 0},
            ],
        },
    }


END = "So it is 12.\n\n# Answer\n\n12"


def test_prm800k_draws_right_steps_by_seed_and_row_alone() -> None:
    row = prm_row(END)
    drawn = {seed: read_prm800k(row, seed=seed).output for seed in range(30)}
    assert set(drawn.values()) == {f"Way {i}.\nSo it is 12." for i in range(3)}
    assert drawn == {seed: read_prm800k(row, seed=seed).output for seed in reversed(range(30))}


def test_prm800k_takes_the_step_with_the_answer_where_one_has_it() -> None:
    row = prm_row("So it is a dozen.", END)
    row["label"]["steps"][1]["chosen_completion"] = None
    assert {read_prm800k(row, seed=s).output[-9:] for s in range(9)} == {"it is 12."}


def test_prm800k_follows_the_step_that_the_next_one_goes_on_from() -> None:
    row = prm_row(END)
    row["label"]["steps"][0]["chosen_completion"] = 2
    assert {read_prm800k(row, seed=s).output for s in range(9)} == {"Way 2.\nSo it is 12."}
    row["label"]["steps"][0]["chosen_completion"] = 4  # rated -1: not that one
    assert "Way 4." not in {read_prm800k(row, seed=s).output for s in range(9)}
    row["label"]["steps"][0] = {
        "completions": None,
        "human_completion": {"text": "I.", "rating": 1},
    }
    assert read_prm800k(row, seed=0).output == "I.\nSo it is 12."


def test_prm800k_keeps_only_finished_solutions_with_the_true_answer() -> None:
    assert read_prm800k(prm_row(END, finish="give_up"), seed=0).drop == "unfinished"
    assert read_prm800k(prm_row(END, truth="13"), seed=0).drop == "wrong_answer"
    assert read_prm800k(prm_row("So it is 12."), seed=0).drop == "no_solution"
    bare = read_prm800k(prm_row("# Answer\n\n12"), seed=0)
    assert bare.output.endswith(".\n12")
    assert not bare.drop


def test_scienceqa_keeps_the_hint_and_the_lecture_where_a_text_is_meant() -> None:
    row = {"question": "Which is a solid?", "choices": ["ice", "steam"], "answer": 0}
    row |= {"hint": "Look.", "lecture": "Solids keep their shape.", "solution": "Ice is."}
    fields = read_scienceqa({**row, "topic": "physics"})
    assert fields == Fields("Which is a solid?\nA: ice\nB: steam", "Ice is.", "Look.", "physics")
    asked = {**row, "question": "Based on the table, which is a solid?"}
    assert read_scienceqa(asked).input == "Look.\nSolids keep their shape."
    assert read_scienceqa({**asked, "lecture": "word " * 401}).input == "Look."
    assert read_scienceqa({**row, "solution": ""}).output == ""


def test_scibench_gives_the_solution_or_the_number_with_its_unit() -> None:
    row = {"problem_text": "How far?\r\n", "answer_number": " 5 ", "unit": "$m$ ", "source": "fund"}
    assert read_scibench(row) == Fields("How far?", "5 $m$", subject="fund")
    assert read_scibench({**row, "solution": "a\r\nb"}).output == "a\nb"
    assert read_scibench({**row, "solution": None, "unit": " "}).output == "5"


@pytest.mark.parametrize("label", [1, "1"])
def test_reclor_answers_with_the_letter(label: int | str) -> None:
    row = {"context": "C.", "question": "Q?", "answers": ["a", "b", "c", "d"], "label": label}
    ask = "Choose A, B, C or D as your solution."
    assert read_reclor(row) == Fields("C. Q?\nA: a\nB: b\nC: c\nD: d", "B", ask)
    assert read_reclor({**row, "label": None}).output == ""
    with pytest.raises(ValueError, match="label '7'"):
        read_reclor({**row, "label": 7})


def test_theoremqa_joins_the_definition_however_the_name_is_spelt() -> None:
    row = {"Question": "Q?", "Answer": [0, 5], "theorem": "Cauchy-Schwarz  inequality"}
    fields = read_theoremqa(row, theorems={"cauchyschwarzinequality": "It says."})
    assert fields == Fields("Q?\nRelevant Theorem: It says.", "[0, 5]")
    old = {"Question": "Q?", "Answer": True, "theorem_def": "Old."}
    assert read_theoremqa(old, theorems={}).output == "True"
    with pytest.raises(ValueError, match="no definition"):
        read_theoremqa(row, theorems={})


def test_code_sources() -> None:
    assert read_leetcode({"prompt": "p", "full_code": "c"}) == Fields("p", "c")
    assert read_leetcode({"prompt": "p", "code": "c"}).output == "c"
    row = {"instruction": "Solve it in Python.", "input": "Add.", "output": "a + b"}
    assert read_tigerbot(row) == Fields("Add.", "a + b")
    assert read_tigerbot({**row, "instruction": "Solve it in Java."}).drop == "not_python"


def test_arb_in_present_and_older_columns() -> None:
    new = {"Problem_Statement": "P", "Answer_Candidates": [], "Solution": "", "Final_Answer": "42"}
    assert read_arb({**new, "Topic": "Waves"}) == Fields("P", "42", subject="Waves")
    old = {
        "Problem Statement": "P",
        "Answer Candidates": ["x", "y", "z"],
        "Solution": "B. Because.",
    }
    asked = Fields("P\nA: x\nB: y\nC: z", "B. Because.", "Choose A, B or C as your solution.")
    assert read_arb(old) == asked
    law = {"problemStatement": "P", "answerCandidates": ["x", "y", "z"], "finalAnswer": "B"}
    assert read_arb(law).output == "B"


def test_openbookqa_of_the_hub_and_of_the_original_files() -> None:
    hub = {"question_stem": "Q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}}
    hub["answerKey"] = "B"
    options = [{"text": "x", "label": "A"}, {"text": "y", "label": "B"}]
    raw = {"question": {"stem": "Q", "choices": options}, "answerKey": "B"}
    assert read_openbookqa(hub) == read_openbookqa(raw) == Fields("Q", "y", "A: x\nB: y")
    with pytest.raises(ValueError, match="answerKey 'E'"):
        read_openbookqa({**hub, "answerKey": "E"})


def test_guanaco_keeps_the_first_turn() -> None:
    text = "### Human: What is it?### Assistant: That is a cat.### Human: And this?### Assistant: x"
    assert read_guanaco({"text": text}) == Fields("What is it?", "That is a cat.")
    assert read_guanaco({"text": "### Human: What is it? ### Assistant:"}).output == ""
    assert read_guanaco({"text": "### Human: Wie geht es?### Assistant: x"}).drop == "not_english"


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("How do I normalize a vector?", True),
        ("2 + 2 = 4", True),
        ("What did Schrödinger say of the cat that was in the box?", True),
        ("Como calcular el diametro de un circulo?", False),
        ("Чему равен абсолютный ноль?", False),
        ("Ecris moi un programme en tant qu'expert en python.", False),
    ],
)
def test_english_is_told_by_letters_and_function_words(text: str, english: bool) -> None:
    assert is_english(text) == english


# ── a source of the user's own ───────────────────────────────────────────────────────────────────


def test_a_source_of_ones_own_with_its_columns(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "own.jsonl",
        {"q": "Two?", "a": 2, "topic": "sums"},
        {"q": "3?", "a": "3", "topic": None},
    )
    columns = {"instruction": "q", "output": "a", "subject": "topic"}
    ref = {"id": "own", "license": "CC0-1.0", "llm_written": True, "columns": columns}
    first, second = read(path, **ref)
    assert first == Question("Two?", "", "2", "own", "CC0-1.0", True, "sums")
    assert second.subject == ""
    assert read_columns({"instruction": "i", "input": "n", "output": "o"}, columns={}).input == "n"


def test_a_source_of_ones_own_without_licence_or_place_is_refused() -> None:
    with pytest.raises(RecipeError, match="has no license"):
        source_of(SourceRef(id="own", path="x"))
    with pytest.raises(RecipeError, match="did you mean 'scibench'"):
        source_of(SourceRef(id="scibnch"))
    with pytest.raises(RecipeError, match="columns names 'answer'"):
        source_of(SourceRef(id="own", path="x", license="MIT", columns={"answer": "a"}))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"instruction": "i", "output": None}, "has no output"),
        ({"instruction": "i", "output": " \n"}, "has no output"),
        ({"instruction": "", "output": "o"}, "has no instruction"),
        (
            {"instruction": "i", "answer": "o"},
            r"no column 'output' \(its columns: instruction, answer\)",
        ),
        ({"instruction": "i", "output": {"a": 1}}, "has a dict in column 'output', not a text"),
    ],
)
def test_a_row_without_question_or_answer_stops_the_run_or_is_dropped(
    tmp_path: Path, row: dict[str, Any], problem: str
) -> None:
    path = jsonl(tmp_path / "own.jsonl", {"instruction": "i", "output": "o"}, row)
    with pytest.raises(InputError, match=rf"own: own\.jsonl, line 2 .*{problem}.*on_bad_row: drop"):
        read(path, id="own", license="MIT")
    kept, dropped = read(path, "drop", id="own", license="MIT")
    assert isinstance(kept, Question)
    assert isinstance(dropped, Dropped)
    assert dropped.reason == "bad_row"
    assert dropped.detail.startswith("own.jsonl, line 2 has ")


# ── laws of all sources ──────────────────────────────────────────────────────────────────────────

NAMES = sorted(
    {
        "problem",
        "solution",
        "question",
        "label",
        "steps",
        "completions",
        "text",
        "choices",
        "output",
    }
    | {"answers", "context", "Question", "Answer", "theorem_def", "prompt", "full_code", "rating"}
    | {"instruction", "input", "response", "Problem_Statement", "Answer_Candidates", "answerKey"}
    | {"question_stem", "finish_reason", "hint", "lecture", "problem_text", "answer_number"}
)
CELLS = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 5), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None)  # a slow machine is no failure
@given(st.dictionaries(st.sampled_from(NAMES), CELLS, max_size=8))
def test_a_reader_gives_fields_or_says_what_is_wrong_with_any_row(row: dict[str, Any]) -> None:
    more = {"seed": {"seed": 1}, "theorems": {"theorems": {}}, "": {}}
    for source in SOURCES.values():
        try:
            fields = source.reader(row, **more[source.takes])
        except ValueError as error:
            said = [str(error).startswith("has ")]
        else:
            texts = (fields.instruction, fields.input, fields.output, fields.subject, fields.drop)
            said = [isinstance(text, str) for text in texts]
        assert all(said), source.id


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_every_raw_row_gives_exactly_one_question_or_dropped(tmp_path: Path, name: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'{"problem": "p", "solution": ""}\n{}\n[]\n{"a\n\xff\n{"problem": "p", "answer": 1}\n'
    )
    found = read(path, "drop", id=name)
    assert len(found) == 6
    assert all(row.detail for row in found if isinstance(row, Dropped))


# ── the real files ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "where", "reasons", "texts"),
    [
        ("math", "math/test.jsonl", {"": 5000}, 5000),
        ("math", "math/train_answers.jsonl", {"": 7497, "no_solution": 2}, 7497),
        ("scibench", "scibench", {"": 695}, 684),
        ("theoremqa", "theoremqa", {"": 800}, 799),
        ("openbookqa", "openbookqa/train.jsonl", {"": 4957}, 4952),
        ("guanaco", "openassistant", {"": 233, "not_english": 510, "no_solution": 210}, 153),
    ],
)
def test_real_files_give_the_known_counts(
    shared_data: Path, name: str, where: str, reasons: dict[str, int], texts: int
) -> None:
    found = read(shared_data / "sources" / where, id=name)
    assert Counter(row.reason if isinstance(row, Dropped) else "" for row in found) == reasons
    assert len({row.text for row in found if isinstance(row, Question)}) == texts


def test_real_math_solutions_are_unboxed_with_their_braces(shared_data: Path) -> None:
    with (shared_data / "sources/math/test.jsonl").open(encoding="utf-8") as file:
        solutions = [json.loads(line)["solution"] for line in file]
    assert sum("\\boxed{" in solution for solution in solutions) == 5000
    for solution in solutions:
        bare = unbox(solution)
        assert "\\boxed" not in bare
        assert bare.count("{") - bare.count("}") == solution.count("{") - solution.count("}")
