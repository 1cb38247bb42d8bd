"""What a text says apart from how it is written: normal form, words, numbers, final answer."""

import re
import unicodedata
from collections import Counter
from fractions import Fraction

_LATEX: list[tuple[str, str]] = [  # (pattern, replacement), in this order
    (r"\\[dt]frac", r"\\frac"),
    (r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"(\1)/(\2)"),
    (r"\\frac\s*(\d)\s*(\d)", r"(\1)/(\2)"),
    (r"\\(?:left|right|displaystyle)(?![a-zA-Z])", ""),
    (r"\\(?:text|mathrm|mathbf|textbf|mbox|operatorname)\s*\{([^{}]*)\}", r"\1"),
    (r"\\(?:cdot|times)(?![a-zA-Z])", "*"),
    (r"\\(?:leq?)(?![a-zA-Z])", "≤"),
    (r"\\(?:geq?)(?![a-zA-Z])", "≥"),
    (r"\\neq?(?![a-zA-Z])", "≠"),
    (r"\^\s*\{?\s*\\circ\s*\}?", "°"),
    (r",\\!|\{,\}", ","),
    (r"\\([%&#$])", r"\1"),
    (r"\\[,;:! ]", " "),
    (r"\^\{(\w)\}", r"^\1"),
    (r"\$", " "),
]
_PATTERNS = [(re.compile(pattern), new) for pattern, new in _LATEX]
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼ⁿ", "0123456789+-=n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_WORD = re.compile(r"[^\W\d_]+|\d+(?:\.\d+)?|[^\w\s]|_", re.UNICODE)
_QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "−": "-", "–": "-", "—": "-"})

_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBER_WORDS = {word: value for value, word in enumerate(_UNITS.split())}
_NUMBER_WORDS |= {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}
_NUMBER = re.compile(
    r"(?<![\w.])(?P<digits>\d+(?:\.\d+)?|\.\d+)(?:\s*/\s*(?P<over>\d+(?:\.\d+)?))?"
    rf"|\b(?P<tens>{'|'.join(_TENS.split())})(?:[\s-](?P<unit>{'|'.join(_UNITS.split()[1:10])}))?\b"
    rf"|\b(?P<word>{'|'.join(_UNITS.split())})\b"
)
_ANSWER_IS = re.compile(
    r"(?:final answer|answer)(?: is|:)\s*(.+?)\s*(?:\.(?=\s|$)|$)", re.IGNORECASE | re.MULTILINE
)
_LAST_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
_LONGEST_BARE_ANSWER = 60  # characters; a longer output without a marked answer is an explanation


def normalize(text: str) -> str:
    """One spelling for texts that mean the same string.

    NFKC, lower case, plain quotes and minus, LaTeX fractions, spacing and fonts in one form, no
    thousands commas, single spaces.
    """
    # NFKC would make 2⁵ into 25
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼ⁿ]+", lambda match: "^" + match.group().translate(_RAISED), text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉]+", lambda match: "_" + match.group().translate(_LOWERED), text)
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES).casefold()
    for pattern, new in _PATTERNS:
        text = pattern.sub(new, text)
    return " ".join(_THOUSANDS.sub(_without_commas, text).split())


def _without_commas(match: re.Match[str]) -> str:
    """A number without its thousands commas; in brackets of its own it is a pair: (3,400)."""
    before, after = match.string[match.start() - 1 : match.start()], match.string[match.end() :][:1]
    if match.start() and after and _BRACKETS.get(before) == after:
        return match.group()
    return match.group().replace(",", "")


def words(text: str) -> list[str]:
    """Words, numbers and signs of a normalised text, without sentence punctuation."""
    return [
        word
        for word in _WORD.findall(normalize(text))
        if word not in {".", ",", "?", "!", ":", ";", '"', "'"}
    ]


def numbers(text: str) -> Counter[Fraction]:
    """The numbers of a text, written in digits or in words, with how often each occurs."""
    found: Counter[Fraction] = Counter()
    for match in _NUMBER.finditer(normalize(text)):
        found[_value(match)] += 1
    return found


def _value(match: re.Match[str]) -> Fraction:
    if match["digits"]:
        over = Fraction(match["over"]) if match["over"] else Fraction(1)
        return Fraction(match["digits"]) / over if over else Fraction(match["digits"])
    if match["tens"]:
        return Fraction(_NUMBER_WORDS[match["tens"]] + _NUMBER_WORDS.get(match["unit"] or "", 0))
    return Fraction(_NUMBER_WORDS[match["word"]])


def final_answer(output: str) -> str | None:
    """The answer that an output ends in, None where it marks none.

    Looked for in this order: `#### x` (GSM8K), the last `\\boxed{x}` (MATH), `# Answer` and its
    next line (PRM800K), "the answer is x", a whole output short enough to be one, its last number.
    """
    if "####" in output:
        return output.rsplit("####", 1)[1].strip() or None
    boxed = last_boxed(output)
    if boxed is not None:
        return boxed.strip() or None
    if "# Answer" in output:
        return output.rsplit("# Answer", 1)[1].strip() or None
    marked = _ANSWER_IS.findall(output)
    if marked:
        return str(marked[-1]).strip() or None
    if len(output) <= _LONGEST_BARE_ANSWER:
        return output.strip().rstrip(".") or None
    tail = _LAST_NUMBER.findall(output)
    return str(tail[-1]) if tail else None


def last_boxed(text: str) -> str | None:
    """What stands in the last `\\boxed{…}` of a text, braces balanced; None without one."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for end in range(start + len("\\boxed"), len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : end]
    return None


def same_answer(first: str, second: str) -> bool:
    """Whether two answers are the same number, or the same text but for case, spaces and LaTeX."""
    one, other = _as_number(first), _as_number(second)
    if one is not None and other is not None:
        return one == other
    return _bare(first) == _bare(second)


def _as_number(answer: str) -> Fraction | None:
    text = normalize(answer).replace(" ", "").replace("(", "").replace(")", "").strip("%°.=")
    match = re.fullmatch(r"(-?)(\d+(?:\.\d+)?|\.\d+)(?:/(\d+(?:\.\d+)?))?", text)
    if match is None or (match[3] and not Fraction(match[3])):
        return None
    value = Fraction(match[2]) / Fraction(match[3] or 1)
    return -value if match[1] else value


def _bare(answer: str) -> str:
    return re.sub(r"\s+|[.;,:]+$|^(?:the|an?)\s", "", normalize(answer))
