"""Scores, paired deltas and their uncertainty from records."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import ttest_1samp, ttest_rel

from monotreme.errors import MismatchError
from monotreme.evaluate.deltas import (
    bootstrap,
    delta_rows,
    markdown,
    mcnemar,
    mean_of_groups,
    perplexity_row,
    results_of,
    score_rows,
)


def items(model: str, benchmark: str, metric: str, scores: list[float], subjects: str) -> pa.Table:
    """Items with one letter of `subjects` a question."""
    return pa.Table.from_pylist(
        [
            {
                "model": model,
                "benchmark": benchmark,
                "metric": metric,
                "shots": 5,
                "subject": subject.strip(),
                "prompt_sha256": f"{benchmark} {number}",
                "score": float(score),
            }
            for number, (score, subject) in enumerate(zip(scores, subjects, strict=True))
        ]
    )


def row_of(rows: list[dict[str, Any]], model: str, benchmark: str) -> dict[str, Any]:
    (row,) = [row for row in rows if (row["model"], row["benchmark"]) == (model, benchmark)]
    return row


MMLU = items("base", "mmlu", "acc", [1, 0, 0, 0, 1, 1], "aaaabb")
ARC = items("base", "arc_challenge", "acc_norm", [1, 1, 1, 0], "    ")
QA = items("base", "truthfulqa", "mc2", [0.2, 0.4, 0.9], "mmn")


def test_mmlu_is_the_mean_of_its_subjects_and_names_the_mean_of_its_questions() -> None:
    row = row_of(score_rows(results_of(MMLU)), "base", "mmlu")
    assert row["score"] == pytest.approx(100 * (0.25 + 1) / 2)
    assert row["by_documents"] == pytest.approx(50)
    assert row["stderr"] == pytest.approx(100 * math.sqrt(0.25 * 0.75 / 4) / 2)
    assert row["by_subject"]["a"] == {
        "score": pytest.approx(25),
        "stderr": pytest.approx(100 * math.sqrt(0.25 * 0.75 / 4)),
        "num_questions": 4,
    }


def test_other_benchmarks_are_plain_means_with_binomial_or_sample_errors() -> None:
    rows = score_rows(results_of(pa.concat_tables([ARC, QA])))
    arc, qa, mean = (row_of(rows, "base", b) for b in ("arc_challenge", "truthfulqa", "mean"))
    assert (arc["score"], arc["by_documents"], arc["by_subject"]) == (pytest.approx(75), None, {})
    assert arc["stderr"] == pytest.approx(100 * math.sqrt(0.75 * 0.25 / 4))
    assert qa["stderr"] == pytest.approx(100 * np.std([0.2, 0.4, 0.9], ddof=1) / math.sqrt(3))
    assert mean["score"] == pytest.approx((75 + 50) / 2)
    assert mean["stderr"] == pytest.approx(math.hypot(arc["stderr"], qa["stderr"]) / 2)


def test_a_delta_is_paired() -> None:
    """The error is that of the differences: two models that fail alike differ surely."""
    better = items("adapter", "arc_challenge", "acc_norm", [1, 1, 1, 1], "    ")
    row = row_of(
        delta_rows(results_of(pa.concat_tables([ARC, better])), 0), "adapter", "arc_challenge"
    )
    differences = np.array([0, 0, 0, 1])
    stderr = 100 * differences.std(ddof=1) / 2
    assert (row["delta"], row["stderr"]) == (pytest.approx(25), pytest.approx(stderr))
    assert (row["low"], row["high"]) == (
        pytest.approx(25 - 1.959964 * stderr),
        pytest.approx(25 + 1.959964 * stderr),
    )
    assert (row["p_value"], row["test"]) == (1.0, "mcnemar_exact")


def test_the_paired_error_is_that_of_the_paired_t_test() -> None:
    draw = np.random.default_rng(0)
    first, second = draw.random(50), draw.random(50)
    delta, stderr = mean_of_groups(first - second, [""] * 50, ddof=1)
    assert delta / stderr == pytest.approx(ttest_rel(first, second).statistic)


def test_mcnemar_is_exact_on_the_discordant_questions_alone() -> None:
    differences = np.array([1.0] * 6 + [0.0] * 100)
    assert mcnemar(differences) == pytest.approx(2 / 2**6)
    assert mcnemar(-differences) == mcnemar(differences)
    assert mcnemar(np.zeros(3)) == 1.0


def test_the_bootstrap_is_seeded_and_agrees_with_the_normal_interval() -> None:
    differences = np.random.default_rng(1).normal(0.02, 0.2, 800)
    low, high, p_value = bootstrap(differences, 7)
    assert (low, high, p_value) == bootstrap(differences, 7)
    assert (low, high, p_value) != bootstrap(differences, 8)
    stderr = differences.std(ddof=1) / math.sqrt(800)
    assert low == pytest.approx(differences.mean() - 1.96 * stderr, abs=0.1 * stderr)
    assert high == pytest.approx(differences.mean() + 1.96 * stderr, abs=0.1 * stderr)
    assert p_value == pytest.approx(ttest_1samp(differences, 0).pvalue, abs=0.02)


def test_no_difference_is_no_difference() -> None:
    assert bootstrap(np.zeros(5), 0) == (0.0, 0.0, 1.0)


def test_other_prompts_are_not_compared() -> None:
    other = ARC.set_column(0, "model", [["adapter"] * 4])
    changed = other.set_column(5, "prompt_sha256", [["arc_challenge 0", "x", "y", "z"]])
    assert delta_rows(results_of(pa.concat_tables([ARC, other])), 0)
    with pytest.raises(MismatchError, match="adapter"):
        delta_rows(results_of(pa.concat_tables([ARC, changed])), 0)
    with pytest.raises(MismatchError, match="adapter"):
        delta_rows(results_of(pa.concat_tables([ARC, other.slice(0, 3)])), 0)


def test_the_order_of_models_and_benchmarks_does_not_matter() -> None:
    tables = [MMLU, ARC, QA]
    tables += [t.set_column(0, "model", [["adapter"] * t.num_rows]) for t in tables]
    forward, backward = (results_of(pa.concat_tables(t)) for t in (tables, tables[::-1]))
    for rows in (score_rows, lambda results: delta_rows(results, 3)):
        key = lambda row: (row["model"], row["benchmark"])  # noqa: E731
        assert sorted(rows(forward), key=key) == sorted(rows(backward), key=key)


def test_a_group_of_one_is_given_the_spread_of_all() -> None:
    values = np.array([0.0, 1.0, 1.0])
    _, alone = mean_of_groups(values, ["a", "b", "c"], ddof=0)
    assert alone == pytest.approx(np.sqrt(values.var(ddof=1) / 3))
    assert mean_of_groups(np.array([0.3]), ["a"], ddof=1) == (0.3, 1.0)  # says nothing of itself


def test_perplexity_weighs_tokens_and_its_error_texts() -> None:
    losses, tokens = np.array([20.0, 10.0]), np.array([10.0, 10.0])
    row = perplexity_row("adapter", losses, tokens, (losses + 5, tokens))
    assert row["log_loss"] == pytest.approx(1.5)
    assert row["perplexity"] == pytest.approx(math.exp(1.5))
    assert row["stderr"] == pytest.approx(np.std([2.0, 1.0], ddof=1) / math.sqrt(2))
    assert (row["delta_log_loss"], row["delta_stderr"]) == (pytest.approx(-0.5), pytest.approx(0))
    assert row["num_tokens"] == 20


def test_losses_over_other_tokens_are_not_compared() -> None:
    losses, tokens = np.array([20.0, 10.0]), np.array([10.0, 10.0])
    row = perplexity_row("merged-x", losses, tokens, (losses, tokens + 1))
    assert (row["delta_log_loss"], row["delta_stderr"]) == (None, None)


def test_the_tables_show_every_model_and_benchmark() -> None:
    adapter = ARC.set_column(0, "model", [["adapter"] * 4])
    results = results_of(pa.concat_tables([ARC, QA, adapter]))
    losses = (np.array([20.0]), np.array([10.0]))
    text = markdown(
        {
            "protocol": "open-llm-2023",
            "scores": score_rows(results),
            "deltas": delta_rows(results, 0),
            "perplexity": [perplexity_row("base", *losses, None)],
            "truncated": 3,
        }
    )
    assert "| model | arc_challenge | truthfulqa | mean |" in text
    assert "| base | 75.00 ± 21.65 | 50.00 ± 20.82 | 62.50 ± 15.02 |" in text
    assert "| adapter | +0.00 ± 0.00 |  | +0.00 ± 0.00 |" in text
    assert "| base | 7.389 |" in text
    assert "3 choices had their context cut" in text
