"""Which licences a set may hold: SPDX expressions against what the recipe allows."""

import re
from collections.abc import Collection, Iterator

# SPDX identifiers (https://spdx.org/licenses) of licences that forbid no commercial use and leave
# adaptations free to be shared. Some bind: to name the author (BY), to share alike (SA, GPL, ODbL).
# What is not here (unknown, other, LicenseRef-…, …-NC-…, …-ND-…) does not pass as commercial.
_COMMERCIAL = """
0BSD AFL-3.0 Apache-2.0 Artistic-2.0 BSD-2-Clause BSD-3-Clause BSL-1.0 ISC MIT MIT-0 MS-PL
NCSA PSF-2.0 Python-2.0 Unlicense WTFPL Zlib
CC0-1.0 PDDL-1.0 CC-PDDC ODC-By-1.0 CDLA-Permissive-1.0 CDLA-Permissive-2.0
CC-BY-2.0 CC-BY-2.5 CC-BY-3.0 CC-BY-4.0
CC-BY-SA-2.0 CC-BY-SA-2.5 CC-BY-SA-3.0 CC-BY-SA-4.0 ODbL-1.0 CDLA-Sharing-1.0
GFDL-1.3-only GFDL-1.3-or-later MPL-2.0 EPL-2.0 EUPL-1.2
LGPL-2.1 LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0 LGPL-3.0-only LGPL-3.0-or-later
GPL-2.0 GPL-2.0-only GPL-2.0-or-later GPL-3.0 GPL-3.0-only GPL-3.0-or-later
AGPL-3.0 AGPL-3.0-only AGPL-3.0-or-later
"""
COMMERCIAL = frozenset(_COMMERCIAL.split())
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
