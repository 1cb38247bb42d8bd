"""The commands as a user meets them: quick help, one-line errors, exit codes, nothing lost."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import sums, write_model
from typer.testing import CliRunner

from monotreme import __version__
from monotreme.cli import app
from monotreme.errors import InputError

ENVIRONMENT = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}


def monotreme(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "monotreme.cli", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
        timeout=120,
        **options,
    )


def recipe(folder: Path, tiny_model: Path, num: int = 30, **tables: Any) -> Path:
    """A recipe that runs start to end in seconds: sums, a benchmark of sums, the tiny model."""
    rows = [{"instruction": q.instruction, "output": q.output} for q in sums(num)]
    (folder / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    items = [
        {
            "question": f"Is {i} an even number?",
            "choices": {"text": ["yes", "no"], "label": ["A", "B"]},
            "answerKey": "AB"[i % 2],
        }
        for i in range(8)
    ]
    (folder / "bench.jsonl").write_text("\n".join(map(json.dumps, items)))
    source = {"id": "sums", "path": "sums.jsonl", "license": "CC0-1.0"}
    data = {
        "name": "cli",
        "curate": {"sources": [source], "protect": "different_answer"},
        "decontaminate": {"benchmarks": [{"id": "even", "path": "bench.jsonl"}]},
        "train": {"base": str(tiny_model), "base_precision": "fp32", "warmup_steps": 1},
        "evaluate": {"precision": "fp32"},
    }
    for table, values in tables.items():
        data[table] = {**data.get(table, {}), **values}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_help_is_light():
    """No heavy library is imported."""
    script = (
        "import sys, monotreme.cli as c\n"
        "try: c.app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pyarrow', 'numpy', 'datasets', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "decontaminate" in done.stdout


def test_it_tells_its_version_and_helps_in_short(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "monotreme", "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout == f"monotreme {__version__}\n"
    for words in ([], ["train"]):
        short, long = (CliRunner().invoke(app, [*words, flag]) for flag in ("-h", "--help"))
        assert (short.exit_code, short.output) == (0, long.output)


@pytest.mark.parametrize(
    "words",
    [
        ["curate", "recipe.yaml", "--worker-memory", "lots"],
        ["curate", "recipe.yaml", "--engine", "spark"],
        ["init", "--like", "none"],
        ["show", "runs/one", "drop"],
        ["show", "runs/one", "--source", "science"],
        ["show", "runs/one", "dropped", "--source", "nope"],
        ["show", "runs/one", "--similar-to", "zz"],
        ["report", "runs/one", "runs/one", "--price-per-hour", "2"],
        ["run", "runs/one", "--set", "train.rank=2"],
        ["verify", "runs/one", "--benchmark", "mmlu"],
        ["release", "recipe.yaml", "--yes", "--accept-license", "MIT"],
        ["evaluate"],
        ["train", "recipe.yaml", "--gpus", "0"],
    ],
)
def test_a_wrong_word_of_the_command_line_is_status_2(
    words: list[str], one_run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(one_run)
    done = CliRunner().invoke(app, words)
    assert getattr(done.exception, "exit_code", done.exit_code) == 2


def test_a_run_that_is_not_there_is_told_beside_those_that_are(
    one_run: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(one_run)
    for words in (["show", "runs/nope"], ["report", "runs/nope"], ["run", "runs/nope"]):
        error = CliRunner().invoke(app, words).exception
        assert isinstance(error, InputError)
        assert str(error).startswith("there is no run runs/nope. There are runs/one")


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and a run of it that has curated."""
    folder = tmp_path_factory.mktemp("one")
    path = recipe(folder, Path("pocket:base"), num=4)
    words = ["curate", path, "--set", "name=one", "--runs", folder / "runs"]
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.exception
    return folder


