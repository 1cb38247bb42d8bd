"""Edits of a question with a known class: what keeps the question, and what makes it another.

Each edit takes a text and a seeded random generator and gives the edited text, or None where it does
not apply. `SAME` edits leave the same question (a duplicate, or gray_area where it is reworded),
`OTHER` edits another one with another answer. Word lists here are apart from triage's own.
"""

import random
import re
from collections.abc import Callable

from monotreme.triage.vocabulary import NEGATIONS, OPPOSED, OPPOSITES, QUANTIFIERS, UNITS

Edit = Callable[[str, random.Random], str | None]

SYNONYMS = [
    group.split("|")
    for group in """buy|purchase|get;total|overall amount|sum total;number of|count of|quantity of;large|big;small|little;begin|start|commence
kids|children;job|work;finish|complete;show|demonstrate|display;use|utilize|employ;help|assist|aid;need|require;make|produce|create
cost|price;car|vehicle|automobile;house|home;money|cash|funds;often|frequently;quickly|rapidly|fast;end|conclude
get|receive|obtain;give|provide|supply;area|region;happen|occur|take place;cause|lead to|bring about;likely|probable;method|approach|technique
scientist|researcher;main|primary|principal;result|outcome|consequence;object|item|thing;important|significant|crucial;mean|signify|stand for
contain|hold|include;type|kind|sort;describe|characterize|depict;explain|account for|clarify;student|pupil;teacher|instructor;road|street;trip|journey
picture|image;allow|permit|let;form|shape;change|alter|modify;group|set|collection;choose|pick|select;store|shop|market
container|vessel;additional|extra|further;equal to|the same as;distance|length;speed|pace;shirt|top;pet|animal companion
friend|buddy|companion;daily|every day|each day;weekly|every week|each week;earn|make|bring in;pay|spend|hand over;sell|vend;walk|stroll|go on foot
travel|go|journey;eat|consume;drink|sip;baby|infant;doctor|physician;disease|illness|ailment;movie|film;country|nation;government|administration
law|statute;leader|head|chief;war|conflict;old|aged;young|youthful;happy|glad;water source|source of water;soil|earth|ground;plant|crop
energy source|source of energy;material|substance;temperature|degree of heat;measure|gauge;experiment|trial|test;observe|notice|see;study|investigate|examine
function|map;integer|whole number;positive integer|natural number;value|quantity;expression|formula;graph|plot;solution|root;ratio|proportion""".replace(
        "\n", ";"
    ).split(";")
]
OPENINGS = [
    (r"^What is the ", ("Find the ", "Determine the ", "Can you tell the ", "Work out the ")),
    (r"^(?:Find|Compute|Calculate|Determine|Evaluate) ", ("What is ", "Please work out ", "We want to know ", "Give ")),
    (r"How many ", ("What number of ", "Can you say how many ", "What is the number of ", "Determine how many ")),
    (r"How much ", ("What amount of ", "Can you say how much ", "Determine how much ")),
    (r"Which of the following ", ("Select which one of these ", "Of the choices below, which ", "Among the listed items, which ")),
    (r"^Which (?!of)", ("What ", "Name which ", "Tell me which ")),
    (r"^Why ", ("For what reason ", "Explain why ")),
    (r"^Who ", ("Which person ", "Name who ")),
    (r"If ", ("Suppose ", "Given that ", "Assuming ")),
]  # fmt: skip
PREFIXES = (
    "Solve this problem. ", "Question: ", "Q: ", "Please answer the following question.\n\n", "### Instruction:\n",
    "Here is an exercise from my textbook: ", "I need help with this one.\n", "Consider the following and answer it carefully. ",
    "You are a helpful tutor. A student asks: ", "Think step by step and give the final result. ", "Problem 12: ",
)  # fmt: skip
SUFFIXES = (
    " Show your work.", "\nExplain your reasoning step by step.", "\n\nGive only the final answer.", "\nAnswer:", "\n### Response:",
    " Please be brief.", " Let's think step by step.", "\nYour answer should be a single value or phrase.", " Thanks in advance!",
)  # fmt: skip
PEOPLE = [
    "Ada",
    "Boris",
    "Carmen",
    "Dmitri",
    "Elif",
    "Farid",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Kaito",
    "Lena",
    "Mateo",
    "Nadia",
    "Omar",
    "Priya",
    "Quentin",
    "Rosa",
    "Samir",
    "Tara",
]
PLACES = [
    "Brazil",
    "Kenya",
    "Norway",
    "Vietnam",
    "Chile",
    "Austria",
    "Egypt",
    "Canada",
    "Poland",
    "Peru",
    "Newton",
    "Darwin",
    "Einstein",
    "Lincoln",
    "Napoleon",
    "Mars",
    "Venus",
    "Saturn",
    "Neptune",
    "Mercury",
]
CLAUSES = (
    "Later, {n} more are added.", "However, {n} of them are lost on the way.", "Then a friend gives away {n} of them.",
    "After that, half of what is left is given to a neighbour.", "In addition there is a fee of ${n}.",
    "A discount of {n}% is then taken off.", "On the last day the amount is doubled.", "Besides, {n} others join in the end.",
    "Because of bad weather only a third of it is delivered.", "There is also a tax of {n} percent on everything.",
    "Afterwards they decide to repeat all of it one more time.", "Unfortunately a quarter of the items turn out to be broken.",
)  # fmt: skip
ASKS = (
    "How many were there at the beginning?", "How much is left at the end?", "What is the average per day?", "What percentage is that of the whole?",
    "How many more would be needed to reach {n}?", "What is the difference between the largest and the smallest amount?",
    "How long would it take to do this {n} times?", "What fraction of the total is the first part?", "How many days does it take until nothing is left?",
)  # fmt: skip
UNIT_SWAPS = [
    pair.split("|")
    for pair in [
        "km|miles",
        "kilometers|meters",
        "meters|feet",
        "hours|minutes",
        "minutes|seconds",
        "days|weeks",
        "weeks|months",
        "years|months",
        "pounds|ounces",
        "pounds|kilograms",
        "grams|kilograms",
        "gallons|liters",
        "inches|feet",
        "inches|centimeters",
        "dollars|cents",
        "miles|yards",
        "feet|yards",
        "hour|day",
        "week|month",
        "mm|cm",
        "cm|m",
        "Celsius|Fahrenheit",
        "joules|calories",
        "day|week",
        "month|year",
        "kg|g",
    ]
]
OPERATOR_SWAPS = [
    (r"(?<=[\w)}\]] )\+(?= ?[\w({\\])", "-"), (r"(?<=[\w)}])\+(?=[\w({\\])", "-"), (r"(?<=[\w)}\]] )-(?= [\w({\\])", "+"), (r"\^2", "^3"), (r"\^3", "^4"),
    (r"\^\{2\}", "^{3}"), (r"\\sin", r"\\cos"), (r"\\cos", r"\\sin"), (r"\\leq?(?![a-z])", r"\\geq"), (r"\\geq?(?![a-z])", r"\\leq"), (r" < ", " > "), (r" > ", " < "),
    (r"\\cup", r"\\cap"), (r"\\log", r"\\ln"), (r"(?<= )\* ?", "/ "), (r"\\cdot", "+"), (r"\\sqrt", r"\\sqrt[3]"), (r"\\times", "+"),
]  # fmt: skip
QUANTIFIER_SWAPS = [
    (r"\b[Aa]ll\b", "some"), (r"\b[Ee]very\b", "some"), (r"\bat least\b", "at most"), (r"\bat most\b", "at least"), (r"\bexactly\b", "at least"), (r"\b[Ss]ome\b", "all"),
    (r"\bonly\b", "any"), (r"\bboth\b", "either"), (r"\b[Mm]ost\b", "only"), (r"\balways\b", "sometimes"), (r"\bmore than\b", "exactly"), (r"\bless than\b", "exactly"),
]  # fmt: skip
WORDED = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
SOME = ("some", "several", "a few", "a certain number of", "many")
NUMBER = re.compile(r"(?<![\w.,/^_{\\-])\d+(?:,\d{3})*(?:\.\d+)?(?![\w/]|\.\d)")
SENTENCE = re.compile(r"(?<=[a-z\d)$]{3}[.?!])\s+")
ARTICLES = {
    "the",
    "a",
    "an",
    "of",
    "to",
    "in",
    "and",
    "for",
    "that",
    "with",
    "this",
    "from",
    "which",
    "following",
    "what",
    "these",
    "those",
    "about",
}
TELLING = (
    NEGATIONS
    | OPPOSED
    | UNITS.keys()
    | QUANTIFIERS.keys()
    | set(WORDED)
    | {"half", "twice", "double", "triple", "dozen", "quarter", "third", "thirds"}
)


