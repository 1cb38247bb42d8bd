"""Whether two answers agree: by number, by text, by option; unknown where they cannot be compared."""

from collections.abc import Sequence
from typing import Literal

from monotreme.triage.sides import Answers, Side, stem_of
from monotreme.triage.vocabulary import STOP_WORDS
from monotreme.wording import is_quantity, numbers, same_answer, words

Agreement = Literal["equal", "differ", "unknown"]
LONGEST_COMPARED = 1000  # characters; what is longer is an explanation
NO_VALUE = ["none"]  # there is no such number; 0 may be the same
LONGEST_NAME = 3  # words; a longer answer has many wordings


def compare(train: Answers, bench: Answers) -> Agreement:
    """They differ where both are definite and comparable; in other words they may still agree."""
    pairs = [(ours, theirs) for ours in train.answers for theirs in bench.answers]
    if any(agree(ours, theirs) for ours, theirs in pairs):
        return "equal"
    if not (pairs and train.definite and bench.definite):
        return "unknown"
    if _chosen(train.answers, bench.options) or _chosen(bench.answers, train.options):
        return "differ"
    return "differ" if all(_surely_differ(*pair) for pair in pairs) else "unknown"


def _chosen(answers: Sequence[str], options: Sequence[str]) -> bool:
    """Whether the answers of one side are options of the other: they were meant as a choice."""
    return all(any(same_answer(answer, option) for option in options) for answer in answers)


def _surely_differ(ours: str, theirs: str) -> bool:
    """Of two that do not agree: quantities or none, one text with other numbers, or names.

    Not so for a letter, whose option is not in the text.
    """
    if max(len(ours), len(theirs)) > LONGEST_COMPARED:
        return False
    one, other = words(ours), words(theirs)
    if _is_letter(one) or _is_letter(other):
        return False
    if is_quantity(ours) and is_quantity(theirs):
        return True
    if one == NO_VALUE or other == NO_VALUE:
        return any(numbers(ours)) or any(numbers(theirs))
    if numbers(ours) or numbers(theirs):
        return numbers(ours) != numbers(theirs) and _frame(one) == _frame(other)
    return _are_two_names(one, other)


def _frame(found: Sequence[str]) -> list[str]:
    return ["#" if word[0].isdigit() else word for word in found]


def _are_two_names(one: Sequence[str], other: Sequence[str]) -> bool:
    """A few words each, no sentence and no code, and neither of them holds the other."""
    ours, theirs = _name(one), _name(other)
    return bool(ours and theirs) and not (ours <= theirs or theirs <= ours)


def _name(found: Sequence[str]) -> set[str]:
    """The words of a name, in a rough singular; none where it is no name."""
    found = found[1:] if found[:1] and found[0] in ("a", "an", "the") else found
    plain = all(word.isalpha() and word not in STOP_WORDS for word in found)
    return set(map(stem_of, found)) if plain and len(found) <= LONGEST_NAME else set()


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


def same_options(train: Answers, bench: Answers) -> float | None:
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


def is_offered(train: Answers, bench: Answers) -> bool:
    """Whether the training answer is one of the benchmark's options, right or wrong."""
    return any(agree(ours, option) for ours in train.answers for option in bench.options)
