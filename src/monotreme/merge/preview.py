"""What a merge will do, before a byte is written, and without a dense delta.

Shapes: O, I are the outputs and inputs of a layer, R, S are two adapters' ranks.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from monotreme.merge.adapter import Slot, read_adapter
from monotreme.merge.asked import Asked
from monotreme.merge.change import Factors, merged_rows
from monotreme.merge.differences import differences, not_accepted
from monotreme.merge.files import read_rows
from monotreme.merge.target import Target, check_fit

NUM_ROWS = 64  # of a weight that a sample reads
BYTES_PER_SECOND = 1e8  # written: bench/RESULTS.md, on two busy cores


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


def preview_of(asked: Asked, base: Target, folder: Path) -> dict[str, Any]:
    """What a merge would do, as plain JSON.

    Args:
        folder: where it would be written.

    Raises:
        InputError, MismatchError, RefusedError: the adapters cannot go into this target at all.
    """
    slots, target = asked.slots, asked.target
    check_fit(target, base, {} if asked.models else slots, asked.name)
    told, need = ingredients(asked, base), needs(target, folder)
    return {
        "id": asked.name,
        "model": asked.into.model,
        "num_adapted": len(slots),
        "num_tensors": len(target.tensors),
        **told,
        "unchanged_share": unchanged_share(target, slots),
        "refused": sorted(not_accepted(told["differences"], asked.into.accept)),
        "bytes": need.num_bytes,
        "free_bytes": need.free_bytes,
        "seconds": need.seconds,
    }


def ingredients(asked: Asked, base: Target) -> dict[str, Any]:
    """How large the adapters' deltas are and how they agree, and where the target is not the base.

    Nothing but the adapters and the headers of the models is read. Figures are rounded to six: their
    last bits depend on the machine.
    """
    adapters = [read_adapter(*weighted) for weighted in asked.adapters]
    return {
        "adapters": [
            {"adapter": name, "weight": weight, "norm": rounded(_norm(slots))}
            for name, (_, weight), slots in zip(asked.labels, asked.adapters, adapters, strict=True)
        ],
        "pairs": [
            {"first": i, "second": j, **_compared(adapters[i], adapters[j])}
            for i, j in combinations(range(len(adapters)), 2)
        ],
        "differences": {n: list(pair) for n, pair in differences(asked.target, base).items()},
    }


def rounded(value: float) -> float:
    """Six figures."""
    return float(f"{value:.6g}")


def _plain(slots: Mapping[str, Slot]) -> dict[str, Factors]:
    """The factors of plain LoRA; what DoRA or a saved tensor does is no product of two."""
    loaded = {name: slot.load(slot.shape) for name, slot in slots.items()}
    changes = {name: change for name, change in loaded.items() if change.saved is None}
    return {
        name: change.factors[0]
        for name, change in changes.items()
        if change.factors and change.factors[0].magnitude is None
    }


def _norm(slots: Mapping[str, Slot]) -> float:
    """Of all deltas taken together, the weight of the merge included."""
    return math.sqrt(sum(delta_norm(factors) ** 2 for factors in _plain(slots).values()))


def _compared(first: Mapping[str, Slot], second: Mapping[str, Slot]) -> dict[str, float]:
    ours, theirs = _plain(first), _plain(second)
    both = sorted(ours.keys() & theirs.keys())
    conflicts = [sign_conflicts(ours[name], theirs[name], first[name].shape) for name in both]
    return {
        "cosine": rounded(cosine([(ours[name], theirs[name]) for name in both])),
        "sign_conflicts": rounded(sum(conflicts) / len(conflicts)) if conflicts else 0.0,
    }
