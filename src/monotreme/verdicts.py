"""People's verdicts on pairs: JSON Lines beside the stages, one line a verdict, never rewritten.

A line names the pair by the content ids of its two questions, so that it holds for every re-run,
recipe and machine, and can be read in a diff. Of one reviewer the last line on a pair counts; a
verdict of null takes the one before back.
"""

import csv
import fcntl
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from monotreme.errors import InputError
from monotreme.records import VERDICTS, Verdict
from monotreme.storage import storage_errors

FILE = "verdicts.jsonl"
LONGEST_NAME = 100  # characters of a reviewer's name

Pair = tuple[str, str]  # ids of question and benchmark question


@dataclass(frozen=True, slots=True)
class Line:
    """One verdict of one person.

    Attributes:
        question, benchmark_question: content ids.
        verdict: None takes back what the reviewer said before.
        at: UTC, ISO 8601, to the second.
    """

    question: str
    benchmark_question: str
    verdict: Verdict | None
    reviewer: str
    at: str

    @property
    def pair(self) -> Pair:
        return self.question, self.benchmark_question


class Settled(NamedTuple):
    """What people say of a pair; where they disagree the gravest verdict, so that no leak slips by."""

    verdict: Verdict
    reviewers: tuple[str, ...]


class Agreement(NamedTuple):
    """Two reviewers on the pairs that both judged.

    Attributes:
        kappa: Cohen's κ (J. Cohen, 1960): agreement beyond chance, 1 is full; None where chance
            alone explains it, because both gave one and the same verdict throughout.
    """

    reviewers: tuple[str, str]
    pairs: int
    agreed: int
    kappa: float | None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def reviewer_name(name: str) -> str:
    """A name as it may stand in the file.

    Raises:
        InputError: it is empty, too long or has control characters.
    """
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise InputError(
            f"reviewer {name[:LONGEST_NAME]!r} is no name",
            f"Give 1 to {LONGEST_NAME} printable characters with --reviewer",
        )
    return name


# ── the file ────────────────────────────────────────────────────────────────────────────────────


