"""Laws of formulas: rewriting changes no value, one more changes it, and no text whatever costs time,
raises, or is taken for a formula when it is none."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monotreme.algebra import same_value
from monotreme.records import BenchmarkQuestion, Question
from monotreme.triage import triage
from monotreme.wording import normalize, same_answer

SAME = [
    (r"\frac{\sqrt{3}}{2}", r"\sqrt{3}/2"),
    (r"\frac{\sqrt{3}}{2}", "sqrt(3)/2"),
    (r"\frac{\sqrt{3}}{2}", "√3/2"),
    ("x^2+2x+1", "(x+1)^2"),
    (r"2\pi/3", r"\frac{2}{3}\pi"),
    ("[0,1)", "[0, 1)"),
    (r"\left[0, \frac{1}{2}\right)", "[0,0.5)"),
    ("(1/2, 3)", r"(\frac12, 3)"),
    ("x=5", "5"),
    (r"$y = 2x + 1$", "2x+1"),
    ("f(x)=3x", "3x"),
    (r"2\sqrt{2}", r"\sqrt{8}"),
    (r"3\sqrt[3]{2}", r"\sqrt[3]{54}"),
    ("sin(x)^2+cos(x)^2", "1"),
    (r"\sin^2 x", r"1 - \cos^2 x"),
    (r"\sin 2x", r"2 \sin x \cos x"),
    ("-\\frac{1}{x}", "-x^{-1}"),
    ("n(n+1)/2", r"\frac{n^2+n}{2}"),
    (r"\log 100", "2"),
    (r"e^{i\pi}", "-1"),
]
OTHER = [
    ("[0,1)", "(0,1)"),
    ("[0,1)", "[0,1]"),
    ("x^2", "x^3"),
    ("3 1/2", "1.5"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "(1,2,3)"),
    (r"\sqrt{2}", "1.414"),
    ("1/0", "1/0+1"),
    ("a+b", "a-b"),
    ("2x", "2y"),
    (r"\frac{1}{2}", r"\frac{1}{3}"),
    ("x+", "x"),
    ("(x", "x"),
    ("no-one", "no - one thing"),
    ("4-6", "5-7"),  # ranges, years, scores
    ("1914-1918", "1939-1943"),
    (r"6.4 \times 10^{-19}", r"2.4 \times 10^{-19}"),
    ("q = 0", "w = 0"),
    ("a+b", "l+x"),
    (r"\frac{1}{2x}", "x/2"),
    ("x^{2n}", "x^2 n"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_one_value_in_two_spellings(one: str, other: str):
    assert same_answer(one, other)
    assert same_answer(other, one)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_two_values(one: str, other: str):
    assert not same_answer(one, other)
    assert not same_answer(other, one)


FORMULAS = st.recursive(
    st.sampled_from(["x", "y", "2", "3.5", r"\pi"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: f"({two[0]}+{two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"{two[0]}*{two[1]}"),
        inner.map(lambda one: rf"\sqrt{{{one}}}"),
        st.tuples(inner, inner).map(lambda two: rf"\frac{{{two[0]}}}{{{two[1]}}}"),
    ),
    max_leaves=6,
)


@given(FORMULAS, FORMULAS)
def test_sums_commute_and_products_distribute_and_one_more_is_another(one: str, other: str):
    def same(left: str, right: str) -> bool:
        return same_value(normalize(left), normalize(right))

    assert same(f"{one}+{other}", f"{other}+{one}")
    assert same(f"2({one}+{other})", f"2*{one}+2*{other}")
    assert not same(f"{one}+{other}+1", f"{other}+{one}")


HOSTILE = ["9^9^9^9^9", "(" * 190, "-" * 199 + "x", "sqrt" * 49, "x^" * 99 + "x", "1e999" * 30, "frac" * 49, "{" * 90 + "x" + "}" * 90, "x" * 10**6 + "+1", "__import__('os')+1"]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_formula_costs_nothing_and_is_none(text: str):
    started = time.process_time()
    assert not same_value(text, "x+1")
    assert not same_value("x+1", text)
    assert time.process_time() - started < 1


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_gets_an_answer(one: str, other: str):
    assert same_value(normalize(one), normalize(other)) in (True, False)


@pytest.mark.parametrize("word", ["yes", "jupiter", "a cat", "the third one", "no"])
def test_a_word_is_no_formula(word: str):
    assert not same_value(word, f"{word}+1")
    assert not same_value(word, word[::-1])


def test_triage_takes_two_spellings_of_a_formula_for_one_answer():
    text = "Find the sine of the angle of sixty degrees in the given triangle."
    train = Question(text, "", r"The answer is $\frac{\sqrt{3}}{2}$.", "mine", "MIT", False)
    bench = BenchmarkQuestion("bench", "test", "", text, answer=r"\sqrt{3}/2")
    assert triage(train, bench).verdict == "duplicate"
