"""Noise-corrected products of patterns, against sums over pairs of different samples and known populations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from headnb.analysis.debiased_products import DebiasedProducts, MeasuredPattern, correlations
from headnb.stats.jackknife import correlation

HEADS = 7


def drawn(seed: int, runs: int = 1, n: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2, size=(runs, n, HEADS))


def test_products_of_linear_patterns_are_sums_over_different_samples():
    plus, minus, other = drawn(1), drawn(2)[0], drawn(3, n=4)
    found = DebiasedProducts(
        [MeasuredPattern(plus, minus, "task"), MeasuredPattern(minus[None], None, "task"), MeasuredPattern(other)]
    ).corrected()
    change = plus[0] - minus
    pairs = list(itertools.permutations(range(6), 2))
    for centre, products in ((0, found.about_zero), (1, found.about_mean)):
        a, b, c = (x - centre * x.mean(axis=1, keepdims=True) for x in (change, minus, other[0]))
        assert products[0, 0] == pytest.approx(np.mean([a[x] @ a[y] for x, y in pairs]) / HEADS)
        assert products[0, 1] == pytest.approx(np.mean([a[x] @ b[y] for x, y in pairs]) / HEADS)
        assert products[0, 2] == pytest.approx(
            a.mean(axis=0) @ c.mean(axis=0) / HEADS
        )  # different samples: independent noise


def test_products_over_runs_are_corrected_for_run_noise():
    """Three runs without sample noise: the product is the mean over pairs of different runs."""
    by_run = drawn(4, runs=3, n=1)
    found = DebiasedProducts([MeasuredPattern(np.repeat(by_run, 5, axis=1))]).corrected()
    pairs = list(itertools.permutations(range(3), 2))
    expected = np.mean([by_run[x, 0] @ by_run[y, 0] for x, y in pairs]) / HEADS
    assert found.about_zero[0, 0] == pytest.approx(expected)


def test_products_over_samples_and_runs_are_sums_over_different_samples_in_different_runs():
    plus, minus = drawn(14, runs=3, n=5), drawn(15, n=5)[0]
    found = DebiasedProducts([MeasuredPattern(plus, minus)]).corrected()
    runs, samples = (list(itertools.permutations(range(count), 2)) for count in (3, 5))
    for centre, products in ((0, found.about_zero), (1, found.about_mean)):
        levels = (plus - minus) - centre * (plus - minus).mean(axis=-1, keepdims=True)
        expected = np.mean([levels[r, x] @ levels[s, y] for r, s in runs for x, y in samples]) / HEADS
        assert products[0, 0] == pytest.approx(expected)


@pytest.mark.parametrize("runs", [2, 3])
def test_sample_run_interaction_does_not_bias_products_estimates_or_reliability(runs: int):
    """Levels p + a[run] + b[sample] + e[run, sample], against the variance of p and the correlation with new data."""
    rng, n, heads = np.random.default_rng(16), 12, 100

    def levels(truth: np.ndarray) -> np.ndarray:
        own = rng.normal(scale=0.3, size=(runs, 1, heads)) + rng.normal(scale=1.2, size=(1, n, heads))
        return truth + own + rng.normal(scale=2.5, size=(runs, n, heads))

    errors = []
    for _ in range(150):
        truth = 3 + rng.normal(size=heads)
        measured, again = MeasuredPattern(levels(truth)), MeasuredPattern(levels(truth))
        moments = DebiasedProducts([measured])
        estimate = moments.estimate(lambda products: products.about_mean[0]).value[0]
        agreement = np.corrcoef(measured.values(), again.values())[0, 1]
        product = moments.corrected().about_mean[0, 0]
        errors.append([product - truth.var(), estimate - truth.var(), measured.components().reliability - agreement])
    mean, error = np.mean(errors, axis=0), np.std(errors, axis=0) / np.sqrt(len(errors))
    assert (np.abs(mean[:2]) < 4 * error[:2]).all()
    assert abs(mean[2]) < 0.02


def test_mean_of_many_corrected_products_is_that_of_the_populations_for_scale_free_patterns_too():
    rng = np.random.default_rng(5)
    levels = rng.lognormal(sigma=0.2, size=(2, HEADS))
    truth = levels[1] / levels[1].mean() - levels[0] / levels[0].mean()
    found = []
    for _ in range(3000):
        scale = rng.lognormal(sigma=0.3, size=(16, 1))  # sample scales common to all heads
        before, after = (scale * level * rng.gamma(2, 1 / 2, size=(16, HEADS)) for level in levels)
        moments = DebiasedProducts([MeasuredPattern(after[None], before, scale_free=True)])
        found.append([products.about_zero[0, 0] for products in (moments.corrected(), moments.plain())])
    corrected, plain = np.mean(found, axis=0)
    error = np.std(found, axis=0)[0] / np.sqrt(3000)
    assert abs(corrected - np.mean(truth**2)) < 4 * error
    assert plain > np.mean(truth**2) + 10 * error


def test_leaving_groups_out_is_measuring_the_samples_that_stay():
    plus, minus = drawn(6, runs=2, n=9), drawn(7, n=9)[0]
    groups = [np.array([0, 4]), np.array([8])]
    for scale_free in (False, True):
        measured = MeasuredPattern(plus, minus, None, scale_free)
        for left, group in zip(measured.without(groups), groups, strict=True):
            stay = np.delete(np.arange(9), group)
            np.testing.assert_allclose(left, MeasuredPattern(plus[:, stay], minus[stay], None, scale_free).values())


def test_resample_of_each_sample_and_run_once_is_the_pattern():
    measured = MeasuredPattern(drawn(8, runs=2, n=5), drawn(9, n=5)[0], None, scale_free=True)
    whole = measured.resampled(np.full((1, 5), 0.2), np.full((1, 2), 0.5))
    np.testing.assert_allclose(whole[0], measured.values())
    twice_the_first = measured.resampled(np.array([[0.5, 0.5, 0, 0, 0]]), np.array([[0.0, 1.0]]))
    expected = MeasuredPattern(measured.plus[1:, :2], measured.minus[:2], None, scale_free=True).values()
    np.testing.assert_allclose(twice_the_first[0], expected)


def test_correlation_from_products_is_that_of_resampling():
    """Against an independent implementation, a jackknife on Fisher's scale; equal up to higher-order terms."""
    rng = np.random.default_rng(10)
    levels = rng.lognormal(size=(2, 200))
    a, b = (level * rng.gamma(4, 1 / 4, size=(40, 200)) for level in levels)
    C = (
        DebiasedProducts([MeasuredPattern(a[None], None, "s"), MeasuredPattern(b[None], None, "s")])
        .corrected()
        .about_mean
    )
    assert C[0, 1] / np.sqrt(C[0, 0] * C[1, 1]) == pytest.approx(correlation(a, b, paired=True).value, abs=0.01)


