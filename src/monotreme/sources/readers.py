"""One pure function a source: a raw row → the fields of a question.

A reader raises ValueError, with a predicate of the row ("has no column 'problem' (…)"), when the row
is not shaped as its source's rows are. A row that is well formed but makes no question of ours comes
back with `drop`, the code of the reason. What becomes what: docs/sources.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any

from monotreme.records import digest
from monotreme.rows import Row, cell, mistyped


@dataclass(frozen=True, slots=True)
class Fields:
    """What a row says; `drop` is the code of why it cannot be kept, "" when it can."""

    instruction: str
    output: str
    input: str = ""
    subject: str = ""
    drop: str = ""


# ── columns ──────────────────────────────────────────────────────────────────────────────────────


def _text(row: Row, *names: str) -> str:
    return _as_text(cell(row, *names), names[0])


def _text_or_none(row: Row, *names: str) -> str:
    """Like `_text`, but "" when the row has no such column."""
    return _text(row, *names) if any(name in row for name in names) else ""


def _texts(row: Row, *names: str) -> list[str]:
    values = cell(row, *names)
    if not isinstance(values, list):
        raise mistyped(values, names[0], "a list")
    return [_as_text(value, names[0]) for value in values]


def _object(row: Row, name: str) -> Row:
    value = cell(row, name)
    if not isinstance(value, dict):
        raise mistyped(value, name, "an object")
    return value


def _objects(row: Row, name: str) -> list[Row]:
    """A column's list of objects; a missing column or null is an empty list."""
    values = row.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise mistyped(values, name, "a list of objects")
    return values


def _as_text(value: Any, name: str) -> str:
    """A text with \\n line ends and bare margins; a number or a list of numbers in Python's form."""
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        return str(value)
    if not isinstance(value, str | int | float):
        raise mistyped(value, name, "a text")
    return str(value).replace("\r\n", "\n").strip()


def lettered(options: list[str]) -> str:
    """Options a line each, as "A: …"."""
    if not 2 <= len(options) <= len(ascii_uppercase):
        raise ValueError(f"has {len(options)} options, not 2 to {len(ascii_uppercase)}")
    return "\n".join(
        f"{letter}: {option}" for letter, option in zip(ascii_uppercase, options, strict=False)
    )


def choose(num_options: int) -> str:
    """The released set's order to choose: "Choose A, B, C or D as your solution."."""
    *letters, last = list(ascii_uppercase[:num_options])
    return f"Choose {', '.join(letters)} or {last} as your solution."


# ── mathematics ──────────────────────────────────────────────────────────────────────────────────

