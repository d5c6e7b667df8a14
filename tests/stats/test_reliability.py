"""Reliability against simulated components, a calculation by loops, and split halves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from headnb.analysis.debiased_products import MeasuredPattern
from headnb.errors import HeadnbError
from headnb.stats.reliability import Components, Evidence, components, scale_free_levels


def simulated(rng: np.random.Generator, runs: int, n: int, heads: int, parts: tuple[float, ...]) -> np.ndarray:
    """(runs, n, heads) with variances S, V, B and E, and a mean per sample that heads share."""
    S, V, B, E = (math.sqrt(part) for part in parts)
    levels = S * rng.normal(size=heads) + V * rng.normal(size=(n, heads)) + B * rng.normal(size=(runs, 1, heads))
    return 7 + rng.normal(size=(n, 1)) + levels + E * rng.normal(size=(runs, n, heads))


def split_halves(samples: np.ndarray, rng: np.random.Generator, splits: int = 100) -> float:
    """Mean correlation of random halves' patterns, extrapolated to all samples by Spearman-Brown."""
    found = []
    for _ in range(splits):
        order = rng.permutation(len(samples))
        one, other = (samples[half].mean(axis=0) for half in np.array_split(order, 2))
        found.append(np.corrcoef(one, other)[0, 1])
    r = float(np.mean(found))
    return 2 * r / (1 + r)


