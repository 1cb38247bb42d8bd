"""Texts → unit vectors, computed once per text and kept on disk."""

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.numpy import save_file
from safetensors.torch import load_file

from monotreme.encoders import Encoder, Window
from monotreme.progress import progress
from monotreme.records import digest
from monotreme.storage import storage_errors, writing

T = TypeVar("T")
R = TypeVar("R")
SHARD_TEXTS = 16_384  # texts of one cache file: what a killed run loses at most


class Vectors(NamedTuple):
    """Unit vectors of N texts, one for each window of a text, those of a text side by side.

    Attributes:
        rows: (R, dimension) float32, memory-mapped.
        owner: (R,) int64, ascending: the text that a row is a window of.
    """

    rows: np.ndarray
    owner: np.ndarray


def embed(texts: Sequence[str], encoder: Encoder, cache: Path, exact: bool = False) -> Vectors:
    """Vectors of texts; quick ones unless `exact`.

    Equal texts are computed once; texts whose vectors lie in `cache` are not computed at all.
    Quick and exact vectors lie there apart.
    """
    shelf = _Shelf(shelf_folder(cache, encoder, exact), encoder)
    keys = [digest(text) for text in texts]
    fresh = {key: text for key, text in zip(keys, texts, strict=True) if key not in shelf}
    names = sorted(fresh)  # an order of the content, so that shards do not depend on the input's
    shards = [names[i : i + SHARD_TEXTS] for i in range(0, len(names), SHARD_TEXTS)]
    windows = _one_ahead(encoder.windows, ([fresh[key] for key in shard] for shard in shards))
    with progress("Embedding exactly" if exact else "Embedding texts", len(names)) as done:
        for shard, cut in zip(shards, windows, strict=True):
            shelf.add(shard, *_encode(cut, encoder, exact, done))
    return shelf.vectors(keys)


def shelf_folder(cache: Path, encoder: Encoder, exact: bool) -> Path:
    """Where an encoder's vectors lie."""
    precise = exact or not encoder.error
    return cache / digest(encoder.digest, "exact" if precise else "quick")[:16]


def _one_ahead(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Results in order, the next one in the making while one is used: tokenising beside the model."""
    with ThreadPoolExecutor(1) as worker:
        coming: deque[Future[R]] = deque()
        for item in items:
            coming.append(worker.submit(work, item))
            if len(coming) > 1:
                yield coming.popleft().result()
        for last in coming:
            yield last.result()


def _encode(
    cut: list[list[Window]], encoder: Encoder, exact: bool, done: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of all windows, and how many windows each text has."""
    counts = np.array([len(windows) for windows in cut], np.int64)
    is_first = np.diff(np.repeat(np.arange(len(cut)), counts), prepend=-1) > 0
    rows = np.empty((len(is_first), encoder.dimension), np.float32)
    for places, vectors in encoder.encode([w for windows in cut for w in windows], exact):
        rows[places] = F.normalize(vectors, dim=-1).numpy()
        done(int(is_first[places].sum()))  # a text counts with its first window
    return rows, counts


class _Shelf:
    """The vectors of one encoder on disk: shards of rows, each with its texts' digests and counts."""

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        self.folder = folder
        self.dimension = encoder.dimension
        self.shards: list[np.ndarray] = []
        self.num_rows = 0
        self.places: dict[
            bytes, tuple[int, int]
        ] = {}  # text → its first row over all shards, count
        for path in sorted(folder.glob("*.safetensors")):
            self._load(path)

    def __contains__(self, key: str) -> bool:
        return bytes.fromhex(key) in self.places

    def add(self, keys: list[str], rows: np.ndarray, counts: np.ndarray) -> None:
        names = np.frombuffer(bytes.fromhex("".join(keys)), np.uint8).reshape(len(keys), 32)
        path = self.folder / f"{digest(*keys)[:32]}.safetensors"
        with writing(path) as temporary:
            save_file({"keys": names, "counts": counts, "vectors": rows}, temporary)
        self._load(path)

    def vectors(self, keys: Sequence[str]) -> Vectors:
        """Gather the rows of texts into one memory-mapped array."""
        places = [self.places[bytes.fromhex(key)] for key in keys]
        first, counts = np.array(places, np.int64).reshape(-1, 2).T
        owner = np.repeat(np.arange(len(keys)), counts)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.repeat(first, counts) + within
        out = _room((len(owner), self.dimension), self.folder)
        start = 0
        for shard in self.shards:
            here = np.flatnonzero((rows >= start) & (rows < start + len(shard)))
            out[here] = shard[rows[here] - start]
            start += len(shard)
        return Vectors(out, owner)

    def _load(self, path: Path) -> None:
        try:
            shard = {name: tensor.numpy() for name, tensor in load_file(path).items()}  # mapped
        except (OSError, SafetensorError):
            path.unlink()  # a broken cache file costs its texts' embedding again, no more
            return
        starts = self.num_rows + np.cumsum(shard["counts"]) - shard["counts"]
        for key, start, count in zip(shard["keys"], starts, shard["counts"], strict=True):
            self.places[key.tobytes()] = (int(start), int(count))
        self.shards.append(shard["vectors"])
        self.num_rows += len(shard["vectors"])


def _room(shape: tuple[int, int], folder: Path) -> np.ndarray:
    """An array in a file without a name, so that its memory is the system's to take back."""
    if not shape[0]:
        return np.empty(shape, np.float32)
    with storage_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS; a full disk shows here, not as a crash
            os.posix_fallocate(file.fileno(), 0, 4 * shape[0] * shape[1])
        return np.memmap(file, np.float32, "r+", shape=shape)
