"""SPDX expressions: whether what the recipe allows covers them, and what they ask of who passes on."""

import re
from collections.abc import Collection, Iterator
from typing import Literal, get_args

# SPDX identifiers (https://spdx.org/licenses) of licences that leave adaptations free to be passed on.
# What is in none of the lists (unknown, other, LicenseRef-…, …-ND-…) permits nothing by itself.
_PERMISSIVE = """
0BSD AFL-3.0 Apache-2.0 Artistic-2.0 BSD-2-Clause BSD-3-Clause BSL-1.0 ISC MIT MIT-0 MS-PL
NCSA PSF-2.0 Python-2.0 Unlicense WTFPL Zlib
CC0-1.0 PDDL-1.0 CC-PDDC ODC-By-1.0 CDLA-Permissive-1.0 CDLA-Permissive-2.0
CC-BY-2.0 CC-BY-2.5 CC-BY-3.0 CC-BY-4.0
"""
_SHARE_ALIKE = """
CC-BY-SA-2.0 CC-BY-SA-2.5 CC-BY-SA-3.0 CC-BY-SA-4.0 ODbL-1.0 CDLA-Sharing-1.0
GFDL-1.3-only GFDL-1.3-or-later MPL-2.0 EPL-2.0 EUPL-1.2
LGPL-2.1 LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0 LGPL-3.0-only LGPL-3.0-or-later
GPL-2.0 GPL-2.0-only GPL-2.0-or-later GPL-3.0 GPL-3.0-only GPL-3.0-or-later
AGPL-3.0 AGPL-3.0-only AGPL-3.0-or-later
"""
_NON_COMMERCIAL = "CC-BY-NC-2.0 CC-BY-NC-2.5 CC-BY-NC-3.0 CC-BY-NC-4.0"
_NON_COMMERCIAL_SHARE_ALIKE = "CC-BY-NC-SA-2.0 CC-BY-NC-SA-2.5 CC-BY-NC-SA-3.0 CC-BY-NC-SA-4.0"
COMMERCIAL = frozenset([*_PERMISSIVE.split(), *_SHARE_ALIKE.split()])
_FREE_OF_SHARE_ALIKE = frozenset([*_PERMISSIVE.split(), *_NON_COMMERCIAL.split()])
PASSED_ON = COMMERCIAL | _FREE_OF_SHARE_ALIKE | frozenset(_NON_COMMERCIAL_SHARE_ALIKE.split())

Term = Literal["non-commercial", "no derivatives", "own terms", "unknown", "share-alike"]
TERMS: tuple[Term, ...] = get_args(Term)  # the most restrictive first

_FORBIDS: dict[Term, str] = {
    "no derivatives": "forbids passing on what was adapted, and a curated set is adapted",
    "own terms": "is no standard licence; whether its terms allow passing on is for a person to read",
    "unknown": "names no licence that allows passing on, and without one all rights are reserved",
}
_NAMES_NON_COMMERCIAL = re.compile(r"-NC\b|non-?commercial", re.IGNORECASE)
_NAMES_NO_DERIVATIVES = re.compile(r"-ND\b|no-?deriv", re.IGNORECASE)
_TOKEN = re.compile(r"[()]|[^\s()]+")


def permits(expression: str, allowed: Collection[str]) -> bool:
    """Whether the allowed licences cover an SPDX expression.

    `A AND B` needs both, `A OR B` one of them; AND binds tighter, parentheses group. An exception
    (`A WITH e`) only adds rights and "or later" (`A+`) only choices, so each counts as its licence.
    Identifiers match in any case, whole. An expression that cannot be read permits nothing.
    """
    known = {name.casefold() for name in allowed}
    tokens = _Tokens(_TOKEN.findall(expression))
    try:
        return _any_of(tokens, known) and tokens.peek == ""
    except (ValueError, RecursionError):
        return False


def terms(expression: str) -> tuple[Term, ...]:
    """What an SPDX expression asks beyond notices, the most restrictive first; () for nothing.

    Of `A OR B` only what neither is free of. "unknown" also stands for an expression that cannot be
    read; a non-standard licence is non-commercial where its name says so.
    """
    found: set[Term] = set()
    if not permits(expression, COMMERCIAL) and _NAMES_NON_COMMERCIAL.search(expression):
        found.add("non-commercial")
    if not permits(expression, PASSED_ON):
        found.add(_closed(expression))
    elif not permits(expression, _FREE_OF_SHARE_ALIKE):
        found.add("share-alike")
    return tuple(term for term in TERMS if term in found)


def _closed(expression: str) -> Term:
    if _NAMES_NO_DERIVATIVES.search(expression):
        return "no derivatives"
    return "own terms" if "licenseref-" in expression.casefold() else "unknown"


def forbids(expression: str) -> str | None:
    """Why questions under this licence are not passed on, as a predicate of it; None where they may be.

    Non-commercial licences allow it.
    """
    return next((_FORBIDS[term] for term in terms(expression) if term in _FORBIDS), None)


class _Tokens:
    """The tokens of an expression, taken one by one; "" after the last."""

    def __init__(self, tokens: list[str]) -> None:
        self._rest: Iterator[str] = iter([*tokens, ""])
        self.peek = next(self._rest)

    def take(self) -> str:
        token, self.peek = self.peek, next(self._rest, "")
        return token


def _any_of(tokens: _Tokens, known: set[str]) -> bool:
    found = _all_of(tokens, known)
    while tokens.peek.upper() == "OR":
        tokens.take()
        found |= _all_of(tokens, known)
    return found


def _all_of(tokens: _Tokens, known: set[str]) -> bool:
    found = _one(tokens, known)
    while tokens.peek.upper() == "AND":
        tokens.take()
        found &= _one(tokens, known)
    return found


def _one(tokens: _Tokens, known: set[str]) -> bool:
    token = tokens.take()
    if token == "(":
        found = _any_of(tokens, known)
        if tokens.take() != ")":
            raise ValueError("a parenthesis is not closed")
        return found
    if token in ("", ")") or token.upper() in ("AND", "OR", "WITH"):
        raise ValueError(f"a licence is missing before {token!r}")
    if tokens.peek.upper() == "WITH":
        tokens.take()
        tokens.take()
    return token.casefold().removesuffix("+") in known
