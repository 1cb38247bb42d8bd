"""Two models are compared on the questions both were asked, or not at all."""

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from typer.testing import CliRunner

from monotreme.cli import app
from monotreme.errors import InputError, MismatchError
from monotreme.evaluate.compare import compare, count_lines, markdown
from monotreme.recipe import check_recipe, dump_recipe
from monotreme.report.comparison import print_comparison
from monotreme.report.facts import comparison_facts
from monotreme.report.page import markdown as markdown_page
from monotreme.scoring.statistics import mcnemar

RIGHT = [1, 1, 1, 1, 1, 1, 0, 0]
WRONG = [0, 0, 0, 0, 0, 0, 0, 1]


def rows(model: str, scores: Sequence[float], **changes: Any) -> list[dict[str, Any]]:
    """A question a score; `changes` may be a function of the question's number."""
    return [
        {
            "model": model,
            "benchmark": "arc_challenge",
            "metric": "acc_norm",
            "shots": 25,
            "subject": "",
            "question_id": f"q{number}",
            "prompt_sha256": f"prompt {number}",
            "labels": [1, 0],
            "score": float(score),
            **{key: made(number) if callable(made) else made for key, made in changes.items()},
        }
        for number, score in enumerate(scores)
    ]


def write(path: Path, *models: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([row for model in models for row in model]), path)
    return str(path)


def finished(folder: Path, *models: list[dict[str, Any]]) -> str:
    """A run folder whose evaluation has ended."""
    write(folder / "evaluate/items.parquet", *models)
    (folder / "evaluate/record.json").write_text("{}")
    return str(folder)


def test_two_files_give_the_paired_difference_of_the_second_to_the_first(tmp_path: Path) -> None:
    a = write(tmp_path / "a.parquet", rows("x", WRONG))
    b = write(tmp_path / "b.parquet", rows("x", RIGHT))
    found = compare(a, b, 0)
    row, _ = found["deltas"]
    assert (row["model"], row["against"], row["delta"]) == (b, a, pytest.approx(100 * 5 / 8))
    assert row["p_holm"] == pytest.approx(mcnemar(np.array(RIGHT) - np.array(WRONG)))
    back, _ = compare(b, a, 0)["deltas"]
    assert (back["delta"], back["p_value"]) == (-row["delta"], row["p_value"])


def test_what_differs_in_the_recipes_of_two_runs_is_told(tmp_path: Path) -> None:
    runs = []
    for name, rank in (("a", 16), ("b", 32)):
        runs.append(finished(tmp_path / name, rows("adapter", RIGHT)))
        sources = {"sources": [{"id": "mine", "path": f"{name}.jsonl", "license": "MIT"}]}
        train = {"base": "pocket:base", "rank": rank}
        text = dump_recipe(check_recipe({"name": "x", "curate": sources, "train": train}, "x"))
        (tmp_path / name / "recipe.yaml").write_text(text)
    found = compare(*runs, 0)
    assert [tuple(row.values()) for row in found["settings"]] == [
        ("curate.sources.mine.path", "a.jsonl", "b.jsonl"),
        ("train.rank", 16, 32),
    ]
    assert "| train.rank | 16 | 32 |" in markdown(found)
    console = Console(record=True, width=200, file=StringIO())
    print_comparison(found, count_lines(found), console)
    assert "train.rank" in console.export_text()
    page = markdown_page(comparison_facts(found, count_lines(found), None))
    assert "| train.rank | 16 | 32 |" in page


def test_a_comparison_lies_in_the_second_run(tmp_path: Path) -> None:
    a, b = (finished(tmp_path / name, rows("adapter", RIGHT)) for name in "ab")
    done = CliRunner().invoke(app, ["report", f"{a}:adapter", b])
    where = tmp_path / "b" / "against-a-adapter"
    assert f"wrote {where / 'report.html'}" in done.output
    assert {path.name for path in where.iterdir()} == {"report.html", "report.md", "report.json"}


def test_the_order_of_the_records_does_not_matter(tmp_path: Path) -> None:
    a = write(tmp_path / "a.parquet", rows("x", WRONG))
    b = write(tmp_path / "b.parquet", rows("x", RIGHT))
    turned = write(tmp_path / "c.parquet", rows("x", RIGHT)[::-1])
    assert compare(a, turned, 0)["deltas"][0]["p_value"] == compare(a, b, 0)["deltas"][0]["p_value"]


