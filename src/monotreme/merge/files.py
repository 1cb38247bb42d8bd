"""The files of a model folder: JSON, and safetensors read, copied and written by rows.

Weights go through `pread` and `pwrite`, not through a memory map: mapped pages would count as the
process's memory, and several threads can read one file.
"""

import errno
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from monotreme.errors import InputError

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NOT_IN_KERNEL = {errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}
CHUNK = 2**18  # bytes that pass through memory at once where nothing is computed with them


@dataclass(frozen=True)
class Stored:
    """A tensor as a safetensors header tells of it.

    Attributes:
        file: its name within the folder.
        dtype: the header's word, such as BF16.
        start: its first byte in the file.
    """

    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    num_bytes: int

    @property
    def num_rows(self) -> int:
        return self.shape[0] if self.shape else 1

    @property
    def row_bytes(self) -> int:
        return self.num_bytes // max(1, self.num_rows)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds a table.

    Raises:
        InputError: it is missing or something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing", "Name a whole model or adapter folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error})", "Get the folder again") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a table of keys", "Get the folder again")
    return value


def file_tensors(path: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file by name, in the order of their bytes.

    Raises:
        InputError: it is missing, cut off or something else.
    """
    try:
        with safe_open(path, framework="pt"):  # checks that the header and the length agree
            pass
    except FileNotFoundError:
        raise InputError(f"{path} is missing", "Name a whole model or adapter folder") from None
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error})", "Get the folder again"
        ) from None
    with path.open("rb") as file:
        num = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(num))
    header.pop("__metadata__", None)
    tensors = {name: _stored(entry, path.name, 8 + num) for name, entry in header.items()}
    return dict(sorted(tensors.items(), key=lambda item: (item[1].start, item[0])))


def _stored(entry: dict[str, Any], file: str, data: int) -> Stored:
    start, stop = entry["data_offsets"]
    return Stored(file, entry["dtype"], tuple(entry["shape"]), data + start, stop - start)


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """The tensors of a model folder by name, file by file.

    Raises:
        InputError: no safetensors weights, or files that cannot be read.
    """
    tensors: dict[str, Stored] = {}
    for name in _weight_files(folder):
        tensors |= file_tensors(folder / name)
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


def read_tensor(path: Path, stored: Stored) -> Tensor:
    """One tensor of a safetensors file.

    Raises:
        InputError: its dtype is none that a merge reads, or the file has become shorter.
    """
    if stored.dtype not in DTYPES:
        raise InputError(
            f"{path} holds {stored.dtype}, not one of {', '.join(DTYPES)}", "Save it as F32"
        )
    with path.open("rb") as file:
        return read_rows(file.fileno(), stored, 0, stored.num_rows)


def read_rows(file: int, stored: Stored, start: int, stop: int) -> Tensor:
    """Rows start to stop of a tensor, from an open file's number; a scalar is one row.

    Raises:
        InputError: the file has become shorter.
    """
    raw = np.empty((stop - start) * stored.row_bytes, np.uint8)
    place, view = stored.start + start * stored.row_bytes, raw.data
    while view:
        num = os.preadv(file, [view], place)
        if not num:
            raise InputError(f"{stored.file} ends too early", "Get the folder again")
        place, view = place + num, view[num:]
    flat = torch.from_numpy(raw).view(DTYPES[stored.dtype])
    return flat.view(stop - start, *stored.shape[1:]) if stored.shape else flat.view(())


def write_rows(file: int, stored: Stored, start: int, rows: Tensor) -> None:
    """Write rows of a tensor in their place, from row `start` on."""
    view = rows.contiguous().view(-1).view(torch.uint8).numpy().data
    place = stored.start + start * stored.row_bytes
    while view:
        num = os.pwrite(file, view, place)
        place, view = place + num, view[num:]


def copy_bytes(source: int, target: int, start: int, num: int) -> None:
    """Copy bytes from one open file to the same place of another: in the kernel where it can."""
    try:
        while num:
            done = os.copy_file_range(source, target, num, start, start)
            if not done:
                break
            start, num = start + done, num - done
    except (AttributeError, OSError) as error:  # no Linux, another file system, an old kernel
        if getattr(error, "errno", errno.ENOSYS) not in NOT_IN_KERNEL:
            raise
    while num:
        chunk = os.pread(source, min(num, CHUNK), start)
        if not chunk:
            raise InputError("a file of the target ends too early", "Get the folder again")
        done = os.pwrite(target, chunk, start)
        start, num = start + done, num - done
