"""What a text says apart from how it is written: normal form, words, numbers, final answer."""

import re
import unicodedata
from collections import Counter
from fractions import Fraction

from monotreme.algebra import is_formula, same_value

_LATEX: list[tuple[str, str]] = [  # (pattern, replacement), in this order
    (r"\\\\(?=\S)", r"\\"),  # a backslash escaped once too often
    (r"\\[dt]frac", r"\\frac"),
    (r"\\frac ?\{([^{}]*)\} ?\{([^{}]*)\}", r"(\1)/(\2)"),
    (r"\\frac ?(\w) ?(\w)(?!\w)", r"(\1)/(\2)"),
    (r"\\frac ?(\d) ?(\d)", r"(\1)/(\2)"),
    (r"\\(?:left|right|displaystyle)(?![a-zA-Z])", ""),
    (r"\\(?:text|mathrm|mathbf|textbf|textit|mathit|mbox|operatorname) ?\{([^{}]*)\}", r"\1"),
    (r"\\(?:cdot|times)(?![a-zA-Z])", "*"),
    (r"\\div(?![a-zA-Z])", "/"),
    (r"\\[()\[\]]", " "),
    (r"\\(?:leq?)(?![a-zA-Z])", "≤"),
    (r"\\(?:geq?)(?![a-zA-Z])", "≥"),
    (r"\\neq?(?![a-zA-Z])", "≠"),
    (r"\^ ?\{? ?\\circ ?\}?", "°"),
    (r",\\!", ","),
    (r"\\([%&#$])", r"\1"),
    (r"\\[,;:! ]", " "),
    (r"\\([a-z]+)", r" \1 "),
]
_PLAIN: list[tuple[str, str]] = [  # then these, which need no backslash
    (r"\{,\}", ","),
    (r"(?<!\d)\((\w+)\)/\((\d+|[^\W\d_])\)", r"\1/\2"),
    (r"([\^_])\{(\d+|[^\W\d_])\}", r"\1\2"),
    (r"\$", " "),
]
_LATEX_PATTERNS = [(re.compile(pattern), new) for pattern, new in _LATEX]
_PLAIN_PATTERNS = [(re.compile(pattern), new) for pattern, new in _PLAIN]
_MARKS = re.compile(r"([\u0300-\u036f]{30})[\u0300-\u036f]+")  # NFKC sorts a run in square time
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼ⁿ", "0123456789+-=n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_WORD = re.compile(r"[^\W\d_]+|\d+(?:\.\d+)?|[^\w\s]|_", re.UNICODE)
_PUNCTUATION = frozenset(".,?!:;\"'`{}\\")
_QUOTES = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "−": "-", "–": "-", "—": "-"})
_SIGNS = str.maketrans(
    {
        "π": " pi ",
        "√": " sqrt ",
        "∞": " infty ",
        "∈": " in ",
        "×": "*",
        "·": "*",
        "⋅": "*",
        "÷": "/",
    }
)

_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMBER_WORDS = {word: value for value, word in enumerate(_UNITS.split())}
_NUMBER_WORDS |= {word: 10 * value for value, word in enumerate(_TENS.split(), start=2)}
_NUMBER_WORDS |= {"twice": 2, "double": 2, "doubled": 2, "thrice": 3, "triple": 3, "tripled": 3}
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9}
_RANKS = ("third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_PARTS = {"half": 2, "halves": 2, "quarter": 4, "quarters": 4}
_PARTS |= {word + plural: value for value, word in enumerate(_RANKS, 3) for plural in ("", "s")}
_NUMBER = re.compile(
    r"(?<![\w.])(?P<digits>\d+(?:\.\d+)?|\.\d+)(?: ?/ ?(?P<over>\d+(?:\.\d+)?))?"
    rf"|\b(?P<word>{'|'.join([*_NUMBER_WORDS, *_SCALES, *_PARTS])})\b"
)
_LONGEST_NUMBER = 100  # digits that are looked at; a longer run is not a quantity
_ANSWER_IS = re.compile(
    r"(?:final answer|answer)(?: is|:)\s*(.+?)\s*(?:\.(?=\s|$)|$)", re.IGNORECASE | re.MULTILINE
)
_UNIT = re.compile(r"(?<=\d) ?(?:%|percent|°|(?!(?:pi|sqrt|infty)\b)[a-z]{2,}(?: [a-z]{2,})?)\.?$")
_LAST_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
_SAYS = re.compile(r"^(?:it is|it's|that is|this is|they are)\s+", re.IGNORECASE)
_LONGEST_BARE_ANSWER = 60  # characters; a longer output without a marked answer is an explanation


def normalize(text: str) -> str:
    """One spelling for texts that mean the same string.

    NFKC, lower case, plain quotes and minus, LaTeX fractions, spacing and fonts in one form, no
    thousands commas, single spaces.
    """
    text = _MARKS.sub(r"\1", " ".join(text.split()))
    # NFKC would make 2⁵ into 25
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼ⁿ]+", lambda match: "^" + match.group().translate(_RAISED), text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉]+", lambda match: "_" + match.group().translate(_LOWERED), text)
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES).translate(_SIGNS)
    text = " ".join(text.casefold().split())
    if "\\" in text:
        for pattern, new in _LATEX_PATTERNS:
            text = pattern.sub(new, text)
    for pattern, new in _PLAIN_PATTERNS:
        text = pattern.sub(new, text)
    return " ".join(_THOUSANDS.sub(_without_commas, text).split())


