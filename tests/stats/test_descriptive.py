"""Statistics of patterns against scipy, pandas and hand calculations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from headnb.call_checks import checked_level
from headnb.errors import HeadnbError
from headnb.stats import descriptive, jackknife, significance
from headnb.stats.estimates import Estimate
from headnb.stats.reliability import components
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

LEVELS = st.lists(st.floats(0.01, 100), min_size=3, max_size=30)


def test_gini_by_hand():
    # |differences| of (1, 2, 3, 4) over all 16 ordered pairs sum to 20; 20 / (2 * 16 * 2.5) = 0.25
    assert descriptive.gini([1, 2, 3, 4]) == pytest.approx(0.25)
    assert descriptive.gini([0, 0, 0, 7]) == pytest.approx(0.75)
    assert descriptive.gini([5, 5, 5]) == pytest.approx(0)


@given(LEVELS)
def test_gini_is_the_mean_absolute_difference_over_twice_the_mean(levels):
    x = np.array(levels)
    by_pairs = np.mean([abs(a - b) for a, b in itertools.product(levels, levels)]) / (2 * x.mean())
    assert descriptive.gini(x) == pytest.approx(by_pairs, abs=1e-12)


def test_gini_of_nothing_is_nan_and_of_signed_values_an_error():
    assert np.isnan(descriptive.gini([0.0, 0.0]))
    assert np.isnan(descriptive.gini([np.nan, np.nan]))
    with pytest.raises(HeadnbError, match="these values are signed"):
        descriptive.gini([0.1, -0.1])


@given(LEVELS)
def test_cv_is_population_deviation_over_mean(levels):
    expected = pd.Series(levels).std(ddof=0) / pd.Series(levels).mean()
    assert descriptive.coefficient_of_variation(levels) == pytest.approx(expected, abs=1e-12)


def test_kurtosis_is_scipys_biased_excess():
    x = np.random.default_rng(0).lognormal(size=(3, 50))
    np.testing.assert_allclose(descriptive.kurtosis(x), stats.kurtosis(x, axis=-1, fisher=True, bias=True), rtol=1e-12)
    # by hand: (0, 0, 0, 4) has m2 = 3, m4 = (3 * 1 + 81) / 4 = 21, 21 / 9 - 3 = -2/3
    assert descriptive.kurtosis([0, 0, 0, 4]) == pytest.approx(-2 / 3)


@pytest.mark.parametrize(("kind", "reference"), [("pearson", stats.pearsonr), ("spearman", stats.spearmanr)])
def test_correlation_is_scipys_on_the_heads_both_have(kind, reference):
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=40), rng.normal(size=40).round(1)
    a[3] = b[7] = np.nan
    both = ~(np.isnan(a) | np.isnan(b))
    assert descriptive.correlation(a, b, kind) == pytest.approx(reference(a[both], b[both]).statistic, rel=1e-12)


@pytest.mark.parametrize("heads", [7, 100, 270, 1024])
@pytest.mark.parametrize("level", [0.1, 0.3, 0.7, 1 / 3, 1e-3])
def test_a_constant_pattern_has_no_kurtosis_and_no_correlation_however_its_mean_is_rounded(level: float, heads: int):
    constant, other = np.full(heads, level), np.random.default_rng(0).random(heads)
    constant[3] = np.nextafter(level, 1)
    varied = np.where(np.arange(heads) == 5, level * (1 + 1e-9), level)
    found = descriptive.kurtosis([constant, varied])
    assert np.isnan(found[0])
    assert found[1] == pytest.approx(stats.kurtosis((np.arange(heads) == 5).astype(float)), rel=1e-4)
    assert np.isnan(descriptive.correlation(constant, other))
    missing = np.where(np.arange(heads) == 2, np.nan, constant)
    assert np.isnan(descriptive.correlation(missing, other))


def test_correlation_with_a_constant_pattern_is_nan():
    assert np.isnan(descriptive.correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    with pytest.raises(HeadnbError, match="pearson, spearman"):
        descriptive.correlation([1.0], [1.0], "kendall")


@pytest.mark.parametrize(
    "statistic",
    [descriptive.gini, descriptive.coefficient_of_variation, descriptive.kurtosis],
    ids=lambda f: f.__name__,
)
def test_nan_heads_are_skipped_and_leading_axes_kept(statistic):
    x = np.random.default_rng(2).gamma(2, size=(4, 5, 30))
    holes = x.copy()
    holes[..., 10:20] = np.nan
    without = np.delete(x, np.s_[10:20], axis=-1)
    assert statistic(holes).shape == (4, 5)
    np.testing.assert_allclose(statistic(holes), statistic(without), rtol=1e-12)


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_comparisons_keep_leading_axes_and_skip_heads_that_one_lacks(kind):
    a, b = np.random.default_rng(30).gamma(2, size=(2, 3, 30))
    a[1, 4], b[2, 5] = np.nan, np.nan
    pairs = [(x[both], y[both]) for x, y in zip(a, b, strict=True) for both in [~(np.isnan(x) | np.isnan(y))]]
    expected = [descriptive.correlation(*pair, kind) for pair in pairs]
    np.testing.assert_allclose(descriptive.correlation(a, b, kind), expected, rtol=1e-12)
    expected = [1 - ((x - y) ** 2).sum() / ((x - x.mean()) ** 2).sum() for x, y in pairs]
    np.testing.assert_allclose(descriptive.r_squared(a, b), expected, rtol=1e-12)


def test_half_precision_is_computed_in_double():
    x = np.random.default_rng(31).gamma(2, size=(2, 60)).astype(np.float16)
    wide = x.astype(np.float64)
    for statistic in (descriptive.gini, descriptive.coefficient_of_variation, descriptive.kurtosis):
        np.testing.assert_array_equal(statistic(x), statistic(wide))
    for compare in (descriptive.correlation, descriptive.r_squared):
        np.testing.assert_array_equal(compare(x[0], x[1]), compare(wide[0], wide[1]))
    assert components(x.repeat(4, 0)) == components(wide.repeat(4, 0))


def test_r_squared_is_about_the_mean():
    y = np.array([1.0, 2.0, 3.0, 4.0])
    assert descriptive.r_squared(y, y) == 1
    assert descriptive.r_squared(y, np.full(4, 2.5)) == pytest.approx(0)
    # by hand: SSE = 1 + 4 + 9 + 16 = 30, SS about the mean = 5; the uncentred form would give 0
    assert descriptive.r_squared(y, np.zeros(4)) == pytest.approx(-5)
    fit = stats.linregress([0, 1, 3, 7], y)
    assert descriptive.r_squared(y, fit.intercept + fit.slope * np.array([0, 1, 3, 7])) == pytest.approx(fit.rvalue**2)


def test_q_values_are_scipys_over_the_heads_present():
    p = np.array([0.001, 0.5, np.nan, 0.04, 0.03, 0.9])
    q = significance.q_values(p)
    assert np.isnan(q[2])
    np.testing.assert_allclose(np.delete(q, 2), stats.false_discovery_control(np.delete(p, 2)))
    # by hand (Benjamini and Hochberg 1995): 5 tests; 0.03 * 5 / 2 = 0.075 and 0.04 * 5 / 3 = 0.0667 -> both 0.0667
    np.testing.assert_allclose(q[[0, 3, 4]], [0.005, 0.2 / 3, 0.2 / 3])


def test_p_values_are_scipys_paired_t_test():
    rng = np.random.default_rng(5)
    before, after = rng.normal(size=(2, 12, 7))
    np.testing.assert_allclose(significance.p_values(after - before), stats.ttest_rel(after, before).pvalue)


def test_heads_without_any_difference_are_not_found():
    differences = np.random.default_rng(6).normal(size=(10, 4))
    differences[:, 1], differences[:, 2] = 0, np.nan
    for p in (significance.p_values(differences), significance.max_t_p_values(differences)):
        assert p[1] == 1
        assert np.isnan(p[2])


def test_max_t_equals_all_sign_flips_counted_one_by_one():
    x = np.random.default_rng(7).normal(0.4, 1, size=(9, 5))

    def largest(values: np.ndarray) -> np.ndarray:
        return np.abs(stats.ttest_1samp(values, 0).statistic)

    null = np.array([largest(x * np.array(s)[:, None]).max() for s in itertools.product((1, -1), repeat=9)])
    expected = [(null >= t * (1 - 1e-9)).mean() for t in largest(x)]
    np.testing.assert_allclose(significance.max_t_p_values(x), expected)


def test_max_t_of_one_head_is_scipys_permutation_test():
    x = np.random.default_rng(8).normal(0.3, 1, size=11)
    reference = stats.permutation_test((x,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert significance.max_t_p_values(x[:, None])[0] == pytest.approx(reference.pvalue)


def test_max_t_depends_on_the_seed_only_within_its_resolution():
    x = np.random.default_rng(9).normal(0.35, 1, size=(40, 30))
    one, other = (significance.max_t_p_values(x, seed=seed) for seed in (0, 1))
    assert np.array_equal(one, significance.max_t_p_values(x, seed=0))
    assert np.abs(one - other).max() < 0.05


def test_t_intervals_are_scipys():
    x = np.random.default_rng(10).normal(size=(15, 4))
    found = significance.t_intervals(x, 0.9)
    reference = stats.ttest_1samp(x, 0).confidence_interval(0.9)
    np.testing.assert_allclose([found.low, found.high], [reference.low, reference.high])


def test_level_intervals_of_normal_samples_are_student_t():
    x = np.random.default_rng(11).normal(10, 1, size=(40, 2000))
    found, student = significance.level_intervals(x), significance.t_intervals(x)
    assert np.median((found.high - found.low) / (student.high - student.low)) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_level_intervals_of_very_few_samples_are_scipys_student_t_from_zero_on(n: int):
    x = np.random.default_rng(21).gamma(2, size=(n, 50))
    reference = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    x[0, 3] = reference.low[3] = reference.high[3] = np.nan
    found = significance.level_intervals(x)
    np.testing.assert_allclose(found.high, reference.high)
    np.testing.assert_allclose(found.low, np.maximum(reference.low, 0))


def test_intervals_of_one_sample_are_unknown():
    for intervals in (significance.t_intervals, significance.level_intervals):
        found = intervals([[1.0, 2.0]])
        assert found.mean.tolist() == [1, 2]
        assert np.isnan(found.low).all()


def test_rank_intervals_separate_only_different_levels():
    rng = np.random.default_rng(12)
    levels = np.array([10.0, 5.0, 5.0, 5.0, 1.0, np.nan])
    ranks = significance.rank_intervals(levels + rng.normal(size=(30, 6)), [0, 1, 2, 4])
    assert ranks.tolist() == [[1, 1], [2, 4], [2, 4], [5, 5]]
    assert significance.rank_intervals(np.ones((5, 3)), [0]).tolist() == [[1, 3]]


def test_jackknife_is_the_textbook_one():
    # Efron and Tibshirani (1993), chapter 10: n T - (n - 1) mean(T_-i), and se^2 = (n - 1) / n * sum (T_-i - mean)^2
    x = np.random.default_rng(13).gamma(2, size=(20, 40)) * np.linspace(0.5, 2, 40)

    def logit(g: float) -> float:
        return math.log(g / (1 - g))

    def without_noise(x: np.ndarray) -> float:
        """Logit of the mean pattern's Gini, scaled to the variance between heads from products of different samples."""
        d = x - x.mean(axis=1, keepdims=True)
        products = d @ d.T / d.shape[1]
        different = (products.sum() - np.trace(products)) / (len(x) * (len(x) - 1))
        levels = x.mean(axis=0)
        pairs = np.abs(levels[:, None] - levels).mean() / (2 * levels.mean())
        return logit(pairs * math.sqrt(different / products.mean()))

    left = np.array([without_noise(np.delete(x, i, axis=0)) for i in range(20)])
    value = 20 * without_noise(x) - 19 * left.mean()
    estimate = jackknife.gini(x, level=0.9)
    assert logit(estimate.value) == pytest.approx(value)
    half = (logit(estimate.high) - logit(estimate.low)) / 2
    se = math.sqrt(19 / 20 * ((left - left.mean()) ** 2).sum())
    tails = max(0.0, stats.kurtosis(20 * without_noise(x) - 19 * left, bias=False))
    assert half == pytest.approx(se * stats.t.ppf(0.95, 2 / (tails / 20 + 2 / 19)))


