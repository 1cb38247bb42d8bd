"""What the recipe asks to merge: a target, the adapters that go into it, and what may differ."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from monotreme.errors import RefusedError
from monotreme.merge.adapter import Slot, read_adapter
from monotreme.merge.differences import differences, not_accepted
from monotreme.merge.join import check_delta, read_sum, write_joined
from monotreme.merge.mix import Way, read_mixed
from monotreme.merge.target import Target, check_fit, read_target
from monotreme.recipe import IntoRef, ModelRef
from monotreme.run import Run
from monotreme.storage import sha256

Weighted = tuple[Path, float]


@dataclass(frozen=True)
class Asked:
    """One merge.

    Attributes:
        adapters: folders with what multiplies their deltas, never 0; the trained one first.
        models: whole models with what multiplies their differences to the target.
        trust: whether code that comes with the target may run.
    """

    into: IntoRef
    target: Target
    adapters: tuple[Weighted, ...]
    trust: bool
    models: tuple[tuple[Target, float], ...] = ()
    seed: int = 0

    @property
    def is_sum(self) -> bool:
        """Whether it is a sum of adapters, which one adapter can stand for."""
        return self.into.method == "sum" and not self.models

    @property
    def name(self) -> str:
        return self.into.id

    @property
    def labels(self) -> list[str]:
        """What the recipe calls the adapters, in their order."""
        every = [("trained here", self.into.weight)]
        every += [(other.path, other.weight) for other in self.into.adapters]
        return [name for name, weight in every if weight != 0]

    @cached_property
    def slots(self) -> Mapping[str, Slot]:
        """What the adapters together hold for each weight.

        Raises:
            InputError, MismatchError, RefusedError: as `read_adapter` and `read_sum`.
        """
        if not self.is_sum:
            way = Way(self.into.method, self.into.density, self.into.share, self.seed)
            adapters = [read_adapter(*weighted) for weighted in self.adapters]
            return read_mixed(self.target, adapters, self.models, way)
        if self.is_whole:
            return read_adapter(*self.adapters[0])
        slots = read_sum(self.adapters)
        for name, slot in slots.items():
            check_delta(name, slot)
        return slots

    @property
    def is_whole(self) -> bool:
        """Whether it is one adapter just as it is, which alone may hold more than deltas."""
        return len(self.adapters) == 1 and self.adapters[0][1] == 1

    @contextmanager
    def as_adapter(self, where: Path | None = None) -> Iterator[Path]:
        """A folder with one adapter that is all of them together, while the block lasts.

        Args:
            where: it is made, should it not be there already; None for this machine alone.
        """
        if self.is_whole:
            yield self.adapters[0][0]
            return
        with TemporaryDirectory(dir=where) as temporary:
            write_joined(self.adapters, joined := Path(temporary) / "adapter")
            yield joined


def target_ref(into: IntoRef, base: ModelRef) -> ModelRef:
    """The model that an entry of the recipe names."""
    return base if into.model == "base" else into


def read_asked(run: Run, into: IntoRef) -> Asked:
    """The headers of a merge's target and the folders of its adapters.

    Raises:
        InputError, RemoteError: a folder is not there.
    """
    ref = target_ref(into, run.recipe.train.base)
    others = ((run.locate(other.path), other.weight) for other in into.adapters)
    every = ((run.output("train", "adapter"), into.weight), *others)
    adapters = tuple(one for one in every if one[1] != 0)
    models = tuple((read_target(run.model(other)), other.weight) for other in into.models)
    target = read_target(run.model(ref))
    return Asked(into, target, adapters, ref.trust_remote_code, models, run.recipe.seed)


def digests_of(run: Run, into: IntoRef) -> dict[str, str]:
    """Digests of all that a merge reads beside the trained adapter."""
    name = into.id
    found = {f"into/{name}": run.model_digest(target_ref(into, run.recipe.train.base))}
    for place, other in enumerate(into.adapters):
        found[f"into/{name}/adapter {place}"] = sha256(run.locate(other.path))
        if other.questions is not None:
            found[f"into/{name}/questions {place}"] = sha256(run.locate(other.questions))
    for place, model in enumerate(into.models):
        found[f"into/{name}/model {place}"] = run.model_digest(model)
    return found


def check(asked: Asked, base: Target) -> None:
    """Refuse a target that the adapters were not made for, or that differs without being accepted.

    Raises:
        MismatchError: another architecture, vocabulary or shape, or a missing layer.
        RefusedError: a quantised target, or a difference that the recipe does not accept by name.
    """
    slots = asked.slots
    # of whole models every weight is mixed, tied ones too; `read_mixed` has compared their shapes
    check_fit(asked.target, base, {} if asked.models else slots, asked.name)
    found = not_accepted(differences(asked.target, base), asked.into.accept)
    for name, (ours, theirs) in found.items():
        raise RefusedError(
            f"merge {asked.name}: {name} is {shown(theirs)} in the target, {shown(ours)} in the base",
            f"Look at `monotreme merge --preview`; where it is meant, set accept: [{name}] for it",
        )


def shown(value: Any, limit: int = 60) -> str:
    """A setting in a line."""
    text = " ".join(str(value).split())
    return text if len(text) <= limit else f"{text[:limit]} …"