def _without_commas(match: re.Match[str]) -> str:
    """A number without its thousands commas; in brackets of its own it is a pair: (3,400)."""
    before, after = match.string[match.start() - 1 : match.start()], match.string[match.end() :][:1]
    if match.start() and after and _BRACKETS.get(before) == after:
        return match.group()
    return match.group().replace(",", "")


def words(text: str) -> list[str]:
    """Words, numbers and signs of a text, without sentence punctuation."""
    return words_of(normalize(text))


def words_of(normalized: str) -> list[str]:
    """`words` of a text that is normalised already."""
    return [word for word in _WORD.findall(normalized) if word not in _PUNCTUATION]


def numbers(text: str) -> Counter[Fraction]:
    """The numbers of a text, written in digits or in words, with how often each occurs.

    "two hundred and five", "3 million", "two-thirds", "half" and "twice" are numbers; "third" alone
    is a rank and is not.
    """
    return Counter(numbers_of(normalize(text)))


def numbers_of(text: str) -> list[Fraction]:
    """The numbers of a text that is normalised already, in its order."""
    found: list[Fraction] = []
    end, last = -1, ""
    for match in _NUMBER.finditer(text):
        word = match["word"] or ""
        joined = text[end : match.start()] in (" ", "-", " and ") if end >= 0 else False
        if joined and _extends(last, word, text[end : match.start()] == " and "):
            found[-1] = _extended(found[-1], last, word)
        elif word in _PARTS and not word.startswith("hal"):
            continue  # "third" alone is a rank, "quarter" a coin
        else:
            found.append(_value(match))
        end, last = match.end(), word
    return found


def _extends(last: str, word: str, after_and: bool) -> bool:
    """Whether a number word goes on with the number before it ("" is a number in digits)."""
    if word in _SCALES or (word in _PARTS and last != "" and last not in _PARTS):
        return not after_and
    if last in _SCALES and last != "dozen":
        return word in _NUMBER_WORDS
    return last in _TENS.split() and not after_and and 0 < _NUMBER_WORDS.get(word, 0) < 10


def _extended(value: Fraction, last: str, word: str) -> Fraction:
    if word in _PARTS:
        return value / _PARTS[word]
    if word == "hundred" and last in _NUMBER_WORDS:  # two thousand three *hundred*
        return value + 99 * _NUMBER_WORDS[last]
    if word in _SCALES:
        return value * _SCALES[word]
    return value + _NUMBER_WORDS[word]


def _value(match: re.Match[str]) -> Fraction:
    if match["digits"]:
        value = _fraction(match["digits"])
        over = _fraction(match["over"]) if match["over"] else Fraction(1)
        return value / over if over else value
    word = match["word"]
    if word in _PARTS:
        return Fraction(1, _PARTS[word])
    return Fraction(_NUMBER_WORDS.get(word) or _SCALES.get(word, 0))


def _fraction(digits: str) -> Fraction:
    return Fraction(digits[:_LONGEST_NUMBER].rstrip("."))


def final_answer(output: str) -> str | None:
    """The answer that an output ends in: its definite one, else its last number; None without one."""
    told = definite_answer(output)
    if told is not None:
        return told
    tail = _LAST_NUMBER.findall(output)
    return str(tail[-1]) if tail else None


def definite_answer(output: str) -> str | None:
    """The answer that an output says is its answer; None where one could only guess.

    Looked for in this order: `#### x` (GSM8K), the last `\\boxed{x}` (MATH), `# Answer` and its
    next line (PRM800K), "the answer is x", a whole output short enough to be one.
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
        return _SAYS.sub("", output.strip()).rstrip(".") or None
    return None


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
    """Whether two answers are the same number, formula, or text but for case, spaces and LaTeX.

    A rounded number is the same as the exact one: 4.33 and 13/3. A unit may be left out.
    """
    one, other = _as_number(first), _as_number(second)
    if one is not None and other is not None:
        return any(_same_number(one, value) for value in _readings(other, first, second))
    return _bare(first) == _bare(second) or same_value(normalize(first), normalize(second))


def is_quantity(answer: str) -> bool:
    """Whether an answer is a number, perhaps with its unit, or a formula."""
    return _as_number(answer) is not None or is_formula(normalize(answer))


def _readings(value: Fraction, first: str, second: str) -> tuple[Fraction, ...]:
    """50 % is 50, and 0.5 where only one side writes the sign."""
    if "%" in second and "%" not in first:
        return (value, value / 100)
    return (value, value * 100) if "%" in first and "%" not in second else (value,)


def _same_number(one: Fraction, other: Fraction) -> bool:
    """Equal, or one is the other rounded to two to four places."""
    return one == other or _rounds_to(one, other) or _rounds_to(other, one)


def _rounds_to(exact: Fraction, rounded: Fraction) -> bool:
    places = next((p for p in (2, 3, 4) if (rounded * 10**p).denominator == 1), 0)
    if not places or (rounded * 10).denominator == 1:
        return False
    return abs(exact - rounded) <= Fraction(1, 2 * 10**places)


def _as_number(answer: str) -> Fraction | None:
    text = normalize(answer[:_LONGEST_NUMBER]).strip()
    text = _UNIT.sub("", text)
    text = text.replace(" ", "").replace("(", "").replace(")", "").strip("%°.=€£")
    match = re.fullmatch(r"([-+]?)(\d+(?:\.\d+)?|\.\d+)(?:/(\d+(?:\.\d+)?))?", text)
    if match is None or (match[3] and not Fraction(match[3])):
        return None
    value = Fraction(match[2]) / Fraction(match[3] or 1)
    return -value if match[1] == "-" else value


def _bare(answer: str) -> str:
    return re.sub(r"\s+|[.;,:]+$|^(?:the|an?)\s", "", normalize(answer))
