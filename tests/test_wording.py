"""What a text says must not depend on how it is written, and must change when the sense does."""

from collections import Counter
from fractions import Fraction

import pytest

from monotreme.wording import (
    definite_answer,
    final_answer,
    is_quantity,
    last_boxed,
    normalize,
    numbers,
    same_answer,
    words,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is  2\n+ 2?", "what is 2 + 2?"),
        (r"$\dfrac{1}{2}$", r"\frac{1}{2}"),
        (r"$\left(x\right)$", "(x)"),
        ("1,000,000 people", "1000000 people"),
        ("x − 1", "x - 1"),
        ("“quoted” isn’t", '"quoted" isn\'t'),
        (r"90^\circ", "90°"),
        (r"$5\%$", r"5%"),
        (r"\text{cm}", "cm"),
        ("ﬁeld", "field"),
        ("2⁵", "2^5"),
        (r"98,\!770", "98770"),
        ("(1,000 people)", "(1000 people)"),
    ],
)
def test_one_sense_one_form(one, other):
    assert normalize(one) == normalize(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x^2", "x^3"),
        ("-3", "3"),
        (r"\frac{1}{2}", "12"),
        ("1,000", "1.000"),
        ("a > b", "a < b"),
        ("2⁵", "25"),
        ("x₂", "x2"),
        ("(3,400)", "(3400)"),
    ],
)
def test_another_sense_another_form(one, other):
    assert normalize(one) != normalize(other)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("three of 4 women", [3, 4]),
        ("twenty-one plus thirty two", [21, 32]),
        ("1,250 and 0.5 and .25", [1250, Fraction(1, 2), Fraction(1, 4)]),
        ("3/4 of 8", [Fraction(3, 4), 8]),
        ("someone often weighs them", []),
        ("7 7 7", [7, 7, 7]),
        ("x2 and H2O", []),
        ("1/0", [1]),
    ],
)
def test_numbers_in_digits_and_words(text, values):
    assert numbers(text) == Counter(Fraction(v) for v in values)


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("We add. <<3+4=7>>\n#### 7", "7"),
        (r"so $\boxed{\frac{1}{2}}$ or rather \boxed{x_{1}+1}.", "x_{1}+1"),
        ("Steps.\n\n# Answer\n\n42", "42"),
        ("First 3, then 4. The answer is 7.", "7"),
        ("The answer is red because. The answer is blue.", "blue"),
        ("Paris.", "Paris"),
        ("It takes several long steps to see that in the end there are 1,250 of them.", "1,250"),
        ("It takes several long steps to see that in the end there are none of them.", None),
        ("####", None),
        ("", None),
    ],
)
def test_final_answers(output, answer):
    assert final_answer(output) == answer


def test_a_last_number_is_no_definite_answer():
    long = "It takes several long steps to see that in the end there are 1,250 of them."
    assert (final_answer(long), definite_answer(long)) == ("1,250", None)
    assert definite_answer(f"{long} The answer is 7.") == "7"


@pytest.mark.parametrize(
    ("answer", "is_one"),
    [
        ("7 km", True),
        ("2x + 1", True),
        ("(1, -1)", True),
        ("Paris", False),
        ("print(x", False),
        ("CO2 is out", False),
    ],
)
def test_quantities(answer, is_one):
    assert is_quantity(answer) is is_one


def test_boxed_minds_its_braces():
    assert last_boxed(r"\boxed{\sqrt{\frac{a}{b}}} and text}") == r"\sqrt{\frac{a}{b}}"
    assert last_boxed(r"\boxed{never closed") is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("0.5", r"\frac{1}{2}", True), ("1,000", "1000", True), ("12", "12.0", True), ("-3", "3", False),
        ("The cat", "cat", True), ("carbon dioxide", "Carbon  dioxide.", True), ("7", "seven", False),
        ("x+1", "x + 1", True), ("1/0", "1/0", True),
    ],
)  # fmt: skip
def test_same_answers(one, other, same):
    assert same_answer(one, other) is same


def test_words_keep_signs_that_matter():
    assert words("What is $2^{3} - 1$?") == ["what", "is", "2", "^", "3", "-", "1"]
