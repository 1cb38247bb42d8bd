"""What the released set was made of, and whether a stranger can have it: the recipe's inputs."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from monotreme.benchmarks import benchmark_of
from monotreme.encoders import BUILT_IN, Encoder, find_encoder
from monotreme.errors import InputError, RecipeError, RefusedError
from monotreme.recipe import POCKET, ModelRef, Recipe, locate, must_be_local
from monotreme.release.record import FolderRecord
from monotreme.sources import source_of
from monotreme.storage import sha256
from monotreme.verify.check import Check, compared, left_open

_COMMIT = re.compile(r"[0-9a-f]{40}")
ABSENT = "absent"  # what curate's record says of an optional source that could not be read


class Input(NamedTuple):
    """Something that a rebuild reads.

    Attributes:
        name: as the record's origins have it.
        path: of a local file, "" for one on the Hub.
        hub: its name there.
    """

    name: str
    path: str
    hub: str
    revision: str | None


def here(path: str, folder: Path) -> Path | None:
    """A file of the recipe's that lies in the folder or in the pocket set; else None.

    A recipe from a stranger names no other file of this machine.
    """
    if path.startswith("~") or not path.isprintable():
        return None
    place = Path(os.path.realpath(locate(path, folder)))
    homes = [os.path.realpath(home) for home in (folder, locate(POCKET, folder))]
    return place if place.exists() and any(place.is_relative_to(home) for home in homes) else None


def commit_of(origin: str, name: str) -> str:
    """The commit in a recorded `name@commit`.

    Raises:
        InputError: it is another repository, or none.
    """
    recorded, _, commit = origin.rpartition("@")
    if recorded != name or not _COMMIT.fullmatch(commit):
        raise InputError(f"the record tells no commit of {name}", "Get the folder again")
    return commit


def read_encoder(recipe: Recipe, record: FolderRecord, folder: Path) -> Encoder:
    """The encoder that the claims rest on.

    Raises:
        RefusedError, RemoteError: it cannot be had here, or gives other vectors.
    """
    name, local = recipe.curate.encoder, here(recipe.curate.encoder, folder)

    def commit(hub: str) -> str:
        return commit_of(record.origins.get("encoder", ""), hub)

    try:
        encoder = find_encoder(name, local or Path(), commit, recipe.curate.truncate)
    except InputError as error:
        problem = f"encoder {name} cannot be had ({error.problem})"
        raise RefusedError(problem, error.remedy) from None
    if encoder.digest != record.curate.encoder_digest:
        raise RefusedError(
            f"encoder {name} here (digest {encoder.digest[:16]}…) is not the recorded one "
            f"({str(record.curate.encoder_digest)[:16]}…)",
            "Install the recorded version of monotreme",
        )
    return encoder


# ── the rebuild ──────────────────────────────────────────────────────────────────────────────────


def check_rebuild(recipe: Recipe, record: FolderRecord, folder: Path) -> Check:
    """Whether a stranger who runs the recipe reads what its maker read."""
    pinned, problems = [], []
    for one in _inputs(recipe):
        problem = _problem(one, record.origins, folder)
        if problem:
            problems.append(f"{one.name} {problem}")
        else:
            pinned.append(one.name)
    told = f"pinned: {', '.join(pinned) or 'nothing'}"
    if problems:
        detail = f"{'; '.join(problems)}; {told}"
        return left_open("rebuild", detail)
    return compared("rebuild", told, [])


def _inputs(recipe: Recipe) -> Iterator[Input]:
    """What curate, decontaminate, train and merge read from outside."""
    for ref in recipe.curate.sources:
        try:
            source = source_of(ref)
        except (InputError, RecipeError):  # an optional one that is not on the Hub
            yield Input(f"sources/{ref.id}", ref.path or "", ref.id, None)
        else:
            yield Input(f"sources/{ref.id}", ref.path or "", source.name, source.revision)
    encoder = recipe.curate.encoder
    if encoder != BUILT_IN:
        yield _model("encoder", ModelRef(model=encoder))
    for benchmark in recipe.decontaminate.benchmarks:
        known = benchmark_of(benchmark)
        path = benchmark.path or ""
        yield Input(f"benchmarks/{benchmark.id}", path, known.name, known.revision)
    yield _model("base", recipe.train.base)
    for into in recipe.merge.into:
        if into.model != "base":
            yield _model(f"into/{into.id}", into)
        for place, adapter in enumerate(into.adapters):
            yield Input(f"into/{into.id}/adapter {place}", adapter.path, "", None)
        for place, model in enumerate(into.models):
            yield _model(f"into/{into.id}/model {place}", model)


def _model(name: str, ref: ModelRef) -> Input:
    local = must_be_local(ref.model)
    return Input(name, ref.model if local else "", "" if local else ref.model, ref.revision)


def _problem(one: Input, origins: Mapping[str, str], folder: Path) -> str:
    """What keeps a stranger from reading the same; "" where nothing does."""
    origin = origins.get(one.name, "")
    if origin == ABSENT:
        return "could not be read by the maker, and may be by others"
    if not one.path:
        if origin and not origin.startswith(f"{one.hub}@"):
            return f"is a local folder of its maker's, {one.hub} ({origin[:16]}…)"
        is_pinned = _COMMIT.fullmatch(one.revision or "") and origin in (
            "",
            f"{one.hub}@{one.revision}",
        )
        return "" if is_pinned else f"is {one.hub} on the Hub at whatever commit is the newest"
    place = here(one.path, folder)
    if place is None:
        return f"is a local file of its maker's, {one.path} ({origin[:16]}…)"
    return "" if sha256(place) == origin else f"is another {one.path} than the recorded one"


def check_recipe(recipe: Recipe, record: FolderRecord) -> Check:
    """Whether the recipe says what the record says."""
    pairs = {
        "name": (recipe.name, record.name),
        "seed": (recipe.seed, record.seed),
        "curate.threshold": (recipe.curate.threshold, record.curate.threshold),
        "curate.protect": (recipe.curate.protect, record.curate.protect),
        "curate.encoder": (recipe.curate.encoder, record.curate.encoder),
        "curate.truncate": (recipe.curate.truncate, record.curate.truncate),
        "decontaminate.threshold": (recipe.decontaminate.threshold, record.decontaminate.threshold),
        "decontaminate.drop": (recipe.decontaminate.drop, record.decontaminate.drop),
        "decontaminate.benchmarks": (
            [ref.id for ref in recipe.decontaminate.benchmarks],
            [claim.id for claim in record.decontaminate.benchmarks],
        ),
    }
    problems = [
        f"{key} is {ours!r} in recipe.yaml, {theirs!r} in record.json"
        for key, (ours, theirs) in pairs.items()
        if ours != theirs
    ]
    return compared("recipe", "its settings are the record's", problems)