_BRACES = re.compile(r"(?P<boxed>\\boxed\s*\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)


def unbox(text: str) -> str:
    r"""Replace each \boxed{…} by what stands in it, with balanced braces; one left open stays."""
    opened: list[re.Match[str]] = []
    cuts: list[tuple[int, int]] = []
    for token in _BRACES.finditer(text):
        if token["boxed"] or token["open"]:
            opened.append(token)
        elif token["close"] and opened and (opening := opened.pop())["boxed"]:
            cuts += [opening.span(), token.span()]
    for start, end in sorted(cuts, reverse=True):
        text = text[:start] + text[end:]
    return text


def read_math(row: Row) -> Fields:
    """problem → instruction, solution (or, where solutions are not given, answer) → output."""
    solution = unbox(_text(row, "solution", "answer"))
    return Fields(_text(row, "problem"), solution, subject=_text_or_none(row, "type"))


_ANSWER = "# Answer"


def read_prm800k(row: Row, *, seed: int) -> Fields:
    """The right steps of a finished solution, joined; its final answer must be the true one."""
    question, label = _object(row, "question"), _object(row, "label")
    fields = Fields(_text(question, "problem"), "")
    if label.get("finish_reason") != "solution":
        return replace(fields, drop="unfinished")
    steps = [
        _right_step(step, digest(str(seed), fields.instruction, str(number)))
        for number, step in enumerate(_objects(label, "steps"))
    ]
    worked, mark, answer = "\n".join(step for step in steps if step).rpartition(_ANSWER)
    worked, answer = worked.strip(), answer.strip()
    if not mark:
        return replace(fields, output=answer, drop="no_solution")
    # The mark is the labellers' tool, not part of a solution; the answer itself is never lost.
    fields = replace(fields, output=worked if answer in worked else f"{worked}\n{answer}".strip())
    right = answer == _text(question, "ground_truth_answer")
    return fields if right else replace(fields, drop="wrong_answer")


def _right_step(step: Row, draw: str) -> str:
    """A step's text that is rated +1: the one the next step goes on from, else another one.

    Of several others those with the final answer come first; `draw`, a hex digest, picks one.
    """
    completions, human = _objects(step, "completions"), step.get("human_completion")
    chosen = step.get("chosen_completion")
    followed = completions[chosen : chosen + 1] if isinstance(chosen, int) and chosen >= 0 else []
    for group in (followed, completions, [human] if isinstance(human, dict) else []):
        right = [_text(completion, "text") for completion in group if completion.get("rating") == 1]
        right = [text for text in right if _ANSWER in text] or right
        if right:
            return right[int(draw, 16) % len(right)]
    return ""


def read_theoremqa(row: Row, *, theorems: Mapping[str, str]) -> Fields:
    """Question and the theorem's definition → instruction, Answer → output.

    Args:
        theorems: definition by `theorem_key`; older Hub versions have it in `theorem_def` instead.
    """
    definition = _text_or_none(row, "theorem_def")
    if not definition:
        name = _text(row, "theorem")
        definition = theorems.get(theorem_key(name), "")
        if not definition:
            raise ValueError(f"has no definition of {name!r} (all_theorems.json lies beside it?)")
    instruction = f"{_text(row, 'Question')}\nRelevant Theorem: {definition}"
    return Fields(instruction, _text(row, "Answer"), subject=_text_or_none(row, "subfield"))


def theorem_key(name: str) -> str:
    """Letters and digits of a theorem's name in lower case: the spellings differ in the rest."""
    return "".join(character for character in name.lower() if character.isalnum())


# ── science ──────────────────────────────────────────────────────────────────────────────────────

# Words of a question that cannot be answered without the text it refers to.
_REFERS = re.compile(
    r"\b(?:based on|according to|look at|read the|use the (?:evidence|information|text|passage)"
    r"|(?:information|evidence|text|passage) (?:\w+ ){0,3}supports?)\b",
    re.IGNORECASE,
)
_LECTURE_WORDS = 400  # paper, section 2.1: longer lectures are no input


def read_scienceqa(row: Row) -> Fields:
    """question and lettered choices → instruction, hint and lecture → input, solution → output."""
    question = _text(row, "question")
    lecture = _text_or_none(row, "lecture")
    wanted = _REFERS.search(question) and len(lecture.split()) <= _LECTURE_WORDS
    texts = [_text_or_none(row, "hint"), lecture if wanted else ""]
    return Fields(
        instruction=f"{question}\n{lettered(_texts(row, 'choices'))}",
        input="\n".join(text for text in texts if text),
        output=_text(row, "solution"),
        subject=_text_or_none(row, "topic"),
    )


def read_scibench(row: Row) -> Fields:
    """problem_text → instruction; solution, else answer_number with its unit → output."""
    number = f"{_text(row, 'answer_number')} {_text_or_none(row, 'unit')}".strip()
    return Fields(
        instruction=_text(row, "problem_text"),
        output=_text_or_none(row, "solution") or number,
        subject=_text_or_none(row, "source"),
    )


def read_openbookqa(row: Row) -> Fields:
    """question_stem → instruction, lettered choices → input, the right one's text → output.

    The Hub's columns, or those of the original files (question{stem, choices[{text, label}]}).
    """
    if "question_stem" in row:
        stem, choices = _text(row, "question_stem"), _object(row, "choices")
        texts, labels = _texts(choices, "text"), _texts(choices, "label")
    else:
        question = _object(row, "question")
        stem, options = _text(question, "stem"), _objects(question, "choices")
        texts = [_text(option, "text") for option in options]
        labels = [_text(option, "label") for option in options]
    key = _text(row, "answerKey")
    if len(labels) != len(texts):
        raise ValueError(f"has {len(texts)} choices and {len(labels)} labels")
    right = dict(zip(labels, texts, strict=True))
    if key and key not in right:
        raise ValueError(f"has answerKey {key!r}, which is none of {', '.join(labels)}")
    return Fields(stem, right.get(key, ""), input=lettered(texts))


_STATEMENT = ("Problem_Statement", "Problem Statement", "problemStatement")
_CANDIDATES = ("Answer_Candidates", "Answer Candidates", "answerCandidates")
_FINAL_ANSWER = ("Final_Answer", "Final Answer", "finalAnswer")


def read_arb(row: Row) -> Fields:
    """Problem statement and lettered choices → instruction; solution, else final answer → output.

    Present and older names of the columns; law and MCAT problems have choices.
    """
    instruction, ask = _text(row, *_STATEMENT), ""
    filled = [name for name in _CANDIDATES if row.get(name)]
    if filled:
        options = _texts(row, *filled)
        instruction, ask = f"{instruction}\n{lettered(options)}", choose(len(options))
    solution = _text_or_none(row, "Solution", "solution") or _text_or_none(row, *_FINAL_ANSWER)
    subject = _text_or_none(row, "Topic", "subject", "Subject")
    return Fields(instruction, solution, input=ask, subject=subject)


# ── logic, code, conversation ────────────────────────────────────────────────────────────────────


def read_reclor(row: Row) -> Fields:
    """context, question and lettered choices → instruction, the right letter → output."""
    options = _texts(row, "answers")
    label = _text_or_none(row, "label")
    if label and (not label.isdecimal() or int(label) >= len(options)):
        raise ValueError(f"has label {label!r}, which is none of its {len(options)} answers")
    return Fields(
        f"{_text(row, 'context')} {_text(row, 'question')}\n{lettered(options)}",
        ascii_uppercase[int(label)] if label else "",
        input=choose(len(options)),
    )


def read_leetcode(row: Row) -> Fields:
    """prompt → instruction, code → output."""
    return Fields(_text(row, "prompt"), _text(row, "full_code", "code"))


def read_tigerbot(row: Row) -> Fields:
    """input, where the task stands → instruction; only where the answer is asked for in Python."""
    fields = Fields(_text(row, "input"), _text(row, "output"))
    is_python = "python" in _text(row, "instruction").lower()
    return fields if is_python else replace(fields, drop="not_python")


def read_airoboros(row: Row) -> Fields:
    """instruction → instruction, response → output."""
    subject = _text_or_none(row, "category")
    return Fields(_text(row, "instruction"), _text(row, "response"), subject=subject)


def read_guanaco(row: Row) -> Fields:
    """The first turn of a conversation, when it is in English."""
    _, human, rest = _text(row, "text").partition("### Human:")
    if not human:
        raise ValueError("has no '### Human:' in its text")
    instruction, _, reply = rest.partition("### Assistant:")
    answer = re.split("### (?:Human|Assistant):", reply)[0]
    fields = Fields(instruction.strip(), answer.strip())
    return fields if is_english(f"{instruction} {answer}") else replace(fields, drop="not_english")


_ENGLISH = re.compile(
    r"\b(?:the|of|and|to|is|that|it|for|with|you|are|this|what|how|from|by|can|was|have|be|not|your"
    r"|which|i|my|write|would|there|do|does|if|should|who|me|we|they|when|where|why|please|at|or|so"
    r")\b"
)
# Spanish, Portuguese, Catalan, French, Italian, German and Dutch; none of them is an English word.
_FOREIGN = re.compile(
    r"\b(?:el|la|los|las|una|que|qué|por|para|del|cómo|como|cuál|es|en|con|y|su|mi|uma|não|os|das|dos"
    r"|em|você|els|amb|què|une|les|des|est|et|je|vous|quel|il|che|di|della|sono|der|und|ein|eine|ich"
    r"|wie|für|ist|het|een|van|de)\b"  # codespell:ignore ist
)
_ENGLISH_LETTERS = 0.95


def is_english(text: str) -> bool:
    """Whether a text reads as English: a rule of two counts.

    At least 95 % of its letters are a–z, and it has at least as many of the commonest English
    function words as of those of seven other European languages.
    """
    letters = [character for character in text if character.isalpha()]
    ascii_letters = sum(character.isascii() for character in letters)
    english, foreign = (len(words.findall(text.lower())) for words in (_ENGLISH, _FOREIGN))
    return ascii_letters >= _ENGLISH_LETTERS * len(letters) and english >= foreign


# ── a source of the user's own ───────────────────────────────────────────────────────────────────


def read_columns(row: Row, *, columns: Mapping[str, str]) -> Fields:
    """Columns named instruction, input, output and subject, or as `columns` maps them.

    instruction and output must be there and hold a text; input and subject only where mapped.
    """
    required = {"instruction", "output", *columns}
    read = {
        field: (_text if field in required else _text_or_none)(row, columns.get(field, field))
        for field in COLUMNS
    }
    for field in ("instruction", "output"):
        if not read[field]:
            raise ValueError(f"has no {field} (column {columns.get(field, field)!r} is empty)")
    return Fields(**read)


COLUMNS = ("instruction", "input", "output", "subject")