def _replace_once(text: str, pattern: str, new: str, rng: random.Random) -> str | None:
    found = list(re.finditer(pattern, text))
    if not found:
        return None
    match = rng.choice(found)
    return text[: match.start()] + match.expand(new) + text[match.end() :]


def _exchanged(text: str, one: re.Match[str], two: re.Match[str]) -> str:
    """Two parts of a text, the first before the second, each in the other's place."""
    between = text[one.end() : two.start()]
    return text[: one.start()] + two.group() + between + one.group() + text[two.end() :]


def _plain_words(text: str, least: int = 4) -> list[re.Match[str]]:
    return [
        m
        for m in re.finditer(r"(?<![\\$\w])[a-z]+(?![\w}$])", text)
        if len(m.group()) >= least and m.group() not in ARTICLES | TELLING
    ]


# ── the same question ────────────────────────────────────────────────────────────────────────────


def restyled(text: str, rng: random.Random) -> str | None:
    ways: list[Callable[[str], str]] = [
        str.upper, str.lower, lambda t: t.replace(" ", "  "), lambda t: t.rstrip(".?! "), lambda t: "\n".join(re.findall(r".{1,60}(?:\s|$)", t)) or t,
        lambda t: t.replace("'", "’").replace('"', "“"), lambda t: f"  {t}\n\n", lambda t: t.replace(", ", " , "), lambda t: t.replace("-", "−"), lambda t: t.replace(". ", ".\n\n"),
    ]  # fmt: skip
    for way in rng.sample(ways, 2):
        text = way(text)
    return text


