"""Tests and intervals over training runs, against scipy's quadrature and optimizer and in simulated runs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from headnb import selectivity
from headnb.stats.run_variance import CrossedMeans, RunNoise, crossed_means
from headnb.stats.significance import q_values
from scipy import integrate, optimize, stats

HEADS = 270


def crossed(rng, *, runs, n=40, heads=HEADS, ratio=2.0, sd=0.0, shared=0.0):
    """Differences (runs, n, heads) without any change: noise of samples (partly common to heads) and of runs.

    Args:
        rng: random generator.
        runs: number of runs.
        n: number of samples.
        heads: number of heads.
        ratio: variance of a mean due to runs, divided by that due to samples.
        sd: standard deviation over heads of the logarithm of the run noise.
        shared: fraction of the run variance that is common to all heads.
    """
    size = np.exp(0.5 * rng.standard_normal(heads))
    of_sample = np.sqrt(0.5) * rng.standard_normal((n, heads)) + 0.5 * rng.standard_normal((n, 1))
    both = 0.5 * rng.standard_normal((runs, n, heads))
    spread = np.sqrt(ratio * 0.75 / n * runs) * np.exp(sd * rng.standard_normal(heads) - sd**2)
    common = rng.choice([-1.0, 1.0], heads) * rng.standard_normal((runs, 1))
    of_run = spread * (np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.standard_normal((runs, heads)))
    return size * (of_sample + both + of_run[:, None])


def test_variance_components_are_those_of_two_way_analysis_of_variance():
    values = np.random.default_rng(0).standard_normal((3, 5, 2)) * [1.0, 4.0]
    found = crossed_means(values)
    for head in range(2):
        d = values[:, :, head]
        of_runs, of_samples, grand = d.mean(1), d.mean(0), d.mean()
        residual = sum((d[r, x] - of_runs[r] - of_samples[x] + grand) ** 2 for r in range(3) for x in range(5))
        assert found.mean[head] == pytest.approx(grand)
        assert found.over_samples[head] == pytest.approx(sum((of_samples - grand) ** 2) / 4 / 5)
        assert found.over_runs[head] == pytest.approx(sum((of_runs - grand) ** 2) / 2 / 3)
        assert found.interaction[head] == pytest.approx(residual / (2 * 4) / 15)


@pytest.mark.parametrize("sd", [0.0, 0.7])
@pytest.mark.parametrize("runs", [2, 3, 5])
def test_p_values_are_the_mixtures_by_adaptive_quadrature(runs: int, sd: float):
    values = crossed(np.random.default_rng(runs), runs=runs, sd=sd)
    found = crossed_means(values + 4.0 * (np.arange(HEADS) % 7))  # some means far from zero
    p = found.p_values()
    assert p.min() < 1e-6
    for head in [int(np.argmin(p)), int(np.argmax(p)), *range(0, HEADS, 61)]:
        assert p[head] == pytest.approx(_by_quadrature(found, head), rel=1e-3, abs=1e-9)


def _by_quadrature(found: CrossedMeans, head: int) -> float:
    a, b, c = found.over_samples[head], found.over_runs[head], found.interaction[head]
    df = found.runs - 1

    def tail(d0: float) -> float:
        def at(share: float) -> float:  # quantile of the chi-squared distribution
            beta = (d0 * found.s2 * a + df * b) / stats.chi2.ppf(share, d0 + df)
            return 2 * stats.t.sf(abs(found.mean[head]) / np.sqrt(a + max(beta - c, 0)), found.samples - 1)

        edges = [0, 1e-15, 1e-12, 1e-9, 1e-7, 1e-5, 1e-3, 0.1, 0.5, 0.9, 1]
        return sum(integrate.quad(at, *ends, epsabs=1e-12, epsrel=1e-6, limit=200)[0] for ends in pairwise(edges))

    x = b / a / found.s2
    follows, apart = 0.999 * x * stats.f.pdf(x, df, found.d0), 0.001 * (x / (1 + x)) ** (df / 2)
    return (follows * tail(found.d0) + apart * tail(0)) / (follows + apart)


def test_intervals_end_where_the_p_value_is_one_less_the_level():
    values = crossed(np.random.default_rng(5), runs=3, sd=0.7)
    low, high = crossed_means(values).intervals(0.9)
    for end in (low, high):
        np.testing.assert_allclose(crossed_means(values - end).p_values(), 0.1, rtol=1e-6)


@pytest.mark.parametrize(("runs", "d0", "s2"), [(2, 8, 2.0), (3, 30, 0.5), (5, 4, 5.0)])
def test_the_fit_over_heads_maximises_the_likelihood(runs: int, d0: float, s2: float):
    rng = np.random.default_rng(runs)
    ratios = s2 * stats.f.rvs(runs - 1, d0, size=1000, random_state=rng)
    one = np.ones(1000)
    values = np.zeros((runs, 250, 1000))
    values += np.resize([-1.0, 1.0], 250)[:, None] * np.sqrt(249.0)  # a = 1
    direction = rng.standard_normal((runs, 1000))
    direction -= direction.mean(0)
    values += (direction / np.sqrt((direction**2).sum(0) / (runs - 1) / runs) * np.sqrt(ratios))[:, None]
    found = crossed_means(values)
    np.testing.assert_allclose(found.over_samples, one)
    np.testing.assert_allclose(found.over_runs, ratios)

    def unlikely(at):
        x = ratios / np.exp(at[1])
        follows, apart = x * stats.f.pdf(x, runs - 1, np.exp(at[0])), (x / (1 + x)) ** ((runs - 1) / 2)
        return -np.log(0.999 * follows + 0.001 * apart).sum()

    best = optimize.minimize(
        unlikely, [np.log(d0), np.log(s2)], method="Nelder-Mead", bounds=[(0, np.log(200)), (-9, 9)]
    )
    assert unlikely([np.log(found.d0), np.log(found.s2)]) - best.fun < 0.5
    assert found.s2 == pytest.approx(np.exp(best.x[1]), rel=0.05)


def test_run_noise_is_not_taken_to_be_more_even_than_samples_can_tell():
    """The ratio b / a varies with a, which has n - 1 degrees of freedom; F(R - 1, n - 1) is the narrowest law."""
    rng = np.random.default_rng(6)
    found = [crossed_means(crossed(rng, runs=3, n=12)).d0 for _ in range(10)]
    assert max(found) <= 11


def test_one_run_is_the_paired_t_test():
    values = crossed(np.random.default_rng(2), runs=1)
    found = crossed_means(values)
    np.testing.assert_allclose(found.p_values(), stats.ttest_1samp(values[0], 0).pvalue)
    reference = stats.ttest_1samp(values[0], 0).confidence_interval(0.95)
    np.testing.assert_allclose(found.intervals(0.95), [reference.low, reference.high])
    assert np.isnan(found.run_to_sample)


@pytest.mark.parametrize("ratio", [0, 0.5, 2, 8, 100, 1e4])
@pytest.mark.parametrize("runs", [2, 3, 5])
def test_intervals_of_one_mean_cover_whatever_runs_add(runs: int, ratio: float):
    """Coverage of 3,000 means whose variance due to samples has 29 degrees of freedom."""
    rng = np.random.default_rng(runs)
    a, b = rng.chisquare(29, 3000) / 29, ratio * rng.chisquare(runs - 1, 3000) / (runs - 1)
    covered = np.abs(np.sqrt(1 + ratio) * rng.standard_normal(3000)) < RunNoise(a, 29, b, runs - 1).half_width()
    assert covered.mean() > 0.93


@pytest.mark.parametrize("heads", [1, HEADS])
def test_a_head_without_sample_noise_has_the_degrees_of_freedom_of_its_runs(heads: int):
    """All samples change equally in a run; Student's t with R - 1 degrees of freedom is then exact."""
    values = crossed(np.random.default_rng(7), runs=2, heads=heads)
    values[..., 0] = np.array([[1.0], [3.0]])
    found = crossed_means(values)
    expected = stats.ttest_1samp([1.0, 3.0], 0)
    assert expected.pvalue <= found.p_values()[0] < expected.pvalue + 0.02
    low, high = (end[0] for end in found.intervals())
    assert (low + high) / 2 == pytest.approx(2)
    assert high - low == pytest.approx(np.diff(expected.confidence_interval())[0], rel=0.1)


