"""A push sends what was prepared and no more, and goes on where it was stopped."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import finish, sums
from loopback_hub import Hub, environment, hub
from released import LEAKS, NAMES
from test_cli import recipe
from typer.testing import CliRunner

from monotreme import pipeline, release
from monotreme.cli import app
from monotreme.decontaminate import PAIR_SCHEMA
from monotreme.errors import MismatchError, RecipeError, RefusedError, UsageError
from monotreme.records import question_table
from monotreme.release.push import push, uploads
from monotreme.run import Run, open_run

# huggingface_hub reads its settings when it is imported, so the push has a process of its own
PUSH = """
import json, sys
from pathlib import Path
from monotreme.errors import MonotremeError
from monotreme.release.push import push
from monotreme.run import open_run

try:
    print(json.dumps(push(open_run(Path(sys.argv[1])), confirm=lambda planned: True)))
except MonotremeError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def push_to(address: str, run: Run, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PUSH, str(run.folder)],
        env=environment(address, home),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def received_as_prepared(received: type[Hub], run: Run) -> bool:
    """Whether each repository holds the files of its folder, and nothing else."""
    parts = {
        "datasets/someone/sums": "dataset",
        "models/someone/sums-adapter": "adapter",
        "models/someone/sums-merged": "merged-base",
    }
    manifest = json.loads((run.folder / "release" / "manifest.json").read_text())
    wanted = {(file["path"], file["bytes"], file["sha256"]) for file in manifest}
    found = {
        (f"{part}/{path}", len(data), hashlib.sha256(data).hexdigest())
        for repository, part in parts.items()
        for path, data in received.repositories[repository].items()
        if path != "header"
    }
    return received.repositories.keys() == parts.keys() and found == wanted


def test_nothing_is_pushed_before_release_or_without_a_name_or_a_yes(
    finished: Callable[..., Run],
) -> None:
    run = finished()
    with pytest.raises(RefusedError, match="release has not been done"):
        uploads(run)
    release.execute(run)
    assert [str(upload).split(":")[0] for upload in uploads(run)] == [
        "private dataset someone/sums",
        "private model someone/sums-adapter",
        "private model someone/sums-merged",
    ]
    with pytest.raises(RefusedError, match="not confirmed"):
        push(run, confirm=lambda _: False)
    nameless = finished(release={})
    release.execute(nameless)
    with pytest.raises(RefusedError, match="names no repository"):
        uploads(nameless)


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: append(f / "dataset" / "data" / "train.parquet"), "has changed"),
        (lambda f: (f / "adapter" / "recipe.yaml").unlink(), "is missing"),
        (lambda f: (f / "adapter" / "secret.txt").write_text("x"), "is not in the manifest"),
    ],
)
def test_a_folder_that_is_not_as_prepared_is_not_pushed(
    finished: Callable[..., Run], spoil: Callable[[Path], object], says: str
) -> None:
    run = finished()
    release.execute(run)
    spoil(run.folder / "release")
    with pytest.raises(MismatchError, match=says):
        push(run, confirm=lambda _: True)


def test_what_is_out_of_date_is_not_pushed(finished: Callable[..., Run]) -> None:
    run = finished()
    release.execute(run)
    finish(run, "curate", sums(18))
    with pytest.raises(RefusedError, match="out of date"):
        uploads(run)


def test_a_push_sends_every_prepared_file_and_nothing_else(
    tmp_path: Path, finished: Callable[..., Run]
) -> None:
    run = finished()
    release.execute(run)
    assert open_run(run.folder).is_current("release", release.inputs(run))

    with hub() as (address, received):
        done = push_to(address, run, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        f"{address}/datasets/someone/sums",
        f"{address}/someone/sums-adapter",
        f"{address}/someone/sums-merged",
    ]
    assert received.private == [True, True, True]
    assert received_as_prepared(received, run)
    headers = {files["header"] for files in received.repositories.values()}
    assert headers == {"Release of test"}


