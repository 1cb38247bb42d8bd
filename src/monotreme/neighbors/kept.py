"""Blocks of a long join that are left on disk: what was compared before is not compared again."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from monotreme.storage import writing

T = TypeVar("T")
Block = TypeVar("Block", bound=NamedTuple)  # of arrays


def kept(
    folder: Path | None,
    items: Mapping[str, T],
    compute: Callable[[list[T]], Iterator[Block]],
    kind: type[Block],
) -> Iterator[Block]:
    """The block of each item, in their order: from the folder, or computed and left there.

    Args:
        folder: of all that the blocks depend on beside their items; None keeps nothing.
        items: by the names of their blocks in the folder.
        compute: gives the blocks of some items.
        kind: of the blocks, a named tuple of arrays.

    Raises:
        StorageError: the folder is full or cannot be written.
    """
    if folder is None:
        yield from compute(list(items.values()))
        return
    files = {name: folder / f"{name}.safetensors" for name in items}
    known = {name for name, file in files.items() if _is_whole(file, kind)}
    left = [item for name, item in items.items() if name not in known]
    fresh = compute(left) if left else iter(())
    for name, file in files.items():
        if name in known:
            found = load_file(file)
            yield kind._make(found[field] for field in kind._fields)
        else:
            block = next(fresh)
            with writing(file) as temporary:
                save_file(block._asdict(), temporary)
            yield block


def _is_whole(file: Path, kind: type[Block]) -> bool:
    try:
        with safe_open(file, "numpy") as opened:
            return sorted(opened.keys()) == sorted(kind._fields)
    except (OSError, SafetensorError):
        return False
