"""A run in a store is the run that a folder would hold, and the store never shows a half stage."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import finish, sums
from filelock import FileLock
from s3_server import S3Server

from monotreme.errors import InputError, MismatchError, RefusedError, RemoteError
from monotreme.recipe import check_recipe
from monotreme.run import Run, open_run
from monotreme.stores import LOCK, mirror, pull, send, store, working_copy
from monotreme.stores.store import Store

pytestmark = pytest.mark.usefixtures("s3")
RUNS = "s3://bucket/runs"
RUN = f"{RUNS}/test"


class Machine:
    """A machine of its own: its own cache, the same store."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self._patch = home, monkeypatch

    @contextmanager
    def __call__(self, weights: bool = True) -> Iterator[Run]:
        """A run that this machine has opened."""
        with self._patch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(self.home))
            folder = mirror(RUNS) / "test"
            pull(folder, weights)
            data = {"name": "test", "curate": {"sources": ["sums"]}, "train": {"base": "./tiny"}}
            yield Run(folder, check_recipe(data, "test"), self.home)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path / "here", monkeypatch)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path / "elsewhere", monkeypatch)


@pytest.fixture
def puts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was sent or deleted, in its order."""
    names: list[str] = []
    put, remove = Store.put, Store.remove

    def note_put(self: Store, path: Path, name: str) -> Any:
        names.append(name)
        return put(self, path, name)

    def note_remove(self: Store, name: str) -> None:
        names.append(f"-{name}")
        remove(self, name)

    monkeypatch.setattr(Store, "put", note_put)
    monkeypatch.setattr(Store, "remove", note_remove)
    return names


def do(run: Run, num: int = 3, stage: str = "curate") -> None:
    with run.open():
        finish(run, stage, sums(num))


def names(s3: S3Server) -> set[str]:
    return {key.removeprefix("bucket/runs/test/") for key in s3.files.find("bucket/runs/test")}


def is_whole(s3: S3Server) -> bool:
    """Every record's files are there with their sizes."""
    there = s3.files.find("bucket/runs/test", detail=True)
    records = [key for key in there if key.endswith("/record.json")]
    return all(
        there.get(f"{record.rpartition('/')[0]}/{name}", {"size": -1})["size"] == entry["bytes"]
        for record in records
        for name, entry in json.loads(s3.files.cat_file(record))["outputs"].items()
    )


def plain(record: bytes) -> dict[str, Any]:
    """A record without what no two executions have in common."""
    return {k: v for k, v in json.loads(record).items() if k not in ("seconds", "peak_bytes")}


def test_the_store_holds_what_a_local_run_would(
    here: Machine, s3: S3Server, puts: list[str], tmp_path: Path
) -> None:
    with here() as run:
        do(run)
        local = Run(tmp_path / "runs" / "test", run.recipe, tmp_path)
    do(local)
    assert names(s3) == {
        "recipe.yaml",
        "run.json",
        "curate/questions.parquet",
        "curate/record.json",
    }
    sent = plain(s3.files.cat_file("bucket/runs/test/curate/record.json"))
    assert sent == plain((local.folder / "curate/record.json").read_bytes())
    assert puts[-1] == "curate/record.json"


def test_what_the_store_has_is_not_sent_again(here: Machine, puts: list[str]) -> None:
    with here() as run:
        do(run)
        puts.clear()
        with run.open():
            pass
        assert puts == []
        do(run)  # to the same bytes, in other seconds
    assert puts == ["-curate/record.json", "curate/record.json"]


def test_another_machine_goes_on_where_the_first_stopped(here: Machine, elsewhere: Machine) -> None:
    with here() as run:
        do(run)
        first = (run.folder / "curate/record.json").read_bytes()
    with elsewhere() as run:
        assert run.is_current("curate", {})
        assert (run.folder / "curate/record.json").read_bytes() == first
        do(run, 5)
        with run.stage("decontaminate", {}) as work:
            work.text("leaks.json", "{}")
    with here() as run:
        assert run.record("curate")["counts"]["read"] == 5
        assert run.is_current("curate", {})
        assert (run.folder / "decontaminate/leaks.json").exists()


