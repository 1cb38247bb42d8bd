"""Texts from outside, made safe to print."""

import re
import unicodedata


def printable(text: str) -> str:
    """Without control characters: a text from outside must not steer the terminal.

    Escape sequences begin with one (ESC, or CSI among the C1 controls), so none is left whole; nor
    are lone surrogates, which no terminal's encoding takes. Lines and tabs stay.
    """
    return "".join(c if c in "\n\t" or _is_safe(c) else "\ufffd" for c in text)


def markdown_text(text: str) -> str:
    """On one line, with everything escaped that breaks a Markdown table or becomes markup."""
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"([\\`|\[\]])", r"\\\1", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _is_safe(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cs")
