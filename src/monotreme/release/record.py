"""record.json of a released folder: its files and its claims, so that a stranger can check them.

It says nothing that depends on the day or on where files lay. A claim that no record of the run tells
is null.
"""

from collections import Counter
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import AfterValidator, ConfigDict, Field

from monotreme.recipe import Table
from monotreme.records import digest
from monotreme.release.evidence import Evidence
from monotreme.work import StageWork

FILE = "record.json"
FORMAT = 1  # of the record; readers refuse another
OUTSIDE = ("sources/", "encoder", "benchmarks/", "base", "into/")  # of a stage's inputs


def _within(path: str) -> str:
    """A path that cannot lead out of its folder."""
    parts = PurePosixPath(path).parts
    if not path.isprintable() or "\\" in path or str(PurePosixPath(path)) != path:
        raise ValueError("is no plain path")
    if not parts or {"/", "//", ".."} & set(parts):
        raise ValueError("is no path within the folder")
    return path


Count = Annotated[int, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Claim(Table):
    """A part of the record; numbers are numbers, not texts that look like some."""

    model_config = ConfigDict(strict=True)


class FileClaim(Claim):
    """A file of the folder."""

    path: Annotated[str, AfterValidator(_within)]
    bytes: Count
    sha256: Sha256


class QuestionsClaim(Claim):
    """The released questions, or those that the model was trained on.

    Attributes:
        content_digest: digest of their ids in their order.
    """

    rows: Count
    by_source: dict[str, Count]
    content_digest: Sha256


class CurateClaim(Claim):
    """What decided which look-alikes were dropped.

    Attributes:
        floor: similarity down to which pairs were stored.
    """

    threshold: float
    protect: str
    encoder: str
    truncate: bool
    encoder_digest: str | None
    floor: float | None


class BenchmarkClaim(Claim):
    """A benchmark that the questions were compared with.

    Attributes:
        questions_digest: digest of its questions' ids in their order.
    """

    id: str
    split: str
    num_questions: Count
    questions_digest: Sha256 | None


class VerbatimClaim(Claim):
    """Copies word for word: the share of a benchmark question's runs of so many words."""

    share: float
    run: Count


class DecontaminateClaim(Claim):
    """What decided which leaks were dropped, and how many there were."""

    threshold: float
    drop: list[str]
    verbatim: VerbatimClaim | None
    benchmarks: list[BenchmarkClaim]
    dropped_by_source: dict[str, Count]
    dropped_by_verdict: dict[str, Count]


class FolderRecord(Claim):
    """All of record.json.

    Attributes:
        files: every other file of the folder.
        origins: what was read from outside: Hub name and commit, or the SHA-256 of a local file.
    """

    format: Literal[1]
    kind: Literal["dataset", "adapter", "merged"]
    name: str
    seed: int
    files: list[FileClaim]
    questions: QuestionsClaim
    curate: CurateClaim
    decontaminate: DecontaminateClaim
    origins: dict[str, str]
    versions: dict[str, str]


def leave_record(work: StageWork, part: str, evidence: Evidence, questions: pa.Table) -> None:
    """Write the record of a folder that `work` has just written.

    Args:
        part: the folder's name.
        questions: that decontaminate left.
    """
    kind = part if part in ("dataset", "adapter") else "merged"
    files = [
        {"path": path.removeprefix(f"{part}/"), "bytes": entry["bytes"], "sha256": entry["sha256"]}
        for path, entry in work.outputs.items()
        if path.startswith(f"{part}/") and path != f"{part}/{FILE}"
    ]
    stage = {"dataset": "decontaminate", "adapter": "train", "merged": "merge"}[kind]
    told = FolderRecord.model_validate(
        {
            "format": FORMAT,
            "kind": kind,
            "name": evidence.name,
            "seed": evidence.seed,
            "files": files,
            "questions": {
                "rows": questions.num_rows,
                "by_source": dict(Counter(questions["source"].to_pylist())),
                "content_digest": digest(*questions["id"].to_pylist()),
            },
            "curate": _curate(evidence.records["curate"]),
            "decontaminate": _decontaminate(evidence.records["decontaminate"], evidence.leaks),
            "origins": _origins(evidence.records),
            "versions": evidence.records[stage]["versions"],
        }
    )
    work.json(f"{part}/{FILE}", told.model_dump(mode="json"))


def _curate(record: dict[str, Any]) -> dict[str, Any]:
    settings = ("threshold", "protect", "encoder", "truncate")
    facts = ("encoder_digest", "floor")
    told = {key: record["settings"][key] for key in settings}
    return told | {key: record["facts"].get(key) for key in facts}


def _decontaminate(record: dict[str, Any], leaks: dict[str, Any]) -> dict[str, Any]:
    columns = ("id", "split", "num_questions", "questions_digest")
    return {
        "threshold": leaks["threshold"],
        "drop": leaks["drop"],
        "verbatim": record["facts"].get("verbatim"),
        "benchmarks": [{key: row.get(key) for key in columns} for row in leaks["benchmarks"]],
        "dropped_by_source": leaks["dropped_by_source"],
        "dropped_by_verdict": record["counts"]["by_reason"],
    }


def _origins(records: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Digests of what the stages read, but for what they left each other."""
    return {
        name: origin
        for stage in ("curate", "decontaminate", "train", "merge")
        for name, origin in records[stage]["inputs"].items()
        if name.startswith(OUTSIDE)
    }
