"""The alpaca template: how a question is put to the model, and where its answer starts.

The wording is the Stanford Alpaca project's, which the paper trains with (section 3 of its code);
a model trained on it expects it to the letter.
"""

from monotreme.records import Question

_WITH_INPUT = """\
Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.

### Instruction:
{instruction}

### Input:
{input}

### Response:
"""

_WITHOUT_INPUT = """\
Below is an instruction that describes a task. Write a response that appropriately completes the request.

### Instruction:
{instruction}

### Response:
"""


def prompt(question: Question) -> str:
    """What the model reads before it answers; the answer follows without a blank."""
    template = _WITH_INPUT if question.input else _WITHOUT_INPUT
    return template.format(instruction=question.instruction, input=question.input)


def prompt_and_answer(question: Question) -> tuple[str, int]:
    """The whole training text, and the index of the character at which its answer starts."""
    asked = prompt(question)
    return asked + question.output, len(asked)
