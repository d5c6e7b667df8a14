"""Text of estimates, and estimates that are withheld."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from headnb.analysis.concentration import concentration
from headnb.stats import jackknife
from headnb.stats.estimates import Estimate
from headnb.stats.rounding import fixed, format_duration, interval_numbers, interval_text
from hypothesis import given
from hypothesis.strategies import floats
from scipy import stats

NAN, INF = math.nan, math.inf


def estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value, low, high, 0.95, 24, 0.3)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((0.4123, 0.1812, 0.6412), "0.41 [0.18, 0.64]"),
        ((5.24, 3.1, INF), "5.2 [3.1, inf]"),
        ((0.41234, NAN, NAN), "0.412"),
        ((24, NAN, NAN), "24.0"),
        ((NAN, NAN, NAN), "needs more samples"),
        ((2.1e-9, 1e-9, 3.2e-9), "2.1e-9 [1.0e-9, 3.2e-9]"),
    ],
)
def test_digits_follow_the_width_of_the_interval(found: tuple[float, float, float], expected: str):
    assert str(estimate(*found)) == expected == interval_text(*found)


def test_signs_are_written_on_request():
    assert interval_text(0.0301, -0.02, 0.0402, "+") == "+0.030 [−0.020, +0.040]"
    assert interval_text(-0.0004, -0.2, 0.2) == "0.00 [−0.20, 0.20]"  # no negative zero


@given(
    half=floats(1e-5, 1e4),
    value=floats(-1e4, 1e4),
)
def test_an_interval_has_two_digits_of_its_half_width(half: float, value: float):
    """Counted in decimal arithmetic: the last digit is worth a tenth of the half width's first digit."""
    shown, *ends = interval_numbers(value, value - half, value + half)
    step = Decimal(1).scaleb(Decimal(f"{half:.6g}").adjusted() - 1)
    for text, exact in zip((shown, *ends), (value, value - half, value + half), strict=True):
        number = Decimal(text.replace("−", "-"))
        assert "-" not in text
        assert number % step == 0
        assert abs(number - Decimal(exact)) <= step * Decimal("0.51")


@pytest.mark.parametrize(("value", "expected"), [(-0.051, "−0.05"), (-0.001, "0.00"), (0.5, "0.50"), (12, "12.00")])
def test_fixed_decimals_have_a_minus_sign(value: float, expected: str):
    assert fixed(value) == expected


@pytest.mark.parametrize(
    ("found", "bounds", "expected"),
    [
        ((0.4, 0.2, 0.6), (0, 1), (0.4, 0.2, 0.6)),
        ((0.8, 0.6, 1.2), (0, 1), (0.8, 0.6, 1)),  # clipped
        ((0.4, 0.02, 0.98), (0, 1), None),  # nearly the whole range
        ((1.1, 0.9, 1.4), (0, 1), None),  # impossible
        ((0.1, -0.95, 0.99), (-1, 1), None),
        ((NAN, NAN, NAN), (0, 1), None),
    ],
)
def test_uninformative_intervals_are_withheld(found, bounds, expected):
    shown = estimate(*found).within(*bounds)
    assert shown.reason == ("needs more samples" if expected is None else "")
    np.testing.assert_equal((shown.value, shown.low, shown.high), expected or (NAN, NAN, NAN))
    assert shown.uncorrected == 0.3


@pytest.mark.parametrize("heads", [3, 12, 270])
def test_bounds_are_attained_by_one_hot_patterns(heads: int):
    one_has_all = np.eye(heads)[0]
    assert jackknife.FLATNESS.bounds(heads)[1] == pytest.approx(stats.kurtosis(one_has_all))
    assert jackknife.SQUARED_CV.bounds(heads)[1] == pytest.approx(stats.variation(one_has_all))
    differences = np.abs(one_has_all[:, None] - one_has_all).mean()
    assert jackknife.GINI.bounds(heads)[1] == pytest.approx(differences / (2 * one_has_all.mean()))


def test_kurtosis_beyond_what_the_heads_can_have_is_withheld():
    """With twelve heads and a few dominant samples, a bias-corrected kurtosis can be in the hundreds."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        samples = rng.lognormal(sigma=0.8, size=12) * rng.gamma(0.25, 4, size=(12, 12))
        found = jackknife.kurtosis(samples)
        assert found.reason or found.high <= 12 - 2 + 1 / 11 - 3


def test_a_change_of_what_is_withheld_is_withheld():
    rng = np.random.default_rng(1)
    before, after = rng.gamma(0.5, size=(2, 12, 12))
    steady = np.tile(rng.gamma(2, size=12), (12, 1)) * rng.normal(1, 0.01, size=(12, 12))
    found = concentration(steady, after[None], "kurtosis")
    assert [bool(found[stage].reason) for stage in ("before", "after", "change")] == [False, True, True]
    found = concentration(before, np.stack([after, before]), "kurtosis")
    assert all(one.reason for one in found.values())
    assert np.isfinite(found["change"].uncorrected)


def test_durations_read_like_a_clock() -> None:
    assert [format_duration(s) for s in (7.6, 63, 3599, 7500)] == ["8 s", "1 min 03 s", "59 min 59 s", "2 h 05 min"]


def test_a_correlation_of_noise_with_itself_is_never_negative():
    """Two negative corrected variances have a positive product, which once gave a correlation of -1."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        noise = np.abs(rng.normal(size=(16, 24)))
        found = jackknife.correlation(noise, noise + 0.01 * rng.normal(size=noise.shape), paired=True)
        assert not found.value < 0, (seed, found)
