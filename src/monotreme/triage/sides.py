"""The two sides of a pair taken apart: what is asked, the options, the answer.

A training row writes all of it in one text, with labels ("Question: … Answer: #### 18"), options by
letter and wrappers around it; a benchmark question has fields for it. Here both become `Side`s.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from monotreme.records import BenchmarkQuestion, Question
from monotreme.triage.vocabulary import NEGATIONS, STOP_WORDS, UNITS
from monotreme.wording import definite_answer, final_answer, normalize, numbers_of, words_of

CACHED = 4096  # sides that are kept: a question stands in many pairs
LONGEST_TAIL = 12  # words after the options: "Think step by step and answer by letter."
LEAD = 40  # words before the last sentence from which they are a passage that it asks about
LEAST_QUESTION = 8  # words of a question that can be told from others without its passage
LONGEST_TEXT = 100_000  # characters; in a longer text verbatim.py still finds whole copies

_LABEL = re.compile(
    r"\s*(?:#{1,4} ?)?(?:question|problem|instruction|exercise|query|input|q)(?: \d+)?\s?:\s*",
    re.IGNORECASE,
)
_ANSWER = re.compile(
    r"(?:(?:^|\n|(?<=[.?!:)\]}$] ))[ \t]*(?:#{1,4} ?)?(?:final answer|answer|solution|response|output)|\n[ \t]*a)\s?:|####",
    re.IGNORECASE,
)
_OPTION = re.compile(r"(?:^|(?<=\s))\(?(?=[A-Ja-j][).:]|[1-9][).])(\w)[).:]\s+")
_LETTER = re.compile(r"(?:option |choice )?\(?([A-Ja-j])\)?[.:]?$", re.IGNORECASE)
_LETTERED = re.compile(r"\(?([A-J])[).:]\s+(\S.*)", re.DOTALL)
_NAME = re.compile(r"(?<=[a-z0-9,;$] )[A-Z][a-z]{2,}")
_SENTENCE = re.compile(r"(?<=[.?!])\s+|\n\n+")


SEEN_TO_APART = STOP_WORDS | NEGATIONS | UNITS.keys()


@dataclass(frozen=True, slots=True)
class Text:
    """One text as triage reads it.

    Attributes:
        words: normalised words, numbers and signs in order.
        content: how often each word that says something occurs (a plural counts as its singular).
        names: words written with a capital inside a sentence, folded.
        sentences: the words of each sentence.
        asked: which of them asks: the last with a question mark, else the last.
    """

    words: tuple[str, ...]
    content: Counter[str]
    numbers: Counter[Fraction]
    names: frozenset[str]
    sentences: tuple[tuple[str, ...], ...]
    asked: int


@dataclass(frozen=True, slots=True)
class Answers:
    """What a question has for an answer.

    Attributes:
        options: empty where none are known.
        answers: texts of the right answers, empty where none is known.
        definite: whether they are said to be the answers, not read out of an explanation.
    """

    options: tuple[str, ...]
    answers: tuple[str, ...]
    definite: bool


@dataclass(frozen=True, slots=True)
class Side(Answers):
    """A training or a benchmark question.

    Attributes:
        views: the texts as which it may be compared; the first is the question without options,
            and the only one that counts where both sides' options are known.
    """

    views: tuple[Text, ...]


@lru_cache(maxsize=CACHED)
def read_text(raw: str) -> Text:
    parts = [normalize(part) for part in _SENTENCE.split(raw[:LONGEST_TEXT])]
    parts = [part for part in parts if part]
    marked = [place for place, part in enumerate(parts) if part.endswith("?")]
    sentences = tuple(tuple(words_of(part)) for part in parts)
    found = tuple(word for sentence in sentences for word in sentence)
    return Text(
        words=found,
        content=Counter(content(found)),
        numbers=Counter(number for part in parts for number in numbers_of(part)),
        names=frozenset(name.casefold() for name in _NAME.findall(raw)) - STOP_WORDS,
        sentences=sentences,
        asked=marked[-1] if marked else len(parts) - 1,
    )


def content(found: Iterable[str]) -> list[str]:
    """The words that carry the sense, in a rough singular; numbers, units and signs apart."""
    return [
        stem_of(word)
        for word in found
        if len(word) > 1 and word not in SEEN_TO_APART and word.isalpha()
    ]


@lru_cache(maxsize=65536)
def stem_of(word: str) -> str:
    """A word without its plural s, -ed or -ing: enough to match inflections of one word."""
    for ending, least in (("ing", 6), ("ed", 5), ("es", 5), ("s", 4)):
        if len(word) >= least and word.endswith(ending) and not word.endswith("ss"):
            return word[: -len(ending)].rstrip("e")
    return word.rstrip("e") if len(word) > 3 else word


@lru_cache(maxsize=CACHED)
def training_side(question: Question) -> Side:
    """Taken apart: a label before the question, options by letter, an answer after it."""
    text = question.text[:LONGEST_TEXT]
    stem, body, found = _apart(text, question.output)
    label = _LABEL.match(stem)
    stem = stem[label.end() :] if label else stem
    views = dict.fromkeys(part.strip() for part in (stem, body, text) if part.strip())
    return Side(
        found.options,
        found.answers,
        found.definite,
        tuple(read_text(view) for view in views) or (read_text(""),),
    )


def training_answers(question: Question) -> Answers:
    """Those of `training_side`, without a look at what is asked."""
    return _apart(question.text[:LONGEST_TEXT], question.output)[2]


def _apart(text: str, output: str) -> tuple[str, str, Answers]:
    """A training text up to its options, the same with them but without its answer, and the answers."""
    stem, options, rest = split_options(text)
    if options:
        body, told = text, split_answer(f"?\n{rest}")[1]
    else:
        body, told = split_answer(text)
        stem = body
    for said in (output[-LONGEST_TEXT:], told):
        if answer := final_answer(said):
            definite = definite_answer(said) is not None
            return stem, body, Answers(options, _resolved(answer, options), definite)
    return stem, body, Answers(options, (), False)


@lru_cache(maxsize=CACHED)
def benchmark_side(question: BenchmarkQuestion) -> Side:
    """Views: the stem, with its options, with its passage, without the passage that it holds."""
    views = [question.stem]
    if question.options:
        views.append("\n".join((question.stem, *question.options)))
    if question.passage:
        views.append(f"{question.passage}\n{question.stem}")
    alone = question_alone(question.stem)
    if len(alone.split()) >= LEAST_QUESTION:
        views.append(alone)
    answers, definite = question.answers, True
    if not question.options:
        definite = all(definite_answer(answer) == final_answer(answer) for answer in answers)
        answers = tuple(final_answer(answer) or answer for answer in answers)
    return Side(question.options, answers, definite, tuple(read_text(view) for view in views))


def question_alone(text: str) -> str:
    """What a text asks at its end, without the passage before it; "" where it holds no passage.

    That is its last line, else its last sentence, after at least `LEAD` words.
    """
    text = text.strip()
    cut = max(text.rfind("\n"), *(match.end() - 1 for match in _SENTENCE.finditer(text)), -1)
    return text[cut + 1 :].strip() if len(text[: cut + 1].split()) >= LEAD else ""


def split_answer(text: str) -> tuple[str, str]:
    """A training text without the answer that stands at its end, and what stands there, "" for none.

    The answer begins at the first label after the question; "Answer:" with nothing after is a prompt.
    """
    for match in _ANSWER.finditer(text):
        body = text[: match.start()].strip()
        if body:
            told = text[match.end() :].strip()
            return body, told if "####" in told or "\\boxed" in told else told.lstrip("# ")
    return text, ""


def split_options(text: str) -> tuple[str, tuple[str, ...], str]:
    """A text up to its lettered options, the options, and what follows their last line.

    They must count up from A or 1.
    """
    chain: list[re.Match[str]] = []
    for match in _OPTION.finditer(text):
        if chain and match[1] == chr(ord(chain[-1][1]) + 1):
            chain.append(match)
        elif len(chain) < 2 and match[1] in "Aa1":
            chain = [match]
    if len(chain) < 2 or not text[: chain[0].start()].strip():
        return text, (), ""
    last, _, rest = text[chain[-1].end() :].lstrip().partition("\n")
    if len(rest.split()) > LONGEST_TAIL and not _ANSWER.match(f"\n{rest.lstrip()}"):
        return text, (), ""  # a numbered list within the question
    ends = [match.start() for match in chain[1:]]
    options = [text[m.end() : end].strip() for m, end in zip(chain, ends, strict=False)]
    return text[: chain[0].start()].rstrip(), (*options, last.strip()), rest


def _resolved(answer: str, options: tuple[str, ...]) -> tuple[str, ...]:
    """An answer by its text: a letter alone names an option, or nothing that can be compared."""
    answer = answer.strip()
    letter = _LETTER.fullmatch(answer)
    if letter and (len(answer) == 1 or options):
        place = ord(letter[1].upper()) - ord("A")
        return (options[place],) if place < len(options) else ()
    lettered = _LETTERED.fullmatch(answer)
    return (lettered[2].strip() if lettered else answer,)
