"""A verdict follows from what changes the answer, and says which of them it was."""

import json
from collections import Counter
from pathlib import Path

import pytest

from monotreme.records import BenchmarkQuestion, Question
from monotreme.triage import CONFIDENCE, triage


def ask(text: str, output: str = "") -> Question:
    return Question(text, "", output, "s", "MIT", False)


def item(
    stem: str, options: tuple[str, ...] = (), right: int = 0, answer: str = ""
) -> BenchmarkQuestion:
    labels = tuple(int(i == right) for i in range(len(options)))
    return BenchmarkQuestion("b", "test", "", stem, options, labels, answer)


RIDE = "Tom rides 3 miles to school and 4 miles back on a longer road. How far does he ride?"
GENERIC = "Which of these is true?"


@pytest.mark.parametrize(
    ("train", "output", "stem", "options", "answer", "verdict", "reason"),
    [
        (RIDE, "3 + 4 = 7. The answer is 7.", RIDE, (), "7", "duplicate", "same_text"),
        (RIDE.upper(), "", RIDE, (), "7", "duplicate", "same_text"),
        (RIDE, "The answer is 8.", RIDE, (), "7", "gray_area", "label_conflict"),
        (f"Solve this. {RIDE} Show steps.", "", RIDE, (), "7", "duplicate", "contains_text"),
        (RIDE.replace("longer", "winding"), "", RIDE, (), "7", "duplicate", "near_text"),
        (RIDE.replace("3", "5"), "The answer is 9.", RIDE, (), "7", "similar_but_different", "numbers_differ"),
        (RIDE.replace("3", "three"), "", RIDE, (), "7", "duplicate", "near_text"),
        (GENERIC, "Iron rusts.", GENERIC, ("Ice sinks", "Gold burns"), "", "similar_but_different", "other_options"),
        (GENERIC, "Ice sinks", GENERIC, ("Ice sinks", "Gold burns"), "", "duplicate", "same_text"),
        ("Which planet is not a gas giant?", "Mars", "Which planet is a gas giant?", (), "Jupiter", "similar_but_different", "negation_differs"),
        ("Which is the largest ocean of the Earth?", "Pacific", "Which is the smallest ocean of the Earth?", (), "Arctic", "similar_but_different", "opposite_word"),
        ("How does a bad person become good?", "", "How does a good person become bad?", (), "x", "similar_but_different", "order_differs"),
        ("What gas do plants take in?", "Carbon dioxide.", "Which gas is absorbed by plants?", ("carbon dioxide", "argon"), "", "gray_area", "same_answer"),
        ("What gas do plants give off?", "Oxygen.", "Which gas is absorbed by plants?", ("carbon dioxide", "argon"), "", "similar_but_different", "answers_differ"),
        ("What gas do plants take in?", "", "Which gas is absorbed by plants?", (), "", "gray_area", "undecided"),
        ("Which gas do plants take in?", "B", "Which gas is absorbed by plants?", ("argon", "carbon dioxide"), "", "gray_area", "undecided"),
    ],
)  # fmt: skip
def test_cascade(train, output, stem, options, answer, verdict, reason):
    judgement = triage(ask(train, output), item(stem, options, answer=answer))
    assert (judgement.verdict, judgement.reason) == (verdict, reason)
    assert judgement.confidence == CONFIDENCE[reason]


def test_latex_styles_are_one_text():
    judgement = triage(ask(r"Find $\dfrac{1}{2} + x$."), item(r"Find \frac{1}{2}+x"))
    assert judgement.verdict == "duplicate"


@pytest.mark.parametrize("text", ["", " ", "\x00\x01", "?" * 1000, "١٢٣ سؤال", "a " * 5000])
def test_odd_texts_get_a_verdict(text):
    assert triage(ask(text), item(text)).verdict in (
        "duplicate",
        "gray_area",
        "similar_but_different",
    )


def test_real_labelled_pairs(shared_data: Path):
    """The cascade's state on real pairs; the families with an answer on both sides must be right."""
    right: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for line in (shared_data / "pairs" / "labelled.jsonl").read_text("utf-8").strip().split("\n"):
        pair = json.loads(line)
        options = tuple(pair.get("benchmark_choices") or ())
        benchmark = BenchmarkQuestion(
            "b", "test", "", pair["benchmark_question"], options, (0,) * len(options),
            "" if options else pair["benchmark_answer"],
        )  # fmt: skip
        judgement = triage(ask(pair["train_instruction"], pair["train_output"]), benchmark)
        leak = judgement.verdict != "similar_but_different"
        family = pair["family"]
        seen[family] += 1
        right[family] += leak == (pair["label"] != "similar_but_different")
    assert right["platypus_notebook"] >= 79
    assert seen["platypus_notebook"] == 80
    plus = [family for family in seen if family.startswith("gsm_plus")]
    assert len(plus) == 7
    assert all(right[family] / seen[family] > 0.95 for family in plus)
