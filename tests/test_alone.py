"""A model scored without a recipe: as the stage would, resumable, and nothing overwritten."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import finish, sums
from test_evaluate import arc_row, mmlu_row, qa_row, write_lines
from typer.testing import CliRunner

from monotreme import evaluate
from monotreme.cli import app
from monotreme.errors import InputError, MonotremeError, RefusedError, UsageError
from monotreme.evaluate.alone import evaluate_model, settings_of
from monotreme.recipe import PAPER_BENCHMARKS, Evaluate
from monotreme.records import read_table
from monotreme.run import Run
from monotreme.scoring import pieces


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a folder a benchmark, and a file for one of one's own."""
    folder = tmp_path / "data"
    write_lines(folder / "mmlu/test.jsonl", [mmlu_row(i) for i in range(10)])
    write_lines(folder / "mmlu/dev.jsonl", [mmlu_row(i) for i in range(20)])
    write_lines(folder / "truthfulqa/validation.jsonl", [qa_row(i) for i in range(6)])
    write_lines(folder / "sums.jsonl", [arc_row(i) for i in range(9)])
    return folder


def settings(data: Path, tasks: str = "sums,truthfulqa", limit: int | None = None) -> Evaluate:
    return settings_of(tasks, data, limit, ["evaluate.precision=fp32", "evaluate.batch_tokens=256"])


def items_of(run: Run) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(run.output("evaluate", "items.parquet")).to_pylist()
    return rows


def test_a_model_is_scored_as_the_stage_scores_it(
    data: Path, tiny_model: Path, trained: Path, tmp_path: Path, make_run: Callable[..., Run]
) -> None:
    refs = [{"id": "sums", "path": str(data / "sums.jsonl")}]
    run = make_run(evaluate={"benchmarks": refs, "precision": "fp32", "batch_tokens": 256})
    for stage, name in (("train", "adapter"), ("merge", "base")):
        with run.stage(stage, {}) as work, work.file(name) as path:
            path.symlink_to(trained / {"base": "merged"}.get(name, name))
    evaluate.execute(run)
    alone = [
        evaluate_model(str(tiny_model), adapter, settings(data, "sums"), tmp_path / name)
        for adapter, name in ((None, "one"), (trained / "adapter", "two"))
    ]
    for name, own in (("base", alone[0]), ("adapter", alone[1])):
        expected = [{**row, "model": ""} for row in items_of(run) if row["model"] == name]
        assert [{**row, "model": ""} for row in items_of(own)] == expected
    assert {row["model"] for row in items_of(alone[1])} == {"tiny+adapter"}


