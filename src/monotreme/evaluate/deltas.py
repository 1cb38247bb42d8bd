"""From records to numbers: scores, and differences to the base with their uncertainty.

Pure functions of the items table (one row a model and question). Scores and deltas are in points,
0 to 100; errors are standard errors; intervals cover 95 %.

A delta is paired: both models answered the same questions, and what both find hard cancels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from monotreme.errors import MismatchError
from monotreme.evaluate.protocol import averages_subjects

BASE = "base"
MEAN = "mean"  # the row over all benchmarks
REPLICATES = 10_000
BLOCK = 2**24  # counts drawn at a time: 128 MiB
Z = 1.959964  # 97.5 % quantile of the normal distribution

Floats = NDArray[np.float64]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Results:
    """A model's records of one benchmark.

    Attributes:
        scores: (N,) of each question, 0 to 1.
        subjects: (N,) "" where the benchmark has none.
        prompts: (N,) digests of what was asked.
    """

    model: str
    benchmark: str
    metric: str
    shots: int
    scores: Floats
    subjects: tuple[str, ...]
    prompts: tuple[str, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """What is averaged first: MMLU's subjects, else everything at once."""
        return self.subjects if averages_subjects(self.benchmark) else ("",) * len(self.subjects)


def results_of(items: pa.Table) -> list[Results]:
    """The records of the items table by model and benchmark, in the table's order."""
    grouped: dict[tuple[str, str], list[Row]] = {}
    names = ["model", "benchmark", "metric", "shots", "subject", "prompt_sha256", "score"]
    for row in items.select(names).to_pylist():
        grouped.setdefault((row["model"], row["benchmark"]), []).append(row)
    return [
        Results(
            model=model,
            benchmark=benchmark,
            metric=rows[0]["metric"],
            shots=rows[0]["shots"],
            scores=np.array([row["score"] for row in rows]),
            subjects=tuple(row["subject"] for row in rows),
            prompts=tuple(row["prompt_sha256"] for row in rows),
        )
        for (model, benchmark), rows in grouped.items()
    ]


def score_rows(results: Sequence[Results]) -> list[Row]:
    """A row for each model and benchmark, and a row "mean" for each model."""
    rows = []
    for model in dict.fromkeys(result.model for result in results):
        own = [_score_row(result) for result in results if result.model == model]
        mean, stderr = _mean_of([(row["score"], row["stderr"]) for row in own])
        total = {
            "model": model,
            "benchmark": MEAN,
            "metric": MEAN,
            "score": mean,
            "stderr": stderr,
            "num_questions": sum(row["num_questions"] for row in own),
            "shots": None,
            "by_subject": {},
            "by_documents": None,
        }
        rows += [*own, total]
    return rows


def _score_row(result: Results) -> Row:
    score, stderr = mean_of_groups(result.scores, result.groups, _ddof(result.metric))
    return {
        "model": result.model,
        "benchmark": result.benchmark,
        "metric": result.metric,
        "score": 100 * score,
        "stderr": 100 * stderr,
        "num_questions": len(result.scores),
        "shots": result.shots,
        "by_subject": _by_subject(result),
        "by_documents": (
            100 * float(result.scores.mean()) if averages_subjects(result.benchmark) else None
        ),
    }


def _by_subject(result: Results) -> dict[str, Row]:
    names = np.array(result.subjects)
    found: dict[str, Row] = {}
    for subject in sorted({name for name in result.subjects if name}):
        own = result.scores[names == subject]
        score, stderr = mean_of_groups(own, [""] * len(own), _ddof(result.metric))
        found[subject] = {
            "score": 100 * score,
            "stderr": 100 * stderr,
            "num_questions": len(own),
        }
    return found


def _ddof(metric: str) -> int:
    """Binomial p(1 − p) for right and wrong, the sample's own variance for mc2."""
    return 1 if metric == "mc2" else 0


def mean_of_groups(values_N: Floats, groups: Sequence[str], ddof: int) -> tuple[float, float]:
    """Unweighted mean of the groups' means, and its standard error.

    Groups are independent: the error is √(Σ sₖ² / nₖ) / K, with sₖ² the variance of group k of nₖ
    values, divided by nₖ − ddof. A group of one shows no variance; it is given that of all values,
    and a single value in all the largest that scores from 0 to 1 can have between two models: 1.
    """
    _, group_of = np.unique(np.array(groups), return_inverse=True)
    parts = [values_N[group_of == group] for group in range(group_of.max() + 1)]
    lone = float(values_N.var(ddof=1)) if len(values_N) > 1 else 1.0
    squares = [(part.var(ddof=ddof) if len(part) > 1 else lone) / len(part) for part in parts]
    mean = float(np.mean([part.mean() for part in parts]))
    return mean, math.sqrt(sum(squares)) / len(parts)


