"""From records to the stage's files: everything here can be done again without a model."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from monotreme.evaluate.tables import markdown, subject_map
from monotreme.records import Counts, read_table
from monotreme.run import Run
from monotreme.scoring.deltas import BASE, delta_rows, perplexity_row, score_rows
from monotreme.scoring.protocol import PROTOCOL
from monotreme.scoring.results import Exposure, Row, results_of
from monotreme.scoring.statistics import Floats
from monotreme.work import StageWork

STAGE = "evaluate"
EXPOSURE = "exposure/"  # how the inputs that only the summary reads begin


def summarise(
    items: pa.Table,
    losses: Mapping[str, Sequence[Row]],
    seed: int,
    exposures: Mapping[str, Exposure] | None = None,
) -> Row:
    """`scores.json`: everything that follows from the records.

    Args:
        losses: model → (texts,) rows of log_loss and num_tokens, the base's among them; may be
            empty.
        seed: of the bootstrap.
        exposures: what decontaminate found, for the benchmarks that it checked.
    """
    arrays = {model: _arrays(rows) for model, rows in losses.items()}
    perplexity = [
        perplexity_row(model, *own, None if model == BASE else arrays[BASE])
        for model, own in arrays.items()
    ]
    return _scores(items, perplexity, seed, exposures)


def _arrays(rows: Sequence[Row]) -> tuple[Floats, Floats]:
    losses, sizes = ([row[key] for row in rows] for key in ("log_loss", "num_tokens"))
    return np.array(losses, np.float64), np.array(sizes, np.float64)


def _scores(
    items: pa.Table,
    perplexity: list[Row],
    seed: int,
    exposures: Mapping[str, Exposure] | None,
) -> Row:
    results = results_of(items, exposures)
    return {
        "protocol": PROTOCOL,
        "scores": score_rows(results),
        "perplexity": perplexity,
        "deltas": delta_rows(results, BASE, seed),
        "truncated": sum(items["num_truncated"].to_pylist()),
    }


def leave(work: StageWork, items: pa.Table, scores: Row) -> None:
    """Write items.parquet, scores.json, scores.md, and heatmap.svg where there are subjects."""
    work.table("items.parquet", items)
    work.json("scores.json", scores)
    work.text("scores.md", markdown(scores))
    if (picture := subject_map(scores["deltas"])) is not None:
        work.text("heatmap.svg", picture)


def summarise_again(
    run: Run, digests: Mapping[str, str], exposures: Mapping[str, Exposure]
) -> bool:
    """Where nothing but exposures has changed since, write the files anew from the old records.

    A changed verdict of a person's must not cost an evaluation.

    Returns:
        Whether that was so.
    """
    if not (run.folder / STAGE / "record.json").is_file():
        return False
    record = run.record(STAGE)
    known = {name: key for name, key in record["inputs"].items() if name.startswith(EXPOSURE)}
    scored = {name: key for name, key in digests.items() if not name.startswith(EXPOSURE)}
    if scored | known == digests or not run.is_current(STAGE, scored | known):
        return False
    items = read_table(run.output(STAGE, "items.parquet"))
    before: dict[str, Any] = json.loads(run.output(STAGE, "scores.json").read_text("utf-8"))
    with run.stage(STAGE, digests) as work:
        leave(work, items, _scores(items, before["perplexity"], run.recipe.seed, exposures))
        work.counts, work.facts = Counts(**record["counts"]), record["facts"]
    return True
