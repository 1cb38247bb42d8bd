"""Means, errors, intervals and tests: pure functions of arrays.

Everything is in the scores' own unit, 0 to 1; errors are standard errors, intervals cover 95 %.

A difference is paired: both models answered the same questions, and what both find hard cancels.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, t

Z = 1.959964  # 97.5 % quantile of the normal distribution
LEVEL = 0.05  # a corrected p below it is called a difference
POWER = 0.8  # share of repeats in which a detectable difference is found
REPLICATES = 10_000
BLOCK = 2**24  # counts drawn at a time: 128 MiB

Floats = NDArray[np.float64]
Interval = tuple[float, float]


# ── means ────────────────────────────────────────────────────────────────────────────────────────


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


def mean_of_estimates(estimates: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Mean of independent estimates (value, standard error), and its standard error."""
    num = len(estimates)
    return (
        sum(value for value, _ in estimates) / num,
        math.sqrt(sum(stderr**2 for _, stderr in estimates)) / num,
    )


def ratio(sums_N: Floats, sizes_N: Floats) -> tuple[float, float]:
    """Σ sums / Σ sizes and its standard error (ratio estimator; Cochran 1977, section 2.11)."""
    num = len(sums_N)
    found = sums_N.sum() / sizes_N.sum()
    spread = ((sums_N - found * sizes_N) ** 2).sum() * num / max(num - 1, 1)
    return float(found), float(math.sqrt(spread) / sizes_N.sum())


# ── intervals ────────────────────────────────────────────────────────────────────────────────────


def normal_interval(mean: float, stderr: float) -> Interval:
    return mean - Z * stderr, mean + Z * stderr


def share_interval(right_N: Floats) -> Interval:
    """Wilson's interval (1927) of the share of ones: sound where all or none are."""
    found = binomtest(int(right_N.sum()), len(right_N)).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def mean_interval(values_N: Floats) -> Interval:
    """Student's interval of a mean; one value alone says nothing."""
    num = len(values_N)
    if num == 1:
        return -math.inf, math.inf
    width = float(t.ppf(0.975, num - 1)) * float(values_N.std(ddof=1)) / math.sqrt(num)
    mean = float(values_N.mean())
    return mean - width, mean + width


def paired_share_interval(differences_N: Floats) -> Interval:
    """Interval of the difference of two paired shares, from differences of −1, 0 and 1.

    The adjusted Wald interval of Bonett and Price (2012, J. Educ. Behav. Stat. 37): one more
    question won and one more lost. Unlike the plain one it has a width where no question differs.
    """
    num = len(differences_N) + 2
    won = ((differences_N > 0).sum() + 1) / num
    lost = ((differences_N < 0).sum() + 1) / num
    delta = won - lost
    width = Z * math.sqrt((won + lost - delta**2) / num)
    return max(-1.0, float(delta - width)), min(1.0, float(delta + width))


def bootstrap(
    differences_N: Floats, seed: int, replicates: int = REPLICATES
) -> tuple[float, float, float]:
    """Percentile interval of the mean, and a two-sided p-value.

    Resamples are multinomial counts of the questions (Efron 1979), so that 10,000 of them are one
    matrix product. p follows from the smaller share of means on one side of zero, itself included.
    Percentiles alone are too narrow for few questions, by √((N − 1) / N) and by the normal's tails
    instead of Student's; both are put right (Hesterberg 2015, Am. Stat. 69, "expanded percentile").
    """
    num = len(differences_N)
    if num == 1:
        return -1.0, 1.0, 1.0
    draw = np.random.default_rng(seed)
    step = max(1, BLOCK // num)
    means_R = np.concatenate(
        [
            draw.multinomial(num, np.full(num, 1 / num), min(step, replicates - done))
            @ differences_N
            / num
            for done in range(0, replicates, step)
        ]
    )
    shrink = math.sqrt((num - 1) / num)
    tail = float(norm.cdf(t.ppf(0.025, num - 1) / shrink))
    low, high = np.quantile(means_R, [tail, 1 - tail])
    side = (min((means_R <= 0).sum(), (means_R >= 0).sum()) + 1) / (replicates + 1)
    p_value = 2 * float(t.cdf(norm.ppf(min(side, 0.5)) * shrink, num - 1))
    return float(low), float(high), p_value


# ── tests ────────────────────────────────────────────────────────────────────────────────────────


def mcnemar(differences_N: Floats) -> float:
    """Exact McNemar test (1947): p of so uneven a split of the questions only one model got right."""
    won, lost = int((differences_N > 0).sum()), int((differences_N < 0).sum())
    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def normal_test(delta: float, stderr: float) -> float:
    """Two-sided p of a difference with a normal error."""
    return 2 * float(norm.sf(abs(delta) / stderr)) if stderr else float(delta == 0)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the given order.

    Whoever calls those below 5 % differences is wrong about even one of them at most 5 % of the
    time, however the tests depend on each other.
    """
    num = len(p_values)
    corrected = [0.0] * num
    worst = 0.0
    for rank, place in enumerate(sorted(range(num), key=lambda place: p_values[place])):
        worst = max(worst, min(1.0, (num - rank) * p_values[place]))
        corrected[place] = worst
    return corrected


def detectable(differences_N: Floats, num_tests: int) -> float:
    """The smallest difference that one of `num_tests` paired tests finds in 80 of 100 repeats.

        δ = (z₁₋α/₂ₘ + z₀.₈) · √(ψ / N),   ψ = (Σ d² + 2) / (N + 2)

    with α = 5 %, m tests (Bonferroni's first step of Holm) and ψ the share of discordant questions
    (Connor 1987, Biometrics 43, without its δ² term); one won and one lost question are added, so
    that no discordance is not endless power. For mc2, d² is the squared difference.
    """
    num = len(differences_N)
    discordance = (float(np.square(differences_N).sum()) + 2) / (num + 2)
    quantiles = norm.ppf(1 - LEVEL / (2 * num_tests)) + norm.ppf(POWER)
    return float(quantiles) * math.sqrt(discordance / num)
