"""The weights of a released adapter or merged model: whole, finite, and of the shapes that are named."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from monotreme.errors import InputError, RefusedError
from monotreme.merge.adapter import Slot, read_adapter
from monotreme.merge.files import DTYPES, file_tensors, read_json, read_tensor, stored_tensors
from monotreme.progress import progress
from monotreme.recipe import Recipe
from monotreme.release.record import FolderRecord
from monotreme.storage import sha256
from monotreme.verify.check import Check, compared
from monotreme.verify.origins import here

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
INDEX = "model.safetensors.index.json"


class AdapterConfig(BaseModel):
    """What of PEFT's adapter_config.json is compared with the tensors."""

    r: int = Field(ge=1)
    lora_alpha: float
    target_modules: list[str] = Field(min_length=1)
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}
    modules_to_save: list[str] | None = None
    base_model_name_or_path: str
    revision: str | None = None


def _config(folder: Path) -> AdapterConfig:
    try:
        config = AdapterConfig.model_validate(read_json(folder / CONFIG))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = f"{folder / CONFIG}: {where}: {first['msg']}"
        raise InputError(problem, "Get the folder again") from None
    for key in (*config.rank_pattern, *config.alpha_pattern):
        if not all(part.isidentifier() or part.isdigit() for part in key.split(".")):
            problem = f"{CONFIG} has the pattern {key!r}, and only plain names are looked at"
            raise RefusedError(problem, "Look at the tensors yourself")
    return config


def check_adapter(folder: Path) -> Check:
    """Whether the factors are pairs of the named rank on the named layers, all finite."""
    config = _config(folder)
    for name, stored in file_tensors(folder / WEIGHTS).items():
        if not all(stored.shape):
            raise InputError(f"{name} has the shape {stored.shape}", "Get the folder again")
    slots = read_adapter(folder)
    problems = [problem for name, slot in slots.items() for problem in _rank(name, slot, config)]
    problems += [
        f"{CONFIG} names {target}, of which there is no tensor"
        for target in config.target_modules
        if not any(_ends(name, target) for name in slots)
    ]
    detail = f"{len(slots):,} layers of rank {config.r} as {CONFIG} says, all finite"
    return compared("weights", detail, problems)


def _rank(name: str, slot: Slot, config: AdapterConfig) -> list[str]:
    """What is wrong with one layer's factors."""
    if not any(_ends(name, target) for target in config.target_modules):
        return [] if slot.a is None else [f"{name} is none of the layers that {CONFIG} names"]
    special = [rank for key, rank in config.rank_pattern.items() if _ends(name, key)]
    rank = special[0] if special else config.r
    found = slot.a.shape[0] if slot.a else rank
    return [f"{name} has rank {found}, {CONFIG} says {rank}"] if found != rank else []


def _ends(weight: str, module: str) -> bool:
    return f".{weight}".endswith(f".{module}.weight")


def check_base(folder: Path, recipe: Recipe, record: FolderRecord) -> Check:
    """Whether the adapter names the base that it was trained on; a local one is compared if it is here."""
    config, base = _config(folder), recipe.train.base.model
    ours = config.base_model_name_or_path + (f"@{config.revision}" if config.revision else "")
    origin = record.origins.get("base", "")
    recorded = origin if origin.startswith(f"{base}@") else base
    if ours != recorded:
        return compared("base", "", [f"{CONFIG} names {ours}, the record {recorded}"])
    place = here(base, folder) if recorded == base else None
    if place is None:
        return compared("base", f"{ours}, as recorded", [])
    problems = (
        [] if sha256(place) == origin else [f"{base} here is not the recorded {origin[:16]}…"]
    )
    return compared("base", f"{base}, with the recorded SHA-256", problems)


def check_model(folder: Path) -> Check:
    """Whether a merged model's files are whole, are those of its index, and all numbers are finite."""
    config, tensors = read_json(folder / "config.json"), stored_tensors(folder)
    problems = []
    with progress("Reading weights", len(tensors)) as done:
        for name, stored in tensors.items():
            if stored.dtype in DTYPES and all(stored.shape):
                weight = read_tensor(folder / stored.file, stored)
                if not weight.isfinite().all():
                    problems.append(f"{name} holds values that are not finite")
            done(1)
    if not (folder / "model.safetensors").exists():
        listed: Mapping[str, str] = read_json(folder / INDEX)["weight_map"]
        found = {name: stored.file for name, stored in tensors.items()}
        different = sorted(set(listed.items()) ^ set(found.items()))
        problems += [f"{INDEX} and {file} disagree about {name}" for name, file in different]
    kind = config.get("model_type", "unknown")
    return compared("weights", f"{len(tensors):,} tensors ({kind}), all finite", problems)
