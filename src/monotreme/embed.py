"""Texts → unit vectors, computed once per text and kept on disk."""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.numpy import save_file
from safetensors.torch import load_file

from monotreme.encoders import Encoder
from monotreme.engine import HERE, Died, Engine, Given
from monotreme.errors import InputError
from monotreme.progress import progress
from monotreme.records import digest
from monotreme.storage import storage_errors, writing

SHARD_TEXTS = 2_048  # texts of one cache file: what a killed run loses at most, for each worker


class Vectors(NamedTuple):
    """Unit vectors of N texts, one for each window of a text, those of a text side by side.

    Attributes:
        rows: (R, dimension) float32, memory-mapped.
        owner: (R,) int64, ascending: the text that a row is a window of.
        digest: changes whenever the texts, their order or what embeds them does.
    """

    rows: np.ndarray
    owner: np.ndarray
    digest: str = ""

    def missing(self, num_texts: int) -> np.ndarray:
        """Texts that have no vector as each worker died of them, ascending."""
        has = np.zeros(num_texts, bool)
        has[self.owner] = True
        return np.flatnonzero(~has)


def embed(
    texts: Sequence[str],
    encoder: Encoder,
    cache: Path,
    exact: bool = False,
    engine: Engine = HERE,
    set_aside: bool = False,
) -> Vectors:
    """Vectors of texts; quick ones unless `exact`.

    Equal texts are computed once; texts whose vectors lie in `cache` are not computed at all.
    Quick and exact vectors lie there apart.

    Args:
        set_aside: leave a text that kills its worker without a vector, instead of raising.

    Raises:
        InputError: a text kills every worker that embeds it.
    """
    folder = shelf_folder(cache, encoder, exact)
    keys, lengths = _described(texts)
    places = _fresh(keys, lengths, _Shelf(folder, encoder.dimension))
    shards = (
        [(bytes(keys[i]).ljust(32, b"\0"), texts[i]) for i in places[start : start + SHARD_TEXTS]]
        for start in range(0, len(places), SHARD_TEXTS)
    )
    make = Given((encoder, exact))
    with progress("Embedding exactly" if exact else "Embedding texts", len(places)) as done:
        for shard, outcome in engine.sift(_encode, shards, make, on_gpu=True):
            if not isinstance(outcome, Died):
                _keep(folder, [key for key, _ in shard], *outcome)
            elif not set_aside:
                raise _deadly(shard[0][1], outcome)
            done(len(shard))
    return _Shelf(folder, encoder.dimension).vectors(keys)


def shelf_folder(cache: Path, encoder: Encoder, exact: bool) -> Path:
    """Where an encoder's vectors lie."""
    precise = exact or not encoder.error
    return cache / digest(encoder.digest, "exact" if precise else "quick")[:16]


def _described(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(N,) digest of each text as 32 bytes, (N,) its number of characters."""
    each = iter(texts)
    keys, lengths = [np.empty(0, "S32")], [np.empty(0, np.int64)]
    while part := list(islice(each, SHARD_TEXTS)):
        keys.append(np.array([bytes.fromhex(digest(text)) for text in part], "S32"))
        lengths.append(np.array([len(text) for text in part], np.int64))
    return np.concatenate(keys), np.concatenate(lengths)


def _fresh(keys: np.ndarray, lengths: np.ndarray, shelf: "_Shelf") -> np.ndarray:
    """Places of one of each text that is not on the shelf.

    Longest first: running out of memory shows at once, and texts of about one length fill their
    batches. The order is one of the content, so that shards do not depend on the input's.
    """
    _, first = np.unique(keys, return_index=True)
    first = first[~shelf.holds(keys[first])]
    return np.asarray(first[np.lexsort((keys[first], -lengths[first]))])


def _encode(
    made: tuple[Encoder, bool], shard: Sequence[tuple[bytes, str]]
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of all windows of some texts, and how many windows each text has."""
    encoder, exact = made
    cut = encoder.windows([text for _, text in shard])
    counts = np.array([len(windows) for windows in cut], np.int64)
    rows = np.empty((counts.sum(), encoder.dimension), np.float32)
    for places, vectors in encoder.encode([w for windows in cut for w in windows], exact):
        rows[places] = F.normalize(vectors, dim=-1).numpy()
    return rows, counts


def _keep(folder: Path, keys: list[bytes], rows: np.ndarray, counts: np.ndarray) -> None:
    names = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), 32)
    path = folder / f"{digest(*(key.hex() for key in keys))[:32]}.safetensors"
    with writing(path) as temporary:
        save_file({"keys": names, "counts": counts, "vectors": rows}, temporary)


def _deadly(text: str, died: Died) -> InputError:
    return InputError(
        f"a text of {len(text):,} characters kills every worker that embeds it ({died.how}): "
        f"{text[:80]!r}",
        "Take its row out of the data; in a source, curate.on_bad_row: drop does that",
    )


class _Shelf:
    """The vectors of one encoder on disk: shards of rows, each with its texts' digests and counts."""

    def __init__(self, folder: Path, dimension: int) -> None:
        self._folder, self._dimension = folder, dimension
        self._shards = [
            shard for path in sorted(folder.glob("*.safetensors")) for shard in _load(path)
        ]
        names = [shard["keys"].reshape(-1).view("S32") for shard in self._shards]
        counts = [shard["counts"] for shard in self._shards]
        keys = np.concatenate([np.empty(0, "S32"), *names])
        self._counts = np.concatenate([np.empty(0, np.int64), *counts])
        self._first = np.cumsum(self._counts) - self._counts
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def holds(self, keys: np.ndarray) -> np.ndarray:
        """(N,) bool: whether the vectors of these texts are here."""
        if not len(self._keys):
            return np.zeros(len(keys), bool)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.asarray(self._keys[place] == keys)

    def vectors(self, keys: np.ndarray) -> Vectors:
        """Gather the rows of texts into one memory-mapped array; a text that is not here has none."""
        here = np.flatnonzero(self.holds(keys))
        places = self._order[np.searchsorted(self._keys, keys[here])]
        first, counts = self._first[places], self._counts[places]
        owner = np.repeat(here, counts)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.repeat(first, counts) + within
        out = _room((len(owner), self._dimension), self._folder)
        order = np.argsort(rows, kind="stable")
        start = done = 0
        for shard in self._shards:
            vectors = shard["vectors"]
            stop = done + int(np.searchsorted(rows[order[done:]], start + len(vectors)))
            out[order[done:stop]] = vectors[rows[order[done:stop]] - start]
            start, done = start + len(vectors), stop
        told = digest(self._folder.name, sha256(keys), sha256(owner))
        return Vectors(out, owner, told)


def sha256(array: np.ndarray) -> str:
    """SHA-256 (hex) of what an array holds."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _load(path: Path) -> Iterator[dict[str, np.ndarray]]:
    try:
        yield {name: tensor.numpy() for name, tensor in load_file(path).items()}  # mapped
    except SafetensorError:
        path.unlink(missing_ok=True)  # broken: its texts are embedded again


def _room(shape: tuple[int, int], folder: Path) -> np.ndarray:
    """An array in a file without a name, so that its memory is the system's to take back."""
    if not shape[0]:
        return np.empty(shape, np.float32)
    with storage_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS; a full disk shows here, not as a crash
            os.posix_fallocate(file.fileno(), 0, 4 * shape[0] * shape[1])
        return np.memmap(file, np.float32, "r+", shape=shape)
