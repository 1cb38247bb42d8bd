"""Texts from outside, made safe to print."""

import unicodedata


def printable(text: str) -> str:
    """Without control characters: a text from outside must not steer the terminal.

    Escape sequences begin with one (ESC, or CSI among the C1 controls), so none is left whole; nor
    are lone surrogates, which no terminal's encoding takes. Lines and tabs stay.
    """
    return "".join(c if c in "\n\t" or _is_safe(c) else "\ufffd" for c in text)


def _is_safe(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cs")
