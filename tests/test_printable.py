"""No text from outside steers the terminal."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from monotreme.printable import markdown_text, printable


def test_escape_sequences_lose_what_starts_them() -> None:
    assert (
        printable("\x1b[31mred\x9b2J\x07 \r\b\x7f")
        == "\ufffd[31mred\ufffd2J\ufffd \ufffd\ufffd\ufffd"
    )


def test_words_lines_and_tabs_stay() -> None:
    text = "ein\tWort\nüber 水 🦆 [bold]"
    assert printable(text) == text


def test_a_lone_surrogate_can_be_printed() -> None:
    assert printable("\ud800").encode(sys.getdefaultencoding()) == "\ufffd".encode()


@given(st.text())
def test_nothing_left_is_a_control(text: str) -> None:
    assert all(c >= " " and not "\x7f" <= c <= "\x9f" for c in printable(text) if c not in "\n\t")
    assert printable(printable(text)) == printable(text)


def test_markdown_text_is_one_line_that_breaks_no_table() -> None:
    assert markdown_text("a | b\n<i>`c`</i> [d]") == r"a \| b &lt;i&gt;\`c\`&lt;/i&gt; \[d\]"