def relatexed(text: str, rng: random.Random) -> str | None:
    if "$" not in text and "\\" not in text and "^" not in text:
        return None
    ways = [
        (r"\$([^$]+)\$", r"\\(\1\\)"), (r"\$([^$]+)\$", r"$ \1 $"), (r"\$([^$]+)\$", r"\1"), (r"\\frac\{(\w+)\}\{(\w+)\}", r"\1/\2"), (r"\\d?frac", r"\\dfrac"), (r"\^(\d)(?!\d)", r"^{\1}"), (r"\\cdot", r"\\times"),
        (r"\\leq?(?![a-z])", "≤"), (r"\\geq?(?![a-z])", "≥"), (r"\\pi", "π"), (r"\^2(?!\d)", "²"), (r"\^3(?!\d)", "³"), (r"\\left|\\right", ""), (r"\\", r"\\\\"), (r"\\sqrt\{(\w+)\}", r"√\1"),
    ]  # fmt: skip
    for pattern, new in rng.sample(ways, 4):
        text = re.sub(pattern, new, text)
    return text


def misspelt(text: str, rng: random.Random) -> str | None:
    found = _plain_words(text, 5)
    if len(found) < 4:
        return None
    for match in sorted(
        rng.sample(found, min(rng.randint(1, 4), len(found))), key=lambda m: -m.start()
    ):
        word = match.group()
        at = rng.randrange(1, len(word) - 1)
        bad = rng.choice(
            (
                word[:at] + word[at + 1 :],
                word[:at] + word[at] + word[at:],
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
                word[:at] + rng.choice("etaoin") + word[at + 1 :],
            )
        )
        text = text[: match.start()] + bad + text[match.end() :]
    return text


def wrapped(text: str, rng: random.Random) -> str | None:
    return rng.choice((*PREFIXES, "")) + text + rng.choice((*SUFFIXES, "", ""))