def test_a_push_that_was_killed_goes_on_and_sends_nothing_twice(
    tmp_path: Path, finished: Callable[..., Run]
) -> None:
    """Killed when the first repository stands and the second has its large file, but no commit."""
    run = finished()
    release.execute(run)
    with hub() as (address, received):
        received.stall = "sums-adapter"
        killed = subprocess.Popen(
            [sys.executable, "-c", PUSH, str(run.folder)], env=environment(address, tmp_path)
        )
        assert received.stalled.wait(60)
        killed.kill()
        killed.wait()
        assert received.repositories["models/someone/sums-adapter"] == {}
        assert "models/someone/sums-merged" not in received.repositories
        before = list(received.sent)
        received.stall = ""
        done = push_to(address, run, tmp_path)
    assert done.returncode == 0, done.stderr
    assert received_as_prepared(received, run)
    assert received.private == [True, True, True]
    assert len(before) == 3, "two tables and the adapter"
    assert len(received.sent) == len(set(received.sent)) == 4, "and the merged model"


def test_a_public_repository_gets_nothing_that_should_be_private(
    tmp_path: Path, finished: Callable[..., Run]
) -> None:
    run = finished(release={"dataset": "someone/public"})
    release.execute(run)
    with hub() as (address, received):
        done = push_to(address, run, tmp_path / "home")
    assert "dataset someone/public is public, the recipe says private" in done.stderr
    assert received.repositories == {"datasets/someone/public": {}}


def test_a_hub_that_says_no_is_one_line(tmp_path: Path, finished: Callable[..., Run]) -> None:
    run = finished(release={"dataset": "someone/sums"})
    release.execute(run)

    with hub() as (address, received):
        received.do_POST = lambda self: self.send_error(403)  # type: ignore[method-assign]
        received.do_GET = received.do_POST  # type: ignore[method-assign]
        done = push_to(address, run, tmp_path / "home")
    assert done.returncode == 1
    assert done.stderr.startswith("RemoteError: dataset someone/sums was refused by the Hub")
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_connection_that_breaks_in_a_large_file_is_one_line(
    tmp_path: Path, finished: Callable[..., Run]
) -> None:
    run = finished(release={"dataset": "someone/sums"})
    release.execute(run)
    with hub() as (address, received):
        received.do_PUT = lambda self: self.send_error(403)  # type: ignore[method-assign]
        done = push_to(address, run, tmp_path / "home")
    assert done.stderr.startswith("RemoteError: dataset someone/sums was refused by the Hub")
    assert len(done.stderr.strip().splitlines()) == 1


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


