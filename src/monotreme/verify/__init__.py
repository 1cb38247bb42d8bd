"""verify: a released folder against its own claims, by whoever got it.

folder (the record, files) → origins (the recipe, what a rebuild reads) → questions (counts, ids,
duplicates) and leaks (benchmarks), or weights. Nothing in the folder is changed.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from monotreme.errors import InputError, MonotremeError, UsageError
from monotreme.printable import printable
from monotreme.recipe import Recipe, load_recipe
from monotreme.records import Question
from monotreme.release.record import FolderRecord
from monotreme.verdicts import FILE as VERDICTS
from monotreme.verdicts import read, settle
from monotreme.verify.check import Check, compared, guarded, left_open
from monotreme.verify.folder import RECIPE, check_files, check_no_code, read_record, unsafe
from monotreme.verify.leaks import Setting, check_leaks
from monotreme.verify.origins import check_rebuild, check_recipe, read_encoder
from monotreme.verify.questions import (
    NOT_RIGHT,
    PROVENANCE,
    TRAIN,
    check_changed,
    check_counts,
    check_exact,
    check_ids,
    check_near,
    draw,
    read_released,
)
from monotreme.verify.weights import CONFIG, WEIGHTS, check_adapter, check_base, check_model

__all__ = ["Check", "Options", "Report", "lines", "plain", "read_given", "verify"]


@dataclass(frozen=True)
class Options:
    """How much is checked, and with what.

    Attributes:
        sample: rows compared with all others and with the benchmarks; None for all rows.
        benchmarks: id → local file or folder to read instead of what the recipe names.
        cache: folder for vectors.
    """

    sample: int | None
    seed: int
    benchmarks: Mapping[str, Path]
    cache: Path


@dataclass(frozen=True)
class Report:
    """What was found of one folder."""

    folder: Path
    record: FolderRecord
    checks: list[Check]

    @property
    def failed(self) -> bool:
        return any(check.status == "failed" for check in self.checks)


def verify(folders: Sequence[Path], options: Options) -> list[Report]:
    """Check released folders; of a model also that it was trained on the data set among them.

    Raises:
        InputError: one of them is no released folder, or a benchmark's file is not there.
        UsageError: a benchmark is given that none of them names, or the cache lies in one.
    """
    records = [read_record(folder) for folder in folders]
    _check_given(records, options.benchmarks)
    for folder in folders:
        if options.cache.resolve().is_relative_to(folder.resolve()):
            problem = f"--cache {options.cache} lies in {folder}, which is only read"
            raise UsageError(problem, "Name a folder elsewhere")
    reports = [
        Report(folder, record, _checks(folder, record, options))
        for folder, record in zip(folders, records, strict=True)
    ]
    for report in reports:
        if report.record.kind != "dataset":
            report.checks.append(_trained_on(report.record, reports))
    return reports


def read_given(texts: Sequence[str]) -> dict[str, Path]:
    """Benchmarks given as ID=PATH.

    Raises:
        UsageError: one of the texts is something else.
    """
    parts = [text.partition("=") for text in texts]
    for name, _, path in parts:
        if not name or not path:
            raise UsageError(f"--benchmark {name} names no path", "Write it as --benchmark ID=PATH")
    return {name: Path(path) for name, _, path in parts}


def _check_given(records: Sequence[FolderRecord], benchmarks: Mapping[str, Path]) -> None:
    known = {claim.id for record in records for claim in record.decontaminate.benchmarks}
    for name, path in benchmarks.items():
        if name not in known:
            problem = f"--benchmark {name}: no folder names it"
            raise UsageError(problem, f"Known are {', '.join(sorted(known)) or 'none'}")
        if not path.exists():
            raise InputError(f"--benchmark {name}: {path} does not exist", "Correct the path")


def _checks(folder: Path, record: FolderRecord, options: Options) -> list[Check]:
    files, right = check_files(folder, record)
    recipe, of_recipe = _recipe(folder, record, right)
    checks = [files, check_no_code(folder), of_recipe]
    if record.kind == "dataset":
        checks += _dataset_checks(folder, record, recipe, right, options)
    elif record.kind == "adapter":
        needs = {CONFIG, WEIGHTS}
        checks.append(_if(needs <= right, "weights", lambda: check_adapter(folder)))
        if recipe is not None:
            known = recipe
            checks.append(_if(CONFIG in right, "base", lambda: check_base(folder, known, record)))
    else:
        checks.append(_if(files.status == "ok", "weights", lambda: check_model(folder)))
    if recipe is not None:
        known = recipe
        checks.append(guarded("rebuild", lambda: check_rebuild(known, record, folder)))
    return checks


def _if(condition: bool, name: str, check: Callable[[], Check]) -> Check:
    """The check, where its files are those of the record."""
    return guarded(name, check) if condition else left_open(name, NOT_RIGHT)


def _recipe(folder: Path, record: FolderRecord, right: set[str]) -> tuple[Recipe | None, Check]:
    """The recipe that came with the folder, where it can be read; and whether it is the record's."""
    if RECIPE not in right:
        return None, left_open("recipe", NOT_RIGHT)
    try:
        recipe = load_recipe(folder / RECIPE)
    except MonotremeError as error:
        return None, compared("recipe", "", [error.problem])
    return recipe, check_recipe(recipe, record)