def test_unbiased_moments_are_means_of_products_of_different_samples():
    x = np.random.default_rng(14).normal(size=(6, 3))
    sums = np.stack([(x**k).sum(axis=0) for k in range(1, 5)])[None]
    n = np.array([[6.0]])
    second = np.mean([x[list(i)].prod(axis=0) for i in itertools.permutations(range(6), 2)])
    fourth = np.mean([x[list(i)].prod(axis=0) for i in itertools.permutations(range(6), 4)])
    assert jackknife._unbiased_product(sums, n, 0, 0, 1)[0] == pytest.approx(second)
    assert jackknife._fourth_moment(sums, n)[0] == pytest.approx(fourth)


@pytest.mark.parametrize("n", [300, 1000])
def test_groups_of_samples_give_nearly_the_estimate_of_single_samples(n, monkeypatch):
    x = np.random.default_rng(15).gamma(0.5, size=(n, 60)) * np.linspace(0.3, 3, 60)
    estimates = (jackknife.gini, jackknife.coefficient_of_variation, jackknife.kurtosis)
    grouped = [f(x) for f in estimates]
    monkeypatch.setattr(jackknife, "MAX_JACKKNIFE_GROUPS", n)
    for group, single in zip(grouped, (f(x) for f in estimates), strict=True):
        width = single.high - single.low
        assert group.value == pytest.approx(single.value, abs=0.1 * width)
        assert group.high - group.low == pytest.approx(width, rel=0.3)


