"""Weights mixed by a method that needs them whole: TIES, DARE, slerp, and sums with whole models.

A mixed weight is computed at once, one after the other: the memory is a few times the largest weight,
not a few blocks of rows as for sums of adapters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from monotreme.errors import MismatchError
from monotreme.merge.adapter import Slot
from monotreme.merge.change import Change
from monotreme.merge.combine import dare, slerp, task_arithmetic, ties
from monotreme.merge.files import DTYPES, Stored, read_tensor
from monotreme.merge.join import check_delta
from monotreme.merge.target import Target
from monotreme.recipe import Method


@dataclass(frozen=True)
class Way:
    """How deltas are mixed.

    Attributes:
        density: share of a delta's elements that TIES and DARE keep.
        share: of slerp's angle.
        seed: of DARE's draws.
    """

    method: Method
    density: float
    share: float
    seed: int


@dataclass(frozen=True)
class Whole:
    """One weight of a model folder."""

    folder: Path
    stored: Stored

    def read(self) -> Tensor:
        return read_tensor(self.folder / self.stored.file, self.stored)


@dataclass(frozen=True)
class Mixed(Slot):
    """What takes a weight's place: the target's weight and the deltas of adapters and models, mixed.

    Attributes:
        name: of the weight, which DARE's draws depend on.
        own: the target's weight.
        slots: what adapters hold for it; their weights are in the slots' scales.
        models: the same weight of other models, with what multiplies its difference to the target's.
    """

    name: str = ""
    own: Whole | None = None
    slots: tuple[Slot, ...] = ()
    models: tuple[tuple[Whole, float], ...] = ()
    way: Way | None = None

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether every part has this shape."""
        whole = all(each.stored.shape == shape for each, _ in self.models)
        return whole and all(slot.fits(shape) for slot in self.slots)

    def load(self, shape: tuple[int, ...]) -> Change:
        """The mixed weight of this shape, in the target's dtype."""
        assert self.own is not None
        assert self.way is not None
        own = self.own.read()
        if self.way.method == "slerp":
            return Change(saved=slerp(own, self.models[0][0].read(), self.way.share))
        deltas = [
            factors.delta(0, shape[0])
            for slot in self.slots
            for factors in slot.load(shape).factors
        ]
        deltas += [each.read().float() - own.float() for each, _ in self.models]
        weights = [1.0] * (len(deltas) - len(self.models)) + [weight for _, weight in self.models]
        return Change(saved=mixed(own, deltas, weights, self.way, self.name))


def mixed(
    own: Tensor, deltas: Sequence[Tensor], weights: Sequence[float], way: Way, name: str
) -> Tensor:
    """round(own + the deltas mixed), in the dtype of `own`.

    Args:
        deltas: float32, of the shape of `own`, with their weights.
        name: of the weight; each delta draws by it and by its place.
    """
    if way.method in ("dare", "dare_ties"):
        names = (f"{name}\0{place}" for place in range(len(deltas)))
        deltas = [dare(d, way.density, way.seed, n) for d, n in zip(deltas, names, strict=True)]
    if way.method in ("ties", "dare_ties"):
        kept = way.density if way.method == "ties" else 1.0
        deltas, weights = [ties(deltas, weights, kept)], [1.0]
    return task_arithmetic(own, deltas, weights)


def read_mixed(
    target: Target,
    adapters: Sequence[Mapping[str, Slot]],
    models: Sequence[tuple[Target, float]],
    way: Way,
) -> dict[str, Slot]:
    """What becomes of every weight that an adapter or a model would change.

    Raises:
        MismatchError: a model has other weights than the target.
        RefusedError: an adapter changes a weight by more than a delta (DoRA, saved tensors).
    """
    for other, _ in models:
        _check_weights(other, target)
    names = sorted({name for slots in adapters for name in slots})
    if models:
        names = [name for name, stored in target.tensors.items() if stored.dtype in DTYPES]
    found: dict[str, Slot] = {}
    for name in names:
        mine = tuple(slots[name] for slots in adapters if name in slots)
        for slot in mine:
            check_delta(name, slot)
        others = tuple((Whole(each.folder, each.tensors[name]), weight) for each, weight in models)
        own = Whole(target.folder, target.tensors[name])
        found[name] = Mixed(target.folder, name=name, own=own, slots=mine, models=others, way=way)
    return found


def _check_weights(other: Target, target: Target) -> None:
    shapes = ({n: t.shape for n, t in each.tensors.items()} for each in (target, other))
    ours, theirs = shapes
    different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))  # fmt: skip
    if different:
        name = different[0]
        raise MismatchError(
            f"{other.folder} has {name} as {theirs.get(name, 'nothing')}, the target as "
            f"{ours.get(name, 'nothing')}",
            "Mix models that were fine-tuned from the same base",
        )