def test_interval_of_a_mean_is_students():
    """The mean of one head is linear in the samples, so the jackknife interval is Student's t, up to the tails."""
    from scipy import stats

    samples = stats.norm.ppf((np.arange(20) + 0.5) / 20) + 9  # tails not heavier than normal
    found = DebiasedProducts([MeasuredPattern(samples[None, :, None]), MeasuredPattern(np.ones((1, 20, 1)))]).estimate(
        lambda products: products.about_zero[0, 1:]
    )
    low, high = stats.t.interval(0.95, 19, samples.mean(), stats.sem(samples))
    assert (found.value[0], found.low[0], found.high[0]) == pytest.approx((samples.mean(), low, high), rel=1e-6)


def test_intervals_over_two_runs_cover_the_correlation_of_the_populations():
    """Welch's degrees of freedom cover 88 % with this run noise."""
    rng, heads = np.random.default_rng(1), 60
    base = np.random.default_rng(5).lognormal(sigma=0.6, size=heads)
    other = base * np.random.default_rng(6).lognormal(sigma=0.5, size=heads)
    truth, covered = np.corrcoef(base, other)[0, 1], []
    for _ in range(100):
        runs = base * np.exp(0.2 * rng.standard_normal((2, heads)) - 0.02)
        levels = runs[:, None] * rng.gamma(16, 1 / 16, (2, 64, heads))
        measured = [MeasuredPattern(other * rng.gamma(16, 1 / 16, (1, 64, heads))), MeasuredPattern(levels)]
        found = DebiasedProducts(measured).estimate(lambda products: correlations(products.about_mean)[0, 1:])
        covered.append(found.low[0] <= truth <= found.high[0])
    assert np.mean(covered) >= 0.92
