"""Two models' records → what differs between them, on the questions that both were asked.

Nothing but records is needed: a run folder's, those of `monotreme evaluate --model`, or a file.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from monotreme.errors import InputError, MismatchError
from monotreme.evaluate.tables import delta_parts, score_table, setting_table
from monotreme.recipe import load_recipe
from monotreme.recipe.differences import differences
from monotreme.records import read_table
from monotreme.scoring.deltas import delta_rows, score_rows
from monotreme.scoring.results import Row, results_of

RECORDS = "items.parquet"
COLUMNS = ["model", "benchmark", "metric", "shots", "subject", "question_id", "prompt_sha256"]
COLUMNS += ["labels", "score"]
ADAPTER = "adapter"  # which model of a run is meant where none is named

Key = tuple[str, int]  # a question's id, and how often it came before: benchmarks repeat questions


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two.

    Attributes:
        name: as it was asked for, with the model where the records have several.
        items: its records (`COLUMNS`), of this model alone.
        recipe: of its run, in plain form; empty where the records are of no run.
    """

    name: str
    items: pa.Table
    recipe: dict[str, Any]


def compare(first: str, second: str, seed: int) -> Row:
    """Scores of both, and the second's difference to the first, as plain JSON.

    Args:
        first, second: a folder or file of records; `:model` after it names one of several models.
        seed: of the bootstrap.

    Raises:
        InputError: no records, no such model, twice the same.
        MismatchError: other prompts, no questions in common.
    """
    sides = read_side(first), read_side(second)
    a, b = sides
    if a.name == b.name:
        raise InputError(f"{a.name} would be compared with itself", "Name another model")
    names = [list(dict.fromkeys(side.items["benchmark"].to_pylist())) for side in sides]
    shared = [name for name in names[0] if name in names[1]]
    if not shared:
        raise MismatchError(
            f"{a.name} was asked {', '.join(names[0])}, {b.name} {', '.join(names[1])}: "
            "no benchmark in common",
            "Evaluate both on the same benchmarks",
        )
    aligned = [_align(a, b, name) for name in shared]
    results = results_of(pa.concat_tables([side for pair, _ in aligned for side in pair]))
    return {
        "first": a.name,
        "second": b.name,
        "questions": [counts for _, counts in aligned],
        "not_compared": sorted(set(names[0]) ^ set(names[1])),
        "settings": _settings(a, b),
        "scores": score_rows(results),
        "deltas": delta_rows(results, a.name, seed),
    }


def beside(first: str, second: str) -> Path:
    """The folder for a comparison: in the second's, named after the first."""
    where, _ = _parts(second)
    name = re.sub(r"[^\w.-]+", "-", Path(first).name)
    return (where.parent if where.is_file() else where) / f"against-{name}"


def _parts(asked: str) -> tuple[Path, str]:
    """The path, and the model that is named after it or "".

    Raises:
        InputError: there is no such path.
    """
    where, model = asked, ""
    if not Path(where).exists():
        where, _, model = asked.rpartition(":")
    if not where or not Path(where).exists():
        raise InputError(f"{asked} does not exist", "Name a run folder, or a file of records")
    return Path(where), model


def read_side(asked: str) -> Side:
    """The records that a name such as `runs/pocket:adapter` or `items.parquet` means.

    Raises:
        InputError: there are none, they are not finished, or the model is not among them.
    """
    where, model = _parts(asked)
    items = _read(_records(where))
    models = list(dict.fromkeys(items["model"].to_pylist()))
    if not model:
        model = models[0] if len(models) == 1 else ADAPTER
    if model not in models:
        raise InputError(
            f"{where} has no records of {model!r}, only of {', '.join(models) or 'nothing'}",
            f"Name one of them, as {where}:{models[0] if models else ADAPTER}",
        )
    name = str(where) if len(models) == 1 else f"{where}:{model}"
    return Side(name, items.filter(pc.equal(items["model"], model)), _recipe(where))


def _settings(a: Side, b: Side) -> list[Row]:
    """What differs between the recipes, where both are known."""
    if not (a.recipe and b.recipe):
        return []
    return [one._asdict() for one in differences(a.recipe, b.recipe)]