def test_what_was_finished_is_not_scored_again(
    data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call dies when all is scored; the second needs no model, the third does nothing."""
    whole = evaluate_model(str(tiny_model), None, settings(data), tmp_path / "whole")

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(evaluate, "summarise", die)
        evaluate_model(str(tiny_model), None, settings(data), tmp_path / "out")
    monkeypatch.setattr(pieces, "load_scorer", die)
    for _ in range(2):
        resumed = evaluate_model(str(tiny_model), None, settings(data), tmp_path / "out")
        for name in ("items.parquet", "scores.json", "scores.md"):
            paths = [run.output("evaluate", name) for run in (whole, resumed)]
            assert paths[0].read_bytes() == paths[1].read_bytes()
    with pytest.raises(KeyboardInterrupt):
        evaluate_model(str(tiny_model), None, settings(data), tmp_path / "out", force=True)


def test_an_interrupted_file_of_records_is_named(
    data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a full disk or a crash of the machine may leave of a finished part."""
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(evaluate, "summarise", lambda *_: 1 / 0)
        evaluate_model(str(tiny_model), None, settings(data), tmp_path / "out")
    (part,) = (tmp_path / "out/evaluate/parts").glob("*-sums-*")
    part.write_bytes(part.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"not a readable Parquet file.*Delete it"):
        evaluate_model(str(tiny_model), None, settings(data), tmp_path / "out")
    part.unlink()
    assert (
        len(items_of(evaluate_model(str(tiny_model), None, settings(data), tmp_path / "out"))) == 15
    )


def test_nobody_elses_results_are_overwritten(
    data: Path, tiny_model: Path, trained: Path, tmp_path: Path, make_run: Callable[..., Run]
) -> None:
    out = tmp_path / "out"
    evaluate_model(str(tiny_model), None, settings(data), out)
    with pytest.raises(RefusedError, match="another model"):
        evaluate_model(str(trained / "merged"), None, settings(data), out)
    forced = evaluate_model(str(trained / "merged"), None, settings(data), out, force=True)
    assert {row["model"] for row in items_of(forced)} == {"merged"}
    run = make_run()
    with run.open():
        finish(run, "curate", sums(1))
    with pytest.raises(RefusedError, match="run of a recipe"):
        evaluate_model(str(tiny_model), None, settings(data), run.folder)


def test_tasks_are_benchmarks_or_the_papers_four(data: Path) -> None:
    refs = settings_of("open-llm-2023,arc_easy,mmlu", None, None, ()).benchmarks
    assert [ref.id for ref in refs] == [*PAPER_BENCHMARKS, "arc_easy"]
    one, two = settings(data, limit=3).benchmarks
    assert (one.path, one.limit) == (str(data / "sums.jsonl"), 3)
    assert two.path == str(data / "truthfulqa")


@pytest.mark.parametrize(
    ("tasks", "overrides", "problem"),
    [
        (" , ", (), "names no benchmark"),
        ("arc_challenge", (), "has no arc_challenge .found: mmlu, sums, truthfulqa"),
        ("sums", ("train.rank=3",), "does not go with --model"),
        ("sums", ("evaluate.batch_token=3",), "Did you mean 'batch_tokens'"),
        ("sums", ("evaluate.batch_tokens=3",), "greater than or equal to 256"),
    ],
)
def test_wrong_words_on_the_command_line(
    data: Path, tasks: str, overrides: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(MonotremeError, match=problem):
        settings_of(tasks, data, None, overrides)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            {"choices": {"text": ["a"], "label": ["A"]}, "answerKey": "A"},
            "has no column 'question'",
        ),
        (
            {"question": "?", "choices": {"text": ["a", "b"], "label": ["A"]}, "answerKey": "A"},
            "has 2 choices and 1 labels",
        ),
        (
            {
                "question": "?",
                "choices": {"text": ["a", "b"], "label": ["A", "B"]},
                "answerKey": "C",
            },
            "answerKey 'C'",
        ),
    ],
)
def test_a_bad_row_of_a_benchmark_is_named(
    data: Path, tiny_model: Path, tmp_path: Path, row: dict[str, Any], problem: str
) -> None:
    write_lines(data / "sums.jsonl", [arc_row(0), row])
    with pytest.raises(InputError, match=f"sums.jsonl, line 2 .*{problem}"):
        evaluate_model(str(tiny_model), None, settings(data, "sums"), tmp_path / "out")


def test_choices_of_unequal_number_are_no_error(
    data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """ARC has questions of three, four and five options."""
    few = {"question": "?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"}
    write_lines(data / "sums.jsonl", [arc_row(0), few])
    run = evaluate_model(str(tiny_model), None, settings(data, "sums"), tmp_path / "out")
    assert sorted(len(row["log_likelihoods"]) for row in items_of(run)) == [2, 3]


def test_the_command(data: Path, tiny_model: Path, tmp_path: Path) -> None:
    words = ["evaluate", "--model", str(tiny_model), "--tasks", "sums,mmlu", "--data", str(data)]
    words += ["--limit", "4", "--set", "evaluate.precision=fp32", "--runs", str(tmp_path / "runs")]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    scores = json.loads((tmp_path / "runs/tiny/evaluate/scores.json").read_text())
    assert json.loads(done.stdout) == scores
    assert [row["num_questions"] for row in scores["scores"]] == [
        4,
        7,
        11,
    ]  # 4 and 3 of two subjects
    assert scores["deltas"] == []


@pytest.mark.parametrize(
    "words",
    [[], ["r.yaml", "--model", "m"], ["r.yaml", "--limit", "3"], ["r.yaml", "--tasks", "mmlu"]],
)
def test_a_recipe_or_a_model(words: list[str]) -> None:
    with pytest.raises(UsageError):
        CliRunner().invoke(app, ["evaluate", *words], catch_exceptions=False)
