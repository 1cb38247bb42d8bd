"""What of a recipe lies on this machine or in a store, and must be there before hours are spent on earlier stages."""

from collections.abc import Iterator, Sequence

from monotreme.recipe.tables import POCKET, BenchmarkRef, ModelRef, Recipe


def is_url(path: str) -> bool:
    """Whether a path names something in a store, such as s3://bucket/data."""
    return "://" in path


def must_be_local(model: str) -> bool:
    """Whether a model's name can only be a folder, here or in a store, never one on the Hub."""
    return model.startswith((".", "/", "~", POCKET)) or is_url(model)


def local_paths(recipe: Recipe, stage: str) -> Iterator[tuple[str, str]]:
    """(key, path) of what a stage reads from this machine; no optional source, nothing on the Hub."""
    if stage == "curate":
        for source in recipe.curate.sources:
            if source.path is not None and not source.optional:
                yield f"sources, {source.id}", source.path
    elif stage == "train":
        yield from _local_models("base", recipe.train.base)
    elif stage == "merge":
        for into in recipe.merge.every:
            yield from _local_models(into.id, into)
            for adapter in into.adapters:
                yield f"{into.id}, adapters", adapter.path
                if adapter.questions is not None:
                    yield f"{into.id}, questions", adapter.questions
            for model in into.models:
                yield from _local_models(f"{into.id}, models", model)
        yield from _local_benchmarks("select", recipe.merge.select)
    elif stage in ("decontaminate", "evaluate"):
        yield from _local_benchmarks("benchmarks", getattr(recipe, stage).benchmarks)
        if stage == "evaluate" and recipe.evaluate.texts is not None:
            yield "texts", recipe.evaluate.texts


def _local_models(key: str, ref: ModelRef) -> Iterator[tuple[str, str]]:
    if must_be_local(ref.model):
        yield key, ref.model


def _local_benchmarks(key: str, refs: Sequence[BenchmarkRef]) -> Iterator[tuple[str, str]]:
    for ref in refs:
        if ref.path is not None:
            yield f"{key}, {ref.id}", ref.path