def renumbered(text: str, rng: random.Random) -> str | None:
    """Numbers written otherwise: words for digits, thousands commas, percent and dollars spelt out."""

    def other(match: re.Match[str]) -> str:
        plain = match.group().replace(",", "")
        if plain.isdigit() and int(plain) <= 20 and rng.random() < 0.6:
            return WORDED[int(plain)]
        return (
            f"{int(plain):,}"
            if plain.isdigit() and int(plain) > 2100 and "," not in match.group()
            else plain
        )

    new = NUMBER.sub(other, text) if "$" not in text or "\\" not in text else text
    new = re.sub(r"(\d)%", r"\1 percent", new) if rng.random() < 0.5 else new
    new = (
        re.sub(r"\$(\d[\d,.]*\d|\d)(?![\d$^\\=+])", r"\1 dollars", new)
        if "\\" not in new and new.count("$") % 2
        else new
    )
    return new if new != text else None


def synonyms(text: str, rng: random.Random, most: int = 4) -> str | None:
    new, done = text, 0
    for group in rng.sample(SYNONYMS, len(SYNONYMS)):
        for word in group:
            found = re.search(rf"\b{word}\b", new)
            if found and done < most:
                new = (
                    new[: found.start()]
                    + rng.choice([w for w in group if w != word])
                    + new[found.end() :]
                )
                done += 1
                break
    return new if done else None


def reopened(text: str, rng: random.Random) -> str | None:
    for pattern, ways in rng.sample(OPENINGS, len(OPENINGS)):
        if re.search(pattern, text):
            return re.sub(pattern, rng.choice(ways), text, count=1)
    return None


def moved(text: str, rng: random.Random) -> str | None:
    """The sentence that asks put first, or two facts exchanged."""
    parts = SENTENCE.split(text)
    if len(parts) < 3 or len(parts) > 8:
        return None
    if rng.random() < 0.5:
        return " ".join([parts[-1], *parts[:-1]])
    at = rng.randrange(len(parts) - 2)
    parts[at], parts[at + 1] = parts[at + 1], parts[at]
    return " ".join(parts)


def cut(text: str, _: random.Random) -> str | None:
    """Without its passage or the first sentences, where these hold no number."""
    parts = SENTENCE.split(text)
    for keep in range(1, len(parts)):
        if len(" ".join(parts[-keep:]).split()) >= 10:
            head = " ".join(parts[:-keep])
            return (
                None
                if re.search(r"\d", head) or not head or keep == len(parts)
                else " ".join(parts[-keep:])
            )
    return None


def within(text: str, rng: random.Random) -> str | None:
    """Somewhere inside a long text about other things."""
    talk = [
        f"{rng.choice(CLAUSES)} {rng.choice(ASKS)}".format(n=rng.randint(2, 99))
        for _ in range(rng.randint(6, 14))
    ]
    talk.insert(rng.randrange(len(talk)), text)
    return "\n".join(talk) if len(text.split()) < 120 else None


def renamed(text: str, rng: random.Random) -> str | None:
    """Other people in a sum; the numbers stay, and with them what is asked."""
    names = set(
        re.findall(
            r"(?:^|[.?!] )([A-Z][a-z]{2,})(?= (?:has|had|is|was|buys|bought|wants|went|makes|made|and|gets|sold|goes|needs|can|took|takes|earns)\b)",
            text,
        )
    )
    if not names or len(set(NUMBER.findall(text))) < 2 or "\\" in text:
        return None
    for name, new in zip(sorted(names), rng.sample(PEOPLE, len(PEOPLE)), strict=False):
        text = re.sub(rf"\b{name}\b", new, text)
    return text