def test_what_a_record_no_longer_names_goes_on_both_sides(
    here: Machine, elsewhere: Machine, s3: S3Server
) -> None:
    with here() as run, run.open(), run.stage("merge", {}) as work:
        work.text("old/a.txt", "a")
    with elsewhere() as run, run.open(), run.stage("merge", {}) as work:
        work.text("new/a.txt", "a")
    assert {"merge/new/a.txt", "merge/record.json"} == {n for n in names(s3) if "merge" in n}
    with here() as run:
        assert [path.name for path in (run.folder / "merge").iterdir() if path.is_dir()] == ["new"]


def test_a_stage_that_is_begun_anew_is_not_taken_back(here: Machine) -> None:
    """Killed before its end, it stands in the store as it was, and its unfinished work here."""
    with here() as run:
        do(run)
        with pytest.raises(KeyboardInterrupt), run.stage("curate", {}) as work:
            work.text("half.txt", "half")
            raise KeyboardInterrupt
    with here() as run:
        assert (run.folder / "curate/half.txt").exists()
        assert not (run.folder / "curate/record.json").exists()


def test_a_stage_done_on_two_machines_is_told(here: Machine, elsewhere: Machine) -> None:
    with here() as run:
        do(run)
    with elsewhere() as run:
        do(run, 4)
    with here() as run:  # had fetched; then the other goes on
        with elsewhere() as other:
            do(other, 5)
        with pytest.raises(RefusedError, match=r"curate was done both in .* Delete .*here"):
            do(run, 6)
        with pytest.raises(RefusedError, match="curate was done both"):
            pull(run.folder)
        for path in (run.folder / "curate").iterdir():
            path.unlink()
        (run.folder / "curate").rmdir()
        pull(run.folder)
        assert run.record("curate")["counts"]["read"] == 5


def test_verdicts_of_both_sides_stay(here: Machine, elsewhere: Machine, s3: S3Server) -> None:
    for machine, line in ((here, "1"), (elsewhere, "2")):
        with machine() as run, run.open(), (run.folder / "verdicts.jsonl").open("a") as file:
            file.write(f"{line}\n")
    with elsewhere() as run, here() as other:
        (run.folder / "verdicts.jsonl").write_text("1\n2\n3\n")
        (other.folder / "verdicts.jsonl").write_text("1\n2\n4\n")
        send(run.folder)
        pull(other.folder)
        assert (other.folder / "verdicts.jsonl").read_text() == "1\n2\n3\n4\n"
        send(other.folder)
    assert s3.files.cat_file("bucket/runs/test/verdicts.jsonl") == b"1\n2\n3\n4\n"


def test_weights_are_fetched_for_those_who_read_them(here: Machine, elsewhere: Machine) -> None:
    with here() as run, run.open(), run.stage("train", {}) as work:
        work.text("adapter.safetensors", "weights")
        work.text("log.jsonl", "{}")
    with elsewhere(weights=False) as run:
        assert sorted(p.name for p in (run.folder / "train").iterdir()) == [
            "log.jsonl",
            "record.json",
        ]
    with elsewhere() as run:
        assert run.is_current("train", {})


def test_a_run_that_is_worked_on_is_left_alone(here: Machine, elsewhere: Machine) -> None:
    with here() as run:
        do(run)
    with elsewhere() as run:
        do(run, 5)
    with here() as run:
        do(run, 7)
    with elsewhere() as run:
        pass
    with elsewhere() as run, FileLock(run.folder / LOCK):
        with here() as other:
            do(other, 8)
        pull(run.folder)
        assert run.record("curate")["counts"]["read"] == 7


