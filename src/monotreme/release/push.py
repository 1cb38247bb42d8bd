"""Publishing what release has prepared: nothing else, unchanged, and only when confirmed."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monotreme.errors import MismatchError, RefusedError
from monotreme.hub import hub_errors
from monotreme.recipe import Release
from monotreme.release import NAME, inputs
from monotreme.run import Run
from monotreme.storage import sha256


@dataclass(frozen=True)
class Upload:
    """One repository to be: a prepared folder and where it goes.

    Attributes:
        kind: "dataset" or "model", the Hub's word.
        name: Hub name, `owner/name`.
        files: path in the folder → size in bytes.
    """

    folder: Path
    kind: str
    name: str
    private: bool
    files: dict[str, int]

    def __str__(self) -> str:
        total = sum(self.files.values())
        return f"{_access(self.private)} {self.kind} {self.name}: {len(self.files)} files, {total:,} bytes"


def _access(private: bool) -> str:
    return "private" if private else "public"


def uploads(run: Run) -> list[Upload]:
    """What a push would upload; reads the prepared files and changes nothing.

    Raises:
        RefusedError: release has not been done since something changed, or no Hub name is given.
        MismatchError: a prepared file is not as release left it.
    """
    folder = run.folder / NAME
    if not (folder / "record.json").exists():
        raise RefusedError(f"release has not been done in {run.folder}", "Run `monotreme release`")
    release = run.recipe.release
    named = _named(release)
    if not named:
        raise RefusedError(
            "the recipe names no repository to push to",
            "Set release.dataset, release.adapter or release.merged",
        )
    manifest = json.loads(run.output(NAME, "manifest.json").read_text(encoding="utf-8"))
    for part, _, _ in named:
        _check_files(folder, part, manifest)
    if not run.is_current(NAME, inputs(run)):
        raise RefusedError(
            f"what release has prepared in {run.folder} is out of date",
            "Run `monotreme release` again",
        )
    return [
        Upload(folder / part, kind, name, release.private, _sizes(folder / part))
        for part, kind, name in named
    ]


def push(run: Run, *, confirm: Callable[[Sequence[Upload]], bool]) -> list[str]:
    """Create the recipe's repositories where they do not exist and upload the prepared folders.

    Args:
        confirm: is shown what would be uploaded; nothing leaves the machine unless it says yes.

    Returns:
        The repositories' addresses.

    Raises:
        RefusedError: not confirmed, or as `uploads`.
        MismatchError: as `uploads`.
        RemoteError: the Hub cannot be reached or says no.
    """
    planned = uploads(run)
    if not confirm(planned):
        raise RefusedError("the upload was not confirmed", "Confirm it, or add --yes")
    return [_upload(upload, f"Release of {run.recipe.name}") for upload in planned]


def _named(release: Release) -> list[tuple[str, str, str]]:
    """(folder, kind, Hub name) of everything that the recipe gives a Hub name."""
    parts = [
        ("dataset", "dataset", release.dataset),
        ("adapter", "model", release.adapter),
        *((f"merged-{merge}", "model", name) for merge, name in release.merged.items()),
    ]
    return [(folder, kind, name) for folder, kind, name in parts if name]


def _check_files(folder: Path, part: str, manifest: list[dict[str, str]]) -> None:
    known = {
        file["path"]: file["sha256"] for file in manifest if file["path"].startswith(f"{part}/")
    }
    there = {f"{part}/{name}" for name in _sizes(folder / part)}
    for path in sorted(known.keys() | there):
        if path not in there:
            what = "is missing"
        elif path not in known:
            what = "is not in the manifest"
        elif sha256(folder / path) != known[path]:
            what = "has changed since release prepared it"
        else:
            continue
        raise MismatchError(f"{folder / path} {what}", "Run `monotreme release --force`")


def _sizes(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _upload(upload: Upload, message: str) -> str:
    from huggingface_hub import HfApi

    api = HfApi()
    with hub_errors(f"{upload.kind} {upload.name}"):
        address = api.create_repo(
            upload.name, repo_type=upload.kind, private=upload.private, exist_ok=True
        )
        private = bool(api.repo_info(upload.name, repo_type=upload.kind).private)
    if private != upload.private:  # create_repo leaves a repository that exists as it is
        raise RefusedError(
            f"{upload.kind} {upload.name} is {_access(private)}, the recipe says {_access(upload.private)}",
            "Change the repository, or release.private in the recipe",
        )
    with hub_errors(f"{upload.kind} {upload.name}"):
        api.upload_folder(
            repo_id=upload.name,
            repo_type=upload.kind,
            folder_path=upload.folder,
            commit_message=message,
        )
    return str(address)