def test_estimates_are_scale_free_down_to_tiny_gradients():
    x = np.random.default_rng(16).gamma(1, size=(30, 50)) * np.linspace(0.3, 3, 50)
    for estimate in (jackknife.gini, jackknife.coefficient_of_variation, jackknife.kurtosis):
        one, tiny = estimate(x), estimate(x * 1e-80)
        assert (tiny.value, tiny.low, tiny.high) == pytest.approx((one.value, one.low, one.high), rel=1e-9)


def test_correlation_corrected_for_noise_recovers_the_patterns_correlation():
    rng = np.random.default_rng(17)
    a = rng.normal(size=4000)
    b = 0.6 * a + 0.8 * rng.normal(size=4000)
    x, y = (10 + p + 5 * rng.normal(size=(25, 4000)) for p in (a, b))
    found = jackknife.correlation(x, y, paired=False)
    assert found.uncorrected == pytest.approx(0.3, abs=0.04)  # noise variance 25 / 25 = signal variance: halved
    assert found.value == pytest.approx(0.6, abs=0.06)
    assert jackknife.correlation(x, y, paired=True).value == pytest.approx(found.value, abs=0.01)


def test_uninformative_estimates_are_withheld():
    few = np.random.default_rng(18).gamma(1, size=(3, 20))
    for estimate in (jackknife.gini, jackknife.coefficient_of_variation, jackknife.kurtosis):
        assert math.isnan(estimate(few).value)
        assert estimate(few).uncorrected > -3
    noise = np.random.default_rng(19).normal(5, 1, size=(10, 50))  # all heads have the same level
    assert jackknife.coefficient_of_variation(noise).low == 0
    assert str(Estimate(0.3214, 0.2991, 0.3456, 0.95, 24, 0.34)) == "0.321 [0.299, 0.346]"
    assert float(Estimate(0.3214, 0.2991, 0.3456, 0.95, 24, 0.34)) == 0.3214