def test_the_first_line_comes_before_heavy_libraries():
    script = (
        "import sys, typer, monotreme.cli as c\n"
        "heavy = {'torch', 'transformers', 'datasets'}\n"
        "def echo(text, err):\n"
        "    print(text, err, heavy & set(sys.modules))\n"
        "    sys.exit()\n"
        "typer.echo = echo\n"
        "c.app(['run', 'recipe.yaml'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout == "reading recipe.yaml True set()\n", done.stderr


@pytest.mark.parametrize(
    "verb",
    [
        "init",
        "run",
        "plan",
        "show",
        "curate",
        "decontaminate",
        "train",
        "merge",
        "evaluate",
        "release",
        "compare",
        "generate",
        "chat",
    ],
)
def test_every_command_has_help_with_examples(verb):
    done = CliRunner().invoke(app, [verb, "--help"])
    assert done.exit_code == 0
    assert "Examples" in done.output
    assert f"monotreme {verb}" in done.output


def test_the_whole_way_then_nothing_to_do_then_a_change(tmp_path: Path, tiny_model: Path):
    path = recipe(tmp_path, tiny_model)
    runs = tmp_path / "runs"
    done = monotreme("run", path, "--runs", runs)
    assert done.returncode == 0, done.stderr
    for stage in ("curate", "decontaminate", "train", "merge", "evaluate", "release"):
        assert (runs / "cli" / stage / "record.json").exists()
        assert stage in done.stdout
    assert "README.md" in done.stdout
    assert "Loading weights" not in done.stderr
    assert done.stderr.startswith(f"reading {path}\n")
    assert re.search(
        r"^curate done: 30 questions read, \d+ kept, [\d.]+ s$", done.stderr, re.MULTILINE
    )
    assert re.search(
        r"^train done: \d+ steps, loss [\d.]+ → [\d.]+ nats, ", done.stderr, re.MULTILINE
    )

    again = monotreme("run", path, "--runs", runs, "--json")
    report = json.loads(again.stdout)
    assert {stage["state"] for stage in report["stages"]} == {"up to date"}

    plan = monotreme("plan", path, "--runs", runs, "--set", "train.rank=4", "--json")
    states = {s["stage"]: s["state"] for s in json.loads(plan.stdout)["stages"]}
    assert states == {
        "curate": "up to date", "decontaminate": "up to date", "train": "to run",
        "merge": "waits", "evaluate": "waits", "release": "waits",
    }  # fmt: skip

    shown = monotreme("show", runs / "cli", "--json")
    assert json.loads(shown.stdout)["stages"]["curate"]["counts"]["read"] == 30
    assert monotreme("show", runs / "cli", "dropped").returncode == 0
    other = write_model(tmp_path / "other", hidden_size=64)
    into = f"merge.into=[{{id: other, model: '{other}'}}]"
    misfit = monotreme("merge", path, "--runs", runs, "--quiet", "--set", into)
    assert misfit.returncode == 4
    assert len(misfit.stderr.strip().splitlines()) == 1
    assert (runs / "cli" / "merge" / "base" / "model.safetensors").exists()
    assert (runs / "cli" / "merge" / "record.json").exists()

    wrong = monotreme("show", runs / "cli", "kept")
    assert (wrong.returncode, "Known are summary, dropped, leaked, protected" in wrong.stderr) == (
        2,
        True,
    )


def wrong_key(path: Path) -> None:
    path.write_text(path.read_text().replace("protect:", "protekt:"))


def missing_file(path: Path) -> None:
    (path.parent / "sums.jsonl").unlink()


def truncated(path: Path) -> None:
    file = path.parent / "sums.jsonl"
    file.write_text(file.read_text()[:-20])


def no_answer(path: Path) -> None:
    with (path.parent / "sums.jsonl").open("a") as file:
        file.write('\n{"instruction": "What is one plus one?", "output": ""}\n')


def huge_row(path: Path) -> None:
    with (path.parent / "sums.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"instruction": "x" * 10_500_000, "output": "y"}) + "\n")


def not_utf8(path: Path) -> None:
    with (path.parent / "sums.jsonl").open("ab") as file:
        file.write(b'\n{"instruction": "\xff\xfe", "output": "y"}\n')


def from_the_hub(path: Path) -> None:
    path.write_text(path.read_text().replace("path: sums.jsonl", "name: owner/absent"))


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A recipe whose curate is done."""
    folder = tmp_path_factory.mktemp("curated")
    path = recipe(folder, tiny_model)
    assert monotreme("curate", path, cwd=folder).returncode == 0
    return path


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (wrong_key, 2, "curate.protekt is not a key. Did you mean 'protect'"),
        (missing_file, 3, "sums.jsonl does not exist"),
        (truncated, 3, "sums.jsonl, line 30"),
        (no_answer, 3, "sums.jsonl, line 31"),
        (huge_row, 3, "sums.jsonl, line 31"),
        (not_utf8, 3, "sums.jsonl, line 31"),
        (from_the_hub, 6, "owner/absent"),
    ],
)
def test_bad_input_is_one_line_and_loses_nothing(tmp_path, curated, spoil, code, says):
    shutil.copytree(curated.parent, tmp_path, dirs_exist_ok=True)
    path = tmp_path / curated.name
    kept = tmp_path / "runs" / "cli" / "curate" / "questions.parquet"
    before = kept.read_bytes()
    spoil(path)
    done = monotreme("curate", path, "--quiet", cwd=tmp_path)
    assert done.returncode == code
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert says in lines[0]
    assert kept.read_bytes() == before


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_keeps_what_was_done(tmp_path: Path, tiny_model: Path):
    path = recipe(tmp_path, tiny_model)
    assert monotreme("curate", path, cwd=tmp_path).returncode == 0
    limited = "ulimit -f 4; trap '' XFSZ; exec " + " ".join(
        [
            sys.executable,
            "-m",
            "monotreme.cli",
            "curate",
            str(path),
            "--set",
            "curate.threshold=0.9",
        ]
    )
    done = subprocess.run(
        ["bash", "-c", limited],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    assert done.returncode == 7, done.stderr
    assert "error: cannot write" in done.stderr.splitlines()[-1]
    assert monotreme("curate", path, cwd=tmp_path).returncode == 0


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_the_next_run_finishes(tmp_path: Path, tiny_model: Path):
    path = recipe(tmp_path, tiny_model, num=400)
    command = [sys.executable, "-m", "monotreme.cli", "run", str(path)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=ENVIRONMENT,
    )
    log = tmp_path / "runs" / "cli" / "train" / "log.jsonl"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not (log.exists() and log.read_text().count("\n") > 1):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert (tmp_path / "runs" / "cli" / "decontaminate" / "record.json").exists()
    done = monotreme("run", path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_init_writes_a_recipe_and_never_over_one(tmp_path: Path):
    assert monotreme("init", cwd=tmp_path).returncode == 0
    assert "pocket" in (tmp_path / "recipe.yaml").read_text()
    again = monotreme("init", cwd=tmp_path)
    assert (again.returncode, "recipe.yaml exists" in again.stderr) == (3, True)
    unknown = monotreme("init", "x.yaml", "--like", "none", cwd=tmp_path)
    assert "Known are platypus-13b, platypus-70b" in unknown.stderr


def test_verbs_need_what_comes_before(tmp_path: Path, tiny_model: Path):
    done = monotreme("train", recipe(tmp_path, tiny_model), cwd=tmp_path)
    assert done.returncode == 3
    assert "curate has not finished" in done.stderr


@pytest.mark.slow
def test_a_verb_never_builds_on_what_the_recipe_no_longer_says(tmp_path: Path, tiny_model: Path):
    path = recipe(tmp_path, tiny_model)
    for verb in ("curate", "decontaminate"):
        assert monotreme(verb, path, cwd=tmp_path).returncode == 0
    done = monotreme("decontaminate", path, "--set", "curate.threshold=0.9", cwd=tmp_path)
    assert done.returncode == 3
    assert "is not of this recipe" in done.stderr
    assert "Traceback" not in monotreme("curate", path, "--runs", path).stderr