def test_a_file_that_is_not_what_its_record_says_is_told(
    here: Machine, elsewhere: Machine, s3: S3Server
) -> None:
    with here() as run:
        do(run)
    path = "bucket/runs/test/curate/questions.parquet"
    data = bytearray(s3.files.cat_file(path))
    data[50] ^= 1
    s3.files.pipe_file(path, bytes(data))
    with pytest.raises(MismatchError, match="is not what its record says"), elsewhere():
        pass
    s3.files.rm_file(path)
    with pytest.raises(MismatchError, match="is missing, which its record names"), elsewhere():
        pass


def test_no_run_there_is_one_line(here: Machine) -> None:
    with here():
        with pytest.raises(InputError, match="s3://bucket/runs/absent is no run"):
            working_copy(f"{RUNS}/absent")
        with pytest.raises(InputError, match="leads out"):
            mirror("s3://bucket/../../home")


def test_a_named_model_of_a_run_keeps_its_name(here: Machine) -> None:
    with here() as run:
        do(run)
        assert working_copy(f"{RUN}:base") == run.folder.with_name("test:base")
        assert open_run(working_copy(RUN)).folder == run.folder


# ── the store goes away, the process dies ────────────────────────────────────────────────────────


def test_a_store_that_goes_while_a_stage_is_sent_gets_the_rest_later(
    here: Machine, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PATIENCE_SECONDS", 1.0)
    with here() as run:
        says = r"cannot be reached for 1 s .* finished is kept in"
        with pytest.raises(RemoteError, match=says), run.open():
            s3.stop()
            finish(run, "curate", sums(3))
        finished = (run.folder / "curate/record.json").read_bytes()
        s3.start()
        assert "curate/record.json" not in names(s3)
        with run.open():
            pass
        assert (run.folder / "curate/record.json").read_bytes() == finished
    assert s3.files.cat_file("bucket/runs/test/curate/record.json") == finished


def test_a_store_that_comes_back_while_a_stage_is_sent_is_waited_for(
    here: Machine, s3: S3Server
) -> None:
    with here() as run, run.open():
        s3.stop()
        back = threading.Timer(2, s3.start)
        back.start()
        finish(run, "curate", sums(3))
        back.join()
    assert "curate/record.json" in names(s3)


SENDS = """
import os, signal, sys
from pathlib import Path
from monotreme.stores import push
from monotreme.stores.store import Store
put, remove, left = Store.put, Store.remove, int(sys.argv[2])
def dying(do):
    def step(self, *rest):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return do(self, *rest)
    return step
Store.put, Store.remove = dying(put), dying(remove)
push(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_killed_before_any_operation_of_sending_the_next_finishes(
    here: Machine, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage of four files over one of three, killed for real before its n-th put or removal."""
    operations = 0
    while True:
        s3.files.rm("bucket/runs", recursive=True) if operations else None
        with here() as run:
            for path in sorted(run.folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            with run.open(), run.stage("merge", {}) as work:
                for name in ("a", "b", "old"):
                    work.text(name, f"{name} before")
            with monkeypatch.context() as alone:
                alone.setattr("monotreme.stores.push", lambda _: None)
                with run.stage("merge", {}) as work:
                    for name in ("a", "b", "c"):
                        work.text(name, f"{name} after")
            code = [sys.executable, "-c", SENDS, str(run.folder), str(operations)]
            done = subprocess.run(code, env={**os.environ, **s3.environment}, check=False)
            assert is_whole(s3)
            if done.returncode == 0:
                break
            assert done.returncode == -signal.SIGKILL
            with run.open():
                pass
            finished = (run.folder / "merge/record.json").read_bytes()
        assert is_whole(s3)
        assert {n for n in names(s3) if "merge" in n} == {
            f"merge/{name}" for name in ("a", "b", "c", "record.json")
        }
        assert s3.files.cat_file("bucket/runs/test/merge/record.json") == finished
        assert s3.files.cat_file("bucket/runs/test/merge/a") == b"a after"
        operations += 1
    assert operations == 6, "the old record and `old` go, a, b, c and the record come"
