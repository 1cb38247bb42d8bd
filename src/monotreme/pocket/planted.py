"""Mark a run against what was planted: `python -m monotreme.pocket.planted RUN_FOLDER`.

The sources hold duplicates and leaks put there on purpose, listed in `planted.jsonl`. Their rows
carry no sign of it; here the two are brought together after the run.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from monotreme.pocket.planting import DUPLICATES, LEAKS, LOOK_ALIKE

Row = Mapping[str, str]
Words = tuple[str, str]

FOUND, MISSED, CURATED = "found", "missed", "dropped by curate"
LOST, SPARED, WRONGLY = "both dropped", "rightly kept", "wrongly dropped"


@dataclass(frozen=True)
class Run:
    """How often each question is found where a run puts it, by its words."""

    curated: Counter[Words]
    dropped: Counter[Words]
    final: Counter[Words]
    leaked: Counter[Words]


def words(instruction: str, text: str = "") -> Words:
    """A question without regard to case and spaces."""
    return " ".join(instruction.lower().split()), " ".join(text.lower().split())


def counted(rows: Iterable[Row]) -> Counter[Words]:
    return Counter(words(row["instruction"], row["input"]) for row in rows)


def outcome(plant: Row, run: Run) -> str:
    """What became of one planted row."""
    here = words(plant["instruction"], plant["input"])
    if plant["kind"] in DUPLICATES:
        pair = {here, words(plant["twin"])}
        survivors = sum(run.curated[one] for one in pair)
        return {0: LOST, 1: FOUND}.get(survivors, MISSED)
    if plant["kind"] == LOOK_ALIKE:
        if run.final[here]:
            return SPARED
        return WRONGLY if run.leaked[here] else CURATED
    if run.final[here]:
        return MISSED
    return FOUND if run.leaked[here] else CURATED


def marks(planted: Iterable[Row], run: Run) -> dict[str, Counter[str]]:
    """Outcomes by kind of planted row."""
    by_kind: dict[str, Counter[str]] = {
        kind: Counter() for kind in (*DUPLICATES, *LEAKS, LOOK_ALIKE)
    }
    for plant in planted:
        by_kind[plant["kind"]][outcome(plant, run)] += 1
    return by_kind


def others(planted: Iterable[Row], run: Run) -> tuple[int, int, int]:
    """Of the rows that are neither planted nor a twin: how many there are, curate and leaks took.

    A twin is left out because dropping it and keeping its duplicate is as good.
    """
    marked = set()
    for plant in planted:
        marked |= {words(plant["instruction"], plant["input"]), words(plant["twin"])}
    dropped, leaked, curated = (
        sum(count for question, count in rows.items() if question not in marked)
        for rows in (run.dropped, run.leaked, run.curated)
    )
    return curated + dropped, dropped, leaked


def table(by_kind: Mapping[str, Counter[str]]) -> Table:
    """Kinds as lines: how many of each were found, how many are still there.

    A duplicate whose original went too, and a leak that curate had already dropped, are found: what
    was to be removed is gone.
    """
    lines = Table(
        "planted", "how many", "found", "missed", title="What was planted and what was found"
    )
    for kind in (*DUPLICATES, *LEAKS):
        outcomes = by_kind[kind]
        total, missed = outcomes.total(), outcomes[MISSED]
        lines.add_row(kind.replace("_", " "), str(total), str(total - missed), str(missed))
    return lines


def look_alikes(outcomes: Counter[str]) -> str:
    """What became of the questions that only look like a benchmark question."""
    return (
        f"Of {outcomes.total()} look-alikes of benchmark questions {outcomes[SPARED]} stayed, "
        f"{outcomes[WRONGLY]} were taken for leaks, {outcomes[CURATED]} were near-duplicates."
    )


def read_run(folder: Path) -> Run:
    """The four files of a run that say where each question went."""
    return Run(
        curated=counted(_rows(folder / "curate" / "questions.parquet")),
        dropped=counted(_rows(folder / "curate" / "dropped.parquet")),
        final=counted(_rows(folder / "decontaminate" / "questions.parquet")),
        leaked=counted(_rows(folder / "decontaminate" / "leaked.parquet")),
    )


def _rows(path: Path) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = pq.read_table(path, columns=["instruction", "input"]).to_pylist()
    return rows


def read_planted() -> list[dict[str, str]]:
    lines = (Path(__file__).parent / "planted.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def main(
    folder: Annotated[Path, typer.Argument(help="A run of the pocket recipe.", exists=True)],
) -> None:
    """Print what the run found of what was planted."""
    run, planted = read_run(folder), read_planted()
    by_kind = marks(planted, run)
    total, dropped, leaked = others(planted, run)
    console = Console()
    console.print(table(by_kind))
    console.print(look_alikes(by_kind[LOOK_ALIKE]))
    console.print(
        f"Of {total:,} other questions curate dropped {dropped:,} and decontaminate {leaked:,}."
    )


if __name__ == "__main__":
    typer.run(main)
