"""Verdicts to and from a spreadsheet, for reviewers who have no access to the machine."""

from pathlib import Path

from monotreme import verdicts
from monotreme.review.pairs import read_pairs
from monotreme.run import Run
from monotreme.storage import writing


def export_verdicts(run: Run, path: Path) -> int:
    """Write every pair with its texts and the verdicts given so far; returns how many pairs.

    Raises:
        InputError: nothing to judge.
        StorageError: the file cannot be written.
    """
    lines = verdicts.read(run.folder / verdicts.FILE)
    pairs = read_pairs(run)
    with writing(path) as temporary:
        text = verdicts.to_csv(lines, pairs.for_people())
        temporary.write_text(text, encoding="utf-8", newline="")
    return len(pairs.rows)


def import_verdicts(run: Run, path: Path, reviewer: str) -> int:
    """Add the verdicts of a spreadsheet that are not there yet; returns how many.

    Raises:
        InputError: not such a file; then none is added.
    """
    book = run.folder / verdicts.FILE
    given = verdicts.from_csv(path, reviewer, read_pairs(run).number)
    standing = verdicts.standing(verdicts.read(book))
    new = [line for line in given if standing.get(line.pair, {}).get(line.reviewer) != line.verdict]
    verdicts.append(book, new)
    return len(new)
