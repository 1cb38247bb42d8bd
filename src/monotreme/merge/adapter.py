"""The adapter: what it adds to which weight.

Shapes: O, I are the outputs and inputs of a linear layer, R is the adapter's rank.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from monotreme.errors import InputError, RefusedError
from monotreme.merge.files import opened, read_json

# Settings of PEFT's LoraConfig that make a merge something else than W + scale · B A.
UNHANDLED = (
    *("use_dora", "modules_to_save", "lora_bias", "fan_in_fan_out", "trainable_token_indices"),
    *("target_parameters", "layer_replication", "alora_invocation_tokens", "use_qalora"),
    *("use_bdlora", "arrow_config", "kasa_config", "monteclora_config", "velora_config"),
)
# Initialisations that leave the base as it is; the others (pissa, olora, loftq, ...) change it.
INITIALISATIONS = (None, True, False, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True)
class Factors:
    """What an adapter adds to one weight: scale · b a; `a` is (R, I), `b` is (O, R)."""

    a: Tensor
    b: Tensor
    scale: float


def merged_weight(weight_OI: Tensor, factors: Factors) -> tuple[Tensor, Tensor]:
    """round(W + scale · B A) in W's dtype, and the float32 delta.

    The in-place addition promotes to float32 and rounds once: PEFT's own order of operations
    (`lora.Linear.merge`, safe_merge off), so that the bits agree.
    """
    delta_OI = (factors.b.float() @ factors.a.float()) * factors.scale
    return weight_OI.clone().add_(delta_OI), delta_OI


def read_adapter(folder: Path) -> dict[str, Factors]:
    """A LoRA adapter in PEFT's format as weight name → factors.

    Raises:
        InputError: the folder cannot be read as an adapter.
        RefusedError: it uses a feature that is not W + scale · B A.
    """
    config = read_json(folder / "adapter_config.json")
    _check_plain(config)
    with opened(folder / "adapter_model.safetensors") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    modules = sorted({_module(name) for name in tensors})
    if not modules:
        raise InputError(f"adapter {folder} holds no tensors", "Train it again")
    return {f"{module}.weight": _factors(module, tensors, config) for module in modules}


def _check_plain(config: Mapping[str, Any]) -> None:
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


def _module(name: str) -> str:
    match = re.fullmatch(r"base_model\.model\.(.+)\.lora_[AB]\.weight", name)
    if match is None:
        raise RefusedError(
            f"the adapter holds {name}, which is not a LoRA factor of a linear layer",
            "Merge it with PEFT, or train an adapter of linear layers alone",
        )
    return match[1]


def _factors(module: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Factors:
    names = [f"base_model.model.{module}.lora_{side}.weight" for side in "AB"]
    a, b = (tensors.get(name) for name in names)
    if a is None or b is None or a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        raise InputError(
            f"the adapter's factors of {module} are not a pair of matrices", "Train it again"
        )
    if not (a.isfinite().all() and b.isfinite().all()):
        raise InputError(
            f"the adapter's factors of {module} hold values that are not finite", "Train it again"
        )
    return Factors(a, b, _scale(module, a.shape[0], config))


def _scale(module: str, rank: int, config: Mapping[str, Any]) -> float:
    """alpha / rank, or alpha / sqrt(rank) for rsLoRA; `alpha_pattern` is matched as PEFT does."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    matching = (a for key, a in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
    alpha = next(matching, config["lora_alpha"])
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))
