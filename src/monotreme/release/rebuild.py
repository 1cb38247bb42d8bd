"""What a stranger needs to make the released set again: the recipe with its commits, and verdicts."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import pyarrow as pa

from monotreme.benchmarks import benchmark_of
from monotreme.errors import InputError, RecipeError
from monotreme.recipe import BenchmarkRef, IntoRef, ModelRef, Recipe, SourceRef, Table
from monotreme.sources import source_of
from monotreme.verdicts import Line

PEOPLE = "people"  # who gave a released verdict: names stay with the run
LANGUAGE_MODEL = "language model"
M = TypeVar("M", bound=ModelRef)
R = TypeVar("R", bound=Table)


def pinned(recipe: Recipe, revisions: Mapping[str, str]) -> Recipe:
    """The recipe with the commit of everything that it names on the Hub.

    Args:
        revisions: what names meant in the run, as run.json has it; what is not there stays open.
    """

    def at_commit(ref: R, kind: str, name: str, revision: str | None) -> R:
        key = f"{kind}:{name}" if revision is None else f"{kind}:{name}@{revision}"
        return ref.model_copy(update={"revision": revisions.get(key, revision)})

    def source(ref: SourceRef) -> SourceRef:
        if ref.path is not None:
            return ref
        try:
            known = source_of(ref)
        except (InputError, RecipeError):  # an optional one that is not on the Hub either
            return ref
        return at_commit(ref, "dataset", known.name, known.revision)

    def benchmark(ref: BenchmarkRef) -> BenchmarkRef:
        if ref.path is not None:
            return ref
        known = benchmark_of(ref)
        return at_commit(ref, "dataset", known.name, known.revision)

    def model(ref: M) -> M:
        return at_commit(ref, "model", ref.model, ref.revision)

    def into(ref: IntoRef) -> IntoRef:
        return model(ref).model_copy(update={"models": [model(each) for each in ref.models]})

    changed: dict[str, dict[str, Any]] = {
        "curate": {"sources": [source(ref) for ref in recipe.curate.sources]},
        "decontaminate": {"benchmarks": [*map(benchmark, recipe.decontaminate.benchmarks)]},
        "train": {"base": model(recipe.train.base)},
        "merge": {
            "into": [into(ref) for ref in recipe.merge.into],
            "candidates": [into(ref) for ref in recipe.merge.candidates],
            "select": [*map(benchmark, recipe.merge.select)],
        },
        "evaluate": {"benchmarks": [*map(benchmark, recipe.evaluate.benchmarks)]},
    }
    tables = {name: getattr(recipe, name).model_copy(update=keys) for name, keys in changed.items()}
    return recipe.model_copy(update=tables)


def released_verdicts(pairs: pa.Table) -> str:
    """The verdicts that are not triage's own, in the form of the run's verdicts.jsonl; no names.

    Args:
        pairs: pairs.parquet of decontaminate.
    """
    rows = pairs.select(["id", "benchmark_id", "verdict", "reviewers", "reason"]).to_pylist()
    given = {
        (row["id"], row["benchmark_id"]): Line(
            row["id"],
            row["benchmark_id"],
            row["verdict"],
            PEOPLE if row["reviewers"] else LANGUAGE_MODEL,
            "",
        )
        for row in rows
        if row["reviewers"] or row["reason"].startswith("llm_")
    }
    return "".join(json.dumps(asdict(given[pair])) + "\n" for pair in sorted(given))
