"""In what a target differs from the adapter's base, of what decides how it is used."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from monotreme.merge.files import read_json
from monotreme.merge.target import ARCHITECTURE, Target

SETTINGS = (
    *ARCHITECTURE,
    *("architectures", "vocab_size", "rope_parameters", "rope_scaling", "max_position_embeddings"),
    *("sliding_window", "hidden_act", "rms_norm_eps", "tie_word_embeddings"),
    *("torch_dtype", "dtype", "bos_token_id", "eos_token_id", "pad_token_id"),
)
# What is told and never refused: rounding, names, and what `check_fit` judges by itself.
FREE = ("architectures", "torch_dtype", "dtype", "vocab_size", *ARCHITECTURE)
ABSENT = "absent"
FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---", re.DOTALL)


def differences(target: Target, base: Target) -> dict[str, tuple[Any, Any]]:
    """Name → (the base's, the target's), "absent" where one has none.

    Names are settings of config.json that say the architecture or the vocabulary, special tokens,
    `chat_template`, and the `license` of the model's card.
    """
    sides = [_facts(base), _facts(target)]
    names = sorted(sides[0].keys() | sides[1].keys())
    pairs = {name: (sides[0].get(name, ABSENT), sides[1].get(name, ABSENT)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def not_accepted(
    found: dict[str, tuple[Any, Any]], accepted: Collection[str]
) -> dict[str, tuple[Any, Any]]:
    """Of the differences those that a merge is refused for.

    What only one side says is told and no more: files of other ages say less. A chat template that the
    base lacks is another way to be asked than the one that was trained, and is refused.
    """
    return {
        name: pair
        for name, pair in found.items()
        if name not in (*FREE, *accepted)
        and (ABSENT not in pair or (name == "chat_template" and pair[0] == ABSENT))
    }


def _facts(model: Target) -> dict[str, Any]:
    """Chat templates and special tokens lie in several files, by the tokenizer's age."""
    config = {key: model.config[key] for key in SETTINGS if model.config.get(key) is not None}
    tokenizer = _read(model.folder / "tokenizer_config.json")
    tokens = {**_read(model.folder / "special_tokens_map.json"), **tokenizer}
    special = {key: _text(tokens[key]) for key in sorted(tokens) if key.endswith("_token")}
    template = model.folder / "chat_template.jinja"
    chat = _text_of(template) if template.is_file() else None
    more = {"chat_template": chat or tokenizer.get("chat_template"), "license": _license(model)}
    return {name: v for name, v in {**config, **special, **more}.items() if v is not None}


def _license(model: Target) -> str | None:
    """What the front matter of the model's card says; None where it says nothing that can be read."""
    card = model.folder / "README.md"
    found = FRONT_MATTER.match(_text_of(card)) if card.is_file() else None
    try:
        front = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return None
    named = front.get("license_name") or front.get("license") if isinstance(front, dict) else None
    return str(named) if named else None


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _text_of(path: Path) -> str:
    """Of a file that is compared and shown alone; bytes that are no UTF-8 are no reason to stop."""
    return path.read_text(encoding="utf-8", errors="backslashreplace")


def _text(token: Any) -> Any:
    """A special token is a text, or a table that holds one."""
    return token.get("content") if isinstance(token, dict) else token
