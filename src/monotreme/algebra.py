"""Whether two short formulas have one value: \\frac{\\sqrt{3}}{2} and sqrt(3)/2, (x+1)^2 and x^2+2x+1.

Both are evaluated at a few fixed points; two analytic formulas that agree there agree everywhere but
by a coincidence. That takes microseconds, linear in the text and in floating-point numbers, so that no
hostile formula can cost time or memory, and nothing is ever executed. What is no formula has no value.
"""

import cmath
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

LONGEST = 200  # characters
DEEPEST = 40  # brackets within brackets
TOLERANCE = 1e-9  # relative; of double precision's 1e-16 some is lost on the way
# Three sets of values for variables: positive, so that √(x²) is x, and on no grid, on which sums meet.
_DRAWN = random.Random(0)
_POINTS = tuple(
    {letter: _DRAWN.uniform(0.35, 2.4) for letter in "abcdfghjklmnopqrstuvwxyz"} for _ in range(3)
)
_CONSTANTS: Mapping[str, complex] = {"pi": math.pi, "e": math.e, "i": 1j}
_FUNCTIONS: Mapping[str, Callable[[complex], complex]] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "ln": cmath.log, "log": cmath.log10,
    "exp": cmath.exp, "arcsin": cmath.asin, "arccos": cmath.acos, "arctan": cmath.atan,
    "sqrt": cmath.sqrt, "cot": lambda x: 1 / cmath.tan(x), "sec": lambda x: 1 / cmath.cos(x),
    "csc": lambda x: 1 / cmath.sin(x),
}  # fmt: skip
_TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+|[a-z]+|[-+*/^()\[\]{}])")
_TELLS = re.compile(  # what a formula has and a word has not
    rf"[-+*/^=\\]|\d\s*[a-z]|\b(?:frac|pi|{'|'.join(_FUNCTIONS)})\b"
)
_NAMED = re.compile(r"^([a-z])(?: ?\([a-z]\))? ?= ?(?=[^=]+$)")
_RANGE = re.compile(r"\d+(?:\.\d+)? ?- ?\d+(?:\.\d+)?")  # years, scores: 4-6 is not -2
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@lru_cache(maxsize=4096)
def same_value(one: str, other: str) -> bool:
    """Whether both are formulas of one value, or tuples or intervals of such.

    Args:
        one, other: normalised (`wording.normalize`). "x = 5" is read as 5.
    """
    if max(len(one), len(other)) > LONGEST or not (_TELLS.search(one) or _TELLS.search(other)):
        return False
    if _RANGE.fullmatch(one) or _RANGE.fullmatch(other) or _names_differ(one, other):
        return False
    ours, theirs = _parts(_NAMED.sub("", one)), _parts(_NAMED.sub("", other))
    if len(ours) != len(theirs) or (len(ours) > 1 and one[0] + one[-1] != other[0] + other[-1]):
        return False
    return all(_agree(left, right) for left, right in zip(ours, theirs, strict=True))


def is_formula(text: str) -> bool:
    """Whether a normalised text is a formula, or a tuple or an interval of such: 2x, (1, -1)."""
    if len(text) > LONGEST:
        return False
    try:
        for part in _parts(_NAMED.sub("", text)):
            value(part, _POINTS[0])
    except (ValueError, ArithmeticError):
        return False
    return True


def _names_differ(one: str, other: str) -> bool:
    """x = 5 is 5 but not y = 5."""
    ours, theirs = _NAMED.match(one), _NAMED.match(other)
    return bool(ours and theirs and ours[1] != theirs[1])


def _parts(text: str) -> list[str]:
    """The members of a tuple or an interval; a single formula is its only one."""
    text = text.strip()
    inner = text[1:-1] if text[:1] in ("(", "[") and text[-1:] in (")", "]") else ""
    members, depth = [""], 0
    for sign in inner:
        depth += (sign in "([{") - (sign in ")]}")
        if depth < 0:
            return [text]
        if sign == "," and not depth:
            members.append("")
        else:
            members[-1] += sign
    return members if len(members) > 1 else [text]


