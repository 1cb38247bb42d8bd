"""A look-alike pair → verdict, reason and confidence (paper, section 2.3).

A cascade from cheap to dear; the first step that can decide does, and gives its name as the reason.
Word overlap alone misleads: a question with other numbers shares nearly every word, a rewording
few. So what decides is what changes the answer: numbers, negation, order, and the answer itself.
"""

import difflib
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from monotreme.records import BenchmarkQuestion, Judgement, Question, Verdict
from monotreme.wording import final_answer, numbers, same_answer, words

NEGATIONS = frozenset(
    [
        "not",
        "no",
        "never",
        "none",
        "neither",
        "nor",
        "cannot",
        "without",
        "except",
        "unless",
        "least",
        "incorrect",
        "false",
        "don't",
        "doesn't",
        "isn't",
        "aren't",
        "can't",
        "won't",
    ]
)
OPPOSITES = (
    {"more", "fewer"}, {"more", "less"}, {"most", "least"}, {"most", "fewest"}, {"largest", "smallest"},
    {"larger", "smaller"}, {"greater", "less"}, {"greater", "smaller"}, {"greatest", "least"},
    {"greatest", "smallest"}, {"increase", "decrease"}, {"increases", "decreases"}, {"before", "after"},
    {"above", "below"}, {"maximum", "minimum"}, {"highest", "lowest"}, {"higher", "lower"},
    {"longest", "shortest"}, {"longer", "shorter"}, {"hot", "cold"}, {"hotter", "colder"},
    {"heaviest", "lightest"}, {"heavier", "lighter"}, {"tallest", "shortest"}, {"taller", "shorter"},
    {"oldest", "youngest"}, {"older", "younger"}, {"fastest", "slowest"}, {"faster", "slower"},
    {"first", "last"}, {"all", "some"}, {"odd", "even"}, {"left", "right"},
)  # fmt: skip
SAME_NUMBERS = 0.7  # Jaccard of the numbers: over it in 85 % of rewordings, 6 % of changed ones
NEAR_TEXT = 0.9  # difflib ratio of the words: an edit of a word or two in a sentence
SPECIFIC_WORDS = 8  # a shorter stem ("Which of these is true?") says little without its options
LONG_ANSWER_WORDS = 8  # a longer answer is an explanation, not comparable by its string

# Confidence by reason. Set by hand from how often each reason was right on labelled pairs.
CONFIDENCE = {
    "same_text": 0.99,
    "contains_text": 0.95,
    "near_text": 0.9,
    "label_conflict": 0.6,
    "other_options": 0.9,
    "numbers_differ": 0.95,
    "negation_differs": 0.9,
    "opposite_word": 0.85,
    "order_differs": 0.75,
    "same_answer": 0.9,
    "answers_differ": 0.85,
    "undecided": 0.5,
}


def triage(question: Question, benchmark: BenchmarkQuestion) -> Judgement:
    """Judge one pair.

    Returns:
        duplicate: the same question, perhaps with a word or the order changed; gray_area: the same
        knowledge asked again, or what cannot be told apart from it; similar_but_different: another
        question with another answer.
    """
    train, stem = words(question.text), words(benchmark.stem)
    same = _compare_answers(question, benchmark)
    return (
        _same_text(train, benchmark, same)
        or _critical_change(question.text, benchmark, train, stem, same)
        or _near_text(train, stem, same)
        or _by_answer(same)
    )


def _judge(verdict: Verdict, reason: str) -> Judgement:
    return Judgement(verdict, reason, CONFIDENCE[reason])


def _compare_answers(question: Question, benchmark: BenchmarkQuestion) -> bool | None:
    """Whether the answers agree; None where one of them is not known or not comparable."""
    ours = final_answer(question.output)
    if ours is None or not benchmark.answers:
        return None
    if any(_agree(ours, theirs) for theirs in _finals(benchmark)):
        return True
    comparable = _is_comparable(ours) and all(
        _is_comparable(theirs) for theirs in _finals(benchmark)
    )
    return False if comparable else None