def test_the_test_of_a_head_is_continuous_as_its_sample_noise_vanishes():
    values = crossed(np.random.default_rng(7), runs=2)
    noise, found = values[..., 0] - values[..., 0].mean(axis=1, keepdims=True), []
    for size in (0, 1e-160, 1e-100, 1e-9, 1e-4):
        values[..., 0] = np.array([[1.0], [3.0]]) + size * noise
        found.append(crossed_means(values))
    for other in found[1:]:
        np.testing.assert_allclose(other.p_values(), found[0].p_values(), rtol=0.05)


@pytest.mark.parametrize("heads", [1, HEADS])
def test_samples_that_differ_in_every_run_but_not_on_average_are_noise(heads: int):
    """The means over runs are all equal, so a = 0, but c > 0."""
    values = crossed(np.random.default_rng(8), runs=2, heads=heads)
    values[0, :, 0] = np.resize([0.0, 1.0], 40)
    values[1, :, 0] = 1 - values[0, :, 0]
    found = crossed_means(values)
    low, high = (end[0] for end in found.intervals())
    assert (found.over_samples[0], found.mean[0]) == (0, 0.5)
    assert found.p_values()[0] > 0
    assert high - low > 2 * 1.96 * np.sqrt(found.interaction[0])


def test_a_head_with_much_more_run_noise_does_not_change_the_fit_over_heads():
    values = crossed(np.random.default_rng(9), runs=3)
    usual = crossed_means(values[..., 1:])
    values[..., 0] += 1e6 * np.array([[-1.0], [0.0], [1.0]])
    found = crossed_means(values)
    assert (found.d0, found.s2) == (pytest.approx(usual.d0, rel=0.2), pytest.approx(usual.s2, rel=0.02))
    assert found.p_values()[0] > 0.05


