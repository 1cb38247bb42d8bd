"""Writing a merged model: shard by shard, one tensor after the other."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from monotreme.errors import RefusedError
from monotreme.merge.adapter import Factors, merged_weight
from monotreme.merge.files import DTYPES, opened
from monotreme.merge.target import Target
from monotreme.progress import progress

COPIED = (
    *("config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "*.model", "*.jinja"),
    *("LICENSE*", "NOTICE*", "USE_POLICY*"),  # licences such as Llama's travel with the weights
)


@dataclass
class Tally:
    """What the merge did to the weights: squared norms and numbers of elements."""

    weight_square: float = 0.0
    delta_square: float = 0.0
    num_adapted: int = 0
    num_unchanged: int = 0


def shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Cut tensors (name → bytes), in order, into files of at most `limit` bytes.

    A tensor over the limit gets a file of its own.
    """
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if groups[-1] and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    return groups


def write_merged(
    target: Target, adapter: Mapping[str, Factors], folder: Path, shard_bytes: int
) -> Tally:
    """Write the merged weights; one output file's tensors are in memory at a time.

    Raises:
        RefusedError: a merged value is too large for the target's dtype.
    """
    tally = Tally()
    sizes = {name: tensor.num_bytes for name, tensor in target.tensors.items()}
    groups = shards(sizes, shard_bytes)
    files = _file_names(len(groups))
    with _reading(target) as read, progress("merge", len(sizes)) as done:
        for file, names in zip(files, groups, strict=True):
            tensors = {}
            for name in names:
                tensors[name] = _merge_one(name, read(name), adapter.get(name), tally)
                done(1)
            save_file(tensors, folder / file, metadata={"format": "pt"})
    if len(groups) > 1:
        _write_index(folder, dict(zip(files, groups, strict=True)), sum(sizes.values()))
    return tally


def _file_names(num: int) -> list[str]:
    if num == 1:
        return ["model.safetensors"]
    return [f"model-{i:05}-of-{num:05}.safetensors" for i in range(1, num + 1)]


def _write_index(folder: Path, groups: Mapping[str, list[str]], total_bytes: int) -> None:
    weight_map = {name: file for file, names in groups.items() for name in names}
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    text = json.dumps(index, indent=2) + "\n"
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


@contextmanager
def _reading(target: Target) -> Iterator[Callable[[str], Tensor]]:
    """Give a function that reads a tensor of the target by its name."""
    files = {tensor.file for tensor in target.tensors.values()}
    with ExitStack() as stack:
        handles = {name: stack.enter_context(opened(target.folder / name)) for name in files}
        yield lambda name: handles[target.tensors[name].file].get_tensor(name)


def _merge_one(name: str, weight: Tensor, factors: Factors | None, tally: Tally) -> Tensor:
    if weight.dtype in DTYPES.values():
        tally.weight_square += _norm(weight) ** 2
    if factors is None:
        return weight
    merged, delta = merged_weight(weight, factors)
    if not merged.isfinite().all():
        raise RefusedError(
            f"{name} holds values that {weight.dtype} cannot", "Merge into weights stored as bf16"
        )
    tally.delta_square += _norm(delta) ** 2
    tally.num_adapted += weight.numel()
    tally.num_unchanged += int((merged == weight).sum())
    return merged


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float32))


def copy_companions(source: Path, folder: Path, *, with_code: bool) -> None:
    """Copy configuration, tokenizer and licence; the model's own code only where it is trusted."""
    for pattern in (*COPIED, "*.py") if with_code else COPIED:
        for path in source.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
