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
    df = found.d0 + found.runs - 1

    def at(share: float) -> float:  # quantile of the chi-squared distribution
        beta = (found.d0 * found.s2 * a + (found.runs - 1) * b) / stats.chi2.ppf(share, df)
        return 2 * stats.t.sf(abs(found.mean[head]) / np.sqrt(a + max(beta - c, 0)), found.samples - 1)

    edges = [0, 1e-9, 1e-7, 1e-5, 1e-3, 0.1, 0.5, 0.9, 1]
    return sum(integrate.quad(at, *ends, epsabs=1e-12, epsrel=1e-6, limit=200)[0] for ends in pairwise(edges))


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
        return -(stats.f.logpdf(ratios / np.exp(at[1]), runs - 1, np.exp(at[0])) - at[1]).sum()

    best = optimize.minimize(
        unlikely, [np.log(d0), np.log(s2)], method="Nelder-Mead", bounds=[(0, np.log(200)), (-9, 9)]
    )
    assert unlikely([np.log(found.d0), np.log(found.s2)]) - best.fun < 0.2
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


@pytest.mark.parametrize("ratio", [0, 0.5, 2, 8])
@pytest.mark.parametrize("runs", [2, 3, 5])
def test_intervals_of_one_mean_cover_whatever_runs_add(runs: int, ratio: float):
    """Coverage of 3,000 means whose variance due to samples has 29 degrees of freedom."""
    rng = np.random.default_rng(runs)
    a, b = rng.chisquare(29, 3000) / 29, ratio * rng.chisquare(runs - 1, 3000) / (runs - 1)
    covered = np.abs(np.sqrt(1 + ratio) * rng.standard_normal(3000)) < RunNoise(a, 29, b, runs - 1).half_width()
    assert covered.mean() > 0.93


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
