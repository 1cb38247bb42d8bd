"""A look-alike pair → verdict, reason and confidence (paper, section 2.3).

A cascade from cheap to dear; the first step that can decide does, and gives its name as the reason.
Word overlap alone misleads: a question with other numbers shares nearly every word, a rewording
few. So what decides is what changes the answer: numbers, negation, order, and the answer itself.
"""

from monotreme.records import BenchmarkQuestion, Judgement, Question
from monotreme.triage.background import NOTHING, Background
from monotreme.triage.features import Evidence, gather
from monotreme.triage.model import chance, contributions
from monotreme.triage.sides import benchmark_side, training_side
from monotreme.triage.vocabulary import STOP_WORDS

SPECIFIC_WORDS = 8  # a shorter stem ("Which of these is true?") says little without its options
STOCK = 0.9  # share of the words that many questions have: nothing is left to tell them apart by
NEAR_TEXT = 0.85  # difflib ratio of the words: an edit of a few words
LEAK, SURE = 0.4, 0.65  # chances from which a pair may be a leak, and from which it is one

# Confidence of the steps before the model: how often each was right on the pairs of bench/triage.py.
CERTAIN = {
    "same_text": 0.99,
    "contains_text": 0.97,
    "label_conflict": 0.6,
    "other_options": 0.95,
    "template_only": 0.95,
}

# Reason → the figures that speak for it, in the order in which a tie is broken.
IN_THE_QUESTION = {
    "numbers_differ": ("numbers_missing", "numbers_added", "numbers_changed"),
    "negation_differs": ("negation",),
    "opposite_word": ("opposite",),
    "unit_differs": ("unit",),
    "operator_differs": ("operators",),
    "quantifier_differs": ("quantifier",),
    "order_differs": ("swapped",),
    "name_differs": ("names_changed",),
}
AROUND_IT = {
    "other_ask": ("asked_replaced",),
    "clause_differs": ("added",),
    "other_options": ("options_differ",),
    "answers_differ": ("answers_differ",),
    "template_only": ("stock_rest_differs", "copied_rest_differs"),
}


def triage(
    question: Question, benchmark: BenchmarkQuestion, known: Background = NOTHING
) -> Judgement:
    """Judge one pair.

    Args:
        known: what many questions of the benchmarks have in common (`background`), which then says
            nothing; without it only the two texts are looked at.

    Returns:
        duplicate: the same question, perhaps with a word or the order changed; gray_area: the same
        knowledge asked again, or what cannot be told apart from it; similar_but_different: another
        question with another answer.
    """
    evidence = gather(training_side(question), benchmark_side(benchmark), known)
    return decide(evidence, chance(evidence.figures))


def decide(evidence: Evidence, leak: float) -> Judgement:
    """The cascade over what was gathered; `leak` is the model's chance that the pair is a leak."""
    return (
        _same_text(evidence)
        or _contains_text(evidence)
        or _template_only(evidence)
        or _by_model(evidence, leak)
    )


def _same_text(evidence: Evidence) -> Judgement | None:
    """The same words; what may tell them apart then is options and answers.

    An answer that is none of the benchmark's options speaks of other options where the stem is
    stock; under a stem that says something of its own it was rather read wrongly out of a solution.
    """
    if evidence.train.words != evidence.bench.words:
        return None
    figures = evidence.figures
    if evidence.answers == "equal":
        return Judgement("duplicate", "same_text", CERTAIN["same_text"])
    specific = len(evidence.bench.words) >= SPECIFIC_WORDS or bool(evidence.bench.numbers)
    elsewhere = evidence.elsewhere and not specific
    if figures["options_differ"] > 0.5 or (elsewhere and evidence.answers == "differ"):
        return Judgement("similar_but_different", "other_options", CERTAIN["other_options"])
    shown = figures["options_same"] or figures["options_shown"]
    if evidence.answers == "differ" and (shown or not evidence.has_options or not specific):
        return Judgement("gray_area", "label_conflict", CERTAIN["label_conflict"])
    if figures["stock"] > STOCK and not figures["options_shown"]:
        return Judgement("similar_but_different", "template_only", CERTAIN["template_only"])
    telling = [word for word in evidence.bench.words if word not in STOP_WORDS]
    told_apart = len(telling) > 1 and not elsewhere
    if evidence.has_options and not told_apart and not figures["options_shown"]:
        return Judgement("gray_area", "undecided", 0.5)
    return Judgement("duplicate", "same_text", CERTAIN["same_text"])


def _contains_text(evidence: Evidence) -> Judgement | None:
    """The whole benchmark question within a longer text, word for word."""
    whole = evidence.figures["contains"] and len(evidence.bench.words) >= SPECIFIC_WORDS
    stock = evidence.figures["stock"] > STOCK
    turned = evidence.figures["negation"] or evidence.figures["numbers_added"]
    if not whole or stock or turned or evidence.answers == "differ":
        return None
    return Judgement("duplicate", "contains_text", CERTAIN["contains_text"])


def _template_only(evidence: Evidence) -> Judgement | None:
    """The frame is the same word for word, what stands in it has hardly a word in common."""
    if not evidence.figures["other_body"] or evidence.figures["contains"]:
        return None
    return Judgement("similar_but_different", "template_only", CERTAIN["template_only"])


def _by_model(evidence: Evidence, leak: float) -> Judgement:
    confidence = round(max(leak, 1 - leak), 3)
    if leak < LEAK:
        return Judgement("similar_but_different", _difference(evidence), confidence)
    if leak < SURE:
        return Judgement("gray_area", "undecided", confidence)
    if evidence.alignment.ratio >= NEAR_TEXT or evidence.figures["contained"]:
        return Judgement("duplicate", "near_text", confidence)
    reason = "same_answer" if evidence.answers == "equal" else "reworded"
    return Judgement("gray_area", reason, confidence)


def _difference(evidence: Evidence) -> str:
    """The difference that weighs most; one in the question goes before one in the answer."""
    parts = contributions(evidence.figures)
    for reasons in (IN_THE_QUESTION, AROUND_IT):
        present = [r for r, names in reasons.items() if any(evidence.figures[n] for n in names)]
        if present:
            return min(present, key=lambda r: sum(parts[name] for name in reasons[r]))
    return "other_question"