def rewrite(run: Run, stage: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a stage's record before release reads it."""
    path = run.folder / stage / "record.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_what_was_not_checked_for_leaks_is_not_pushed(finished: Callable[..., Run]) -> None:
    run = finished()
    with run.stage("decontaminate", {}) as work:
        work.table("questions.parquet", question_table(sums(12)))
        work.json("leaks.json", {**LEAKS, "benchmarks": [], "table": [], "between_splits": []})
        work.table("pairs.parquet", PAIR_SCHEMA.empty_table())
        work.counts.read = work.counts.kept = 12
        work.counts.by_source = {"sums": {"read": 12, "kept": 12, "dropped": 0}}
    release.execute(run)
    with pytest.raises(RefusedError, match="compared with no benchmark"):
        uploads(run)


def test_questions_that_were_changed_after_the_check_are_not_pushed(
    finished: Callable[..., Run],
) -> None:
    run = finished()
    rewrite(run, "train", lambda record: record["facts"].update(checked=False))
    rewrite(
        run,
        "train",
        lambda record: record["inputs"].update({"decontaminate/questions.parquet": "0"}),
    )
    release.execute(run)
    with pytest.raises(RefusedError, match=r"changed after decontaminate.*Run `monotreme decon"):
        uploads(run)


def licensed_run(finished: Callable[..., Run], licenses: list[str], **names: Any) -> Run:
    """A released run whose questions are under these licences in turn."""
    asked = [
        replace(question, license=licenses[i % len(licenses)])
        for i, question in enumerate(sums(12))
    ]
    run = finished(asked, release=names or NAMES)
    release.execute(run)
    return run


def test_licences_that_forbid_are_refused_until_each_is_accepted_by_name(
    finished: Callable[..., Run],
) -> None:
    run = licensed_run(finished, ["MIT", "unknown", "CC-BY-ND-4.0", "LicenseRef-x"])
    with pytest.raises(RefusedError) as refused:
        uploads(run)
    assert "CC-BY-ND-4.0 (sums: 3) forbids passing on what was adapted" in str(refused.value)
    options = "--accept-license CC-BY-ND-4.0 --accept-license LicenseRef-x --accept-license unknown"
    assert refused.value.remedy.endswith(options)
    with pytest.raises(RefusedError, match=r"unknown \(sums: 3\) names no licence"):
        uploads(run, ["CC-BY-ND-4.0", "LicenseRef-x"])
    found = uploads(run, ["CC-BY-ND-4.0", "LicenseRef-x", "unknown"])
    assert "No known licence, so that all rights may be reserved: unknown (sums: 3)" in str(
        found[0]
    )
    with pytest.raises(RecipeError, match="'mit', the questions are under"):
        uploads(run, ["mit"])


def test_an_adapter_alone_passes_no_question_on(finished: Callable[..., Run]) -> None:
    run = licensed_run(finished, ["unknown"], adapter="someone/sums-adapter")
    assert [upload.notes for upload in uploads(run)] == [()]


def test_a_non_commercial_set_is_pushed_and_said_to_be_so(finished: Callable[..., Run]) -> None:
    run = licensed_run(finished, ["CC-BY-SA-4.0", "CC-BY-NC-4.0"])
    dataset, *models = map(str, uploads(run))
    assert dataset.splitlines()[1:] == [
        "  As a whole for non-commercial use only, because of CC-BY-NC-4.0 (sums: 6)",
        "  What is adapted is to be shared under the same licence: CC-BY-SA-4.0 (sums: 6)",
    ]
    assert all(len(model.splitlines()) == 1 for model in models)


# ── the command ──────────────────────────────────────────────────────────────────────────────────


def test_the_command_lists_refuses_and_pushes(tmp_path: Path, tiny_model: Path) -> None:
    """A whole run, then the command in processes of their own: refused, and accepted by name."""
    names = {"dataset": "someone/sums", "adapter": "someone/sums-adapter"}
    source = {"id": "sums", "path": "sums.jsonl", "license": "unknown"}
    path = recipe(tmp_path, tiny_model, 8, curate={"sources": [source]}, release=names)
    run = pipeline.find_run(path, tmp_path / "runs")
    pipeline.execute(run)

    def command(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "monotreme.cli", "release", str(run.folder), *options],
            env=environment(address, tmp_path / "home"),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            input="",
        )

    with hub() as (address, received):
        refused = command("--push", "--yes")
        assert refused.returncode == 5
        assert refused.stderr.strip().splitlines()[-1].endswith("--accept-license unknown.")
        manifest = json.loads((run.folder / "release" / "manifest.json").read_text())
        for file in manifest:
            line = next(line for line in refused.stdout.splitlines() if file["path"] in line)
            assert line.split()[:2] == [file["sha256"], f"{file['bytes']:,}"]
        assert received.repositories == {}

        unasked = command("--push", "--accept-license", "unknown")
        assert unasked.returncode == 5
        assert "add --yes where there is no terminal" in unasked.stderr.splitlines()[-1]
        assert received.repositories == {}

        pushed = command("--push", "--yes", "--json", "--accept-license", "unknown")
    assert pushed.returncode == 0, pushed.stderr
    assert json.loads(pushed.stdout)["files"] == manifest
    assert f"pushed {address}/datasets/someone/sums" in pushed.stderr
    assert "all rights may be reserved: unknown (sums: 8)" in pushed.stderr
    assert received.private == [True, True]
    assert received.repositories.keys() == {"datasets/someone/sums", "models/someone/sums-adapter"}


def test_a_licence_is_accepted_for_a_push_alone() -> None:
    done = CliRunner().invoke(app, ["release", "recipe.yaml", "--accept-license", "unknown"])
    assert isinstance(done.exception, UsageError)
    assert "--accept-license goes with --push only" in str(done.exception)