def reworded(text: str, rng: random.Random) -> str | None:
    """Synonyms, another opening, clauses moved, and a part of the words said otherwise."""
    text = synonyms(text, rng, 8) or text
    text = reopened(text, rng) or text
    text = (moved(text, rng) if rng.random() < 0.5 else None) or text
    found = _plain_words(text, 4)
    if len(found) < 5:
        return None
    share = rng.uniform(0.05, 0.3)
    spare = [w for group in SYNONYMS for w in group]
    for match in sorted(
        rng.sample(found, max(1, int(share * len(found)))), key=lambda m: -m.start()
    ):
        text = text[: match.start()] + rng.choice(spare) + text[match.end() :]
    words = text.split()
    for _ in range(rng.randint(0, max(1, len(words) // 8))):
        at = rng.randrange(len(words))
        if words[at].lower() in ARTICLES:
            words[at] = rng.choice(("the", "in", "of", "for", "this", "by", "on"))
    return " ".join(words)


# ── another question ─────────────────────────────────────────────────────────────────────────────


def _other_number(number: str, rng: random.Random) -> str:
    plain = number.replace(",", "")
    if "." in plain:
        return f"{float(plain) + rng.choice((0.5, 1, 1.25, 2.5, 10)):g}"
    value = int(plain[:15])
    new = rng.choice(
        (
            value + rng.randint(1, 9),
            value * rng.choice((2, 3, 10)),
            max(value - rng.randint(1, 5), 0),
            value + 100,
        )
    )
    return str(new if new != value else value + 1)


def one_number(text: str, rng: random.Random) -> str | None:
    found = list(NUMBER.finditer(text))
    if not found:
        return None
    match = rng.choice(found)
    return text[: match.start()] + _other_number(match.group(), rng) + text[match.end() :]


def all_numbers(text: str, rng: random.Random) -> str | None:
    return (
        NUMBER.sub(lambda m: _other_number(m.group(), rng), text)
        if len(NUMBER.findall(text)) > 1
        else None
    )


def numbers_exchanged(text: str, rng: random.Random) -> str | None:
    found = list(NUMBER.finditer(text))
    pairs = [
        (a, b) for a in found for b in found if a.start() < b.start() and a.group() != b.group()
    ]
    if not pairs:
        return None
    one, two = rng.choice(pairs)
    return _exchanged(text, one, two)


def vague(text: str, rng: random.Random) -> str | None:
    """A number taken away, so that nothing can be worked out."""
    found = [m for m in NUMBER.finditer(text) if "$" not in text or "\\" not in text]
    if not found:
        return None
    match = rng.choice(found)
    if rng.random() < 0.3:
        parts = SENTENCE.split(text)
        kept = [p for p in parts[:-1] if match.group() not in p] + parts[-1:]
        return " ".join(kept) if 1 < len(kept) < len(parts) else None
    start = match.start() - (text[: match.start()].endswith("$"))
    return text[:start] + rng.choice(SOME) + text[match.end() :]


def negated(text: str, rng: random.Random) -> str | None:
    ways = [
        (r"\b(is|are|was|were|can|does|do|did|would|will|should|may|could)\b(?! not)", r"\1 not"),
        (r" not\b", ""),
        (r"\bWhich\b(.*)\?", r"Which\1, except one?"),
        (r"\bno\b", "any"),
        (r"\bnever\b", "always"),
        (r"\b(has|have|had)\b", r"\1 no"),
        (r"\bwith\b", "without"),
        (r"n't\b", ""),
    ]
    for pattern, new in rng.sample(ways, len(ways)):
        if re.search(pattern, text):
            return _replace_once(text, pattern, new, rng)
    return None


def opposite(text: str, rng: random.Random) -> str | None:
    pairs = [(a, b) for pair in sorted(map(sorted, OPPOSITES)) for a, b in (pair, pair[::-1])]
    found = [(a, b) for a, b in pairs if re.search(rf"\b{a}\b", text)]
    if not found:
        return None
    one, two = rng.choice(found)
    return _replace_once(text, rf"\b{one}\b", two, rng)


def units(text: str, rng: random.Random) -> str | None:
    pairs = [p for pair in UNIT_SWAPS for p in (pair, pair[::-1])]
    found = [
        (a, b)
        for a, b in pairs
        if re.search(rf"(?<=\d ){a}\b|\b{a}\b", text)
        and not re.search(rf"\b{b}\b", text)
        and len(a) > 2
    ]
    if not found:
        return None
    one, two = rng.choice(found)
    return (
        re.sub(rf"\b{one}\b", two, text)
        if rng.random() < 0.5
        else _replace_once(text, rf"\b{one}\b", two, rng)
    )


def operators(text: str, rng: random.Random) -> str | None:
    for pattern, new in rng.sample(OPERATOR_SWAPS, len(OPERATOR_SWAPS)):
        if re.search(pattern, text):
            return _replace_once(text, pattern, new, rng)
    return None


def quantifiers(text: str, rng: random.Random) -> str | None:
    for pattern, new in rng.sample(QUANTIFIER_SWAPS, len(QUANTIFIER_SWAPS)):
        if re.search(pattern, text):
            return _replace_once(text, pattern, new, rng)
    return None


def exchanged(text: str, rng: random.Random) -> str | None:
    """Two words of one sentence exchanged, as in "A of B" and "B of A"."""
    names = list(re.finditer(r"(?<=[a-z,;] )[A-Z][a-z]{2,}\b", text))
    found = names if len({m.group() for m in names}) > 1 else _plain_words(text, 5)
    pairs = [
        (a, b)
        for a in found
        for b in found
        if 3 < b.start() - a.end() < 45
        and a.group() != b.group()
        and a.group()[:4] != b.group()[:4]
        and not re.search(r"^,? (?:and|or) $|[.?!]", text[a.end() : b.start()])
    ]
    if not pairs:
        return None
    one, two = rng.choice(pairs)
    return _exchanged(text, one, two)


def letters_exchanged(text: str, rng: random.Random) -> str | None:
    found = (
        sorted(set(re.findall(r"(?<![\\\w])[b-hj-z](?!\w)", re.sub(r"\\[a-z]+", "", text))))
        if "$" in text
        else []
    )
    if len(found) < 2:
        return None
    one, two = rng.sample(found, 2)
    match = re.search(rf"(?<![\\\w]){one}(?!\w)", text)
    return text[: match.start()] + two + text[match.end() :] if match else None


def other_name(text: str, rng: random.Random) -> str | None:
    """Another place or person in a question that has no sums."""
    names = sorted(set(re.findall(r"(?<=[a-z,;] )[A-Z][a-z]{3,}\b", text)))
    if not names or len(NUMBER.findall(text)) > 1:
        return None
    return re.sub(rf"\b{rng.choice(names)}\b", rng.choice(PLACES), text)


def clause_added(text: str, rng: random.Random) -> str | None:
    parts = SENTENCE.split(text)
    if len(parts) < 2 or not NUMBER.search(text):
        return None
    clause = rng.choice(CLAUSES).format(n=rng.choice((2, 3, 5, 10, 15, 20, 50)))
    return " ".join([*parts[:-1], clause, parts[-1]])


def other_ask(text: str, rng: random.Random) -> str | None:
    parts = SENTENCE.split(text)
    if len(parts) < 2 or not NUMBER.search(" ".join(parts[:-1])):
        return None
    return " ".join([*parts[:-1], rng.choice(ASKS).format(n=rng.randint(20, 400))])


SAME: dict[str, tuple[str, Edit]] = {
    "restyled": ("duplicate", restyled), "relatexed": ("duplicate", relatexed), "misspelt": ("duplicate", misspelt), "wrapped": ("duplicate", wrapped),
    "renumbered": ("duplicate", renumbered), "synonyms": ("duplicate", synonyms), "reopened": ("duplicate", reopened), "moved": ("duplicate", moved),
    "within": ("duplicate", within), "cut": ("gray_area", cut), "renamed": ("gray_area", renamed), "reworded": ("gray_area", reworded),
}  # fmt: skip
OTHER: dict[str, Edit] = {
    "one_number": one_number, "all_numbers": all_numbers, "numbers_exchanged": numbers_exchanged, "vague": vague, "negated": negated, "opposite": opposite,
    "units": units, "operators": operators, "quantifiers": quantifiers, "exchanged": exchanged, "letters_exchanged": letters_exchanged, "other_name": other_name,
    "clause_added": clause_added, "other_ask": other_ask,
}  # fmt: skip
