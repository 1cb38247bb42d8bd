"""The folder: its record, and whether its files are those of the record.

A folder may come from anybody: no path of the record leads out of it, no link is followed but those
of the Hub's own cache, nothing but regular files is opened.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from monotreme.errors import InputError
from monotreme.progress import progress
from monotreme.release.record import FILE, FileClaim, FolderRecord
from monotreme.storage import sha256
from monotreme.verify.check import Check, compared

LARGEST_RECORD = 50_000_000  # bytes: a record lists files and counts, not questions
# Endings of files that run code when they are loaded.
CODE = {".bin", ".ckpt", ".dll", ".joblib", ".pickle", ".pkl", ".pt", ".pth", ".py", ".pyc", ".so"}
CODE |= {".dill", ".h5", ".npy", ".npz", ".sh"}
RECIPE = "recipe.yaml"
REQUIRED = {  # by kind; a merged model's weights are found by their index
    "dataset": {RECIPE, "data/train.parquet", "data/provenance.parquet"},
    "adapter": {RECIPE, "adapter_config.json", "adapter_model.safetensors"},
    "merged": {RECIPE, "config.json"},
}
# What the Hub and git lay beside the files of a repository.
BESIDE = (".git", ".gitattributes", ".cache")


def read_record(folder: Path) -> FolderRecord:
    """What a released folder says of itself.

    Raises:
        InputError: it has no record, or the record is not one of a released folder.
    """
    path = folder / FILE
    name_one = "Name a folder that `monotreme release` made, such as runs/pocket/release/dataset"
    try:
        if problem := unsafe(folder, path):
            raise InputError(f"{path} {problem}", name_one)
        if path.stat().st_size > LARGEST_RECORD:
            raise InputError(f"{path} has more than {LARGEST_RECORD:,} bytes", name_one)
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", name_one) from None
    try:
        return FolderRecord.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = f"{where}: {first['msg']}" if where else first["msg"]
        raise InputError(
            f"{path} is no record of a released folder ({problem})", name_one
        ) from None


def check_files(folder: Path, record: FolderRecord) -> tuple[Check, set[str]]:
    """Whether every file is there with its size and digest, and no other.

    Returns:
        The check, and the files that are as recorded.
    """
    there = set(_files(folder))
    claims = {claim.path: claim for claim in record.files}
    right: set[str] = set()
    problems = [f"{FILE} lists no {name}" for name in sorted(REQUIRED[record.kind] - claims.keys())]
    if len(claims) < len(record.files):
        problems.append(f"{FILE} lists {len(record.files) - len(claims)} files twice")
    with progress("Hashing files", sum(claim.bytes for claim in record.files)) as done:
        for name in sorted(there | claims.keys()):
            if name not in claims:
                problem = "is not in the record"
            elif name not in there:
                problem = "is missing"
            else:
                problem = _difference(folder, claims[name])
                done(claims[name].bytes)
            if problem:
                problems.append(f"{name} {problem}")
            else:
                right.add(name)
    total = sum(claim.bytes for claim in record.files)
    detail = f"{len(claims):,} files, {total:,} bytes; {FILE} {sha256(folder / FILE)}"
    return compared("files", detail, problems), right


def check_no_code(folder: Path) -> Check:
    """Whether nothing there runs code when it is loaded."""
    found = [name for name in _files(folder) if Path(name).suffix.lower() in CODE]
    return compared("no code", "no pickles and no programs", [f"{name} is code" for name in found])


def _files(folder: Path) -> Iterator[str]:
    """Paths of all files and links, but of the record itself.

    Raises:
        InputError: a folder cannot be read.
    """
    try:
        yield from _walked(folder)
    except OSError as error:
        problem = f"{error.filename} cannot be read ({error.strerror}): what it holds is not known"
        raise InputError(problem, "Let it be read, or get the folder again") from None


def _walked(folder: Path) -> Iterator[str]:
    """As `_files`; folders are entered, links are not."""
    for root, folders, files in os.walk(folder, onerror=_raised):
        here = Path(root)
        if here == folder:
            folders[:] = [name for name in folders if name not in BESIDE]
            files = [name for name in files if name not in (*BESIDE, FILE)]
        links = [name for name in folders if (here / name).is_symlink()]
        for name in sorted([*files, *links]):
            yield (here / name).relative_to(folder).as_posix()


def _raised(error: OSError) -> None:
    raise error


def _difference(folder: Path, claim: FileClaim) -> str:
    """How a file differs from the record; "" where it does not."""
    path = folder / claim.path
    if problem := unsafe(folder, path):
        return problem
    size = path.stat().st_size
    if size != claim.bytes:
        return f"has {size:,} bytes, recorded are {claim.bytes:,}"
    found = sha256(path)
    if found != claim.sha256:
        return f"has SHA-256 {found[:16]}…, recorded is {claim.sha256[:16]}…"
    return ""


def unsafe(folder: Path, path: Path) -> str:
    """Why a path is not to be opened; "" where it may be.

    The Hub's cache keeps a repository's files in `blobs`, beside the folder of the commit's folder.
    """
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    if not real.is_relative_to(home) and not real.is_relative_to(home.parent.parent / "blobs"):
        return "is a link out of the folder"
    if not path.exists():
        return "does not exist"
    return "" if real.is_file() else "is no file"
