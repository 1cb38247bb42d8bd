"""Publishing what release has prepared: nothing else, unchanged, and only when confirmed.

Refused is what was not checked for leaks, and a data set that a licence forbids to pass on. An upload
that was cut short goes on with the next: what the Hub has already, it is not sent again.
"""

import json
import shlex
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from monotreme.errors import MismatchError, RecipeError, RefusedError
from monotreme.hub import hub_errors
from monotreme.licenses import forbids
from monotreme.recipe import Release
from monotreme.records import read_table
from monotreme.release import NAME, inputs
from monotreme.release.licensing import Licensed, consequences, licensed
from monotreme.run import Run
from monotreme.storage import sha256

_AGAIN = "Push again when the Hub can be reached; what it has is not sent twice"


@dataclass(frozen=True)
class Upload:
    """One repository to be: a prepared folder and where it goes.

    Attributes:
        kind: "dataset" or "model", the Hub's word.
        name: Hub name, `owner/name`.
        files: path in the folder → size in bytes.
        notes: what the licences ask of whoever uses it.
    """

    folder: Path
    kind: str
    name: str
    private: bool
    files: dict[str, int]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        total = sum(self.files.values())
        what = f"{_access(self.private)} {self.kind} {self.name}: {len(self.files)} files, {total:,} bytes"
        return "\n  ".join([what, *self.notes])


def _access(private: bool) -> str:
    return "private" if private else "public"


def uploads(run: Run, accepted: Collection[str] = ()) -> list[Upload]:
    """What a push would upload; reads the prepared files and changes nothing.

    Args:
        accepted: licences under which questions are passed on although the licence does not say so.

    Raises:
        RefusedError: release has not been done since something changed, no Hub name is given, leaks
            were not looked for, or a licence that is not accepted forbids passing on.
        MismatchError: a prepared file is not as release left it.
        RecipeError: no question has an accepted licence.
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
    _check_leaks(run)
    licenses = _licenses(folder)
    _check_accepted(licenses, accepted)
    if release.dataset:
        _check_passed_on(licenses, accepted)
    notes = tuple(f"{words} {', '.join(map(str, due))}" for words, due in consequences(licenses))
    return [
        Upload(
            folder / part,
            kind,
            name,
            release.private,
            _sizes(folder / part),
            notes if kind == "dataset" else (),
        )
        for part, kind, name in named
    ]


def _check_leaks(run: Run) -> None:
    leaks = json.loads(run.output("decontaminate", "leaks.json").read_text(encoding="utf-8"))
    if not leaks["benchmarks"]:
        raise RefusedError(
            "the questions were compared with no benchmark, so leaks were not looked for",
            "Name what must not leak under decontaminate.benchmarks",
        )
    if not run.record("train")["facts"].get("checked", True):
        raise RefusedError(
            "the questions were changed after decontaminate had checked them (train.allow_unchecked)",
            "Run `monotreme decontaminate --force` and the stages after it",
        )


def _licenses(folder: Path) -> list[Licensed]:
    """Of the prepared questions."""
    path = folder / "dataset" / "data" / "provenance.parquet"
    table = read_table(path, ["source", "license"])
    rows = Counter(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))
    return licensed(
        {"source": source, "licenses": {name: num}} for (source, name), num in rows.items()
    )


def _check_accepted(licenses: Sequence[Licensed], accepted: Collection[str]) -> None:
    known = {one.license for one in licenses}
    for name in accepted:
        if name not in known:
            raise RecipeError(
                f"--accept-license names {name!r}, the questions are under {', '.join(sorted(known))}",
                "Name one of these",
            )


def _check_passed_on(licenses: Sequence[Licensed], accepted: Collection[str]) -> None:
    refused = [
        (one, why)
        for one in licenses
        if one.license not in accepted and (why := forbids(one.license)) is not None
    ]
    if refused:
        options = " ".join(f"--accept-license {shlex.quote(one.license)}" for one, _ in refused)
        raise RefusedError(
            f"not to be passed on: {'; '.join(f'{one} {why}' for one, why in refused)}",
            f"Leave these sources out (curate.licenses), or answer for it with {options}",
        )


def push(
    run: Run, *, confirm: Callable[[Sequence[Upload]], bool], accepted: Collection[str] = ()
) -> list[str]:
    """Create the recipe's repositories where they do not exist and upload the prepared folders.

    Args:
        confirm: is shown what would be uploaded; nothing leaves the machine unless it says yes.
        accepted: as for `uploads`.

    Returns:
        The repositories' addresses.

    Raises:
        RefusedError: not confirmed, or as `uploads`.
        MismatchError, RecipeError: as `uploads`.
        RemoteError: the Hub cannot be reached or says no.
    """
    planned = uploads(run, accepted)
    if not confirm(planned):
        raise RefusedError(
            "the upload was not confirmed", "Confirm it, or add --yes where there is no terminal"
        )
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
    with hub_errors(f"{upload.kind} {upload.name}", _AGAIN):
        address = api.create_repo(
            upload.name, repo_type=upload.kind, private=upload.private, exist_ok=True
        )
        private = bool(api.repo_info(upload.name, repo_type=upload.kind).private)
    if private != upload.private:  # create_repo leaves a repository that exists as it is
        raise RefusedError(
            f"{upload.kind} {upload.name} is {_access(private)}, the recipe says {_access(upload.private)}",
            "Change the repository, or release.private in the recipe",
        )
    with hub_errors(f"{upload.kind} {upload.name}", _AGAIN):
        try:
            api.upload_folder(
                repo_id=upload.name,
                repo_type=upload.kind,
                folder_path=upload.folder,
                commit_message=message,
            )
        except RuntimeError as error:  # huggingface_hub's wrapper of what stopped a large file
            raise error.__cause__ or error from None
    return str(address)
