"""Writing a merged model: the target's own files again, with the adapted rows changed.

A safetensors header says names, dtypes, shapes and places, and a merge alters none of them: it is
copied, and so are the bytes of every tensor that the adapter leaves alone, within the kernel.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monotreme.errors import RefusedError
from monotreme.merge.adapter import Slot
from monotreme.merge.change import merged_rows
from monotreme.merge.files import CHUNK, Stored, copy_bytes, read_rows, write_rows
from monotreme.merge.target import Target
from monotreme.progress import progress
from monotreme.storage import writing

COPIED = (
    *("config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "*.model", "*.jinja"),
    *("model.safetensors.index.json",),
    *("LICENSE*", "NOTICE*", "USE_POLICY*"),  # licences such as Llama's travel with the weights
)
MOST_THREADS = 4  # each holds about 5 MB; more would wait for the memory's bandwidth
BITS = {2: torch.int16, 4: torch.int32}  # integers of an element's size


@dataclass
class Tally:
    """What the merge did to the adapted weights: squared norms and numbers of elements."""

    weight_square: float = 0.0
    delta_square: float = 0.0
    num_adapted: int = 0
    num_unchanged: int = 0

    def add(self, other: "Tally") -> None:
        self.weight_square += other.weight_square
        self.delta_square += other.delta_square
        self.num_adapted += other.num_adapted
        self.num_unchanged += other.num_unchanged


@dataclass(frozen=True)
class Written:
    """A finished file: its SHA-256 and what was done to its weights."""

    sha256: str
    tally: Tally


@dataclass(frozen=True)
class Job:
    """One file to write: `tensors` of `source`, changed by `adapter`, into `path`."""

    source: Path
    path: Path
    tensors: Mapping[str, Stored]
    adapter: Mapping[str, Slot]


def write_merged(target: Target, adapter: Mapping[str, Slot], folder: Path) -> dict[str, Written]:
    """Write the merged weights into `folder`, file by file; finished ones are left as they are.

    Several threads share a file's tensors. Each computes alone, so that the bits do not depend on
    their number. A file appears whole, with its account beside it; an
    earlier call that was killed leaves those, and this call does the others. At the end the
    accounts are taken away.

    Returns:
        File name → what was written.

    Raises:
        InputError: a file of the target has become shorter.
        RefusedError: a merged value is too large for the target's dtype.
        StorageError: the disk is full or the folder cannot be written.
    """
    for leftover in folder.glob(".*.tmp"):  # of a call that was killed
        leftover.unlink()
    files: dict[str, dict[str, Stored]] = {}
    for name, stored in target.tensors.items():
        files.setdefault(stored.file, {})[name] = stored
    written = {}
    with progress("merge", len(target.tensors)) as done, _threads() as pool:
        for file, tensors in files.items():
            account = _account(folder, file)
            if account.is_file():
                done(len(tensors))
            else:
                job = Job(target.folder / file, folder / file, tensors, adapter)
                found = _write_file(job, pool, done)
                with writing(account) as path:
                    path.write_text(json.dumps(asdict(found)), encoding="utf-8")
            read = json.loads(account.read_text(encoding="utf-8"))
            written[file] = Written(read["sha256"], Tally(**read["tally"]))
    for file in files:
        _account(folder, file).unlink()
    return written


def _account(folder: Path, file: str) -> Path:
    return folder / f".{file}.done.json"


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that compute on one core each; what waits is dropped when anything fails."""
    num = torch.get_num_threads()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(num)


def _write_file(job: Job, pool: ThreadPoolExecutor, done: Callable[[int], None]) -> Written:
    """Write one file of the target with its adapted tensors merged, hashing what is finished."""
    tally, digest = Tally(), hashlib.sha256()
    with (
        writing(job.path) as temporary,
        job.source.open("rb", buffering=0) as old,
        temporary.open("wb+", buffering=0) as new,
    ):
        header = min(stored.start for stored in job.tensors.values())
        copy_bytes(old.fileno(), new.fileno(), 0, header)
        _hash(digest, new, header)
        parts = pool.map(partial(_write_tensor, job, old.fileno(), new.fileno()), job.tensors)
        for stored, part in zip(job.tensors.values(), parts, strict=True):
            tally.add(part)
            _hash(digest, new, stored.num_bytes)
            done(1)
    return Written(digest.hexdigest(), tally)


def _hash(digest: Any, file: FileIO, num: int) -> None:
    """Take the next bytes of a file into a digest; they have just been written, no disk is read."""
    buffer = memoryview(bytearray(min(num, CHUNK)))
    while num and (done := file.readinto(buffer[:num])):
        digest.update(buffer[:done])
        num -= done


def _write_tensor(job: Job, old: int, new: int, name: str) -> Tally:
    """Copy or merge one tensor between two open files."""
    stored, slot = job.tensors[name], job.adapter.get(name)
    if slot is None:
        copy_bytes(old, new, stored.start, stored.num_bytes)
        return Tally()
    change, tally = slot.load(stored.shape), Tally()
    for start, stop in change.cuts(stored.shape):
        before = read_rows(old, stored, start, stop)
        after, delta = merged_rows(before, change, start)
        part = _tally(before, after, delta)
        if not math.isfinite(part.delta_square) or not _is_finite(after):
            raise RefusedError(
                f"{name} holds values that {before.dtype} cannot",
                "Merge into weights stored as bf16",
            )
        tally.add(part)
        write_rows(new, stored, start, after)
    return tally


def _tally(before: Tensor, after: Tensor, delta: Tensor) -> Tally:
    bits = BITS[before.element_size()]
    same = before.view(bits).numpy() == after.view(bits).numpy()
    return Tally(_square(before), _square(delta), before.numel(), int(np.count_nonzero(same)))


def _square(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float32)) ** 2


def _is_finite(tensor: Tensor) -> bool:
    """A finite norm says it of all at a tenth of the cost; squares may also be too large."""
    return math.isfinite(_square(tensor)) or bool(tensor.isfinite().all())


def copy_companions(source: Path, folder: Path, *, with_code: bool) -> None:
    """Copy configuration, tokenizer and licence; the model's own code only where it is trusted."""
    for pattern in (*COPIED, "*.py") if with_code else COPIED:
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
