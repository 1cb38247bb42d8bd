"""The target: a model folder, and whether the adapter fits it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monotreme.errors import InputError, MismatchError, RefusedError
from monotreme.merge.adapter import Slot
from monotreme.merge.files import DTYPES, Stored, read_json, stored_tensors

ARCHITECTURE = (
    *("model_type", "hidden_size", "intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "head_dim", "rope_theta"),
)
HEADS = ("lm_head", "embed_out")
EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings")
REMEDY = "Name a model that was fine-tuned from the same base"


@dataclass(frozen=True)
class Target:
    """A model folder to merge into: its configuration and its tensors in a fixed order."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Stored]


def read_target(folder: Path) -> Target:
    """The configuration and the tensor headers of a model folder.

    Raises:
        InputError: no safetensors weights, or files that cannot be read.
    """
    return Target(folder, read_json(folder / "config.json"), stored_tensors(folder))


def check_fit(target: Target, base: Target, adapter: Mapping[str, Slot], name: str) -> None:
    """Refuse a target that the adapter was not made for.

    Raises:
        MismatchError: another architecture, vocabulary or shape, or a missing layer.
        RefusedError: the target is quantised.
    """
    if target.config.get("quantization_config"):
        raise RefusedError(
            f"merge {name}: the target is quantised", "Merge into its unquantised weights"
        )
    _check_architecture(target.config, base.config, name)
    _check_vocabulary(target, base, name)
    for weight, slot in adapter.items():
        _check_tie(target, weight, name)
        _check_weight(target.tensors.get(weight), weight, slot, name)
        if slot.a and slot.saved and target.folder != base.folder:
            raise RefusedError(
                f"merge {name}: the adapter carries {weight} of its own base, which would replace "
                "the target's",
                "Merge it into its base alone, or save the adapter without the embedding layers",
            )


def _check_tie(target: Target, weight: str, name: str) -> None:
    """A tied weight is stored once and used twice; the adapter changes one of the two uses.

    PEFT's merge changes both, so that what it leaves is not the adapter's model.
    """
    if weight.split(".")[-2] in (*HEADS, *EMBEDDINGS) and _is_tied(target):
        raise RefusedError(
            f"merge {name}: the adapter changes {weight}, and the target's input and output "
            "embeddings are tied",
            "Save the target with tie_word_embeddings set to false and merge into that",
        )


def _is_tied(target: Target) -> bool:
    """What config.json says, or whether there is no output embedding in the files."""
    said = target.config.get("tie_word_embeddings")
    return not any(f"{head}.weight" in target.tensors for head in HEADS) if said is None else said


def _check_architecture(config: dict[str, Any], base: dict[str, Any], name: str) -> None:
    for key in ARCHITECTURE:
        ours, theirs = _setting(base, key), _setting(config, key)
        if ours != theirs and ours is not None and theirs is not None:
            raise MismatchError(
                f"merge {name}: the target has {key} {theirs}, the adapter's base {ours}",
                REMEDY,
            )


def _setting(config: dict[str, Any], key: str) -> Any:
    """A setting of config.json; transformers 5 moved rope_theta into `rope_parameters`."""
    return config.get(key, (config.get("rope_parameters") or {}).get(key))


def _check_vocabulary(target: Target, base: Target, name: str) -> None:
    """Every token of the base has the same number in the target, which may add some at the end."""
    comparable = all((place.folder / "tokenizer.json").is_file() for place in (target, base))
    theirs, ours = (int(place.config.get("vocab_size") or 0) for place in (target, base))
    if theirs < ours or (theirs > ours and not comparable):
        raise MismatchError(
            f"merge {name}: the target has vocab_size {theirs}, the adapter's base {ours}", REMEDY
        )
    if comparable:
        _check_tokens(_tokens(target.folder), _tokens(base.folder), name)


def _check_tokens(theirs: dict[str, int], ours: dict[str, int], name: str) -> None:
    other = [token for token, number in ours.items() if theirs.get(token) != number]
    if other:
        raise MismatchError(
            f"merge {name}: token {other[0]!r} is number {theirs.get(other[0])} in the target's "
            f"vocabulary, {ours[other[0]]} in the base's",
            REMEDY,
        )


def _tokens(folder: Path) -> dict[str, int]:
    path = folder / "tokenizer.json"
    tokenizer = read_json(path)
    try:
        vocabulary = tokenizer["model"]["vocab"]
        if isinstance(vocabulary, list):  # a unigram model lists (token, score) in order
            vocabulary = {token: number for number, (token, _) in enumerate(vocabulary)}
        return {**vocabulary, **{t["content"]: t["id"] for t in tokenizer.get("added_tokens", [])}}
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path} has no vocabulary", "Get the model folder again") from None


def _check_weight(stored: Stored | None, weight: str, slot: Slot, name: str) -> None:
    if stored is None:
        raise MismatchError(f"merge {name}: the target lacks {weight}", REMEDY)
    if not slot.fits(stored.shape):
        raise MismatchError(
            f"merge {name}: {weight} is {stored.shape} in the target, {slot.shape} in the adapter",
            REMEDY,
        )
    if stored.dtype not in DTYPES:
        raise RefusedError(
            f"merge {name}: {weight} is stored as {stored.dtype}, not one of {', '.join(DTYPES)}",
            "Merge into unquantised weights",
        )