def _finals(benchmark: BenchmarkQuestion) -> tuple[str, ...]:
    if benchmark.options:
        return benchmark.answers
    return tuple(final_answer(answer) or answer for answer in benchmark.answers)


def _agree(ours: str, theirs: str) -> bool:
    if same_answer(ours, theirs):
        return True
    one, other = words(ours), words(theirs)
    short, long = sorted((one, other), key=len)
    return bool(short) and not numbers(ours) and not numbers(theirs) and _contains(long, short)


def _is_comparable(answer: str) -> bool:
    """A bare letter names an option that is not in the text; a long answer has many wordings."""
    tokens = words(answer)
    letter = len(tokens) == 1 and len(tokens[0]) == 1 and tokens[0].isalpha()
    return bool(tokens) and not letter and len(tokens) <= LONG_ANSWER_WORDS


def _contains(long: Sequence[str], short: Sequence[str]) -> bool:
    width = len(short)
    return any(list(long[i : i + width]) == list(short) for i in range(len(long) - width + 1))


def _same_text(
    train: list[str], benchmark: BenchmarkQuestion, same: bool | None
) -> Judgement | None:
    stem = words(benchmark.stem)
    with_options = [*stem, *(word for option in benchmark.options for word in words(option))]
    equal = train in (stem, with_options)
    contained = len(stem) >= SPECIFIC_WORDS and (_contains(train, stem) or _contains(stem, train))
    if not equal and not contained:
        return None
    if equal and (same is not False or len(stem) >= SPECIFIC_WORDS):
        conflict = same is False and not benchmark.options
        return (
            _judge("gray_area", "label_conflict") if conflict else _judge("duplicate", "same_text")
        )
    if equal:
        return _judge("similar_but_different", "other_options")
    return None if same is False else _judge("duplicate", "contains_text")


def _critical_change(
    train_text: str,
    benchmark: BenchmarkQuestion,
    train: list[str],
    stem: list[str],
    same: bool | None,
) -> Judgement | None:
    """A change that makes it another question, unless both have the same answer all the same."""
    reason = _changed_numbers(train_text, benchmark) or _changed_words(train, stem)
    if reason is None:
        return None
    if same:
        return _judge("gray_area", "same_answer")
    return _judge("similar_but_different", reason)


def _changed_numbers(train_text: str, benchmark: BenchmarkQuestion) -> str | None:
    ours = numbers(train_text)
    stem = numbers(benchmark.stem)
    whole = stem + numbers(" ; ".join(benchmark.options))
    alike = max(_jaccard(ours, stem), _jaccard(ours, whole))
    return "numbers_differ" if alike < SAME_NUMBERS else None


def _jaccard(one: Counter[Fraction], other: Counter[Fraction]) -> float:
    union = (one | other).total()
    return (one & other).total() / union if union else 1.0


def _changed_words(train: list[str], stem: list[str]) -> str | None:
    one, other = set(train), set(stem)
    if bool(one & NEGATIONS) != bool(other & NEGATIONS):
        return "negation_differs"
    gone, new = other - one, one - other
    if any(len(pair & gone) == 1 and len(pair & new) == 1 for pair in OPPOSITES):
        return "opposite_word"
    if train != stem and Counter(train) == Counter(stem):
        return "order_differs"
    return None


def _near_text(train: list[str], stem: list[str], same: bool | None) -> Judgement | None:
    if same is False:
        return None
    ratio = difflib.SequenceMatcher(None, train, stem, autojunk=False).ratio()
    return _judge("duplicate", "near_text") if ratio >= NEAR_TEXT else None


def _by_answer(same: bool | None) -> Judgement:
    if same is None:
        return _judge("gray_area", "undecided")
    if same:
        return _judge("gray_area", "same_answer")
    return _judge("similar_but_different", "answers_differ")
