"""A pair → the figures that the model weighs, each of them a plain fact about the two texts.

Every figure is 0 for two equal texts without answers, but for those that measure likeness.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import log1p, log2
from typing import Any

from monotreme.triage.alignment import (
    Alignment,
    align,
    focus,
    num_misspelt,
    opposed,
    swapped,
)  # fmt: skip
from monotreme.triage.answers import (
    Agreement,
    compare,
    contains,
    is_offered,
    same_options,
    shown_options,
)  # fmt: skip
from monotreme.triage.background import Background
from monotreme.triage.sides import Side, Text, content
from monotreme.triage.vocabulary import NEGATIONS, OPERATORS, QUANTIFIERS, SHORT_UNITS, UNITS
from monotreme.wording import numbers, words

SMALL = frozenset(map(Fraction, (0, 1, 2))) | {
    Fraction(1, 2)
}  # often said in words that are not counted
FRAME = 0.4  # share of copied words from which two texts may be one template with other bodies
BODY = 4  # content words that are in one text alone, on both sides
UNLIKE, ALIKE = 0.15, 0.5  # Jaccard of two bodies; share of a sentence that is found again
MOST = 3  # of one kind of difference; more say no more


@dataclass(frozen=True, slots=True)
class Evidence:
    """What triage looks at.

    Attributes:
        train, bench: the texts that were compared.
        answers: whether the two sides' answers agree.
        elsewhere: whether there is a training answer that is none of the benchmark's options.
        has_options: whether the benchmark question has options.
        alignment: how the texts differ.
        figures: what the model weighs.
    """

    train: Text
    bench: Text
    answers: Agreement
    elsewhere: bool
    has_options: bool
    alignment: Alignment
    figures: dict[str, float]


def gather(train: Side, bench: Side, known: Background) -> Evidence:
    ours, theirs = _most_alike(train, bench)
    near, other = focus(ours, theirs), focus(theirs, ours)
    alignment = align(near.words, other.words)
    answers = compare(train, bench)
    options = same_options(train, bench)
    figures = {
        **_likeness(near, other, alignment),
        "contains": float(contains(ours.words, theirs.words)),
        "contained": float(contains(theirs.words, ours.words)),
        **_edits(alignment),
        **_number_figures(near, other),
        **_word_figures(near, other, alignment),
        **_answer_figures(bench, answers, known),
        **_option_figures(train, bench, options),
        **_stock(near, other, known),
    }
    figures["any_critical"] = float(any(figures[name] for name in CRITICAL))
    elsewhere = bool(train.answers and bench.options) and not is_offered(train, bench)
    return Evidence(ours, theirs, answers, elsewhere, bool(bench.options), alignment, figures)


CRITICAL = (
    "numbers_missing", "numbers_added", "negation", "opposite", "quantifier", "unit", "operators",
    "names_changed", "swapped",
)  # fmt: skip


def _most_alike(train: Side, bench: Side) -> tuple[Text, Text]:
    for ours in train.views:
        for theirs in bench.views:
            if ours.words == theirs.words:
                return ours, theirs
    if train.options and bench.options:
        return train.views[0], bench.views[0]
    pairs = [(ours, theirs) for ours in train.views for theirs in bench.views]
    if len(pairs) == 1:
        return pairs[0]
    return max(pairs, key=lambda pair: _jaccard(Counter(pair[0].words), Counter(pair[1].words)))


def _jaccard(one: Counter[Any], other: Counter[Any]) -> float:
    common = sum((one & other).values())
    whole = sum(one.values()) + sum(other.values()) - common
    return common / whole if whole else 1.0


def _likeness(train: Text, bench: Text, alignment: Alignment) -> dict[str, float]:
    rest_train, rest_bench = alignment.rest
    missing = sum(num for word, num in bench.content.items() if word not in train.content)
    added = sum(num for word, num in train.content.items() if word not in bench.content)
    rest = _jaccard(rest_train, rest_bench)
    framed = alignment.copied >= FRAME
    asked = min(_asked(train, bench), _asked(bench, train))
    longer = abs(log2((len(train.words) + 1) / (len(bench.words) + 1)))
    return {
        "ratio": alignment.ratio,
        "copied": alignment.copied,
        "copied_rest_differs": alignment.copied * (1 - rest) * log1p(min(missing, added)),
        "other_body": float(framed and rest <= UNLIKE and min(missing, added) >= BODY),
        "asked_replaced": alignment.copied * max(0.0, 1 - asked / ALIKE),
        "length_ratio": min(longer, 3.0),
    }


def _asked(text: Text, other: Text) -> float:
    """How much of the sentence that asks is in that sentence of the other text which is most like it."""
    if not text.sentences or not other.sentences:
        return 0.0
    wanted = _sense(text.sentences[text.asked])
    return max(len(wanted & found) / len(wanted | found) for found in map(_sense, other.sentences))


def _sense(sentence: tuple[str, ...]) -> set[str]:
    return set(content(sentence)) or set(sentence) or {""}


def _edits(alignment: Alignment) -> dict[str, float]:
    inner = [edit for edit in alignment.edits if not edit.outer]
    outer = [edit for edit in alignment.edits if edit.outer]
    misspelt = num_misspelt(alignment.edits)
    return {
        "misspelt": log1p(misspelt),
        "swapped": float(min(swapped(alignment.edits), MOST)),
        "added": _longest(edit.new for edit in inner if not edit.gone),
        "wrapped": _longest(edit.new for edit in outer),
        "cut": _longest(edit.gone for edit in outer),
    }


def _longest(runs: Iterable[tuple[str, ...]]) -> float:
    return log1p(max((len(content(run)) for run in runs), default=0))


def _number_figures(train: Text, bench: Text) -> dict[str, float]:
    ours, theirs = train.numbers, bench.numbers
    missing, added = theirs.keys() - ours.keys(), ours.keys() - theirs.keys()
    order = [n for n in ours if n in theirs] != [n for n in theirs if n in ours]
    return {
        "numbers_jaccard": _jaccard(ours, theirs),
        "numbers_shared": log1p(len(ours.keys() & theirs.keys())),
        "numbers_missing": float(min(len(missing - SMALL), MOST)),
        "numbers_added": float(min(len(added - SMALL), MOST)),
        "small_missing": float(len(missing & SMALL)),
        "small_added": float(len(added & SMALL)),
        "numbers_changed": float(bool(missing - SMALL) and bool(added - SMALL)),
        "numbers_reordered": float(order),
    }


def _word_figures(train: Text, bench: Text, alignment: Alignment) -> dict[str, float]:
    ours, theirs = set(train.words), set(bench.words)
    gone, new = bench.names - ours, train.names - theirs
    operators = Counter(_operators(train.words)), Counter(_operators(bench.words))
    letters = _letters(train), _letters(bench)
    changed = (operators[0] - operators[1]).total() + (operators[1] - operators[0]).total()
    return {
        "negation": float(_negations(train.words) != _negations(bench.words)),
        "opposite": float(opposed(train, bench, alignment.edits)),
        "quantifier": float(len(_quantifiers(train.words) ^ _quantifiers(bench.words)) > 1),
        "quantifier_one_side": float(
            len(_quantifiers(train.words) ^ _quantifiers(bench.words)) == 1
        ),
        "unit": float(_exchanged(_units(train.words), _units(bench.words))),
        "other_unit": float(bool(set(_units(train.words)) ^ set(_units(bench.words)))),
        "operators": float(min(changed, MOST)),
        "letters": 1 - _jaccard(*letters) if any(letters) else 0.0,
        "names_changed": float(bool(gone) and bool(new) and not train.numbers),
        "names_gone": float(min(len(gone), MOST)),
        "names_new": float(min(len(new), MOST)),
    }


def _negations(found: tuple[str, ...]) -> int:
    """How many negations, an odd number of which turns the sense; "can't" is cut into can and t."""
    return sum(
        word in NEGATIONS or (word == "t" and found[place - 1] in ("can", "won"))
        for place, word in enumerate(found)
    )


def _quantifiers(found: tuple[str, ...]) -> set[str]:
    kinds = {QUANTIFIERS[word] for word in found if word in QUANTIFIERS}
    return kinds | {"at most" for one, two in pairwise(found) if (one, two) == ("at", "most")}


def _units(found: tuple[str, ...]) -> Counter[str]:
    return Counter(
        UNITS[word]
        for place, word in enumerate(found)
        if word in UNITS and (word not in SHORT_UNITS or found[place - 1][:1].isdigit())
    )


def _exchanged(one: Counter[str], other: Counter[str]) -> bool:
    return bool(one - other) and bool(other - one)


def _operators(found: tuple[str, ...]) -> list[str]:
    """Operators and functions; a hyphen or stroke between words is punctuation."""
    return [
        word
        for place, word in enumerate(found)
        if word in OPERATORS and not (word in "-/" and _between_words(found, place))
    ]


def _between_words(found: tuple[str, ...], place: int) -> bool:
    return any(len(word) > 1 and word.isalpha() for word in found[max(place - 1, 0) : place + 2])


def _letters(text: Text) -> Counter[str]:
    """Variables: single letters, but for the words a and I and the s of a genitive."""
    return Counter(w for w in text.words if len(w) == 1 and w.isalpha() and w not in "aist")


def _answer_figures(bench: Side, answers: Agreement, known: Background) -> dict[str, float]:
    stock = all(tuple(words(answer)) in known.answers for answer in bench.answers)
    theirs = {value for answer in bench.answers for value in numbers(answer)} - SMALL
    telling = bool(theirs) or any(len(answer) > 3 for answer in bench.answers)
    return {
        "answers_equal": float(answers == "equal"),
        "answers_equal_telling": float(answers == "equal" and telling and not stock),
        "answers_differ": float(answers == "differ"),
    }


def _option_figures(train: Side, bench: Side, options: float | None) -> dict[str, float]:
    shown = shown_options(train, bench)
    return {
        "options_same": options or 0.0,
        "options_differ": 0.0 if options is None else 1 - max(options, shown),
        "options_shown": shown,
    }


def _stock(train: Text, bench: Text, known: Background) -> dict[str, float]:
    """How alike the two are apart from what many benchmark questions have."""
    marks = known.is_stock(bench.words) if known.runs else []
    if not any(marks):
        return {"stock": 0.0, "stock_rest_differs": 0.0}
    ours = zip(train.words, known.is_stock(train.words), strict=True)
    theirs = zip(bench.words, marks, strict=True)
    rest = [Counter(content(w for w, stock in side if not stock)) for side in (ours, theirs)]
    share = sum(marks) / len(marks)
    return {"stock": share, "stock_rest_differs": share * (1 - _jaccard(*rest))}
