"""The adapter's files: which weights it changes, and how; its tensors are read when they are needed.

Shapes: O, I are the outputs and inputs of a linear layer, R is the adapter's rank.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from monotreme.errors import InputError, RefusedError
from monotreme.merge.change import Change, Factors
from monotreme.merge.files import Stored, file_tensors, read_json, read_tensor

# Settings of PEFT's LoraConfig that make a merge something else than what `change` does.
UNHANDLED = (
    *("lora_bias", "trainable_token_indices", "target_parameters", "layer_replication"),
    *("alora_invocation_tokens", "use_bdlora", "arrow_config", "kasa_config", "monteclora_config"),
    "velora_config",
)
# Initialisations that leave the base as it is; the others (pissa, olora, loftq, ...) change it.
INITIALISATIONS = (None, True, False, "gaussian", "orthogonal", "eva")
# How model folders that are quantised call themselves.
QUANTISED_NAME = re.compile(r"(?i)(?<![a-z])(bnb|nf4|fp4|int[48]|[48]-?bit|gptq|awq|hqq|gguf|aqlm)")
QUANTISED = ("quantization_config", "use_qalora", "loftq_config")  # of adapter_config.json
PREFIX = "base_model.model."
SUFFIXES = {
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_embedding_A": "embedding_a",
    ".lora_embedding_B": "embedding_b",
    ".lora_magnitude_vector": "magnitude",
    ".base_layer.weight": "saved",  # PEFT saves an adapted embedding whole beside its factors
}


@dataclass(frozen=True)
class Slot:
    """What an adapter holds for one weight; `load` reads it.

    Attributes:
        a, b, magnitude: where the factors are; see `change.Factors`.
        saved: where the whole tensor is, for `modules_to_save` and adapted embeddings.
        fan_in_fan_out: the adapter's flag for layers that are stored (I, O).
    """

    path: Path
    a: Stored | None = None
    b: Stored | None = None
    magnitude: Stored | None = None
    saved: Stored | None = None
    scale: float = 1.0
    embedding: bool = False
    fan_in_fan_out: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """(O, I) of the factors' product, or the shape of the saved tensor."""
        if self.a is None or self.b is None:
            return self.saved.shape if self.saved else ()
        return (self.b.shape[0], self.a.shape[1])

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a weight of this shape can take the change."""
        if self.embedding:
            return shape == self.shape[::-1]
        return shape == self.shape or (self.fan_in_fan_out and shape == self.shape[::-1])

    def load(self, shape: tuple[int, ...]) -> Change:
        """Read the change of a weight of this shape."""
        saved = read_tensor(self.path, self.saved) if self.saved else None
        if self.a is None or self.b is None:
            return Change(saved=saved)
        factors = Factors(
            read_tensor(self.path, self.a).float(),
            read_tensor(self.path, self.b).float(),
            self.scale,
            transposed=self._is_transposed(shape),
            embedding=self.embedding,
            magnitude=read_tensor(self.path, self.magnitude).float() if self.magnitude else None,
        )
        return Change((factors,), saved)

    def _is_transposed(self, shape: tuple[int, ...]) -> bool:
        """PEFT asks the layer's class; a file has only shapes, and the flag for square ones."""
        square = self.shape[0] == self.shape[1]
        return self.embedding or (self.fan_in_fan_out if square else shape != self.shape)


def read_adapter(folder: Path, weight: float = 1.0) -> dict[str, Slot]:
    """A LoRA adapter in PEFT's format as name of a weight → what to read for it.

    Args:
        weight: that multiplies every delta.

    Raises:
        InputError: the folder cannot be read as an adapter.
        RefusedError: it uses a feature that a merge cannot express, or was trained on a quantised
            base.
    """
    config = read_json(folder / "adapter_config.json")
    _check_features(config)
    _check_base(config)
    path = folder / "adapter_model.safetensors"
    parts: dict[str, dict[str, Stored]] = {}
    for name, stored in file_tensors(path).items():
        _check_finite(path, name, stored)
        place, part = _place(name, config)
        parts.setdefault(place, {})[part] = stored
    if not parts:
        raise InputError(f"adapter {folder} holds no tensors", "Train it again")
    slots = {name: _slot(path, name, parts[name], config) for name in sorted(parts)}
    return {name: replace(slot, scale=slot.scale * weight) for name, slot in slots.items()}


