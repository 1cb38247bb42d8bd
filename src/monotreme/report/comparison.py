"""A comparison of two models as tables on a terminal."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from monotreme.printable import printable
from monotreme.recipe.differences import shown

SURE = 0.05  # a corrected p below it is called a difference


def print_comparison(
    found: dict[str, Any], counts: Sequence[str], console: Console | None = None
) -> None:
    """Scores of both and their differences; MMLU's groups, and its subjects that differ.

    Args:
        counts: lines that say how many questions were compared.
    """
    console = console or Console()
    scores = {(row["model"], row["benchmark"]): row for row in found["scores"]}
    several = len(found["questions"]) > 1
    deltas = [row for row in found["deltas"] if several or row["benchmark"] != "mean"]
    for name, side in (("A", "first"), ("B", "second")):
        console.print(f"{name}: {_text(found[side])}", highlight=False, soft_wrap=True)
    if found["settings"]:
        settings = Table("the recipes differ in", "A", "B")
        for one in found["settings"]:
            settings.add_row(*(_text(shown(one[key])) for key in ("key", "first", "second")))
        console.print(settings)
    table = _table("points", "A", "B")
    for row in deltas:
        sides = (scores[found[side], row["benchmark"]] for side in ("first", "second"))
        table.add_row(
            _text(row["benchmark"]),
            *(f"{side['score']:.1f}" for side in sides),
            *_cells(row),
        )
    console.print(table)
    for row in deltas:
        if row.get("by_subject"):
            _print_parts(console, row)
    for line in counts:
        console.print(_text(line), highlight=False, soft_wrap=True)


def _print_parts(console: Console, row: dict[str, Any]) -> None:
    if row["by_group"]:
        table = _table(f"{_text(row['benchmark'])} by group")
        for name, part in row["by_group"].items():
            table.add_row(name, *_cells(part))
        console.print(table)
    subjects = row["by_subject"]
    sure = [f"{n} {part['delta']:+.1f}" for n, part in subjects.items() if part["p_holm"] < SURE]
    line = f"of {len(subjects)} subjects, those that differ: {', '.join(sure) or 'none'}"
    console.print(_text(line), highlight=False, soft_wrap=True)


def _table(*names: str) -> Table:
    return Table(*names, "B - A", "95 % interval", "p (Holm)", "detectable")


def _cells(part: dict[str, Any]) -> Iterable[str]:
    yield f"{part['delta']:+.1f}"
    yield f"{part['low']:+.1f} … {part['high']:+.1f}"
    yield f"{part['p_holm']:.2g}"
    yield f"{part['detectable']:.1f}" if "detectable" in part else ""


def _text(text: str) -> str:
    return escape(printable(text))
