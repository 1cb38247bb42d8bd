"""The self-test plants what it says it plants, and reports what the stage does with it."""

import json
import random
from pathlib import Path

from monotreme.decontaminate.finding import similar_pairs
from monotreme.decontaminate.judging import judge
from monotreme.encoders import BUILT_IN, find_encoder
from monotreme.records import BenchmarkQuestion
from monotreme.self_test import CONTROL, KINDS, Found, copies, self_test
from monotreme.wording import numbers

ITEM = BenchmarkQuestion(
    benchmark="bench",
    split="test",
    subject="",
    stem="How many apples does Tom have after he buys 12 apples and eats 5?",
    options=("7", "17", "8"),
    labels=(1, 0, 0),
    passage="Tom is at the market.",
)
FREE = BenchmarkQuestion("bench", "test", "", "How many legs do 4 spiders have?", answer="#### 32")


def test_each_kind_changes_what_its_name_says():
    rng = random.Random(0)
    texts = {kind: make(ITEM, rng) or "" for kind, make in KINDS.items()}
    assert texts["verbatim"] == f"{ITEM.passage}\n{ITEM.stem}\n7\n17\n8"
    assert texts["option_stripped"] == f"{ITEM.passage}\n{ITEM.stem}"
    assert ITEM.passage not in texts["passage_dropped"]
    assert ITEM.stem not in texts["reworded"]
    assert numbers(texts["reworded"]) == numbers(ITEM.stem)
    assert not numbers(texts[CONTROL]) & numbers(ITEM.stem)
    assert KINDS["option_stripped"](FREE, rng) is None
    assert KINDS["passage_dropped"](FREE, rng) is None


def test_leaks_carry_the_right_answer_and_the_control_another():
    for copy in copies([ITEM, FREE], seed=1, num_each=5):
        right = {"7"} if copy.item is ITEM else {"32", "#### 32"}
        said = copy.question.output.removeprefix("The answer is ").rstrip(".")
        assert (said in right) == (copy.kind != CONTROL)


def test_the_seed_decides_and_no_question_is_planted_twice_in_a_kind():
    items = [BenchmarkQuestion("b", "test", "", f"What is {n} plus {n + 1}?", answer=str(2 * n + 1)) for n in range(50)]  # fmt: skip
    assert copies(items, 7, 10) == copies(items, 7, 10)
    assert copies(items, 7, 10) != copies(items, 8, 10)
    for kind in ("verbatim", "reworded", CONTROL):
        drawn = [copy.item.id for copy in copies(items, 7, 10) if copy.kind == kind]
        assert len(set(drawn)) == len(drawn) == 10


def test_an_interval_holds_its_share_and_narrows():
    few, many = Found("b", "verbatim", 10, 10), Found("b", "verbatim", 1000, 1000)
    assert few.interval[0] < many.interval[0] < 1
    assert 0.999 < many.interval[1] <= 1
    low, high = Found("b", "verbatim", 100, 50).interval
    assert low < 0.5 < high


def test_the_figures_are_what_the_stage_does(make_run, tmp_path: Path):
    lines = [
        {"question": f"{who} has {n} coins and finds {n + 2} more. How many are there now?", "choices": {"text": [str(2 * n + 2), str(n)], "label": ["A", "B"]}, "answerKey": "A"}
        for n, who in enumerate(("Ann", "The old king", "A pirate", "My sister"), 3)
    ]  # fmt: skip
    path = tmp_path / "bench.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    run = make_run(decontaminate={"benchmarks": [{"id": "bench", "path": str(path)}]})
    found = {one.kind: one for one in self_test(run, num_each=3)}
    assert {kind: one.planted for kind, one in found.items()} == {
        "verbatim": 3, "option_stripped": 3, "reworded": 3, CONTROL: 3,
    }  # fmt: skip
    assert found["verbatim"].caught == found["option_stripped"].caught == 3
    assert found[CONTROL].caught == 0
    record = json.loads((run.folder / "self_test.json").read_text())
    assert [row["caught"] for row in record["found"]] == [one.caught for one in found.values()]


def test_what_lies_around_a_copy_changes_nothing(tmp_path: Path):
    """Each question is judged by itself: the law that lets copies be tested alone."""
    encoder = find_encoder(BUILT_IN, Path(), str)
    planted = [copy.question for copy in copies([ITEM, FREE], 0, 2)]

    def verdicts(questions: list) -> dict[str, list[tuple[str, str]]]:
        pairs, _ = similar_pairs(questions, [ITEM, FREE], encoder, 0.8, tmp_path)
        found: dict[str, list[tuple[str, str]]] = {}
        for match in judge(questions, [ITEM, FREE], pairs, 0.8, tmp_path):
            reason = (match.verdict, match.proposed.reason)
            found.setdefault(match.question.instruction, []).append(reason)
        return found

    together = verdicts(planted)
    assert together
    alone = {text: v for question in planted for text, v in verdicts([question]).items()}
    assert alone == together