def _mean_of(estimates: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean of independent estimates (value, standard error)."""
    num = len(estimates)
    return (
        sum(value for value, _ in estimates) / num,
        math.sqrt(sum(stderr**2 for _, stderr in estimates)) / num,
    )


def delta_rows(results: Sequence[Results], seed: int) -> list[Row]:
    """Differences to the base for each other model and benchmark, and their mean.

    Args:
        seed: of the bootstrap.

    Raises:
        MismatchError: a model was not asked the same as the base.
    """
    bases = {result.benchmark: result for result in results if result.model == BASE}
    rows = []
    for model in dict.fromkeys(result.model for result in results if result.model != BASE):
        own = [
            _delta_row(result, bases[result.benchmark], seed)
            for result in results
            if result.model == model
        ]
        rows += [*own, _mean_delta_row(model, own)]
    return rows


def _delta_row(result: Results, base: Results, seed: int) -> Row:
    if result.prompts != base.prompts:
        raise MismatchError(
            f"{result.benchmark}: {result.model} was asked {len(result.prompts)} prompts that are "
            f"not the {len(base.prompts)} of {base.model}",
            "Evaluate both with the same recipe",
        )
    differences = result.scores - base.scores
    delta, stderr = mean_of_groups(differences, result.groups, ddof=1)
    low, high = delta - Z * stderr, delta + Z * stderr
    if result.metric == "mc2":
        low, high, p_value = bootstrap(differences, seed)
    else:
        p_value = mcnemar(differences)
    return {
        "model": result.model,
        "benchmark": result.benchmark,
        "delta": 100 * delta,
        "stderr": 100 * stderr,
        "low": 100 * low,
        "high": 100 * high,
        "p_value": p_value,
        "num_questions": len(differences),
        "test": "paired_bootstrap" if result.metric == "mc2" else "mcnemar_exact",
    }


def _mean_delta_row(model: str, rows: Sequence[Row]) -> Row:
    """Benchmarks are independent of each other; over several the mean is near normal."""
    delta, stderr = _mean_of([(row["delta"], row["stderr"]) for row in rows])
    p_value = 2 * float(norm.sf(abs(delta) / stderr)) if stderr else float(delta == 0)
    return {
        "model": model,
        "benchmark": MEAN,
        "delta": delta,
        "stderr": stderr,
        "low": delta - Z * stderr,
        "high": delta + Z * stderr,
        "p_value": p_value,
        "num_questions": sum(row["num_questions"] for row in rows),
        "test": "normal",
    }


def mcnemar(differences_N: Floats) -> float:
    """Exact McNemar test (1947): p of so uneven a split of the questions only one model got right."""
    won, lost = int((differences_N > 0).sum()), int((differences_N < 0).sum())
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def bootstrap(differences_N: Floats, seed: int) -> tuple[float, float, float]:
    """Percentile interval (95 %) of the mean, and a two-sided p-value.

    Resamples are multinomial counts of the questions (Efron 1979), so that 10,000 of them are one
    matrix product. p is twice the smaller share of means on one side of zero, itself included.
    """
    num = len(differences_N)
    draw = np.random.default_rng(seed)
    step = max(1, BLOCK // num)
    means_R = np.concatenate(
        [
            draw.multinomial(num, np.full(num, 1 / num), min(step, REPLICATES - done))
            @ differences_N
            / num
            for done in range(0, REPLICATES, step)
        ]
    )
    low, high = np.quantile(means_R, [0.025, 0.975])
    side = min((means_R <= 0).sum(), (means_R >= 0).sum())
    return float(low), float(high), min(1.0, 2 * (float(side) + 1) / (REPLICATES + 1))


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
    log_loss, stderr = _ratio(losses_N, tokens_N)
    delta, delta_stderr = (
        _ratio(losses_N - base_N[0], tokens_N) if base_N and comparable else (None, None)
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


def _ratio(sums_N: Floats, sizes_N: Floats) -> tuple[float, float]:
    """Σ sums / Σ sizes and its standard error (ratio estimator; Cochran 1977, section 2.11)."""
    num = len(sums_N)
    ratio = sums_N.sum() / sizes_N.sum()
    spread = ((sums_N - ratio * sizes_N) ** 2).sum() * num / max(num - 1, 1)
    return float(ratio), float(math.sqrt(spread) / sizes_N.sum())


def markdown(scores: Row) -> str:
    """`scores.json` as tables to read."""
    benchmarks = list(dict.fromkeys(row["benchmark"] for row in scores["scores"]))
    parts = [
        f"# Scores ({scores['protocol']})",
        "In points, ± one standard error.",
        _table("model", benchmarks, scores["scores"], "score"),
        "# Differences to the base",
        "In points, paired, ± one standard error; * where p < 0.05.",
        _table("model", benchmarks, scores["deltas"], "delta"),
    ]
    if scores["perplexity"]:
        parts += ["# Perplexity", _perplexity_table(scores["perplexity"])]
    if scores["truncated"]:
        parts.append(f"{scores['truncated']:,} choices had their context cut to fit the model.")
    return "\n\n".join(parts) + "\n"


def _table(corner: str, columns: Sequence[str], rows: Sequence[Row], value: str) -> str:
    cells = {(row["model"], row["benchmark"]): _cell(row, value) for row in rows}
    models = dict.fromkeys(row["model"] for row in rows)
    lines = [[corner, *columns], ["---"] + ["---:"] * len(columns)]
    lines += [[model, *(cells.get((model, name), "") for name in columns)] for model in models]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(row: Row, value: str) -> str:
    sign = "+" if value == "delta" else ""
    star = "*" if row.get("p_value", 1) < 0.05 else ""
    return f"{row[value]:{sign}.2f} ± {row['stderr']:.2f}{star}"


def _perplexity_table(rows: Sequence[Row]) -> str:
    lines = ["| model | perplexity | log-loss | change | tokens |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        change = ""
        if row["delta_log_loss"] is not None:
            change = f"{row['delta_log_loss']:+.4f} ± {row['delta_stderr']:.4f}"
        lines.append(
            f"| {row['model']} | {row['perplexity']:.3f} | {row['log_loss']:.4f} ± "
            f"{row['stderr']:.4f} | {change} | {row['num_tokens']:,} |"
        )
    return "\n".join(lines)