def _recipe(where: Path) -> dict[str, Any]:
    path = where / "recipe.yaml"
    return load_recipe(path).model_dump(mode="json") if path.is_file() else {}


def _records(path: Path) -> Path:
    if path.is_file():
        return path
    for folder in (path / "evaluate", path):
        if (folder / RECORDS).is_file():
            if (folder / "record.json").is_file():
                return folder / RECORDS
            raise InputError(f"{folder} is unfinished", "Give its `monotreme evaluate` again")
    raise InputError(f"{path} holds no {RECORDS}", "Run `monotreme evaluate` first")


def _read(path: Path) -> pa.Table:
    table = read_table(path)
    absent = [name for name in COLUMNS if name not in table.column_names]
    if absent:
        raise InputError(
            f"{path} has no column {absent[0]!r}, it is no file of records",
            f"Name the {RECORDS} that `monotreme evaluate` wrote",
        )
    return table.select(COLUMNS)


def _align(a: Side, b: Side, benchmark: str) -> tuple[list[pa.Table], Row]:
    """Both sides' records of the common questions, in the first's order, and their counts.

    Raises:
        MismatchError: a common question was asked in other words, with other answers or measured
            otherwise; or neither side's questions are a part of the other's.
    """
    own = [side.items.filter(pc.equal(side.items["benchmark"], benchmark)) for side in (a, b)]
    places = [_places(table) for table in own]
    common = [key for key in places[0] if key in places[1]]
    if len(common) < min(map(len, places)):
        raise MismatchError(
            f"{benchmark}: {a.name} and {b.name} have {len(common):,} questions in common, of "
            f"{len(places[0]):,} and {len(places[1]):,}; neither is a part of the other",
            "Evaluate both on the same split of the same files",
        )
    left, right = (
        table.take([at[key] for key in common]) for table, at in zip(own, places, strict=True)
    )
    _check_asked(a, b, benchmark, left, right)
    named = [
        table.set_column(0, "model", pa.array([side.name] * len(common)))
        for side, table in ((a, left), (b, right))
    ]
    counts = {
        "benchmark": benchmark,
        "compared": len(common),
        "first": len(places[0]),
        "second": len(places[1]),
    }
    return named, counts


def _places(table: pa.Table) -> dict[Key, int]:
    seen: Counter[str] = Counter()
    places = {}
    for row, question in enumerate(table["question_id"].to_pylist()):
        places[question, seen[question]] = row
        seen[question] += 1
    return places


def _check_asked(a: Side, b: Side, benchmark: str, left: pa.Table, right: pa.Table) -> None:
    for column, what in (
        ("prompt_sha256", "other prompts"),
        ("labels", "other right answers"),
        ("metric", "another metric"),
    ):
        pairs = zip(left[column].to_pylist(), right[column].to_pylist(), strict=True)
        num = sum(one != other for one, other in pairs)
        if num:
            raise MismatchError(
                f"{benchmark}: {a.name} and {b.name} were given {what} in {num:,} of "
                f"{left.num_rows:,} questions",
                "Evaluate both with the same shots and the same files",
            )


def markdown(found: Row) -> str:
    """A comparison as tables to read."""
    parts = [
        f"# {found['second']} against {found['first']}",
        "\n".join(count_lines(found)),
        *([setting_table(found["settings"])] if found["settings"] else []),
        score_table(found["scores"]),
        "# Differences",
        *delta_parts(found["deltas"]),
    ]
    return "\n\n".join(parts) + "\n"


def count_lines(found: Row) -> list[str]:
    """How many questions were compared, and of which benchmarks none."""
    lines = []
    for row in found["questions"]:
        most = max(row["first"], row["second"])
        rest = f" of {most:,}: the other side has no more" if row["compared"] < most else ""
        lines.append(f"- {row['benchmark']}: {row['compared']:,} questions{rest}")
    if found["not_compared"]:
        lines.append(f"- not compared: {', '.join(found['not_compared'])}")
    return lines
