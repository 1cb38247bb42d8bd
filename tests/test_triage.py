"""A verdict follows from what changes the answer, and says which of them it was."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monotreme.benchmarks import BENCHMARKS, read_benchmark
from monotreme.records import VERDICTS, BenchmarkQuestion, Question
from monotreme.triage import background, triage
from monotreme.triage.answers import compare
from monotreme.triage.features import CRITICAL, gather
from monotreme.triage.model import BIAS, load
from monotreme.triage.pairs import read_pair
from monotreme.triage.sides import benchmark_side, training_answers, training_side
from monotreme.wording import words


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
        ("How many positive integers have three digits?", "We subtract 99 from 999 and so there are 900 of those that have 3 digits.", "How many positive integers have three digits?", ("899", "900"), "", "duplicate", "same_text"),
        (GENERIC, "Ice sinks", GENERIC, ("Ice sinks", "Gold burns"), "", "duplicate", "same_text"),
        ("Which planet is not a gas giant?", "Mars", "Which planet is a gas giant?", (), "Jupiter", "similar_but_different", "negation_differs"),
        ("Which is the largest ocean of the Earth?", "Pacific", "Which is the smallest ocean of the Earth?", (), "Arctic", "similar_but_different", "opposite_word"),
        ("How does a bad person become good?", "", "How does a good person become bad?", (), "x", "similar_but_different", "order_differs"),
        ("What gas do plants take in?", "Carbon dioxide.", "Which gas is absorbed by plants?", ("carbon dioxide", "argon"), "", "gray_area", "same_answer"),
        ("What gas do plants give off?", "Oxygen.", "Which gas is absorbed by plants?", ("carbon dioxide", "argon"), "", "similar_but_different", "answers_differ"),
        ("Which planet is nearest to the sun?", "", "Name the planet that is closest to the Sun.", (), "", "gray_area", "undecided"),
        ("Which planet is nearest to the sun?", "B", "Name the planet that is closest to the Sun.", ("Mercury", "Venus"), "", "gray_area", "undecided"),
    ],
)  # fmt: skip
def test_cascade(train, output, stem, options, answer, verdict, reason):
    judgement = triage(ask(train, output), item(stem, options, answer=answer))
    assert (judgement.verdict, judgement.reason) == (verdict, reason)
    assert 0.5 <= judgement.confidence <= 1


@pytest.mark.parametrize(
    ("one", "other", "agreement"),
    [
        ("The answer is 7.", "#### 7.0", "equal"),
        ("The answer is 7.", "#### 8", "differ"),
        (r"So \boxed{x^2+1}.", r"So \boxed{x^2+2}.", "differ"),
        ("The answer is (3, 4].", "The answer is (3, 5].", "differ"),
        ("It opened in 1889.", "It opened in 1890.", "differ"),
        ("Paris", "London", "differ"),
        ("left ventricle", "the right ventricle", "differ"),
        ("Yes.", "No.", "differ"),
        ("We cannot know how many there are of them all. #### None", "3 km", "differ"),
        ("None", "0", "unknown"),
        ("Paris.", "It is Paris, the capital and largest city of France, on the river Seine.", "unknown"),
        ("Plants turn light into sugar.", "They use sunlight to make glucose.", "unknown"),
        ("The light turns it, long ago, as some say in 1789, and it grew since then for ever.", "It turned in 1791, some say, and for ever since then it was left to grow without light.", "unknown"),
        ("def f(x):\n    return x + 1", "def f(n):\n    return 1 + n", "unknown"),
        ("s = a + b  # of 1 and 2 this gives 3, as it should, for whole numbers\nprint(s)", "print(a + b)  # as it is one line, it is the better way, with 5 and 2 it is 7", "unknown"),
        ("carbon dioxide", "CO2", "unknown"),
        ("B", "C", "unknown"),
    ],
)  # fmt: skip
def test_answers_differ_only_where_they_can_be_compared(one, other, agreement):
    ours, theirs = (training_answers(ask("What is it?", output)) for output in (one, other))
    assert compare(ours, theirs) == compare(theirs, ours) == agreement


def test_two_options_of_one_question_differ_however_long_they_are():
    text = "What happens then?\nA. It grows in the dark of winter\nB. It shrinks as the light falls on it"
    ours, theirs = (training_answers(ask(text, letter)) for letter in "AB")
    assert compare(ours, theirs) == "differ"


@pytest.mark.parametrize(
    ("train", "output", "stem", "answer"),
    [
        ("Why does the moon have phases, seen from here?", "The sun lights other parts of it as it goes around us.", "Why do we see phases of the moon from here?", "Its lit half shows at another angle during each orbit."),
        ("Explain briefly why iron rusts.", "Iron reacts with oxygen and water to form iron oxide.", "Why does iron rust? Explain briefly.", "Oxidation: moisture and air turn the metal into a hydrated oxide over time, which flakes off."),
    ],
)  # fmt: skip
def test_answers_in_other_words_say_nothing(train, output, stem, answer):
    judgement = triage(ask(train, output), item(stem, answer=answer))
    assert judgement.reason != "answers_differ"
    assert judgement == triage(ask(train), item(stem))


def verdict(train: str, stem: str, **known: str) -> str:
    return triage(
        ask(train, known.get("output", "")), item(stem, answer=known.get("answer", ""))
    ).verdict


LONG = (
    "A tank holds 1,200 litres of water. Each hour 45 litres flow out and 20 litres flow in. "
    "After how many hours is it empty?"
)


@pytest.mark.parametrize(
    "same",
    [
        LONG.upper(),
        LONG.replace("1,200", "1200"),
        LONG.replace("20 litres", "twenty litres"),
        LONG.replace(". ", ".\n\n"),
        LONG.replace("flow out", "flwo out"),
        f"Question: {LONG}\nAnswer:",
        f"### Instruction:\n{LONG}\n### Response:",
        f"Please solve this one step by step.\n{LONG}\nThank you!",
    ],
)
def test_how_it_is_written_does_not_matter(same):
    assert verdict(same, LONG) == "duplicate"
    assert verdict(LONG, same) == "duplicate"


@pytest.mark.parametrize(
    "other",
    [
        LONG.replace("45", "65"),
        LONG.replace("1,200", "2,400").replace("45", "90").replace("20", "10"),
        LONG.replace("litres", "gallons"),
        LONG.replace("is it empty", "is it not empty"),
        LONG.replace(
            "45 litres flow out and 20 litres flow in", "20 litres flow out and 45 litres flow in"
        ),
        LONG.replace("Each hour 45 litres flow", "Each hour some litres flow"),
        LONG.replace(
            "After how", "Besides, 10 percent of what is left leaks away each day. After how"
        ),
    ],
)
def test_a_small_change_of_sense_makes_another_question(other):
    assert verdict(other, LONG) == "similar_but_different"
    assert verdict(LONG, other) == "similar_but_different"


def test_latex_styles_are_one_text():
    judgement = triage(ask(r"Find $\dfrac{1}{2} + x$."), item(r"Find \frac{1}{2}+x"))
    assert judgement.verdict == "duplicate"
    assert (
        verdict(r"Let $f(x) = x^{2} \leq \pi$. Find \(f(3)\).", "Let f(x) = x² ≤ π. Find f(3).")
        == "duplicate"
    )


STEM = "Which of these metals is drawn to a magnet at room temperature?"
METALS = ("copper", "iron", "gold", "zinc")


@pytest.mark.parametrize("style", ["{}. {}", "({}) {}", "{}) {}", "{}: {}"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_the_letters_and_order_of_options_do_not_matter(style, order):
    shown = [METALS[place] for place in order]
    lines = "\n".join(style.format("ABCD"[i], metal) for i, metal in enumerate(shown))
    right, wrong = "ABCD"[shown.index("iron")], "ABCD"[shown.index("gold")]
    benchmark = item(STEM, METALS, right=1)
    assert triage(ask(f"{STEM}\n{lines}", right), benchmark).verdict == "duplicate"
    judgement = triage(ask(f"{STEM}\n{lines}", wrong), benchmark)
    assert (judgement.verdict, judgement.reason) == ("gray_area", "label_conflict")


@pytest.mark.parametrize(
    "inside",
    [
        "Question: {}\nAnswer: {}",
        "{}\nAnswer: {}",
        "Q: {}\nA: {}",
        "{}\n#### {}",
        "Problem: {}\n\nSolution: It is {}.",
    ],
)
def test_an_answer_inside_the_instruction_is_read(inside):
    reworded = (
        "Out of 1,200 litres in a tank, 45 leave and 20 come in hourly. When does it run dry?"
    )
    right = triage(ask(inside.format(reworded, 48)), item(LONG, answer="48"))
    wrong = triage(ask(inside.format(reworded, 51)), item(LONG, answer="48"))
    assert (right.verdict, wrong.verdict) == ("gray_area", "similar_but_different")


def test_a_copy_inside_a_long_text_is_found():
    talk = "The weather was fine and nobody thought of the harvest. " * 40
    judgement = triage(ask(f"{talk}\n{LONG}\n{talk}"), item(LONG))
    assert (judgement.verdict, judgement.reason) == ("duplicate", "contains_text")


FRAME = "For which of these two stories does the teller do something plainly wrong by the usual rules of the land? Story 1: {} Story 2: {}"


def test_a_template_around_another_body_is_no_leak():
    one = FRAME.format("I fed the neighbour's old cat.", "I burned down a village hall.")
    two = FRAME.format(
        "I carried parcels upstairs for grandmother.", "I slept during lessons yesterday."
    )
    judgement = triage(ask(two, "both"), item(one, answer="both"))
    assert (judgement.verdict, judgement.reason) == ("similar_but_different", "template_only")


def test_what_many_benchmark_questions_share_says_nothing():
    """The same stock stem with unknown options: a leak by itself, none beside eight others."""
    stock = "Which of the following statements about the cell is correct?"
    questions = [item(stock, (f"claim {i}", f"counterclaim {i}")) for i in range(9)]
    assert triage(ask(stock), questions[0]).verdict == "gray_area"
    judgement = triage(ask(stock), questions[0], background(questions))
    assert (judgement.verdict, judgement.reason) == ("similar_but_different", "template_only")
    assert triage(ask(stock, "claim 0"), questions[0], background(questions)).verdict == "duplicate"


def test_a_background_does_not_depend_on_order_or_repetition():
    questions = [item(f"{RIDE} Case {i}.") for i in range(9)]
    assert background(questions) == background([*questions[::-1], *questions])
    assert background(questions).runs
    assert not background(questions[:7] * 3).runs


HOSTILE = {
    "one word": "word " * 200_000, "one letter": "a" * 1_000_000, "digits": "9" * 1_000_000, "numbers": "1,000 " * 166_000,
    "braces": "{" * 1_000_000, "fractions": r"\frac{" * 160_000, "spaces": " " * 1_000_000, "power and spaces": "^" + " " * 999_999,
    "combining": "a" + "\u0301\u0327" * 500_000, "ligature": "\ufdfa" * 200_000, "options": "A. x B. y " * 100_000,
    "answers": "Answer: x\n" * 100_000, "hashes": "#" * 1_000_000, "sentences": "Is it? " * 140_000, "backslashes": "\\" * 1_000_000,
    "new lines": "\n" * 1_000_000, "boxes": r"\boxed{" * 140_000, "surrogates": "\ud800" * 1000,
}  # fmt: skip


@pytest.mark.timeout(180)  # seconds where it takes some; whatever grows with the square takes days
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_end_soon(name):
    text = HOSTILE[name]
    triage(ask(text, text), item(LONG, answer="48"))
    assert triage(ask(LONG, text), item(text, answer=text)).verdict in VERDICTS


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=40), st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_texts_get_a_verdict_with_a_confidence(one, two, output, answer):
    judgement = triage(ask(one, output), item(two, answer=answer))
    assert judgement.verdict in VERDICTS
    assert judgement.reason
    assert 0.4 <= judgement.confidence <= 1
    same = triage(ask(one), item(one))
    assert same.verdict == "duplicate"


def test_the_model_has_a_coefficient_for_every_figure_and_no_more():
    figures = gather(training_side(ask(RIDE)), benchmark_side(item(RIDE)), background([])).figures
    assert set(load()) == {*figures, BIAS}


def test_differences_never_speak_for_a_leak():
    for name in CRITICAL:
        assert max(load()[name]) <= 0, name


@pytest.mark.parametrize("text", ["", " ", "\x00\x01", "?" * 1000, "١٢٣ سؤال", "a " * 5000])
def test_odd_texts_get_a_verdict(text):
    assert triage(ask(text), item(text)).verdict in (
        "duplicate",
        "gray_area",
        "similar_but_different",
    )


def labelled_flags(shared_data: Path) -> dict[str, list[tuple[dict[str, Any], str]]]:
    found: dict[str, list[tuple[dict[str, Any], str]]] = {}
    for line in (shared_data / "pairs" / "labelled.jsonl").read_text("utf-8").strip().split("\n"):
        row = json.loads(line)
        question, benchmark = read_pair(row)
        found.setdefault(row["family"], []).append((row, triage(question, benchmark).verdict))
    return found


def test_real_labelled_pairs(shared_data: Path):
    """The gate; bench/triage.py measures the same on questions that the model has not seen."""
    found = labelled_flags(shared_data)
    different = "similar_but_different"
    flags = [(v != different, r["label"] != different) for some in found.values() for r, v in some]
    both = sum(ours and true for ours, true in flags)
    assert 2 * both / sum(ours + true for ours, true in flags) >= 0.98
    notebook = found["platypus_notebook"]
    assert sum(r["label"] == v == "duplicate" for r, v in notebook) == 73
    others = [(r["label"], v) for r, v in notebook if r["label"] != "duplicate"]
    assert sum((label != different) == (v != different) for label, v in others) >= 6


def test_real_twins_and_templates(shared_data: Path):
    """MMLU test × validation: the same question with the same answer, and one template of many."""
    folder = shared_data / "benchmarks" / "mmlu"
    test, train = (
        read_benchmark(BENCHMARKS["mmlu"], split, folder, None) for split in ("test", "validation")
    )
    known = background(test)
    by_text: dict[tuple[str, ...], list[BenchmarkQuestion]] = {}
    for question in test:
        by_text.setdefault(tuple(words(question.stem)), []).append(question)
    twins = [
        triage(ask(other.stem, other.answers[0]), question, known).verdict
        for other in train
        for question in by_text.get(tuple(words(other.stem)), [])
        if words(question.answers[0]) == words(other.answers[0])
    ]
    assert len(twins) > 30
    assert "similar_but_different" not in twins
    moral = [[q for q in side if q.subject == "moral_scenarios"] for side in (test, train)]
    templates = [
        triage(ask(other.stem, other.answers[0]), question, known).verdict
        for question in moral[0][::30]
        for other in moral[1]
    ]
    assert templates.count("similar_but_different") >= 0.99 * len(templates)
