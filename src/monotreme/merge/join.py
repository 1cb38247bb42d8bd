"""Several adapters into one: in a model without writing an adapter, or as an adapter's folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from monotreme.errors import MismatchError, RefusedError
from monotreme.merge.adapter import PREFIX, Slot, read_adapter
from monotreme.merge.change import Change
from monotreme.merge.combine import compressed, concatenated
from monotreme.merge.files import read_json
from monotreme.storage import writing


@dataclass(frozen=True)
class Sum(Slot):
    """What several adapters hold for one weight: their deltas are added up, and rounded once."""

    others: tuple[Slot, ...] = ()

    def load(self, shape: tuple[int, ...]) -> Change:
        """Read all changes of a weight of this shape, in the adapters' order."""
        changes = [super().load(shape), *(slot.load(shape) for slot in self.others)]
        return Change(tuple(factors for change in changes for factors in change.factors))


def read_sum(adapters: Sequence[tuple[Path, float]]) -> dict[str, Slot]:
    """Several adapters (folder, weight) as one that `write_merged` takes: Σ weight · scale · B A.

    Raises:
        InputError: a folder cannot be read as an adapter.
        MismatchError: two adapters change a weight of different shapes.
        RefusedError: one cannot be merged, or has DoRA or whole tensors, which are no deltas.
    """
    slots: dict[str, list[Slot]] = {}
    for folder, weight in adapters:
        for name, slot in read_adapter(folder, weight).items():
            slots.setdefault(name, []).append(slot)
    return {name: _sum(name, several) for name, several in sorted(slots.items())}


def _sum(name: str, slots: Sequence[Slot]) -> Slot:
    if len(slots) == 1:
        return slots[0]
    for slot in slots:
        check_delta(name, slot)
    first, *others = slots
    if any(_kind(slot) != _kind(first) for slot in others):
        raise MismatchError(
            f"two adapters change {name}, one with shape {first.shape}, one with another",
            "Join adapters of the same base",
        )
    return Sum(**{**vars(first), "others": tuple(others)})


def _kind(slot: Slot) -> tuple[Any, ...]:
    return slot.shape, slot.embedding, slot.fan_in_fan_out


def check_delta(name: str, slot: Slot) -> None:
    """Raise RefusedError if an adapter holds more for a weight than a delta."""
    if slot.magnitude or slot.saved:
        raise RefusedError(
            f"an adapter changes {name} by more than a delta (DoRA, or a tensor saved whole), which "
            "cannot be weighted or added to another's",
            "Merge one adapter after the other, or leave one out",
        )


def write_joined(
    adapters: Sequence[tuple[Path, float]], folder: Path, rank: int | None = None
) -> dict[str, float]:
    """Write several adapters (folder, weight) as one in PEFT's format.

    Args:
        rank: to compress each weight's factors to; None keeps the sum of their ranks.

    Returns:
        Weight → the share of its delta's energy (Frobenius norm squared) that the compression lost.

    Raises:
        InputError, MismatchError, RefusedError: as `read_sum`.
        StorageError: the disk is full or the folder cannot be written.
    """
    lost, tensors, ranks = {}, {}, {}
    for name, slot in read_sum(adapters).items():
        check_delta(name, slot)
        factors = concatenated(slot.load(slot.shape).factors)
        lost[name] = 0.0
        if rank is not None and rank < len(factors.a):
            factors, lost[name] = compressed(factors, rank)
        module = name.removesuffix(".weight")
        ranks[module] = len(factors.a)
        for side, tensor in (("A", factors.a), ("B", factors.b)):
            key = f"embedding_{side}" if slot.embedding else f"{side}.weight"
            tensors[f"{PREFIX}{module}.lora_{key}"] = tensor.contiguous()
    config = {**read_json(adapters[0][0] / "adapter_config.json"), **_settings(ranks)}
    with writing(folder) as temporary:
        temporary.mkdir()
        save_file(tensors, temporary / "adapter_model.safetensors", metadata={"format": "pt"})
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (temporary / "adapter_config.json").write_text(text, encoding="utf-8")
    return lost


def _settings(ranks: Mapping[str, int]) -> dict[str, Any]:
    """What changes in adapter_config.json: every scale, alpha / rank, is 1."""
    rank = max(ranks.values())
    other = {module: own for module, own in ranks.items() if own != rank}
    return {
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": other,
        "alpha_pattern": other,
        "target_modules": sorted(ranks),
        "use_rslora": False,
        "lora_dropout": 0.0,
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
    }
