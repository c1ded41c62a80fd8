"""The statistics against scipy, against formulas written out, and against the example that Demšar published."""

from math import inf, sqrt

import numpy as np
import pytest
from scipy import stats

from ntml_bench.statistics.intervals import (
    detectable_shift,
    mean_interval,
    paired_t,
    prediction_reach,
    stratified_bootstrap,
)
from ntml_bench.statistics.permutation import standing
from ntml_bench.statistics.ranks import block_ranks, critical_difference, friedman, groups_within, holm, wilcoxon

# Demšar (2006), Table 6: AUC of C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on 14 data sets. The paper prints 0.975 twice for `voting`
# and yet ranks the two second and third; a digit more tells them apart here.
AUC = np.array(
    [
        (0.763, 0.768, 0.771, 0.798),
        (0.599, 0.591, 0.590, 0.569),
        (0.954, 0.971, 0.968, 0.967),
        (0.628, 0.661, 0.654, 0.657),
        (0.882, 0.888, 0.886, 0.898),
        (0.936, 0.931, 0.916, 0.931),
        (0.661, 0.668, 0.609, 0.685),
        (0.583, 0.583, 0.563, 0.625),
        (0.775, 0.838, 0.866, 0.875),
        (1.000, 1.000, 1.000, 1.000),
        (0.940, 0.962, 0.965, 0.962),
        (0.619, 0.666, 0.614, 0.669),
        (0.972, 0.981, 0.9751, 0.9749),
        (0.957, 0.978, 0.946, 0.970),
    ]
)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(50, 10, shape)


def test_the_published_example_has_the_published_ranks() -> None:
    assert block_ranks(AUC).mean(0).round(3) == pytest.approx([3.143, 2.000, 2.893, 1.964])


def test_the_published_example_has_the_published_test() -> None:
    # The paper leaves the ties uncorrected: chi2 9.28 and F_F 3.69. Their correction is that of the textbooks:
    # 1 - sum(t^3 - t) / (N (k^3 - k)), with pairs in three data sets and all four equal in one.
    correction = 1 - (3 * (2**3 - 2) + (4**3 - 4)) / (14 * (4**3 - 4))
    found = friedman(AUC)
    assert found.chi2 * correction == pytest.approx(9.28, abs=0.01)
    uncorrected = found.chi2 * correction
    assert 13 * uncorrected / (14 * 3 - uncorrected) == pytest.approx(3.69, abs=0.01)
    assert (found.blocks, found.methods) == (14, 4)


def test_the_published_example_has_the_published_critical_differences() -> None:
    assert critical_difference(14, 4) == pytest.approx(1.25, abs=0.005)
    assert critical_difference(14, 4, alpha=0.10) == pytest.approx(1.12, abs=0.005)


def test_the_published_example_has_the_published_groups() -> None:
    ranks = list(block_ranks(AUC).mean(0))
    # Figure 1a, at 10 %: C4.5 is worse than both variants with m; C4.5+cf belongs to either group. At 5 % nothing differs.
    assert groups_within(ranks, critical_difference(14, 4, alpha=0.10)) == [(3, 1, 2), (2, 0)]
    assert groups_within(ranks, critical_difference(14, 4)) == [(3, 1, 2, 0)]


@pytest.mark.parametrize("scores", [numbers(7, 4), np.round(numbers(9, 5) / 10), AUC])
def test_friedman_is_scipys_with_and_without_ties(scores: np.ndarray) -> None:
    found, expected = friedman(scores), stats.friedmanchisquare(*scores.T)
    assert found.chi2 == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)
    # Iman and Davenport's F is the analysis of variance of the ranks, blocks taken out.
    ranks = block_ranks(scores)
    blocks, methods = ranks.shape
    between = blocks * ((ranks.mean(0) - ranks.mean()) ** 2).sum() / (methods - 1)
    rest = ((ranks - ranks.mean(0) - ranks.mean(1, keepdims=True) + ranks.mean()) ** 2).sum()
    assert found.f == pytest.approx(between / (rest / ((methods - 1) * (blocks - 1))))
    assert found.f_p == pytest.approx(stats.f.sf(found.f, methods - 1, (methods - 1) * (blocks - 1)))


def test_friedman_at_its_ends() -> None:
    same = friedman(np.ones((4, 3)))
    assert (same.chi2, same.p, same.f_p) == (0.0, 1.0, 1.0)
    sure = friedman(np.arange(3.0) + np.zeros((4, 1)))
    assert (sure.chi2, sure.f, sure.f_p) == (8.0, inf, 0.0)


