"""Write the data files of the pocket room: `python -m monotreme.pocket.build [--check]`.

The files are a pure function of the seed, byte for byte, so anybody can see that what is
shipped is what the generators write.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from monotreme.pocket.planting import Planted
from monotreme.pocket.questions import SEED, generate, held_out_texts

FOLDER = Path(__file__).parent


def files(seed: int = SEED) -> dict[str, bytes]:
    """Name to content of every data file."""
    data = generate(seed)
    written = {f"{subject}.jsonl": rows for subject, rows in data.sources.items()}
    return {
        **{name: json_lines(rows) for name, rows in written.items()},
        "planted.jsonl": json_lines(map(planted_row, data.planted)),
        "benchmark.jsonl": json_lines(data.benchmark),
        "validation.jsonl": json_lines(data.validation),
        "texts.jsonl": json_lines({"text": text} for text in held_out_texts(seed)),
    }


def planted_row(plant: Planted) -> dict[str, str]:
    return {
        "kind": plant.kind,
        "instruction": plant.row["instruction"],
        "input": plant.row["input"],
        "twin": plant.twin,
    }


def json_lines(rows: Iterable[Mapping[str, object]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def differences(folder: Path, expected: dict[str, bytes]) -> list[str]:
    """Which shipped files are missing or differ."""
    return [
        name
        for name, content in expected.items()
        if not (folder / name).is_file() or (folder / name).read_bytes() != content
    ]


def main(
    check: Annotated[bool, typer.Option(help="Compare the shipped files; write nothing.")] = False,
) -> None:
    """Write the data files, or with --check say which of them differ."""
    expected = files()
    if check:
        differing = differences(FOLDER, expected)
        for name in differing:
            typer.echo(f"{name} is not what the generators write", err=True)
        raise typer.Exit(1 if differing else 0)
    for name, content in expected.items():
        (FOLDER / name).write_bytes(content)
        num_rows = content.count(b"\n")
        typer.echo(f"{name}: {num_rows:,} rows, {len(content):,} bytes")


if __name__ == "__main__":
    typer.run(main)