def test_hundreds_of_runs_are_fitted_without_overflow():
    random = np.random.default_rng(11)
    noise = random.normal(size=(500, 20, 60))
    with np.errstate(over="raise", invalid="raise"):
        found = crossed_means(noise + random.normal(size=(500, 1, 60)))
    ratios = found.over_runs / found.over_samples
    assert found.s2 == pytest.approx(np.median(ratios), rel=0.3)


def test_heads_whose_runs_agree_exactly_count_in_the_fit_over_heads():
    """Zero is the limit of small ratios b / a."""
    values = crossed(np.random.default_rng(10), runs=2)
    runs = values.mean(axis=1, keepdims=True) - values.mean(axis=(0, 1))
    fits = []
    for size in (0.0, 1e-12):
        some = values - (1 - size) * runs * (np.arange(HEADS) < 60)
        fits.append(crossed_means(some))
    assert fits[0].s2 == pytest.approx(fits[1].s2, rel=1e-3)
    assert fits[0].s2 < 0.8 * crossed_means(values).s2


def test_dead_and_missing_heads():
    values = crossed(np.random.default_rng(4), runs=3)
    values[..., 0], values[..., 1], values[..., 2] = np.nan, 0.0, 2.0
    found = crossed_means(values)
    low, high = found.intervals()
    p = found.p_values()
    assert np.isnan([p[0], low[0], high[0]]).all()
    assert (p[1], low[1], high[1]) == (1, 0, 0)
    assert (p[2], low[2], high[2]) == (0, 2, 2)
    assert np.isfinite(p[3:]).all()


@pytest.mark.parametrize(
    ("runs", "shared", "warned"), [(3, 0.0, False), (3, 0.8, True), (5, 0.0, False), (5, 0.6, True)]
)
def test_run_effects_that_heads_share_are_noticed(runs: int, shared: float, warned: bool):
    rng = np.random.default_rng(runs)
    found = [crossed_means(crossed(rng, runs=runs, ratio=8, shared=shared)).moves_together for _ in range(10)]
    assert np.mean(found) == pytest.approx(float(warned), abs=0.3)


@pytest.mark.parametrize("sd", [0.0, 0.7])
@pytest.mark.parametrize("runs", [2, 3])
def test_heads_are_rarely_found_where_only_runs_differ(runs: int, sd: float):
    """At a true rate of 5 %, 8 or more of 40 replicates find a head once in a thousand runs."""
    rng = np.random.default_rng(runs)
    found = [(q_values(crossed_means(crossed(rng, runs=runs, sd=sd)).p_values()) < 0.05).any() for _ in range(40)]
    assert sum(found) < 8


def test_selectivity_with_three_runs_marks_no_head_where_nothing_changed():
    rng = np.random.default_rng(1)
    levels = np.exp(0.5 * rng.standard_normal(HEADS)) * np.abs(1 + 0.4 * rng.standard_normal((40, HEADS)))
    after = [np.abs(levels + 0.1 * crossed(rng, runs=1, ratio=8)[0]) for _ in range(3)]
    found = selectivity({"t": _scores(levels)}, {"t": [_scores(run) for run in after]})
    assert not found.heads.significant.any()
    assert float(found.heads.run_to_sample) > 1


def _scores(levels: np.ndarray) -> xr.Dataset:
    n = len(levels)
    return xr.Dataset(
        {
            "score": (("sample", "layer", "head"), levels.reshape(n, 30, 9)),
            "loss": ("sample", np.ones(n)),
            "answer_tokens": ("sample", np.ones(n, np.int32)),
        },
        {"sample": np.arange(n), "layer": np.arange(30), "head": np.arange(9)},
        {"task": "t", "method": "activation", "reduction": "mean-abs", "loss_reduction": "sample-mean"},
    )
