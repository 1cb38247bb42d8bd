"""What a merge will do, before a byte is written, and without a dense delta.

Shapes: O, I are the outputs and inputs of a layer, R, S are two adapters' ranks.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monotreme.merge.adapter import Slot
from monotreme.merge.change import Factors, merged_rows
from monotreme.merge.files import read_json, read_rows
from monotreme.merge.target import ARCHITECTURE, Target

NUM_ROWS = 64  # of a weight that a sample reads
BYTES_PER_SECOND = 1e8  # written: bench/RESULTS.md, on two busy cores
SETTINGS = (
    *ARCHITECTURE,
    *("architectures", "vocab_size", "rope_parameters", "rope_scaling", "max_position_embeddings"),
    *(
        "sliding_window",
        "hidden_act",
        "rms_norm_eps",
        "tie_word_embeddings",
        "torch_dtype",
        "dtype",
    ),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)


def inner_product(first: Factors, second: Factors) -> float:
    """⟨delta, delta'⟩ = s s' · ⟨bᵀ b', a a'ᵀ⟩ (Frobenius): two small matrices (R, S), float64."""
    outputs_RS = first.b.double().T @ second.b.double()
    inputs_RS = first.a.double() @ second.a.double().T
    return first.scale * second.scale * float((outputs_RS * inputs_RS).sum())


def delta_norm(factors: Factors) -> float:
    """‖scale · b a‖ (Frobenius)."""
    return math.sqrt(max(0.0, inner_product(factors, factors)))


def cosine(pairs: Sequence[tuple[Factors, Factors]]) -> float:
    """Cosine of two adapters' deltas, all the weights that both change taken together."""
    product = sum(inner_product(a, b) for a, b in pairs)
    lengths = [sum(inner_product(p[i], p[i]) for p in pairs) for i in range(2)]
    return product / math.sqrt(lengths[0] * lengths[1]) if all(lengths) else 0.0


def sign_conflicts(first: Factors, second: Factors, shape: tuple[int, ...]) -> float:
    """Share of elements that two adapters move in opposite directions, in the sampled rows."""
    opposed = total = 0
    for start, stop in sampled_rows(shape[0]):
        product = first.delta(start, stop).sign() * second.delta(start, stop).sign()
        opposed += int((product < 0).sum())
        total += product.numel()
    return opposed / total


def sampled_rows(num_rows: int) -> list[tuple[int, int]]:
    """At most `NUM_ROWS` rows as up to four blocks (start, stop), evenly spaced."""
    if num_rows <= NUM_ROWS:
        return [(0, num_rows)]
    size = NUM_ROWS // 4
    starts = [i * (num_rows - size) // 3 for i in range(4)]
    return [(start, start + size) for start in starts]


def unchanged_share(target: Target, adapter: Mapping[str, Slot]) -> float:
    """Share of the adapted elements that the rounding leaves as they are, in the sampled rows."""
    same = total = 0
    for name, slot in adapter.items():
        stored = target.tensors[name]
        change = slot.load(stored.shape)
        whole = change.takes_all_rows
        with (target.folder / stored.file).open("rb") as file:
            for start, stop in [(0, stored.num_rows)] if whole else sampled_rows(stored.num_rows):
                before = read_rows(file.fileno(), stored, start, stop)
                same += int((merged_rows(before, change, start)[0] == before).sum())
                total += before.numel()
    return same / total


@dataclass(frozen=True)
class Needs:
    """Of the disk, and about how many seconds; a cold or slow disk takes longer."""

    num_bytes: int
    free_bytes: int
    seconds: float


def needs(target: Target, folder: Path) -> Needs:
    """What writing a merge of the target under an existing folder takes, without its proof."""
    num = sum(stored.num_bytes for stored in target.tensors.values())
    return Needs(num, shutil.disk_usage(folder).free, num / BYTES_PER_SECOND)


def differences(target: Target, base: Target) -> dict[str, tuple[Any, Any]]:
    """In what a target differs from the adapter's base, of what decides how it is used.

    Returns:
        Name → (the base's, the target's): settings of config.json that say the architecture or the
        vocabulary, special tokens, and the chat template; "absent" where one has none.
    """
    sides = [_facts(base), _facts(target)]
    names = sorted(sides[0].keys() | sides[1].keys())
    pairs = {name: (sides[0].get(name, "absent"), sides[1].get(name, "absent")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _facts(model: Target) -> dict[str, Any]:
    """Chat templates and special tokens lie in several files, by the tokenizer's age."""
    config = {key: model.config[key] for key in SETTINGS if key in model.config}
    tokenizer = _read(model.folder / "tokenizer_config.json")
    tokens = {**_read(model.folder / "special_tokens_map.json"), **tokenizer}
    special = {key: _text(tokens[key]) for key in sorted(tokens) if key.endswith("_token")}
    template = model.folder / "chat_template.jinja"
    chat = template.read_text(encoding="utf-8") if template.is_file() else None
    chat = chat or tokenizer.get("chat_template")
    return {**config, **special, **({"chat_template": chat} if chat else {})}


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _text(token: Any) -> Any:
    """A special token is a text, or a table that holds one."""
    return token.get("content") if isinstance(token, dict) else token
