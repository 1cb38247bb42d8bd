"""Sheets put to candidates, in pieces that processes take in turn.

    sheets × candidates → pieces → a file of answers each → answers in the sheets' order

What is scored together changes last bits. So a piece is scored by itself, with nothing kept of another,
and where it begins and ends follows from the questions alone: the answers have the same bytes whoever
scores what. A piece's file is kept as soon as it is whole, for the command after a kill.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from monotreme.models import Precision
from monotreme.records import digest, read_table
from monotreme.scoring.loaded import Loaded
from monotreme.scoring.scorer import Scorer, load_scorer
from monotreme.scoring.sheets import ANSWERS, Answers, Candidate, Sheet
from monotreme.scoring.spans import Likelihood
from monotreme.scoring.team import Team, leading
from monotreme.storage import writing
from monotreme.work import StageWork

WAY = b"scoring"  # of a piece's schema: whether prefixes were shared
LATE_SECONDS = 90  # for a network file system to show what another machine has written


@dataclass(frozen=True, slots=True)
class Piece:
    """A portion of a sheet for a candidate, both by their place in the order.

    Attributes:
        first: and `last`: of the sheet's own order, the end left out.
        path: the file that gets the answers.
    """

    candidate: int
    sheet: int
    first: int
    last: int
    path: Path


@dataclass(frozen=True)
class Order:
    """All that a process needs to know to score pieces."""

    precision: Precision
    batch_tokens: int
    candidates: Sequence[Candidate]
    sheets: Sequence[Sheet]
    pieces: Sequence[Piece]

    def write(self, folder: Path) -> Path:
        """Leave it for other processes, the sheets in files of their own."""
        names = []
        for number, sheet in enumerate(self.sheets):
            names.append(f"sheet-{number}.parquet")
            table = pa.table({"context": sheet.contexts, "choices": list(map(list, sheet.choices))})
            with writing(folder / names[-1]) as path:
                pq.write_table(table, path)
        told = {
            "precision": self.precision,
            "batch_tokens": self.batch_tokens,
            "candidates": [asdict(each) for each in self.candidates],
            "sheets": list(zip(names, (sheet.name for sheet in self.sheets), strict=True)),
            "pieces": [asdict(each) for each in self.pieces],
        }
        with writing(folder / "order.json") as path:
            path.write_text(json.dumps(told, default=_text), encoding="utf-8")
        return folder / "order.json"

    @classmethod
    def read(cls, path: Path) -> "Order":
        """What `write` has left."""
        awaited(path)
        told = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            told["precision"],
            told["batch_tokens"],
            [Candidate(**_paths(each, "folder", "adapter")) for each in told["candidates"]],
            [_read_sheet(path.with_name(file), name) for file, name in told["sheets"]],
            [Piece(**_paths(each, "path")) for each in told["pieces"]],
        )


def _text(path: Path) -> str:
    return str(path.absolute())


def _paths(told: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {**told, **{key: Path(told[key]) for key in keys if told[key] is not None}}


def _read_sheet(path: Path, name: str) -> Sheet:
    table = read_table(awaited(path))
    return Sheet(name, table["context"].to_pylist(), table["choices"].to_pylist())


def awaited(path: Path) -> Path:
    """A file that another process has written, maybe on another machine."""
    end = time.monotonic() + LATE_SECONDS
    while not path.exists() and time.monotonic() < end:
        time.sleep(1)
    return path


# ── by the leader ───────────────────────────────────────────────────────────────────────────────


def ask(
    work: StageWork,
    candidates: Sequence[Candidate],
    sheets: Sequence[Sheet],
    *,
    precision: Precision,
    batch_tokens: int,
    num_ranks: int,
) -> dict[tuple[str, str], Answers]:
    """Every candidate's answers to every sheet, by their names.

    What an earlier, killed execution of the stage has finished is taken as it is; where that is all,
    no model is loaded.

    Raises:
        InputError: a model cannot be read or gives no numbers, or a process has failed.
        RecipeError: `batch_tokens` or the precision ask for too much memory.
    """
    folder = work.folder / "parts"
    same = (precision, str(batch_tokens))
    pieces = {
        (candidate.name, sheet.name): list(_pieces(folder, i, candidate, j, sheet, same))
        for i, candidate in enumerate(candidates)
        for j, sheet in enumerate(sheets)
    }
    left = [piece for own in pieces.values() for piece in own if not piece.path.exists()]
    if left:
        order = Order(precision, batch_tokens, candidates, sheets, left)
        total = sum(sheets[piece.sheet].num_scored(piece.first, piece.last) for piece in left)
        with leading(num_ranks, total) as team:
            if team.size > 1:
                team.publish(_text(order.write(folder)))
            score(order, team, work.forget)
    return {
        (candidate.name, sheet.name): _joined(sheet, pieces[candidate.name, sheet.name])
        for candidate in candidates
        for sheet in sheets
    }


def _pieces(
    folder: Path, i: int, candidate: Candidate, j: int, sheet: Sheet, same: Sequence[str]
) -> Iterator[Piece]:
    for first, last in sheet.portions():
        key = digest(candidate.digest, *same, sheet.digest, f"{first} {last}")[:16]
        path = folder / f"{candidate.name}-{sheet.name}-{first}-{key}.parquet"
        yield Piece(i, j, first, last, path)


def _joined(sheet: Sheet, pieces: Sequence[Piece]) -> Answers:
    tables = [read_table(awaited(piece.path)) for piece in pieces]
    ways = {table.schema.metadata[WAY] for table in tables}
    plain = [table.replace_schema_metadata(None) for table in tables]
    rows = pa.concat_tables([ANSWERS.empty_table(), *plain])
    places = sorted(range(len(sheet.order)), key=sheet.order.__getitem__)
    return Answers(
        rows.take(pa.array(places, pa.int64())), "shared" if ways <= {b"shared"} else "plain"
    )


# ── by every process ────────────────────────────────────────────────────────────────────────────


def score(order: Order, team: Team, before_writing: Callable[[], None] = lambda: None) -> None:
    """Score the pieces that no other process takes.

    Raises:
        InputError, RecipeError: as `ask`.
    """
    load = partial(load_scorer, precision=order.precision, batch_tokens=order.batch_tokens)
    loaded, proven = Loaded(load), None
    for number in team.claims(len(order.pieces)):
        piece = order.pieces[number]
        candidate, sheet = order.candidates[piece.candidate], order.sheets[piece.sheet]
        scorer = loaded.scorer(candidate.folder, candidate.adapter, candidate.trust_remote_code)
        if proven != (piece.candidate, piece.sheet) and not sheet.are_texts:
            scorer.prove_pairs(sheet.pairs(sheet.order))
            proven = (piece.candidate, piece.sheet)
        rows = _answers(scorer, sheet, piece, f"{candidate.name} on {sheet.name}", team)
        before_writing()
        with writing(piece.path) as path:
            pq.write_table(rows, path)


def _answers(scorer: Scorer, sheet: Sheet, piece: Piece, what: str, team: Team) -> pa.Table:
    indices = sheet.order[piece.first : piece.last]
    if sheet.are_texts:
        rows = [
            {"log_likelihoods": [-loss], "num_tokens": [num], "greedy": [], "num_truncated": 0}
            for loss, num in scorer.texts([sheet.contexts[i] for i in indices], what)
        ]
        team.advance(len(rows), what)
        return pa.Table.from_pylist(rows, ANSWERS.with_metadata({WAY: "plain"}))
    pairs = sheet.pairs(indices)
    scored = iter(scorer.continuations(pairs, what, partial(team.advance, note=what)))
    rows = [_answer([next(scored) for _ in sheet.choices[i]]) for i in indices]
    return pa.Table.from_pylist(rows, ANSWERS.with_metadata({WAY: scorer.way}))


def _answer(scored: Sequence[Likelihood]) -> dict[str, object]:
    return {
        "log_likelihoods": [choice.log_likelihood for choice in scored],
        "num_tokens": [choice.num_tokens for choice in scored],
        "greedy": [choice.greedy for choice in scored],
        "num_truncated": sum(choice.truncated for choice in scored),
    }
