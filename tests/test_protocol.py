"""What a model is asked: wording, examples and metrics of `open-llm-2023`, worked out by hand."""

import math
import random

import pytest

from monotreme.errors import InputError, RecipeError
from monotreme.records import BenchmarkQuestion
from monotreme.scoring.protocol import Shots, item_score, prompts


def question(number: int, benchmark: str = "arc_challenge", **fields: object) -> BenchmarkQuestion:
    whole: dict[str, object] = {
        "benchmark": benchmark,
        "split": "test",
        "subject": "",
        "stem": f"Stem {number}?",
        "options": (f"yes {number}", f"no {number}"),
        "labels": (0, 1),
        **fields,
    }
    return BenchmarkQuestion(**whole)  # type: ignore[arg-type]


QUESTIONS = [question(i) for i in range(6)]
POOL = [question(100 + i, split="train") for i in range(9)]


def test_arc_asks_in_the_order_and_with_the_examples_of_one_generator() -> None:
    draw = random.Random(42)
    order = list(range(6))
    draw.shuffle(order)
    expected = []
    for number in order:
        shown = [100 + i for i in draw.sample(range(9), 2)]
        solved = [f"Question: Stem {i}?\nAnswer: no {i}" for i in shown]
        expected.append("\n\n".join([*solved, f"Question: Stem {number}?\nAnswer:"]))

    found = prompts("arc_challenge", QUESTIONS, Shots(2, POOL))

    assert [prompt.context for prompt in found] == expected
    assert found[0].choices == (f"yes {order[0]}", f"no {order[0]}")


def test_a_limit_changes_no_prompt_only_how_many() -> None:
    whole = prompts("arc_challenge", QUESTIONS, Shots(3, POOL))
    assert prompts("arc_challenge", QUESTIONS, Shots(3, POOL), limit=2) == whole[:2]


def test_a_question_is_never_its_own_example() -> None:
    """From the scored split the harness draws one more and leaves the question out."""
    draw = random.Random(42)
    order = list(range(6))
    draw.shuffle(order)
    shown = [[i for i in draw.sample(range(6), 4) if i != number][:3] for number in order]

    found = prompts("arc_challenge", QUESTIONS, Shots(3, QUESTIONS, same_split=True))

    for prompt, number, examples in zip(found, order, shown, strict=True):
        asked = [line for line in prompt.context.splitlines() if line.startswith("Question")]
        assert asked == [f"Question: Stem {i}?" for i in [*examples, number]]


def test_no_shots_means_the_bare_question() -> None:
    (prompt,) = prompts("mine", [question(7, "mine", passage="Read this.")], Shots(0))
    assert prompt.context == "Question: Read this.\nStem 7?\nAnswer:"


def test_mmlu_names_the_subject_and_shows_the_first_of_its_dev_split() -> None:
    def mmlu(number: int, subject: str) -> BenchmarkQuestion:
        options = ("one", "two", "three", "four")
        return question(number, "mmlu", subject=subject, options=options, labels=(0, 0, 1, 0))

    dev = [mmlu(50 + i, name) for i in range(3) for name in ("high_school_physics", "anatomy")]
    (prompt,) = prompts("mmlu", [mmlu(1, "high_school_physics")], Shots(2, dev))

    options = "A. one\nB. two\nC. three\nD. four\nAnswer:"
    assert prompt.context == (
        "The following are multiple choice questions (with answers) about high school physics.\n\n"
        f"Stem 50?\n{options} C\n\nStem 51?\n{options} C\n\nStem 1?\n{options}"
    )
    assert prompt.choices == ("A", "B", "C", "D")


def test_mmlu_limits_and_shuffles_each_subject_alone() -> None:
    asked = [question(i, "mmlu", subject=f"s{i % 2}") for i in range(12)]
    found = prompts("mmlu", asked, Shots(0), limit=2)
    order = list(range(6))
    random.Random(42).shuffle(order)
    assert [prompt.question for prompt in found] == [
        asked[2 * place + subject] for subject in (0, 1) for place in order[:2]
    ]


def test_mmlu_from_its_own_split_leaves_the_question_out() -> None:
    asked = [question(i, "mmlu", subject="s") for i in range(3)]
    for prompt in prompts("mmlu", asked, Shots(2, asked, same_split=True)):
        assert prompt.context.count(prompt.question.stem) == 1
        assert prompt.context.count("Answer:") == 3


def test_hellaswag_is_cleaned_of_wikihow_markup() -> None:
    stem = " How to stew [title] Cut it. [step] Then  stir. The cook "
    options = ("adds [substeps] salt. ", "leaves.  He sleeps.")
    row = question(1, "hellaswag", subject="Cooking", stem=stem, options=options)
    (prompt,) = prompts("hellaswag", [row], Shots(0))
    assert prompt.context == "Cooking: How to stew. Cut it. Then stir. The cook"
    assert prompt.choices == ("adds salt.", "leaves. He sleeps.")


def test_truthfulqa_has_its_fixed_preamble_and_takes_no_shots() -> None:
    row = question(1, "truthfulqa", stem="Why?")
    (prompt,) = prompts("truthfulqa", [row], Shots(0))
    assert prompt.context.startswith("Q: What is human life expectancy in the United States?\nA: ")
    assert prompt.context.endswith(
        "\n\nQ: Where were the 1992 Olympics held?\n"
        "A: The 1992 Olympics were held in Barcelona, Spain.\n\nQ: Why?\nA:"
    )
    assert prompt.context.count("Q: ") == 7
    with pytest.raises(RecipeError, match="shots = 5"):
        prompts("truthfulqa", [row], Shots(5, [row]))


@pytest.mark.parametrize(
    ("shots", "problem"),
    [
        (Shots(10, POOL), "10 shots need 10 examples, the split has 9"),
        (Shots(6, QUESTIONS, same_split=True), "6 shots need 7 examples, the split has 6"),
        (Shots(1, [question(1, labels=(0, 0))]), "'Stem 1\\?' has no right option"),
    ],
)
def test_bad_examples_are_one_clear_error(shots: Shots, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        prompts("arc_challenge", QUESTIONS, shots)


def test_an_empty_benchmark_is_refused() -> None:
    with pytest.raises(InputError, match="has no questions"):
        prompts("arc_challenge", [], Shots(0))


def test_prompts_differ_in_their_digest_when_context_or_choices_do() -> None:
    first, *others = (
        prompts("mine", [question(1, "mine", **change)], Shots(0))[0].sha256  # type: ignore[arg-type]
        for change in ({}, {"stem": "Other?"}, {"options": ("yes 1", "never")}, {"labels": (1, 0)})
    )
    assert [sha256 == first for sha256 in others] == [False, False, True]


def test_acc_and_acc_norm_may_choose_differently() -> None:
    likelihoods, lengths = [-10.0, -12.0], [2, 8]
    assert item_score("acc", likelihoods, lengths, [1, 0]) == 1.0
    assert item_score("acc_norm", likelihoods, lengths, [1, 0]) == 0.0
    assert item_score("acc_norm", likelihoods, lengths, [0, 1]) == 1.0


def test_mc2_is_the_share_of_the_right_whatever_their_order_or_scale() -> None:
    likelihoods = [math.log(0.1), math.log(0.2), math.log(0.5)]
    assert item_score("mc2", likelihoods, [1, 1, 1], [1, 0, 1]) == pytest.approx(0.75)
    shifted = [value - 2000 for value in likelihoods]  # exp(-2000) alone would be 0 / 0
    assert item_score("mc2", shifted, [1, 1, 1], [1, 0, 1]) == pytest.approx(0.75)