def _dataset_checks(
    folder: Path,
    record: FolderRecord,
    recipe: Recipe | None,
    right: set[str],
    options: Options,
) -> list[Check]:
    if not {TRAIN, PROVENANCE} <= right:
        return [_changed(folder, right)]
    try:
        released = read_released(folder)
    except InputError as error:
        return [compared("questions", "", [error.problem])]
    checks = [
        check_counts(released, record.questions),
        check_ids(released, record.questions),
        check_exact(released),
    ]
    if recipe is None:
        return [*checks, left_open("near-duplicates and leaks", "there is no recipe to go by")]
    return checks + _look_alikes(folder, record, recipe, released.questions, right, options)


def _changed(folder: Path, right: set[str]) -> Check:
    """The rows that were changed, as far as one of the two files still tells."""
    paths = [folder / name for name in (TRAIN, PROVENANCE)]
    if len({TRAIN, PROVENANCE} & right) == 1 and not any(unsafe(folder, path) for path in paths):
        with suppress(InputError):
            return check_changed(folder)
    return left_open("questions", NOT_RIGHT)


def _look_alikes(
    folder: Path,
    record: FolderRecord,
    recipe: Recipe,
    questions: list[Question],
    right: set[str],
    options: Options,
) -> list[Check]:
    """Near-duplicates and leaks, as the recipe's settings define them."""
    sample = draw(len(questions), options.sample, options.seed)
    encoder = functools.cache(lambda: read_encoder(recipe, record, folder))
    near = guarded(
        "near-duplicates",
        lambda: check_near(questions, recipe.curate, sample, encoder(), options.cache),
    )
    try:
        settled = settle(read(folder / VERDICTS)) if VERDICTS in right else {}
    except InputError as error:
        return [near, compared("leaks", "", [error.problem])]
    setting = Setting(
        folder,
        record,
        recipe.decontaminate,
        options.benchmarks,
        settled,
        encoder,
        options.cache,
    )
    none = [left_open("leaks", "the record names no benchmark")]
    return [near, *(check_leaks(questions, sample, setting) or none)]


def _trained_on(record: FolderRecord, reports: Sequence[Report]) -> Check:
    """Whether the questions that a model claims to be trained on are those of a data set given."""
    name, claimed = "trained on", record.questions.content_digest
    datasets = [report for report in reports if report.record.kind == "dataset"]
    held = {
        report.record.questions.content_digest
        for report in datasets
        if any(check.name == "ids" and check.status == "ok" for check in report.checks)
    }
    if not held:
        why = "its ids are not in order" if datasets else "give the data set's folder, too"
        return left_open(name, f"questions {claimed[:16]}…: {why}")
    told = f"{record.questions.rows:,} questions with content digest {claimed}"
    problem = f"{told}; the data set has {', '.join(sorted(held))}"
    return compared(name, told, [] if claimed in held else [problem])


def plain(reports: Sequence[Report]) -> dict[str, Any]:
    """What was found, as plain JSON."""
    return {
        "ok": not any(report.failed for report in reports),
        "folders": [
            {
                "folder": str(report.folder),
                "kind": report.record.kind,
                "name": report.record.name,
                "versions": report.record.versions,
                "checks": [check._asdict() for check in report.checks],
            }
            for report in reports
        ],
    }


def lines(reports: Sequence[Report]) -> list[str]:
    """What was found, a line a check; texts of the folder cannot steer the terminal."""
    told = []
    for report in reports:
        made, ours = report.record.versions.get("monotreme", "unknown"), version("monotreme")
        told.append(
            f"{report.folder}: {report.record.kind} of {report.record.name}, "
            f"made with monotreme {made}, checked with {ours}"
        )
        told += [f"  {c.status:<11} {c.name}: {c.detail}" for c in report.checks]
    return [printable(" ".join(line.split("\n"))) for line in told]
