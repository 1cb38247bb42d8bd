"""Whether two answers agree: by number, by text, by option; unknown where they cannot be compared."""

from collections.abc import Sequence
from typing import Literal

from monotreme.triage.sides import Side, content
from monotreme.wording import numbers, same_answer, words

Agreement = Literal["equal", "differ", "unknown"]
LONGEST_ANSWER = 12  # words; a longer answer is an explanation with many wordings
HARDLY = 0.3  # share of the content words of the shorter of two long answers


def compare(train: Side, bench: Side) -> Agreement:
    pairs = [(ours, theirs) for ours in train.answers for theirs in bench.answers]
    if any(agree(ours, theirs) for ours, theirs in pairs):
        return "equal"
    if pairs and all(_surely_differ(ours, theirs) for ours, theirs in pairs):
        return "differ"
    return "unknown"


def _surely_differ(ours: str, theirs: str) -> bool:
    """Not so for a letter, whose option is not in the text, nor for a number beside a word.

    Two long answers may be one in other words: they differ where they share hardly a word.
    """
    one, other = words(ours), words(theirs)
    if not one or not other or _is_letter(one) or _is_letter(other):
        return False
    if max(len(one), len(other)) > LONGEST_ANSWER:
        short, long = sorted((set(content(one)), set(content(other))), key=len)
        return bool(short) and len(short & long) / len(short) < HARDLY
    return bool(numbers(ours)) == bool(numbers(theirs)) or not one[0].isdigit()


def _is_letter(found: Sequence[str]) -> bool:
    return len(found) == 1 and len(found[0]) == 1 and found[0].isalpha()


def agree(ours: str, theirs: str) -> bool:
    """The same, or one named within the other: "Jupiter" and "It is Jupiter"."""
    if same_answer(ours, theirs):
        return True
    short, long = sorted((words(ours), words(theirs)), key=len)
    if not short or numbers(ours) or numbers(theirs):
        return False
    return contains(long, short) and (len(short) > 1 or len(short[0]) > 2)


def contains(long: Sequence[str], short: Sequence[str]) -> bool:
    """Whether the words of one stand in the other one after another."""
    return f" {' '.join(short)} " in f" {' '.join(long)} "


def same_options(train: Side, bench: Side) -> float | None:
    """The share of all options that both sides have; None where a side has none."""
    if not train.options or not bench.options:
        return None
    ours = {" ".join(words(option)) for option in train.options}
    theirs = {" ".join(words(option)) for option in bench.options}
    return len(ours & theirs) / len(ours | theirs)


def shown_options(train: Side, bench: Side) -> float:
    """The share of the benchmark's options that the training text shows, whatever its layout."""
    whole = f" {' '.join(train.views[-1].words)} "
    told = [option for option in map(words, bench.options) if option]
    return sum(f" {' '.join(option)} " in whole for option in told) / len(told) if told else 0.0


def is_offered(train: Side, bench: Side) -> bool:
    """Whether the training answer is one of the benchmark's options, right or wrong."""
    return any(agree(ours, option) for ours in train.answers for option in bench.options)
