"""From records to the rows of `scores.json`: scores, and paired differences between two models.

Pure functions of results. Scores and deltas are in points, 0 to 100; errors are standard errors;
intervals cover 95 %. `p_holm` is corrected for the tests that stand beside it: the benchmarks of a
pair of models, their clean subsets, MMLU's four groups, its subjects.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from monotreme.errors import MismatchError
from monotreme.scoring.protocol import averages_subjects
from monotreme.scoring.results import Results, Row
from monotreme.scoring.statistics import (
    Floats,
    Interval,
    Z,
    bootstrap,
    detectable,
    holm,
    mcnemar,
    mean_interval,
    mean_of_estimates,
    mean_of_groups,
    normal_interval,
    normal_test,
    paired_share_interval,
    ratio,
    share_interval,
)

BASE = "base"
MEAN = "mean"  # the row over all benchmarks


# ── scores ───────────────────────────────────────────────────────────────────────────────────────


def score_rows(results: Sequence[Results]) -> list[Row]:
    """A row for each model and benchmark, and a row "mean" for each model.

    `clean` and `by_exposure` are there for a benchmark that was checked for leaks.
    """
    rows = []
    for model in dict.fromkeys(result.model for result in results):
        own = [_score_row(result) for result in results if result.model == model]
        mean, stderr = mean_of_estimates([(row["score"], row["stderr"]) for row in own])
        low, high = normal_interval(mean, stderr)
        total = {
            "model": model,
            "benchmark": MEAN,
            "metric": MEAN,
            "score": mean,
            "stderr": stderr,
            "low": max(0.0, low),
            "high": min(100.0, high),
            "num_questions": sum(row["num_questions"] for row in own),
            "shots": None,
            "by_subject": {},
            "by_documents": None,
        }
        rows += [*own, total]
    return rows


def _score_row(result: Results) -> Row:
    averages = averages_subjects(result.benchmark)
    row = {
        "model": result.model,
        "benchmark": result.benchmark,
        "metric": result.metric,
        **_score(result),
        "shots": result.shots,
        "by_subject": {name: _score(own) for name, own in result.by_subject()},
        "by_documents": 100 * float(result.scores.mean()) if averages else None,
    }
    if result.exposure is not None:
        clean = result.clean()
        row["clean"] = _score(clean) if clean else None
        row["by_exposure"] = {level: _score(own) for level, own in result.by_exposure()}
    return row


def _score(result: Results) -> Row:
    """Mean of some questions with its error and interval."""
    # binomial p(1 − p) for right and wrong, the sample's own variance for mc2
    score, stderr = mean_of_groups(result.scores, result.averaged, int(result.metric == "mc2"))
    low, high = _score_interval(result, score, stderr)
    return {
        "score": 100 * score,
        "stderr": 100 * stderr,
        "low": 100 * max(0.0, low),
        "high": 100 * min(1.0, high),
        "num_questions": len(result.scores),
    }


def _score_interval(result: Results, score: float, stderr: float) -> Interval:
    if len(set(result.averaged)) > 1:
        return normal_interval(score, stderr)
    return mean_interval(result.scores) if result.metric == "mc2" else share_interval(result.scores)


# ── differences ──────────────────────────────────────────────────────────────────────────────────


def delta_rows(results: Sequence[Results], base: str, seed: int) -> list[Row]:
    """Differences to one model for each other model and benchmark, and their mean.

    Args:
        base: the model that is subtracted; without it among the results there are no rows.
        seed: of the bootstrap.

    Raises:
        MismatchError: a model was not asked the same as the base.
    """
    bases = {result.benchmark: result for result in results if result.model == base}
    rows = []
    for model in dict.fromkeys(result.model for result in results if result.model != base):
        own = [r for r in results if r.model == model and r.benchmark in bases]
        pairs = [(result, bases[result.benchmark]) for result in own]
        if pairs:
            found = [_delta_row(*pair, seed, len(pairs)) for pair in pairs]
            _correct(found)
            _correct([row["clean"] for row in found if row.get("clean")])
            rows += [*found, _mean_delta_row(model, base, found)]
    return rows


def _delta_row(result: Results, base: Results, seed: int, num_tests: int) -> Row:
    if result.prompts != base.prompts:
        raise MismatchError(
            f"{result.benchmark}: {result.model} was asked {len(result.prompts)} prompts that are "
            f"not the {len(base.prompts)} of {base.model}",
            "Evaluate both with the same recipe",
        )
    averages = averages_subjects(result.benchmark)
    row = {
        "model": result.model,
        "against": base.model,
        "benchmark": result.benchmark,
        **_delta(result, base, seed, num_tests),
        "by_documents": 100 * float((result.scores - base.scores).mean()) if averages else None,
        "by_group": _parts(result.by_group(), base.by_group(), seed),
        "by_subject": _parts(result.by_subject(), base.by_subject(), seed) if averages else {},
    }
    if result.exposure is not None:
        clean, clean_base = result.clean(), base.clean()
        row["clean"] = _delta(clean, clean_base, seed, num_tests) if clean and clean_base else None
    return row


def _parts(
    results: Iterable[tuple[str, Results]], bases: Iterable[tuple[str, Results]], seed: int
) -> dict[str, Row]:
    """Differences in the parts of a benchmark, corrected for their number."""
    pairs = [(name, own, base) for (name, own), (_, base) in zip(results, bases, strict=True)]
    found = {name: _delta(own, base, seed, len(pairs)) for name, own, base in pairs}
    _correct(list(found.values()))
    return found


def _delta(result: Results, base: Results, seed: int, num_tests: int) -> Row:
    """Paired difference on some questions, one of so many tests that stand together.

    Where all differences are equal they show no spread: the error is None, unknown rather than 0.
    """
    differences = result.scores - base.scores
    delta, stderr = mean_of_groups(differences, result.averaged, ddof=1)
    if result.metric == "mc2":
        low, high, p_value = bootstrap(differences, seed)
    else:
        p_value = mcnemar(differences)
        spread = len(set(result.averaged)) > 1 and stderr > 0
        low, high = normal_interval(delta, stderr) if spread else paired_share_interval(differences)
    return {
        "delta": 100 * delta,
        "stderr": 100 * stderr or None,
        "low": 100 * low,
        "high": 100 * high,
        "p_value": p_value,
        "detectable": 100 * detectable(differences, num_tests),
        "num_questions": len(differences),
        "test": "paired_bootstrap" if result.metric == "mc2" else "mcnemar_exact",
    }


def _correct(rows: Sequence[Row]) -> None:
    """Give rows whose tests stand together their `p_holm`."""
    for row, p_value in zip(rows, holm([row["p_value"] for row in rows]), strict=True):
        row["p_holm"] = p_value


def _mean_delta_row(model: str, base: str, rows: Sequence[Row]) -> Row:
    """Benchmarks are independent of each other; over several the mean is near normal.

    For an error that is unknown stands that of a normal interval as wide as the row's.
    """
    delta, stderr = mean_of_estimates([(row["delta"], _error(row)) for row in rows])
    low, high = normal_interval(delta, stderr)
    p_value = normal_test(delta, stderr)
    return {
        "model": model,
        "against": base,
        "benchmark": MEAN,
        "delta": delta,
        "stderr": stderr or None,
        "low": low,
        "high": high,
        "p_value": p_value,
        "p_holm": p_value,
        "num_questions": sum(row["num_questions"] for row in rows),
        "test": "normal",
    }


def _error(row: Row) -> float:
    error: float | None = row["stderr"]
    return (row["high"] - row["low"]) / (2 * Z) if error is None else error


# ── perplexity ───────────────────────────────────────────────────────────────────────────────────


def perplexity_row(
    model: str, losses_N: Floats, tokens_N: Floats, base_N: tuple[Floats, Floats] | None
) -> Row:
    """Perplexity over N texts, with errors by text: tokens of one text are not independent.

    Args:
        losses_N: sum of the log-losses of each text, nats.
        tokens_N: tokens of each text.
        base_N: the same of the base model. Where its tokenizer cuts other tokens, losses per token
            cannot be compared and the delta is None.
    """
    comparable = base_N is not None and np.array_equal(tokens_N, base_N[1])
    log_loss, stderr = ratio(losses_N, tokens_N)
    delta, delta_stderr = (
        ratio(losses_N - base_N[0], tokens_N) if base_N and comparable else (None, None)
    )
    return {
        "model": model,
        "perplexity": math.exp(min(log_loss, 700)),  # e⁷⁰⁹ is the largest float
        "num_tokens": int(tokens_N.sum()),
        "log_loss": log_loss,
        "stderr": stderr,
        "delta_log_loss": delta,
        "delta_stderr": delta_stderr,
    }
