"""A file is whole or absent, and what stood there before survives every failure."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from monotreme.errors import InputError, RefusedError, StorageError
from monotreme.storage import resuming, sha256, writing


def test_a_failed_write_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="broke"), writing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("broke")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path: Path):
    path = tmp_path / "model"
    for name in ("old", "new"):
        with writing(path) as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert [p.name for p in path.iterdir()] == ["new"]


def test_every_file_has_the_ordinary_mode(tmp_path: Path):
    """safetensors leaves files that only their owner may read."""
    (tmp_path / "plain").touch()
    with writing(tmp_path / "model") as temporary:
        temporary.mkdir()
        save_file({"a": np.zeros(2, np.float32)}, temporary / "a.safetensors")
        (temporary / "b.json").write_text("{}")
    with resuming(tmp_path / "whole", "0" * 16) as unfinished:
        save_file({"a": np.zeros(2, np.float32)}, unfinished / "a.safetensors")
    modes = {path.stat().st_mode for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {(tmp_path / "plain").stat().st_mode}


def test_all_of_it_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A machine that loses power forgets what was not synced: files, folders and names in them."""
    synced: list[int | str] = []
    sync, replace = os.fsync, Path.replace

    def note(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        sync(handle)

    def rename(path: Path, target: Path) -> Path:
        synced.append("renamed")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "replace", rename)
    with writing(path := tmp_path / "model") as temporary:
        (temporary / "deep").mkdir(parents=True)
        (temporary / "deep/a").write_text("1")
    within = {each.stat().st_ino for each in (path, *path.rglob("*"))}
    assert set(synced[:-2]) == within
    assert synced[-2:] == ["renamed", tmp_path.stat().st_ino]


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path):
    """A real failing write: the process may not make a file of more than 1,000 bytes."""
    (tmp_path / "a.txt").write_text("old")
    script = f"""
import resource, signal
from pathlib import Path
from monotreme.storage import writing
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
with writing(Path({str(tmp_path / "a.txt")!r})) as path:
    path.write_text("x" * 100_000)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("monotreme.errors.StorageError: cannot write")
    assert "File too large" in last
    assert "bytes free" in last
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_disk_that_is_really_full_loses_nothing(small_disk: Path) -> None:
    """What was there stands, the half file is gone, and with room the same write is done."""
    (small_disk / "a.bin").write_bytes(b"old")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1_500_000))
    with pytest.raises(StorageError, match=r"No space left on device, .* bytes free"):
        write(small_disk / "a.bin", bytes(1_000_000))
    assert (small_disk / "a.bin").read_bytes() == b"old"
    assert sorted(path.name for path in small_disk.iterdir()) == ["a.bin", "ballast"]
    ballast.unlink()
    write(small_disk / "a.bin", bytes(1_000_000))
    assert (small_disk / "a.bin").stat().st_size == 1_000_000


def write(path: Path, data: bytes) -> None:
    with writing(path) as temporary:
        temporary.write_bytes(data)


def test_unfinished_work_is_given_again_for_the_same_key_alone(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for key, expected in (("a" * 64, []), ("a" * 64, ["shard"]), ("b" * 64, [])):
        with pytest.raises(KeyboardInterrupt), resuming(path, key) as folder:
            assert [file.name for file in folder.iterdir()] == expected
            (folder / "shard").write_text("done")
            raise KeyboardInterrupt
    with resuming(path, "b" * 64) as folder:
        assert (folder / "shard").read_text() == "done"
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(("error", "stays"), [(StorageError, True), (RefusedError, False)])
def test_what_doing_more_would_not_mend_is_taken_away(
    tmp_path: Path, error: type[RefusedError], stays: bool
) -> None:
    with pytest.raises(error), resuming(tmp_path / "model", "a" * 64) as folder:
        (folder / "shard").write_text("done")
        raise error("no", "Do")
    assert any(tmp_path.iterdir()) == stays


def test_the_digest_of_a_folder_sees_names_and_contents(tmp_path: Path):
    (tmp_path / "a").write_text("1")
    first = sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = sha256(tmp_path)
    (tmp_path / "b").write_text("22")
    assert len({first, second, sha256(tmp_path)}) == 3


def test_nothing_there_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="absent cannot be read"):
        sha256(tmp_path / "absent")
