"""Fit the coefficients of src/monotreme/triage/model.json.

    python bench/triage_model/fit.py [--data ../shared/data]

A logistic regression with a ridge penalty from the figures of `monotreme.triage.features` to "this
pair is a leak". Signs are bound, so that no difference can come to speak for a leak by chance. Every family of pairs weighs the same, so that
none sets the coefficients by its size. The odds are then shifted and stretched on held-out pairs
(Platt 1999), split by benchmark question, so that a confidence of .9 is right nine times in ten.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

sys.path.insert(0, str(Path(__file__).parents[1]))

from triage_model.corpus import Row, bases, edited, labelled, natural, without_answers

from monotreme.records import digest
from monotreme.triage.background import NOTHING, background
from monotreme.triage.features import Evidence, gather
from monotreme.triage.model import BIAS, closeness
from monotreme.triage.pairs import read_pair
from monotreme.triage.sides import benchmark_side, training_side

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "src" / "monotreme" / "triage" / "model.json"
RIDGE = 2.0  # in pairs; the figures lie between 0 and about 4
FOLDS = 5
LIKE = frozenset(
    [
        "ratio",
        "contains",
        "contained",
        "numbers_jaccard",
        "numbers_shared",
        "answers_equal",
        "answers_equal_telling",
        "options_same",
        "options_shown",
    ]
)
FREE = frozenset(["stock", "wrapped", "cut", "copied", "misspelt"])
Bound = tuple[float | None, float | None]


def rows_of(data: Path, per_set: int, cache: Path, seed: int = 0) -> list[Row]:
    """All pairs to fit on: labelled ones with and without answers, edits, natural look-alikes."""
    known = labelled(data / "pairs" / "labelled.jsonl")
    found = bases(data)
    made = [*edited(found, per_set, seed), *natural(found, 2 * per_set, cache, seed)]
    return [*known, *map(without_answers, known), *made]


def evidence_of(rows: Sequence[Row]) -> list[Evidence]:
    """What triage gathers of every pair; every other pair is read without background."""
    pairs = [read_pair(row) for row in rows]
    backgrounds = (background(benchmark for _, benchmark in pairs), NOTHING)
    return [
        gather(training_side(question), benchmark_side(benchmark), backgrounds[place % 2])
        for place, (question, benchmark) in enumerate(pairs)
    ]


def figures_of(evidence: Sequence[Evidence]) -> tuple[list[str], np.ndarray]:
    """Names (F,) and values (N, F) of every pair's figures."""
    names = list(evidence[0].figures)
    return names, np.array([[one.figures[name] for name in names] for one in evidence])


def leaks_of(rows: Sequence[Row]) -> np.ndarray:
    return np.array([float(row["label"] != "similar_but_different") for row in rows])


def fold_of(row: Row) -> int:
    """By benchmark question, so that no question is on both sides of a split."""
    return int(digest(row["benchmark_question"])[:8], 16) % FOLDS


def weights_of(rows: Sequence[Row]) -> np.ndarray:
    """Every family the same, and leaks and others the same in all; the mean is 1."""
    sizes = Counter(row["family"] for row in rows)
    weight = np.array([1 / sizes[row["family"]] ** 0.75 for row in rows])
    leaks = leaks_of(rows) > 0
    for side in (leaks, ~leaks):
        weight[side] /= max(weight[side].sum(), 1e-12)
    return np.asarray(weight * len(rows) / 2)


def fit(
    design: np.ndarray, leaks_N: np.ndarray, weights_N: np.ndarray, bounds: Sequence[Bound]
) -> np.ndarray:
    """Coefficients (C,) of the columns (N, C) of a design; one of them is the bias."""
    sign_N = 2 * leaks_N - 1

    def loss(beta: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign_N * (design @ beta)
        slope = -weights_N * sign_N / (1 + np.exp(np.clip(margin, -40, 40)))
        value = weights_N @ np.logaddexp(0, -margin) + RIDGE / 2 * beta @ beta
        return float(value), design.T @ slope + RIDGE * beta

    start = np.zeros(design.shape[1])
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 1000}
    )
    return np.asarray(found.x)


def bounds_of(names: Sequence[str]) -> list[Bound]:
    """For the columns of `design_of`: what tells two questions apart never speaks for a leak."""
    one: list[Bound] = [
        (0, None) if n in LIKE else (None, None) if n in FREE else (None, 0) for n in names
    ]
    return [*one, (None, None)] * 2


def design_of(names: Sequence[str], values_NF: np.ndarray) -> np.ndarray:
    """(N, 2 F + 2): figures and a bias for texts in other words, then the same for close ones."""
    near = np.array([closeness(ratio) for ratio in values_NF[:, names.index("ratio")]])[:, None]
    plain = np.column_stack([values_NF, np.ones(len(values_NF))])
    return np.column_stack([plain * (1 - near), plain * near])


def held_out(rows: Sequence[Row], design: np.ndarray, bounds: Sequence[Bound]) -> np.ndarray:
    """Each pair's log odds from a model that has not seen its benchmark question."""
    folds, leaks, weights = (
        np.array([fold_of(row) for row in rows]),
        leaks_of(rows),
        weights_of(rows),
    )
    result = np.zeros(len(rows))
    for fold in range(FOLDS):
        seen = folds != fold
        result[~seen] = design[~seen] @ fit(design[seen], leaks[seen], weights[seen], bounds)
    return result


def calibrated(scores_N: np.ndarray, leaks_N: np.ndarray, weights_N: np.ndarray) -> np.ndarray:
    """(stretch, shift) of the log odds."""
    free: list[Bound] = [(None, None)] * 2
    return fit(np.column_stack([scores_N, np.ones(len(scores_N))]), leaks_N, weights_N, free)


def model_of(
    rows: Sequence[Row], names: list[str], values_NF: np.ndarray
) -> dict[str, tuple[float, float]]:
    """Figure → its coefficients (far, close), as in model.json."""
    leaks, weights, design = leaks_of(rows), weights_of(rows), design_of(names, values_NF)
    bounds = bounds_of(names)
    stretch, shift = calibrated(held_out(rows, design, bounds), leaks, weights)
    far, close = np.split(fit(design, leaks, weights, bounds) * stretch, 2)
    far[-1], close[-1] = far[-1] + shift, close[-1] + shift
    pairs = zip([*names, BIAS], far, close, strict=True)
    return {name: (round(float(a), 3), round(float(b), 3)) for name, a, b in pairs}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--per-set", type=int, default=200, help="questions edited of each set")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "triage_cache")
    asked = parser.parse_args()
    if not asked.data.is_dir():
        sys.exit(f"no data at {asked.data}: give --data")
    rows = rows_of(asked.data, asked.per_set, asked.cache)
    names, values = figures_of(evidence_of(rows))
    MODEL.write_text(json.dumps(model_of(rows, names, values), indent=1) + "\n", encoding="utf-8")
    print(f"{len(rows):,} pairs, {len(names)} figures → {MODEL}")


if __name__ == "__main__":
    main()
