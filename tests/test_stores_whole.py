"""The whole way with everything in a store: inputs, model and runs; then looked at from elsewhere."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import test_cli
from s3_server import S3Server

RUN = "s3://bucket/runs/cli"
STAGES = ("curate", "decontaminate", "train", "merge", "evaluate", "release")
SAME = ("inputs", "outputs", "counts", "settings", "settings_digest", "seed", "versions")
TIMED = ("log.jsonl", "train/record.json")  # hold seconds, which no two executions have in common


def environment(home: Path) -> dict[str, str]:
    """Of a machine of its own, whose cache is in `home`."""
    return {**os.environ, "XDG_CACHE_HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1"}


def monotreme(home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "monotreme.cli", *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment(home), timeout=250
    )
    assert done.returncode == 0, done.stderr
    return done


def in_the_store(s3: S3Server, folder: Path, model: Path) -> Path:
    """A recipe all of whose paths are URLs."""
    s3.files.put(f"{model}/", "bucket/models/tiny", recursive=True)
    url = "s3://bucket"
    path = test_cli.recipe(
        folder,
        model,
        curate={"sources": [{"id": "sums", "path": f"{url}/sums.jsonl", "license": "CC0-1.0"}]},
        decontaminate={"benchmarks": [{"id": "even", "path": f"{url}/bench.jsonl"}]},
        train={"base": f"{url}/models/tiny"},
    )
    for name in ("sums.jsonl", "bench.jsonl"):
        s3.files.put_file(str(folder / name), f"bucket/{name}")
        (folder / name).unlink()
    return path


def told(record: dict[str, Any]) -> dict[str, Any]:
    """A record without what tells of times."""
    for part in ("inputs", "outputs"):
        record[part] = {k: v for k, v in record[part].items() if k not in TIMED}
    return {key: record[key] for key in SAME}


@pytest.mark.slow
@pytest.mark.timeout(900)  # a dozen commands, each of which loads torch
def test_killed_it_goes_on_and_ends_as_a_local_run(
    s3: S3Server, tmp_path: Path, tiny_model: Path
) -> None:
    recipe, here = in_the_store(s3, tmp_path, tiny_model), tmp_path / "here"
    command = [sys.executable, "-m", "monotreme.cli", "run", recipe, "--runs", "s3://bucket/runs"]
    with subprocess.Popen(command, env=environment(here), stderr=subprocess.DEVNULL) as running:
        while not s3.files.exists("bucket/runs/cli/curate/record.json"):
            assert running.poll() is None
            time.sleep(0.05)
        running.send_signal(signal.SIGKILL)
    monotreme(here, "run", recipe, "--runs", "s3://bucket/runs")
    monotreme(tmp_path, "run", recipe, "--runs", tmp_path / "runs")
    for stage in STAGES:
        ours = json.loads((tmp_path / "runs" / "cli" / stage / "record.json").read_bytes())
        there = json.loads(s3.files.cat_file(f"bucket/runs/cli/{stage}/record.json"))
        assert told(there) == told(ours)
        for name, entry in there["outputs"].items():
            assert s3.files.info(f"bucket/runs/cli/{stage}/{name}")["size"] == entry["bytes"]
    _look_from_elsewhere(s3, tmp_path / "elsewhere", recipe)


def _look_from_elsewhere(s3: S3Server, home: Path, recipe: Path) -> None:
    shown = json.loads(monotreme(home, "show", RUN, "--json").stdout)
    assert shown
    assert not list(home.rglob("*.safetensors"))
    monotreme(home, "report", RUN)
    assert s3.files.exists("bucket/runs/cli/report.html")
    monotreme(home, "compare", f"{RUN}:base", f"{RUN}:adapter")
    for where in ([RUN], [recipe, "--runs", "s3://bucket/runs"]):
        told: Any = json.loads(monotreme(home, "plan", *where, "--no-try", "--json").stdout)
        assert {step["state"] for step in told["stages"]} == {"up to date"}
    assert "up to date" in monotreme(home, "run", RUN).stderr