def test_arrays_of_the_wrong_shape_are_refused():
    for call in (jackknife.gini, significance.p_values):
        with pytest.raises(HeadnbError, match="samples x heads"):
            call(np.ones(5))
    with pytest.raises(HeadnbError, match="different shape"):
        jackknife.correlation(np.ones((5, 3)), np.ones((5, 4)), paired=False)
    with pytest.raises(HeadnbError, match="at least 2 samples"):
        significance.p_values(np.ones((1, 3)))
    with pytest.raises(HeadnbError, match="at least 2 heads"):
        jackknife.gini(np.full((8, 3), np.nan))


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, math.nan, "0.95"])
@pytest.mark.parametrize(
    "call",
    [
        jackknife.gini,
        jackknife.coefficient_of_variation,
        jackknife.kurtosis,
        lambda x, level: jackknife.correlation(x, x, paired=True, level=level),
        significance.t_intervals,
        significance.level_intervals,
        lambda x, level: significance.rank_intervals(x, [0], level),
    ],
)
@pytest.mark.parametrize("samples", [1, 8])  # also if there is no interval
def test_a_level_is_a_share_between_0_and_1(call, level, samples):
    x = np.random.default_rng(20).gamma(1, size=(samples, 5))
    with pytest.raises(HeadnbError, match=r"level must lie between 0 and 1, such as 0.95; got "):
        call(x, level)


def test_the_error_names_the_threshold_argument():
    with pytest.raises(HeadnbError, match=r"^alpha must lie between 0 and 1, such as 0.05; got 5$"):
        checked_level(5, "alpha")
