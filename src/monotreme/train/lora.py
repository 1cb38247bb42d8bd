"""The frozen base with a LoRA adapter on some of its linear layers (Hu et al. 2021).

PEFT puts the adapter in and gives its file format, so that whatever reads PEFT adapters reads ours.
"""

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import nn

from monotreme.errors import InputError
from monotreme.recipe import Train


def max_positions(config: Any) -> int:
    """Tokens that a model of this configuration can tell apart by their place."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", sys.maxsize))


def lora_config(
    rank: int, alpha: float, dropout: float, targets: Sequence[str], **more: Any
) -> LoraConfig:
    """LoRA without bias on the named linear layers (paper, section 3).

    Args:
        more: other settings of PEFT's LoraConfig, under PEFT's names.
    """
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(targets),
        bias="none",
        task_type="CAUSAL_LM",
        **more,
    )


def adapter_config(settings: Train) -> LoraConfig:
    """The adapter that a recipe asks for."""
    return lora_config(
        settings.rank,
        settings.alpha,
        settings.dropout,
        settings.targets,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        rank_pattern=settings.rank_pattern,
        alpha_pattern=settings.alpha_pattern,
    )


def add_adapter(model: Any, config: LoraConfig, seed: int) -> Any:
    """Put a fresh adapter (A random, B zero, float32) into a model on the CPU and freeze the rest.

    The draws are the CPU generator's, so that the adapter starts the same on every machine.

    Raises:
        InputError: a target is no linear layer of the model.
    """
    linear = {name for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    known = {name.rsplit(".", 1)[-1] for name in linear}
    for target in sorted(config.target_modules):
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            raise InputError(
                f"train.targets names {target!r}, which is no linear layer of the base model",
                f"Choose from {', '.join(sorted(known))}",
            )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # PEFT 0.21 asks transformers for a property by its old name
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        torch.manual_seed(seed)
        return get_peft_model(model, config)


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The adapter's weights by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def drop_in_adapter_only(model: nn.Module) -> None:
    """Set dropout working in the adapter and nowhere else: the base is frozen and stays exact."""
    model.eval()
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.train()  # the layer itself, too: DoRA asks it whether to drop


def save_adapter(model: Any, folder: Path, base: str, revision: str | None) -> None:
    """Write adapter_config.json and adapter_model.safetensors, ready for inference.

    PEFT's own save also writes a model card, and its configuration in an order that changes from
    one process to the next.

    Args:
        base: what the adapter's readers should load under it, and at which revision.
    """
    folder.mkdir()
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = model.peft_config["default"].to_dict()
    config = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    config |= {"base_model_name_or_path": base, "revision": revision, "inference_mode": True}
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")
