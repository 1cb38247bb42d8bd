"""The files of a model folder: JSON, and safetensors read one tensor at a time."""

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from monotreme.errors import InputError

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Stored:
    """A tensor as a safetensors header tells of it; `dtype` is the header's word, such as BF16."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    num_bytes: int


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds a table.

    Raises:
        InputError: it is missing or something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing", "Name a whole model or adapter folder") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error})", "Get the folder again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a table of keys", "Get the folder again")
    return value


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file as `safe_open` gives it.

    Raises:
        InputError: it is missing, cut off or something else.
    """
    try:
        file = safe_open(path, framework="pt")
    except FileNotFoundError:
        raise InputError(f"{path} is missing", "Name a whole model or adapter folder") from None
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error})", "Get the folder again"
        ) from None
    with file:
        yield file


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """The tensors of a model folder by name, file by file.

    Raises:
        InputError: no safetensors weights, or files that cannot be read.
    """
    tensors: dict[str, Stored] = {}
    for name in _weight_files(folder):
        with opened(folder / name) as file:
            tensors |= {key: _stored(file, key, name) for key in file.keys()}  # noqa: SIM118
    return tensors


def _weight_files(folder: Path) -> list[str]:
    if (folder / "model.safetensors").is_file():
        return ["model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        others = sorted(path.name for path in folder.glob("*.bin"))
        instead = f"only pickle files such as {others[0]}" if others else "no weights"
        raise InputError(
            f"model folder {folder} has {instead}, no model.safetensors",
            "Save the model as safetensors",
        )
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise InputError(f"{index} has no weight_map", "Get the model folder again")
    names = sorted(set(listed.values()))
    if strange := [name for name in names if Path(name).name != name]:
        raise InputError(f"{index} points outside its folder ({strange[0]})", "Use another model")
    return names


def _stored(file: Any, name: str, file_name: str) -> Stored:
    header = file.get_slice(name)
    shape, dtype = tuple(header.get_shape()), str(header.get_dtype())
    number = re.search(r"\d+", dtype)  # bits: 16 in BF16, 8 in F8_E4M3; BOOL names none and has 8
    bits = int(number[0]) if number else 8
    return Stored(file_name, dtype, shape, math.prod(shape) * bits // 8)
