"""The alpaca template to the letter, and the place of the answer."""

from dataclasses import replace

from conftest import sums
from hypothesis import given
from hypothesis import strategies as st

from monotreme.prompt import prompt, prompt_and_answer
from monotreme.records import Question

ASKED = replace(sums(1)[0], instruction="Add.", input="1 and 2", output="3")


def test_template_with_input() -> None:
    assert prompt(ASKED) == (
        "Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n"
    )


def test_template_without_input() -> None:
    assert prompt(replace(ASKED, input="")) == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nAdd.\n\n### Response:\n"
    )


@given(st.text(), st.text(), st.text())
def test_the_answer_is_what_follows_the_prompt(instruction: str, given: str, output: str) -> None:
    """Whatever the texts hold, braces of the template language among them."""
    question: Question = replace(ASKED, instruction=instruction, input=given, output=output)
    text, start = prompt_and_answer(question)
    assert text[:start] == prompt(question)
    assert text[start:] == output
    assert instruction in text[:start]
    assert given in text[:start]