def test_wilcoxon_by_hand_and_without_differences() -> None:
    # Six pairs, all to one side: 2 / 2^6.
    assert wilcoxon([1, 2, 3, 4, 5, 6], np.zeros(6)) == pytest.approx(2 / 64)
    # Three pairs cannot do better than 2 / 2^3, five than 2 / 2^5.
    assert wilcoxon([1, 2, 3], np.zeros(3)) == pytest.approx(0.25)
    assert wilcoxon([1, 2, 3, 4, 5], np.zeros(5)) == pytest.approx(0.0625)
    assert wilcoxon([1, 2, 3], [1, 2, 3]) == 1.0
    # Rounding of binary fractions is no difference.
    assert wilcoxon([0.1 + 0.2, 1.0], [0.3, 1.0]) == 1.0


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.5: times 4, 3, 2, 1, and never below the one before.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_groups_do_not_lie_within_each_other() -> None:
    assert groups_within([1.0, 2.0, 3.0, 4.0], 1.5) == [(0, 1), (1, 2), (2, 3)]
    assert groups_within([4.0, 1.0, 1.5], 1.0) == [(1, 2)]
    assert groups_within([1.0, 3.0], 1.0) == []


def test_intervals_of_means_are_scipys() -> None:
    values = numbers(6)
    expected = stats.t.interval(0.95, 5, values.mean(), stats.sem(values))
    assert mean_interval(values.mean(), values.std(ddof=1), 6) == pytest.approx(expected)


def test_paired_t_is_scipys_and_takes_equal_differences() -> None:
    values = numbers(5) - 48
    expected = stats.ttest_1samp(values, 0, alternative="greater").pvalue  # pyright: ignore[reportAttributeAccessIssue]
    assert paired_t(values) == pytest.approx(expected)
    assert paired_t([2.0, 2.0, 2.0]) == 0.0
    assert paired_t([0.0, 0.0, 0.0]) == 1.0


@pytest.mark.parametrize(("n", "new"), [(3, 1), (10, 1), (10, 3)])
def test_new_runs_are_predicted_as_often_as_is_said(n: int, new: int) -> None:
    runs = numbers(20_000, n + new)
    early, late = runs[:, :n], runs[:, n:]
    reach = prediction_reach(1.0, n, new) * early.std(1, ddof=1)
    assert np.mean(np.abs(late.mean(1) - early.mean(1)) <= reach) == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize(("n", "alpha"), [(3, 0.05), (5, 0.05 / 12), (10, 0.05 / 12)])
def test_the_detectable_shift_is_seen_in_four_cases_of_five(n: int, alpha: float) -> None:
    runs = np.random.default_rng(1).normal(0, 2.0, (20_000, n + 1))
    late = runs[:, n] + detectable_shift(2.0, n, 1, alpha)
    reach = prediction_reach(1.0, n, 1, alpha) * runs[:, :n].std(1, ddof=1)
    assert np.mean(np.abs(late - runs[:, :n].mean(1)) > reach) == pytest.approx(0.8, abs=0.015)


def test_the_bootstrap_keeps_to_its_strata() -> None:
    # Within strata nothing varies; between them a lot, which is no uncertainty of their mean.
    assert stratified_bootstrap([[0.0, 0.0, 0.0], [100.0, 100.0, 100.0]]) == (50.0, 50.0)
    strata = numbers(6, 10)
    low, high = stratified_bootstrap(list(strata))
    # Normal theory with the deviations of the resampled runs (n, not n - 1).
    error = sqrt(sum(stratum.var() / 10 for stratum in strata)) / 6
    assert (low, high) == pytest.approx((strata.mean() - 1.96 * error, strata.mean() + 1.96 * error), abs=0.15)
    assert stratified_bootstrap(list(strata)) == (low, high)


def test_new_runs_stand_out_by_their_rank_among_all_runs() -> None:
    kept = [[0.0], [1.0], [2.0], [3.0]]
    assert (standing(kept, [[30.0]], [0.0]).p, standing(kept, [[30.0]], [0.0]).smallest) == (0.2, 0.2)
    # In the middle: everyone else stands out as much or more.
    assert standing(kept, [[1.5]], [0.0]).p == 1.0
    # Two of six runs: one division of fifteen.
    assert standing(kept, [[30.0], [31.0]], [0.0]).p == pytest.approx(1 / 15)
    # Nothing scatters, and nothing differs.
    assert standing([[5.0]] * 4, [[5.0]], [0.0]).p == 1.0


def test_standing_out_is_as_rare_as_it_says_whatever_the_distribution() -> None:
    draw = np.random.default_rng(0)
    # Columns that jump rarely, where Student's interval would fail in a third of all checks.
    runs = 1 + 9.0 * (draw.random((1500, 6, 8)) < 0.1) + draw.exponential(0.1, (1500, 6, 8))
    found = [standing(one[:5], one[5:], np.full(8, 0.05)) for one in runs]
    assert np.mean([one.p <= one.smallest for one in found]) == pytest.approx(1 / 6, abs=0.03)