def _agree(one: str, other: str) -> bool:
    try:
        return all(_close(value(one, point), value(other, point)) for point in _POINTS)
    except (ValueError, ArithmeticError):
        return False


def _close(one: complex, other: complex) -> bool:
    if not (cmath.isfinite(one) and cmath.isfinite(other)):
        raise ValueError("has no finite value here")
    return cmath.isclose(one, other, rel_tol=TOLERANCE)  # absolute, 10^-19 would be 10^-31


def value(formula: str, point: Mapping[str, float]) -> complex:
    """A formula's value where its variables have the values of a point.

    Raises:
        ValueError: it is no formula.
        ArithmeticError: it has no value there.
    """
    reader = _Reader(list(_tokens(formula)), point)
    found = reader.sum()
    if reader.rest:
        raise ValueError(f"goes on with {reader.rest[-1]}")
    return found


def _tokens(formula: str) -> Iterator[str]:
    text, place = formula.replace("\\", " ").strip(), 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ValueError(f"has {text[place]!r}")
        yield match[1]
        place = match.end()


class _Reader:
    """Recursive descent that computes as it reads; `rest` is what is not read yet, reversed."""

    def __init__(self, tokens: list[str], point: Mapping[str, float]) -> None:
        self.rest = tokens[::-1]
        self._point = point
        self._depth = 0

    def _next(self) -> str:
        return self.rest[-1] if self.rest else ""

    def _take(self) -> str:
        if not self.rest:
            raise ValueError("ends early")
        return self.rest.pop()

    def sum(self) -> complex:
        total = self._product()
        while self._next() in ("+", "-"):
            total = total + self._product() if self._take() == "+" else total - self._product()
        return total

    def _product(self) -> complex:
        total = self._signed()
        while self._next() and self._next() not in "+-)]}^":
            if self._next() == "/":
                self._take()
                total = total / self._signed()
            elif self._next() == "*":
                self._take()
                total = total * self._signed()
            elif self._next()[0].isdigit():
                raise ValueError("has two numbers side by side")  # 3 1/2 is no product
            else:
                total = total * self._power()
        return total

    def _signed(self) -> complex:
        sign = 1
        while self._next() in ("+", "-"):
            sign = -sign if self._take() == "-" else sign
        return sign * self._power()

    def _power(self) -> complex:
        base = self._atom()
        exponent = self._exponent()
        return base if exponent is None else complex(base) ** exponent

    def _exponent(self) -> complex | None:
        if self._next() != "^":
            return None
        self._take()
        self._deeper()
        exponent = self._signed()
        self._depth -= 1
        return exponent

    def _atom(self) -> complex:
        token = self._take()
        if token[0].isdigit() or token[0] == ".":
            return float(token)
        if token in _CLOSING:
            return self._bracket(token)
        if token == "frac":
            over = self._atom()
            return over / self._atom()
        if token in _FUNCTIONS:
            return self._function(token)
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        if len(token) == 1 and token.isalpha():
            return self._point[token]
        raise ValueError(f"has the word {token!r}")

    def _bracket(self, opening: str) -> complex:
        self._deeper()
        found = self.sum()
        self._depth -= 1
        if self._take() != _CLOSING[opening]:
            raise ValueError("has brackets that do not match")
        return found

    def _function(self, name: str) -> complex:
        """sqrt[3]{x}, sin(x)^2, sin^2 x; without brackets sin 2x is sin(2x)."""
        self._deeper()
        order = self._bracket(self._take()) if name == "sqrt" and self._next() == "[" else None
        exponent = self._exponent()
        found = self._argument()
        found = _FUNCTIONS[name](found) if order is None else complex(found) ** (1 / order)
        self._depth -= 1
        return found if exponent is None else complex(found) ** exponent

    def _argument(self) -> complex:
        if self._next() in _CLOSING:
            return self._atom()
        found = self._power()
        while self._next() in self._point or self._next() in _CONSTANTS:
            found = found * self._power()
        return found

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError(f"has more than {DEEPEST} levels")
