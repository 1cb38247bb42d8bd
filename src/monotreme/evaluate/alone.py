"""One model on some benchmarks, without a recipe: what the stage does, in a folder of its own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monotreme import evaluate
from monotreme.benchmarks import BENCHMARKS
from monotreme.errors import InputError, RecipeError, RefusedError
from monotreme.evaluate.summary import STAGE
from monotreme.recipe import (
    PAPER_BENCHMARKS,
    Evaluate,
    ModelRef,
    Recipe,
    Train,
    check_recipe,
    override,
)
from monotreme.records import digest
from monotreme.rows import ENDINGS
from monotreme.run import Run
from monotreme.scoring.protocol import PROTOCOL
from monotreme.scoring.sheets import Candidate
from monotreme.storage import sha256


def evaluate_model(
    model: str,
    adapter: Path | None,
    settings: Evaluate,
    out: Path,
    force: bool = False,
    num_gpus: int = 1,
) -> Run:
    """Score a model, with an adapter on it or not; the same call goes on after a kill.

    Args:
        model: local folder or Hub name.
        out: folder that gets `evaluate/` with items.parquet, scores.json and scores.md.
        force: score again what is up to date, or replace another model's evaluation.
        num_gpus: processes that score together.

    Returns:
        The folder as a run that has nothing but its evaluation.

    Raises:
        RefusedError: `out` holds a recipe's run, or another model's evaluation.
        InputError, RecipeError, RemoteError: model, adapter or benchmarks cannot be read.
    """
    run = replace(bare_run(model, settings, out), num_gpus=num_gpus)
    ref = run.recipe.train.base
    weights = run.model_digest(ref)
    identity = digest(weights, sha256(adapter)) if adapter else weights
    name = name_of(model, adapter)
    candidate = Candidate(name, run.model(ref), adapter, identity, ref.trust_remote_code)
    digests = {"model": identity, **evaluate.benchmark_digests(run)}
    if not force:
        _check_out(run, identity)
    if force or not run.is_current(STAGE, digests):
        evaluate.score(run, digests, [candidate])
    return run


def bare_run(model: str, settings: Evaluate, out: Path) -> Run:
    """A folder as the run of a recipe that has only what scoring reads."""
    tables: dict[str, Any] = {"train": Train(base=ModelRef(model=model)), "evaluate": settings}
    return Run(out, Recipe.model_construct(name=out.name, seed=42, **tables), Path.cwd())


def name_of(model: str, adapter: Path | None) -> str:
    """What a model is called in its records: its folder's name, and its adapter's."""
    name = Path(model).resolve().name
    return f"{name}+{adapter.resolve().name}" if adapter else name


def _check_out(run: Run, identity: str) -> None:
    if (run.folder / "recipe.yaml").exists():
        raise RefusedError(f"{run.folder} is the run of a recipe", "Name another --out")
    if not (run.folder / STAGE / "record.json").exists():
        return
    if run.record(STAGE)["inputs"].get("model") != identity:
        raise RefusedError(
            f"{run.folder} holds the evaluation of another model",
            "Name another --out, or replace it with --force",
        )


def settings_of(
    tasks: str, data: Path | None, limit: int | None, overrides: Sequence[str]
) -> Evaluate:
    """The recipe's table `evaluate` from the command line.

    Args:
        tasks: benchmarks with commas between them; "open-llm-2023" stands for the paper's four.
        data: folder with a folder or file a benchmark, by its id; None reads the Hub.
        overrides: such as `evaluate.batch_tokens=8192`.

    Raises:
        RecipeError: a setting of another table, an unknown key or a bad value.
        InputError: `data` has no such benchmark.
    """
    asked = [name.strip() for name in tasks.split(",") if name.strip()]
    ids = [one for name in asked for one in (PAPER_BENCHMARKS if name == PROTOCOL else (name,))]
    refs = []
    for name in dict.fromkeys(ids):
        path = {} if data is None else {"path": str(_data_path(data, name))}
        refs.append({"id": name, "limit": limit, **path})
    if not refs:
        known = ", ".join([PROTOCOL, *(n for n, b in BENCHMARKS.items() if b.metric)])
        raise RecipeError("--tasks names no benchmark", f"Known are {known}")
    table: dict[str, object] = {"evaluate": {"benchmarks": refs}}
    for text in overrides:
        if not text.startswith("evaluate."):
            raise RecipeError(f"--set {text} does not go with --model", "Set keys of evaluate only")
        override(table, text)
    # the tables that every recipe must have, only so that `evaluate` is checked as a recipe's is
    whole = {"name": "alone", "curate": {"sources": ["math"]}, "train": {"base": "alone"}, **table}
    return check_recipe(whole, "of the command line").evaluate


def _data_path(folder: Path, name: str) -> Path:
    places = [folder / name, *(folder / f"{name}{ending}" for ending in ENDINGS)]
    for place in places:
        if place.exists():
            return place
    found = ", ".join(sorted(place.stem for place in folder.glob("*"))) or "nothing"
    raise InputError(f"--data {folder} has no {name} (found: {found})", f"Add a folder {name}")