def test_a_run_is_its_adapter_unless_a_model_is_named(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", rows("base", WRONG), rows("adapter", RIGHT))
    alone = finished(tmp_path / "alone", rows("tiny", WRONG))
    found = compare(f"{run}:base", run, 0)
    assert (found["first"], found["second"]) == (f"{run}:base", f"{run}:adapter")
    assert found["deltas"][0]["delta"] == pytest.approx(62.5)
    assert compare(alone, run, 0)["first"] == alone
    with pytest.raises(InputError, match="only of base, adapter"):
        compare(f"{run}:merged-x", run, 0)
    with pytest.raises(InputError, match="compared with itself"):
        compare(run, f"{run}:adapter", 0)


def test_a_limited_run_is_compared_on_its_questions_and_the_count_is_said(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.parquet", rows("x", WRONG))
    limited = write(tmp_path / "b.parquet", rows("x", RIGHT[:5]))
    for pair in ((whole, limited), (limited, whole)):
        found = compare(*pair, 0)
        assert found["deltas"][0]["num_questions"] == 5
        assert count_lines(found) == [
            "- arc_challenge: 5 questions of 8: the other side has no more"
        ]
    assert abs(found["deltas"][0]["delta"]) == 100


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"prompt_sha256": lambda n: f"prompt {n}" if n else "another"}, "other prompts in 1 of 8"),
        ({"labels": [0, 1]}, "other right answers in 8 of 8"),
        ({"metric": "acc"}, "another metric in 8 of 8"),
        ({"question_id": lambda n: f"q{n + 3}"}, "5 questions in common, of 8 and 8"),
        ({"benchmark": "mmlu"}, "no benchmark in common"),
    ],
)
def test_what_was_asked_otherwise_is_not_compared(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    a = write(tmp_path / "a.parquet", rows("x", WRONG))
    b = write(tmp_path / "b.parquet", rows("x", RIGHT, **changes))
    with pytest.raises(MismatchError, match=problem):
        compare(a, b, 0)


def test_a_question_that_stands_twice_in_a_benchmark_is_two(tmp_path: Path) -> None:
    twice = {"question_id": lambda n: f"q{n // 2}"}
    a = write(tmp_path / "a.parquet", rows("x", [1, 0, 1, 0], **twice))
    b = write(tmp_path / "b.parquet", rows("x", [1, 1, 1, 1], **twice))
    assert compare(a, b, 0)["deltas"][0]["num_questions"] == 4
    assert compare(a, b, 0)["deltas"][0]["delta"] == 50


def test_benchmarks_of_one_side_are_named(tmp_path: Path) -> None:
    a = write(tmp_path / "a.parquet", rows("x", WRONG), rows("x", WRONG, benchmark="mmlu"))
    b = write(tmp_path / "b.parquet", rows("x", RIGHT))
    assert compare(a, b, 0)["not_compared"] == ["mmlu"]


def test_records_that_are_none_are_one_clear_error(tmp_path: Path) -> None:
    good = write(tmp_path / "good.parquet", rows("x", RIGHT))
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(Path(good).read_bytes()[:-20])  # as a killed copy leaves it
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"model": ["x"]}), other)
    write(tmp_path / "unfinished/evaluate/items.parquet", rows("x", RIGHT))
    (tmp_path / "empty").mkdir()
    for name, problem in (
        ("cut.parquet", "not a readable Parquet file"),
        ("other.parquet", "no column 'benchmark'"),
        ("unfinished", "is unfinished"),
        ("empty", "holds no items.parquet"),
        ("absent", "does not exist"),
    ):
        with pytest.raises(InputError, match=problem):
            compare(good, str(tmp_path / name), 0)


def test_tables_for_a_terminal_and_in_markdown_tell_the_same(tmp_path: Path) -> None:
    mmlu = {"benchmark": "mmlu", "metric": "acc", "subject": "anatomy"}
    a = write(tmp_path / "[a].parquet", rows("x", WRONG), rows("x", [0] * 400, **mmlu))
    b = write(tmp_path / "b|.parquet", rows("x", RIGHT), rows("x", [1] * 400, **mmlu))
    found = compare(a, b, 0)
    console = Console(record=True, width=200, file=StringIO())
    print_comparison(found, count_lines(found), console)
    text, page = console.export_text(), markdown(found)
    assert f"A: {a}\nB: {b}\n" in text
    for part in ("+62.5", "+98.5 … ", "STEM", "anatomy +100.0", "arc_challenge: 8 questions"):
        assert part in text
    assert "b\\|.parquet | +62.50 ± 26.31" in page
    assert "those that differ: anatomy +100.00" in page


def test_the_command_prints_json_and_markdown(tmp_path: Path) -> None:
    a = write(tmp_path / "a.parquet", rows("x", WRONG))
    b = write(tmp_path / "b.parquet", rows("x", RIGHT))
    done = CliRunner().invoke(app, ["compare", a, b, "--json"])
    assert json.loads(done.output) == json.loads(json.dumps(compare(a, b, 42)))
    done = CliRunner().invoke(app, ["compare", a, b, "--markdown"])
    assert done.output == markdown(compare(a, b, 42))
    assert "arc_challenge" in CliRunner().invoke(app, ["compare", a, b]).output
