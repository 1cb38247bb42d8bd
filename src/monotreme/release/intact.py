"""Whether the files that the records name are those that were recorded, and the counts add up."""

from collections.abc import Iterable
from typing import Any

from monotreme.errors import MismatchError
from monotreme.records import Counts
from monotreme.run import Run
from monotreme.storage import sha256

QUESTIONS = "questions.parquet"


def check_records(run: Run, stages: Iterable[str]) -> None:
    """Compare every file of the stages with its digest in their records.

    Questions that were changed after decontaminate and trained on all the same (train's record says
    `checked: false`, and so do the cards) are compared with what train read.

    Raises:
        InputError: a stage has not finished, or a file is missing.
        MismatchError: a file has other bytes than were recorded, or counts do not balance.
    """
    records = {stage: run.record(stage) for stage in stages}
    for stage, record in records.items():
        _check_counts(run, stage, record)
        for name, entry in record["outputs"].items():
            known = {entry["sha256"]}
            if (stage, name) == ("decontaminate", QUESTIONS):
                known |= _accepted_unchecked(records)
            if sha256(run.output(stage, name)) not in known:
                raise MismatchError(
                    f"{stage}: {run.output(stage, name)} is not what the stage's record says",
                    f"Run `monotreme {stage} --force`",
                )


def _accepted_unchecked(records: dict[str, dict[str, Any]]) -> set[str]:
    train = records.get("train", {"facts": {}})
    if train["facts"].get("checked", True):
        return set()
    return {train["inputs"][f"decontaminate/{QUESTIONS}"]}


def _check_counts(run: Run, stage: str, record: dict[str, Any]) -> None:
    counts = Counts(**record["counts"])
    try:
        counts.check()
    except ValueError as error:
        problem = f"{stage}: {run.folder / stage / 'record.json'}: {error}"
        raise MismatchError(problem, f"Run `monotreme {stage} --force`") from None
    rows = record["outputs"].get(QUESTIONS, {}).get("rows", counts.kept)
    if rows != counts.kept:
        raise MismatchError(
            f"{stage}: {QUESTIONS} has {rows:,} rows, the record counts {counts.kept:,} kept",
            f"Run `monotreme {stage} --force`",
        )
