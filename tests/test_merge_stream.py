"""A merge writes the target's own files again, in blocks, and a killed one is taken up again."""

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from merging import cast, load, merged, same_bits, weights, write_adapter

from monotreme.errors import InputError, RefusedError, StorageError
from monotreme.merge import files as merge_files
from monotreme.merge import read_adapter, read_target, write, write_merged
from monotreme.merge.change import merged_rows
from monotreme.merge.files import copy_bytes, file_tensors, read_rows, read_tensor


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = cast(tiny_model, tmp_path_factory.mktemp("sharded") / "model", torch.bfloat16)
    load(folder).save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, sharded: Path) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter") / "lora", sharded)


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_the_files_headers_and_untouched_bytes_are_the_targets(
    tmp_path: Path, sharded: Path, adapter: Path
) -> None:
    folder = merged(sharded, adapter, tmp_path / "merged")
    changed = set(read_adapter(adapter))
    for old in sorted(sharded.glob("model*")):
        new = folder / old.name
        before, after = bytearray(old.read_bytes()), bytearray(new.read_bytes())
        if old.suffix == ".safetensors":
            for name in changed & set(file_tensors(old)):
                stored = file_tensors(old)[name]
                part = slice(stored.start, stored.start + stored.num_bytes)
                assert before[part] != after[part]
                before[part] = after[part] = bytes(stored.num_bytes)
        assert before == after
    assert len(list(folder.glob("*.safetensors"))) > 3


def test_what_is_told_of_a_file_is_its_own_digest(
    tmp_path: Path, sharded: Path, adapter: Path
) -> None:
    written = write_merged(read_target(sharded), read_adapter(adapter), tmp_path)
    assert {name: file.sha256 for name, file in written.items()} == digests(tmp_path)


def test_the_bytes_do_not_depend_on_the_threads_nor_on_the_blocks(
    tmp_path: Path, sharded: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, slots = read_target(sharded), read_adapter(adapter)
    found = []
    for threads, elements in ((1, 2**18), (4, 2**18), (2, 1)):
        monkeypatch.setattr("monotreme.merge.change.BLOCK_ELEMENTS", elements)
        monkeypatch.setattr("monotreme.merge.change.LEAST_ROWS", 8)
        monkeypatch.setattr(os, "cpu_count", lambda threads=threads: threads)
        folder = tmp_path / f"{threads}-{elements}"
        folder.mkdir()
        written = write_merged(target, slots, folder)
        found.append((digests(folder), sum(w.tally.num_unchanged for w in written.values())))
    assert found[0] == found[1] == found[2]


def test_no_more_than_a_block_is_read_at_once(
    tmp_path: Path, sharded: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def watched(file: int, stored: Any, start: int, stop: int) -> torch.Tensor:
        read.append((stop - start) * stored.row_bytes // 2)
        return read_rows(file, stored, start, stop)

    monkeypatch.setattr("monotreme.merge.change.BLOCK_ELEMENTS", 512)
    monkeypatch.setattr("monotreme.merge.change.LEAST_ROWS", 4)
    monkeypatch.setattr(write, "read_rows", watched)
    merged(sharded, adapter, tmp_path / "merged")
    assert max(read) <= 512
    assert sum(read) == 6 * 32 * 64


def test_a_thread_computes_on_one_core(
    tmp_path: Path, sharded: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products of several cores have other last bits on some processors."""
    seen: set[int] = set()

    def watched(*arguments: Any) -> Any:
        seen.add(torch.get_num_threads())
        return merged_rows(*arguments)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(write, "merged_rows", watched)
    merged(sharded, adapter, tmp_path / "merged")
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert (seen, after) == ({1}, 2)


KILLED = """
import json, os, signal, sys
from pathlib import Path
from monotreme.merge import read_adapter, read_target, write_merged

target, slots = read_target(Path(sys.argv[1])), read_adapter(Path(sys.argv[2]))

def deadly(real, left):
    def call(*arguments):
        left[0] -= 1
        if left[0] == 0:
            if real is os.pwrite:  # half of it reaches the file
                real(arguments[0], arguments[1][: len(arguments[1]) // 2], arguments[2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)
    return call

found = []
for number in range(1, 70):
    folder = Path(sys.argv[3]) / str(number)
    folder.mkdir()
    pid = os.fork()
    if pid == 0:
        left = [number]
        for name in ("pwrite", "copy_file_range", "fsync", "preadv"):
            setattr(os, name, deadly(getattr(os, name), left))
        write_merged(target, slots, folder)
        os._exit(0)
    found.append(os.WTERMSIG(os.waitpid(pid, 0)[1]))
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_merge_killed_at_any_call_to_the_system_is_finished_by_the_next(
    tmp_path: Path, sharded: Path, adapter: Path
) -> None:
    (tmp_path / "whole").mkdir()
    target, slots = read_target(sharded), read_adapter(adapter)
    write_merged(target, slots, tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    command = [sys.executable, "-c", KILLED, *map(str, (sharded, adapter, tmp_path / "cut"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sum(signal == 9 for signal in json.loads(done.stdout)) > 50
    num_kept = 0
    for folder in sorted((tmp_path / "cut").iterdir()):
        noted = [path.name[1:].removesuffix(".done.json") for path in folder.glob(".*.done.json")]
        kept = {name: (folder / name).stat().st_ino for name in noted}
        write_merged(target, slots, folder)
        assert digests(folder) == digests(tmp_path / "whole")
        assert kept == {name: (folder / name).stat().st_ino for name in noted}
        num_kept += len(kept)
    assert num_kept > 0


@pytest.mark.parametrize("number", [errno.EXDEV, errno.ENOSYS, None])
def test_bytes_are_copied_where_the_kernel_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, "no") if number else AttributeError

    monkeypatch.setattr(os, "copy_file_range", refuse)
    monkeypatch.setattr(merge_files, "CHUNK", 7)
    (tmp_path / "a").write_bytes(bytes(range(100)))
    with (tmp_path / "a").open("rb") as old, (tmp_path / "b").open("wb") as new:
        copy_bytes(old.fileno(), new.fileno(), 3, 90)
        with pytest.raises(InputError, match="ends too early"):
            copy_bytes(old.fileno(), new.fileno(), 90, 11)
    assert (tmp_path / "b").read_bytes()[3:93] == bytes(range(3, 93))


def test_a_full_disk_is_one_line(
    tmp_path: Path, sharded: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StorageError, match="No space left"):
        merged(sharded, adapter, tmp_path / "merged")


def test_a_value_that_the_dtype_cannot_hold_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    target = cast(tiny_model, tmp_path / "target", torch.float16)
    source = write_adapter(tmp_path / "lora", target, lora_alpha=1e8)
    with pytest.raises(RefusedError, match=r"holds values that torch\.float16 cannot"):
        merged(target, source, tmp_path / "merged")


def test_tensors_are_read_as_the_library_reads_them(sharded: Path) -> None:
    expected = weights(sharded)
    found = {
        name: read_tensor(path, stored)
        for path in sorted(sharded.glob("*.safetensors"))
        for name, stored in file_tensors(path).items()
    }
    assert same_bits(found, expected)