def append(path: Path, lines: Sequence[Line]) -> None:
    """Add lines and return when they are on the disk; other programs may add at the same time.

    What a killed program left half written at the end was never confirmed and is cut off.
    """
    text = "".join(json.dumps(asdict(line), ensure_ascii=False) + "\n" for line in lines)
    with storage_errors(path), path.open("ab+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        whole = _end_of_last_line(file)
        try:
            file.truncate(whole)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        except OSError:  # a full disk: all of them or none
            with suppress(OSError):
                file.truncate(whole)
            raise


def _end_of_last_line(file: Any) -> int:
    file.seek(0)
    end: int = file.read().rfind(b"\n") + 1
    return end


def read(path: Path) -> list[Line]:
    """All lines, in the order in which they were given; none where there is no file.

    Raises:
        InputError: a line is not one of this file.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror})", "Correct its rights"
        ) from None
    whole = data[: data.rfind(b"\n") + 1]
    return [
        _line(text, f"{path} line {number}")
        for number, text in enumerate(whole.split(b"\n")[:-1], 1)
        if text.strip()
    ]


def _line(text: bytes, where: str) -> Line:
    try:
        row = json.loads(text)
        line = Line(**row)
    except (ValueError, TypeError, RecursionError):
        raise InputError(f"{where} is no verdict", "Mend the line or delete it") from None
    texts = (line.question, line.benchmark_question, line.reviewer, line.at)
    if not all(isinstance(value, str) for value in texts) or (
        line.verdict is not None and line.verdict not in VERDICTS
    ):
        raise InputError(f"{where} has a wrong value", f"Verdicts are {', '.join(VERDICTS)}, null")
    return line


# ── what they say ───────────────────────────────────────────────────────────────────────────────


def standing(lines: Iterable[Line]) -> dict[Pair, dict[str, Verdict]]:
    """Pair → reviewer → the verdict that stands."""
    found: dict[Pair, dict[str, Verdict]] = {}
    for line in lines:
        of_pair = found.setdefault(line.pair, {})
        of_pair.pop(line.reviewer, None)
        if line.verdict is not None:
            of_pair[line.reviewer] = line.verdict
    return {pair: said for pair, said in found.items() if said}


def settle(lines: Iterable[Line]) -> dict[Pair, Settled]:
    """Pair → what holds for it."""
    return {
        pair: Settled(min(said.values(), key=VERDICTS.index), tuple(sorted(said)))
        for pair, said in standing(lines).items()
    }


def agreement(lines: Iterable[Line]) -> list[Agreement]:
    """Every two reviewers who judged a pair in common."""
    said = standing(lines).values()
    names = sorted({name for of_pair in said for name in of_pair})
    found = []
    for one, other in combinations(names, 2):
        both = [(of[one], of[other]) for of in said if one in of and other in of]
        if both:
            agreed = sum(left == right for left, right in both)
            found.append(Agreement((one, other), len(both), agreed, cohens_kappa(both)))
    return found


def cohens_kappa(both: Sequence[tuple[Verdict, Verdict]]) -> float | None:
    """(observed − chance) / (1 − chance), chance from each reviewer's own shares."""
    total = len(both)
    observed = sum(left == right for left, right in both) / total
    ours, theirs = Counter(left for left, _ in both), Counter(right for _, right in both)
    chance = sum(ours[v] * theirs[v] for v in VERDICTS) / total**2
    return None if chance == 1 else (observed - chance) / (1 - chance)


# ── to and from a spreadsheet ───────────────────────────────────────────────────────────────────

COLUMNS = ("question", "benchmark_question", "verdict", "reviewer", "at")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


def to_csv(lines: Iterable[Line], pairs: Mapping[Pair, Mapping[str, Any]]) -> str:
    """A row a pair and reviewer, and one without verdict for a pair that nobody judged.

    Args:
        pairs: further columns for people, the same for all: texts, similarity, proposed verdict.
    """
    extra = list(next(iter(pairs.values()), {}))
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow([*COLUMNS, *extra])
    last = {(line.pair, line.reviewer): line for line in lines}
    given: dict[Pair, list[Line]] = {}
    for line in last.values():
        if line.verdict is not None:
            given.setdefault(line.pair, []).append(line)
    for pair in dict.fromkeys((*pairs, *given)):
        shown = [_harmless(value) for value in pairs.get(pair, dict.fromkeys(extra, "")).values()]
        for line in given.get(pair, [Line(*pair, None, "", "")]):
            known = (*pair, line.verdict or "", _harmless(line.reviewer), line.at)
            writer.writerow([*known, *shown])
    return file.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def from_csv(path: Path, reviewer: str, known: Iterable[Pair]) -> list[Line]:
    """The verdicts of a file in `to_csv`'s form; rows without a verdict are passed over.

    Args:
        reviewer: who gave those verdicts that name nobody.
        known: the pairs that there are.

    Raises:
        InputError: not such a file, another verdict, or a pair of another run.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no readable CSV file ({error})", "Export one first") from None
    missing = [name for name in COLUMNS[:3] if name not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}", f"Keep {', '.join(COLUMNS)}")
    pairs = set(known)
    return [
        _from_row(row, f"{path} row {number}", reviewer, pairs)
        for number, row in enumerate(rows, 2)
        if (row["verdict"] or "").strip()
    ]


def _from_row(row: Mapping[str, str | None], where: str, reviewer: str, known: set[Pair]) -> Line:
    question, benchmark_question, verdict, name, at = (
        (row.get(column) or "").strip() for column in COLUMNS
    )
    right = next((one for one in VERDICTS if one == verdict), None)
    if right is None:
        raise InputError(f"{where} has the verdict {verdict!r}", f"Write {', '.join(VERDICTS)}")
    if (question, benchmark_question) not in known:
        raise InputError(f"{where} is of no pair of this run", "Export this run's pairs first")
    who = reviewer_name(name.removeprefix("'") or reviewer)
    return Line(question, benchmark_question, right, who, at or now())