def _check_finite(path: Path, name: str, stored: Stored) -> None:
    largest = torch.linalg.vector_norm(read_tensor(path, stored).float(), float("inf"))
    if not largest.isfinite():
        raise InputError(f"the adapter's {name} holds values that are not finite", "Train it again")


def _check_features(config: Mapping[str, Any]) -> None:
    features = [key for key in UNHANDLED if config.get(key)]
    if config.get("peft_type") != "LORA":
        features.append(f"peft_type {config.get('peft_type')}")
    if config.get("bias", "none") != "none":
        features.append(f"bias {config['bias']}")
    if config.get("init_lora_weights") not in INITIALISATIONS:
        features.append(f"init_lora_weights {config['init_lora_weights']}")
    if features:
        raise RefusedError(
            f"the adapter uses {', '.join(features)}, which a merge cannot express yet",
            "Merge it with PEFT, or train a plain LoRA adapter",
        )


def _check_base(config: Mapping[str, Any]) -> None:
    """An adapter that was trained on a quantised base corrects that base's rounding too."""
    base = str(config.get("base_model_name_or_path") or "")
    local = Path(base) / "config.json"
    marks = [key for key in QUANTISED if config.get(key)]
    if local.is_file() and read_json(local).get("quantization_config"):
        marks.append("the quantization_config of its base")
    if found := QUANTISED_NAME.search(Path(base).name):
        marks.append(f"{found[0]} in the name of its base, {base}")
    if marks:
        raise RefusedError(
            f"the adapter was trained on a quantised base ({', '.join(marks)}); merged into "
            "unquantised weights it is another model",
            "Serve it as an adapter on that base, or train it on unquantised weights",
        )


def _place(name: str, config: Mapping[str, Any]) -> tuple[str, str]:
    """The weight that a tensor of the adapter belongs to, and as what."""
    inner = name.removeprefix(PREFIX)
    for suffix, part in SUFFIXES.items():
        if name.startswith(PREFIX) and inner.endswith(suffix):
            return f"{inner.removesuffix(suffix)}.weight", part
    module = inner.rpartition(".")[0]
    saved = config.get("modules_to_save") or []
    if not any(module == each or module.endswith(f".{each}") for each in saved):
        raise RefusedError(
            f"the adapter holds {name}, which is no factor of a layer nor of modules_to_save",
            "Merge it with PEFT, or train an adapter of linear layers alone",
        )
    return inner, "saved"


def _slot(path: Path, weight: str, parts: Mapping[str, Stored], config: Mapping[str, Any]) -> Slot:
    if set(parts) == {"saved"}:
        return Slot(path, saved=parts["saved"])
    embedding = "embedding_a" in parts
    a, b = (parts.get(f"embedding_{side}" if embedding else side) for side in "ab")
    if a is None or b is None or len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
        raise InputError(
            f"the adapter's factors of {weight} are not a pair of matrices", "Train it again"
        )
    if embedding and "magnitude" in parts:
        raise RefusedError(
            f"the adapter uses use_dora on the embedding {weight}, which a merge cannot express yet",
            "Merge it with PEFT, or train without it",
        )
    return Slot(
        path,
        a,
        b,
        parts.get("magnitude"),
        parts.get("saved"),
        scale=_scale(weight.removesuffix(".weight"), a.shape[0], config),
        embedding=embedding,
        fan_in_fan_out=bool(config.get("fan_in_fan_out")),
    )


def _scale(module: str, rank: int, config: Mapping[str, Any]) -> float:
    """alpha / rank, or alpha / sqrt(rank) for rsLoRA; `alpha_pattern` is matched as PEFT does."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    matching = (a for key, a in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
    alpha = next(matching, config["lora_alpha"])
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))