def test_components_by_loops():
    values = np.random.default_rng(1).gamma(2, size=(3, 5, 7))
    R, n, H = values.shape
    d = values - values.mean(axis=2, keepdims=True)
    a = b = c = between = 0.0
    for h in range(H):
        m = d[:, :, h].mean()
        between += m**2 / H
        a += sum((d[:, x, h].mean() - m) ** 2 for x in range(n)) / (n - 1) / n / H
        b += sum((d[r, :, h].mean() - m) ** 2 for r in range(R)) / (R - 1) / R / H
        rest = [d[r, x, h] - d[r, :, h].mean() - d[:, x, h].mean() + m for r in range(R) for x in range(n)]
        c += sum(e**2 for e in rest) / (R - 1) / (n - 1) / (n * R) / H
    S, V, B, E = between - (a + b - c), n * max(a - c, 0), R * max(b - c, 0), n * R * c
    found = components(values)
    r = S / (S + B / R + V / n + E / (n * R))
    assert found.reliability == pytest.approx(r)
    parts = np.array([found.heads, found.samples, found.runs, found.interaction])
    np.testing.assert_allclose(parts / found.heads, np.array([S, V, B, E]) / S, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("parts", [(1, 4, 0.5, 3), (1, 20, 0, 0), (0.5, 0, 2, 8), (0, 4, 1, 2)])
@pytest.mark.parametrize("runs", [2, 5])
def test_simulated_components_are_recovered(parts: tuple[float, ...], runs: int):
    rng, n = np.random.default_rng(2), 12
    S, V, B, E = parts
    for _ in range(4):
        values = simulated(rng, runs, n, 4000, parts)
        found = components(values)
        unit = np.abs(values).mean() ** 2
        got = np.array([found.heads, found.samples, found.runs, found.interaction]) * unit
        np.testing.assert_allclose(got, parts, atol=0.12 * (S + V + B + E) ** 0.5)
        assert found.reliability == pytest.approx(S / (S + V / n + B / runs + E / (n * runs)), abs=0.05)


def test_reliability_is_the_correlation_with_new_samples_and_new_runs():
    rng, parts, heads = np.random.default_rng(3), (1, 6, 0.4, 4), 150
    differ = []
    for _ in range(150):
        truth = rng.normal(size=heads)
        one, other = (truth + simulated(rng, 3, 10, heads, (0, *parts[1:])) for _ in range(2))
        correlation = np.corrcoef(one.mean(axis=(0, 1)), other.mean(axis=(0, 1)))[0, 1]
        differ.append(components(one).reliability - correlation)
    assert abs(np.mean(differ)) < 4 * np.std(differ) / math.sqrt(150) + 0.005


@pytest.mark.parametrize("n", [8, 33])
@pytest.mark.parametrize("noise", [1.0, 4.0])
def test_reliability_of_one_run_is_that_of_split_halves(n: int, noise: float):
    rng = np.random.default_rng(4)
    both = []
    for _ in range(25):
        x = rng.normal(size=300) + noise * rng.normal(size=(n, 300))
        both.append([components(x).reliability, split_halves(x, rng)])
    ours, halves = np.mean(both, axis=0)
    assert ours == pytest.approx(halves, abs=0.01)
    assert ours == pytest.approx(1 / (1 + noise**2 / n), abs=0.03)


def test_reliability_of_heavy_tailed_levels_is_signal_over_signal_and_noise_variance():
    # lognormal levels (sigma 0.5) with exponential noise of their own size: Var L / (Var L + E L^2 / n)
    rng = np.random.default_rng(4)
    x = rng.lognormal(sigma=0.5, size=20_000) * rng.exponential(size=(20, 20_000))
    signal, square = math.exp(0.25) - 1, math.exp(0.25)
    assert components(x).reliability == pytest.approx(signal / (signal + square / 20), abs=0.02)


def test_few_samples_or_equal_heads_have_no_reliability_and_identical_samples_a_perfect_one():
    for unknown in (np.ones((3, 5)), np.ones((8, 5)), np.arange(15.0).reshape(3, 5), np.arange(8.0)[:, None]):
        assert math.isnan(components(unknown).reliability)
        assert components(unknown).evidence[2:] == (-1, 1, -1)
    one = components(np.tile([1.0, 2.0, np.nan, 4.0], (8, 1)))
    assert one.reliability == pytest.approx(1)
    assert one.samples_for(0.9) == 1
    assert components([[-1, 1], [1, -1], [-1, 1], [1, -1]]).evidence == Evidence(4, -1, -1, 1, -1)


def test_samples_for_a_reliability_follow_spearman_brown():
    def of(reliability: float, n: int) -> Components:
        return Components(reliability, n * (1 - reliability), 0, 0, n, 1)

    # 24 samples at 0.5: 0.9 needs 0.9 * 0.5 / (0.5 * 0.1) = 9 times as many
    assert of(0.5, 24).samples_for() == 216
    assert of(0.9, 24).samples_for() == 24
    assert of(0.7, 50).samples_for() == math.ceil(50 * 0.9 * 0.3 / (0.7 * 0.1))
    assert of(0.999, 24).samples_for() == 1
    assert of(-0.3, 24).samples_for() == -1


def test_samples_and_runs_for_a_reliability():
    """K = S / 9 for 0.9: with S = 9, the noise variance may be 1."""
    found = Components(9, 40.1, 2, 25, n=50, R=3)
    assert found.samples_for(0.9) == math.ceil((40.1 + 25 / 3) / (1 - 2 / 3))

    def reliability(n: int, R: int) -> float:
        return 9 / (9 + 2 / R + 40.1 / n + 25 / (n * R))

    assert reliability(found.samples_for(0.9), 3) >= 0.9 > reliability(found.samples_for(0.9) - 1, 3)
    few = Components(9, 40, 2, 30, n=50, R=2)
    assert (few.samples_for(0.9), few.fewest_runs_for(0.9)) == (-1, 3)  # B / K = 2: more than 2 runs
    assert few.evidence.sentence.endswith("more samples alone cannot give 0.90, at least 3 runs needed")
    with pytest.raises(HeadnbError, match="between 0 and 1"):
        found.samples_for(1)


def test_a_change_has_the_same_reliability_wherever_it_is_measured():
    rng = np.random.default_rng(5)
    before, after = rng.gamma(2, size=(9, 30)), rng.gamma(2, size=(3, 9, 30))
    plain = components(after - before).reliability
    assert MeasuredPattern(after, before).components().reliability == pytest.approx(plain)
    free = scale_free_levels(after) - scale_free_levels(before)
    assert (
        MeasuredPattern(after, before, None, scale_free=True).components().reliability == components(free).reliability
    )


def test_scale_free_levels_are_the_pattern_and_its_derivative():
    levels = np.random.default_rng(6).gamma(2, size=(6, 10))
    parts, eps = scale_free_levels(levels), 1e-6
    pattern = levels.mean(axis=0)
    np.testing.assert_allclose(parts.mean(axis=0), pattern / pattern.mean())
    for x in range(6):
        moved = pattern + eps * (levels[x] - pattern)
        np.testing.assert_allclose(
            parts[x] - parts.mean(axis=0), (moved / moved.mean() - pattern / pattern.mean()) / eps, atol=1e-5
        )
    with pytest.raises(HeadnbError, match="all-zero pattern"):
        scale_free_levels(np.zeros((4, 3)))


def test_arrays_of_the_wrong_shape_are_refused():
    with pytest.raises(HeadnbError, match="samples, heads"):
        components(np.ones(5))
