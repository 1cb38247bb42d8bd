"""The recipe: one YAML file with a table a stage (tables.py), read and checked at the door.

A relative path is relative to the recipe's folder; `pocket:NAME` is a file of the built-in pocket set;
`s3://bucket/data` and other URLs lie in a store.
"""

import difflib
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from monotreme.errors import InputError, RecipeError
from monotreme.recipe.paths import is_url, local_paths, must_be_local
from monotreme.recipe.tables import (
    PAPER_BENCHMARKS,
    POCKET,
    STAGES,
    AdapterRef,
    BenchmarkRef,
    Curate,
    Decontaminate,
    Evaluate,
    IntoRef,
    Judge,
    Merge,
    Method,
    ModelRef,
    Recipe,
    Release,
    SourceRef,
    Table,
    Train,
)

__all__ = [
    "PAPER_BENCHMARKS",
    "POCKET",
    "STAGES",
    "AdapterRef",
    "BenchmarkRef",
    "Curate",
    "Decontaminate",
    "Evaluate",
    "IntoRef",
    "Judge",
    "Merge",
    "Method",
    "ModelRef",
    "Recipe",
    "Release",
    "SourceRef",
    "Table",
    "Train",
    "check_recipe",
    "dump_recipe",
    "is_url",
    "load_recipe",
    "local_paths",
    "locate",
    "must_be_local",
    "override",
]


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        overrides: `table.key=value` settings, the value in YAML.

    Raises:
        InputError: the file cannot be read.
        RecipeError: not YAML, an unknown key (the nearest right one is named), a bad value.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"recipe {path} does not exist", "Name a file, or make one with `monotreme init`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"recipe {path} cannot be read ({error})", "Name a YAML file in UTF-8"
        ) from None
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # or a number too long, ...
        where = " ".join(str(error).split())
        raise RecipeError(
            f"recipe {path} is not YAML ({where})", "Mend the line it names"
        ) from None
    if not isinstance(data, dict):
        raise RecipeError(f"recipe {path} is not a table of keys", "Start from `monotreme init`")
    for text in overrides:
        override(data, text)
    return check_recipe(data, str(path))


def check_recipe(data: dict[str, Any], origin: str) -> Recipe:
    """Validate a recipe's plain form; `origin` names it in the error."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        problem, remedy = _explain(error.errors()[0])
        raise RecipeError(f"recipe {origin}: {problem}", remedy) from None


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every default filled in."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def locate(path: str, folder: Path) -> Path:
    """The file that a recipe's path means: `pocket:x`, absolute, or relative to `folder`."""
    if path.startswith(POCKET):
        return Path(str(files("monotreme"))) / "pocket" / path.removeprefix(POCKET)
    return Path(os.path.normpath(folder / Path(path).expanduser()))


def override(data: dict[str, Any], text: str) -> None:
    """Set a key of a recipe's plain form, from a text such as `train.rank=32`.

    Raises:
        RecipeError: the text names no key, or its value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise RecipeError(f"--set {text!r} has no `=`", "Write it as --set train.rank=32")
    *tables, last = key.split(".")
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise RecipeError(f"--set {key}: {table} is not a table", "Name a key inside a table")
    try:
        data[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise RecipeError(f"--set {key}: {value!r} is not YAML", "Quote the value") from None


def _explain(error: ErrorDetails) -> tuple[str, str]:
    """A pydantic error as (problem, remedy)."""
    where = ".".join(str(part) for part in error["loc"]) or "the recipe"
    if error["type"] == "extra_forbidden":
        known = _keys_at(error["loc"][:-1])
        key = str(error["loc"][-1])
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        meant = (
            f"Did you mean {near[0]!r}?" if near else f"Known keys are {', '.join(sorted(known))}"
        )
        return f"{where} is not a key", meant
    if error["type"] == "missing":
        return f"{where} is missing", "Add it; docs/recipe.md lists every key"
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:  # of several tables together; the message names them
        return message, "Correct the recipe; docs/recipe.md lists every key"
    return (
        f"{where} = {error['input']!r}: {message}",
        "Correct the value; docs/recipe.md lists every key",
    )


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys of the table at a location such as ("curate", "sources", 0)."""
    model: Any = Recipe
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = _table_in(model.model_fields[part].annotation)
    return list(model.model_fields)


def _table_in(annotation: Any) -> Any:
    """The Table class inside list[Annotated[T, …]], T | None, ..."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _table_in(arg))), None)
