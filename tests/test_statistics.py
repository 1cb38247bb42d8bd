"""Intervals and tests against values worked by hand, other libraries, and simulation."""

import math
from functools import cache

import numpy as np
import pytest
from scipy.stats import binom, norm, ttest_1samp, ttest_rel

from monotreme.scoring.statistics import (
    bootstrap,
    detectable,
    holm,
    mcnemar,
    mean_interval,
    mean_of_groups,
    paired_share_interval,
    share_interval,
)
from monotreme.scoring.subjects import GROUP_OF, GROUPS


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
    assert bootstrap(np.array([0.4]), 0) == (-1.0, 1.0, 1.0)  # one question says nothing


def test_a_group_of_one_is_given_the_spread_of_all() -> None:
    values = np.array([0.0, 1.0, 1.0])
    _, alone = mean_of_groups(values, ["a", "b", "c"], ddof=0)
    assert alone == pytest.approx(np.sqrt(values.var(ddof=1) / 3))
    assert mean_of_groups(np.array([0.3]), ["a"], ddof=1) == (0.3, 1.0)  # says nothing of itself


def test_holm_by_hand() -> None:
    """Sorted .01 .02 .03 .04 times 4 3 2 1, none less than the one before, none over 1."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_wilson_by_hand() -> None:
    """Nothing of 4 right: 0 to z² / (4 + z²)."""
    low, high = share_interval(np.zeros(4))
    assert (low, high) == (pytest.approx(0), pytest.approx(1.959964**2 / (4 + 1.959964**2)))


def test_students_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(3).random(9)
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((expected.low, expected.high))
    assert mean_interval(np.array([0.5])) == (-math.inf, math.inf)


def test_the_paired_interval_has_a_width_where_nothing_differs() -> None:
    """98 questions, none differing: ± 1.96 · √(2/100 / 100)."""
    low, high = paired_share_interval(np.zeros(98))
    assert high == pytest.approx(1.959964 * math.sqrt(0.02 / 100))
    assert low == pytest.approx(-high)
    assert paired_share_interval(np.ones(1))[1] == 1.0  # never over what can be


def test_the_detectable_difference_by_hand() -> None:
    """198 questions, 18 discordant: ψ = 20 / 200, and 1.96 + 0.8416 standard errors."""
    differences = np.array([1.0] * 10 + [-1.0] * 8 + [0.0] * 180)
    expected = (1.959964 + 0.841621) * math.sqrt(0.1 / 198)
    assert detectable(differences, 1) == pytest.approx(expected, rel=1e-5)
    many = (norm.ppf(1 - 0.05 / 114) + 0.841621) * math.sqrt(0.1 / 198)
    assert detectable(differences, 57) == pytest.approx(many, rel=1e-5)


def test_a_detectable_difference_is_found_four_times_in_five() -> None:
    """Simulated: 3,000 questions, 12 % discordant, the true difference the detectable one."""
    draw = np.random.default_rng(0)
    num, discordance = 3000, 0.12
    null = np.repeat([1.0, -1.0, 0.0], [180, 180, num - 360])
    delta = detectable(null, 1)
    won = draw.binomial(num, discordance, 2000)
    more = draw.binomial(won, (1 + delta / discordance) / 2)
    p_values = np.minimum(1, 2 * binom.cdf(np.minimum(more, won - more), won, 0.5))
    assert (p_values < 0.05).mean() == pytest.approx(0.8, abs=0.04)


def no_change(draw: np.random.Generator, num: int, discordance: float = 0.12) -> np.ndarray:
    """Differences of right and wrong between two models of which neither is better."""
    return draw.choice([1.0, -1.0, 0.0], num, p=[discordance / 2, discordance / 2, 1 - discordance])


def test_of_57_subjects_none_is_called_different_when_nothing_changed() -> None:
    """2,000 evaluations: in at most 5 % any of 57 subjects; without the correction in most."""
    draw = np.random.default_rng(1)
    counts = draw.multinomial(100, [0.06, 0.06, 0.88], (2000, 57)).tolist()
    exact = cache(lambda *split: mcnemar(np.repeat([1.0, -1.0, 0.0], split)))
    p_values = [[exact(*split) for split in subjects] for subjects in counts]
    assert np.mean([min(holm(row)) < 0.05 for row in p_values]) <= 0.05
    assert np.mean([min(row) < 0.05 for row in p_values]) > 0.5
    assert np.mean(np.array(p_values) < 0.05) <= 0.05  # each test by itself


def test_the_bootstrap_raises_no_more_false_alarms_than_it_may() -> None:
    """3,000 of 12 questions: 5 % and three standard errors of the count; intervals cover 95 %."""
    draw = np.random.default_rng(2)
    found = [bootstrap(draw.normal(0, 0.2, 12), seed, 999) for seed in range(3000)]
    limit = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 3000)
    assert np.mean([p_value < 0.05 for *_, p_value in found]) <= limit
    assert np.mean([not low <= 0 <= high for low, high, _ in found]) <= limit


def test_the_paired_interval_covers_what_it_says() -> None:
    draw = np.random.default_rng(4)
    found = [paired_share_interval(no_change(draw, 60)) for _ in range(3000)]
    assert np.mean([low <= 0 <= high for low, high in found]) >= 0.94


def test_every_subject_is_in_one_group() -> None:
    assert len(GROUP_OF) == sum(map(len, GROUPS.values())) == 57
    assert [len(subjects) for subjects in GROUPS.values()] == [19, 13, 12, 13]
