"""What a report is laid out with: tables, pictures, text to copy, and numbers as text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from monotreme.report.facts import Facts


@dataclass(frozen=True)
class Table:
    """Cells as text; the first `num_words` columns are words, the others numbers.

    Attributes:
        folded: words to unfold the table by; "" for one that is always seen.
        texts: whether cells are long texts to read one under the other on a narrow page.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_words: int = 1
    texts: bool = False
    folded: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture: SVG text."""

    svg: str


@dataclass(frozen=True)
class Code:
    """Text to copy."""

    text: str


@dataclass(frozen=True)
class Glance:
    """A few figures to see first: (figure as text, what it is)."""

    figures: Sequence[tuple[str, str]]


Block = str | Table | Figure | Code | Glance  # a plain text is a paragraph
Parts = Iterator[tuple[str, list[Any]]]  # titles, and the blocks under each


def figure(value: float) -> str:
    """A count whole, a measure in four figures."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def share(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.1f} %"


def shares(interval: Sequence[float]) -> str:
    """An interval of shares in percent."""
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def measured(row: Facts, key: str, sign: str = "") -> str:
    """A value ± its standard error, as far as that was measured."""
    error = "" if row["stderr"] is None else f" ± {row['stderr']:.2f}"
    return f"{row[key]:{sign}.2f}{error}"


def interval(row: Facts, sign: str = "+") -> str:
    """Its 95 % interval."""
    return f"{row['low']:{sign}.2f} to {row['high']:{sign}.2f}"


def delta_text(row: Facts) -> str:
    """A difference with its interval."""
    return f"{row['delta']:+.2f} ({interval(row)})"
