"""Means over training runs: against hand calculations and a crossed interval of one task, and coverage."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from headnb.analysis.training_means import DIMS, direction, format_estimate, mean_over_trainings, on_own_task
from headnb.errors import HeadnbError
from headnb.stats.estimates import Estimate
from headnb.stats.run_variance import RunNoise
from scipy import stats


def array(values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(values, dims=DIMS)


def test_the_mean_of_one_training_has_the_noise_of_seeds_and_samples() -> None:
    values = np.random.default_rng(0).normal(size=(1, 3, 1, 20)) + 1
    one = mean_over_trainings(array(values[:, :1]))
    expected = stats.ttest_1samp(values[0, 0, 0], 0).confidence_interval(0.95)
    assert (one.low, one.high) == pytest.approx((expected.low, expected.high))
    several = mean_over_trainings(array(values))
    of_samples, of_seeds = (stats.sem(values[0, :, 0].mean(axis=axis)) ** 2 for axis in (0, 1))
    half = RunNoise(np.array(of_samples), 19, np.array(of_seeds), 2).half_width()
    assert (several.value, several.high - several.value) == pytest.approx((values.mean(), float(half)))
    assert several.samples == 20


def test_every_trained_and_every_evaluated_task_counts_the_same() -> None:
    values = np.full((2, 1, 3, 4), np.nan)
    values[0, 0, 0, :2] = [1, 3]  # 2
    values[0, 0, 1] = 6
    values[1, 0, 2, :3] = [9, 10, 11]
    found = mean_over_trainings(array(values))
    assert found.value == pytest.approx(((2 + 6) / 2 + 10) / 2)
    # The three evaluated tasks have weights 1/4, 1/4, 1/2 and variances of means 2/2, 0, 1/3.
    se = np.sqrt(1 / 16 * 1 + 1 / 4 / 3)
    df = se**4 / ((1 / 16) ** 2 / 1 + (1 / 12) ** 2 / 2)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, df) * se)


def test_order_of_dims_and_padding_change_nothing() -> None:
    values = array(np.random.default_rng(1).normal(size=(2, 3, 2, 8)))
    padded = values.pad(sample=(0, 3)).transpose("sample", "seed", "evaluated", "trained")
    one, other = mean_over_trainings(values), mean_over_trainings(padded)
    assert (one.value, one.low, one.high, one.samples) == pytest.approx((other.value, other.low, other.high, 16))


@pytest.mark.parametrize("own", [True, False])
def test_intervals_cover_the_mean_over_new_samples_and_new_trainings(own: bool) -> None:
    rng = np.random.default_rng(2)
    tasks, seeds, n, level = 3, 3, 12, 0.9
    diagonal = np.eye(tasks, dtype=bool)[:, None, :, None]
    covered = 0
    for _ in range(600):
        run = rng.normal(size=(tasks, seeds, 1, 1))  # effect of a training run on every task
        sample = rng.normal(size=(1, 1, tasks, n)) * 2  # effect of a sample in every training run
        values = 0.5 + run + sample + rng.normal(size=(tasks, seeds, tasks, n))
        found = mean_over_trainings(array(np.where(diagonal == own, values, np.nan)), level)
        covered += found.low <= 0.5 <= found.high
    assert 0.87 <= covered / 600 <= 0.97  # standard error 0.012; with few variances intervals are conservative


def test_the_own_task_is_what_a_trained_task_is_evaluated_on() -> None:
    values = np.random.default_rng(3).normal(size=(2, 3, 5))
    given = xr.DataArray(values, {"trained": ["a", "b"]}, ("trained", "seed", "sample"))
    found = on_own_task(given).transpose(*DIMS)
    assert found.shape == (2, 3, 2, 5)
    np.testing.assert_array_equal([found[0, :, 0], found[1, :, 1]], values)
    assert found.isnull().sum() == values.size
    assert mean_over_trainings(found).value == pytest.approx(values.mean())


def test_a_direction_is_that_of_an_interval_without_zero() -> None:
    values = np.array([1.0, 1.2, 1.1, 0.9]).reshape(1, 1, 1, 4)
    shifts = {0.0: 1, -2.0: -1, -1.0: 0}
    assert {shift: direction(mean_over_trainings(array(values + shift))) for shift in shifts} == shifts
    assert direction(mean_over_trainings(array(values[..., :1]))) == 0


def test_estimates_as_text_have_a_sign_where_they_are_changes() -> None:
    found = Estimate(0.25, -0.125, 0.5, 0.95, 8, 0.25)
    assert format_estimate(found) == "+0.25 [−0.12, +0.50]"
    assert format_estimate(found, "") == "0.25 [−0.12, 0.50]"
    assert format_estimate(Estimate(-1.5, np.nan, np.nan, 0.95, 1, 0.0)) == "−1.50"


def test_one_sample_has_no_interval() -> None:
    found = mean_over_trainings(array(np.ones((1, 1, 1, 1))))
    assert found.value == 1
    assert np.isnan([found.low, found.high]).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (xr.DataArray(np.ones((2, 2)), dims=("seed", "sample")), "needs the dims trained, seed"),
        (array(np.array([1.0, np.nan]).reshape(1, 2, 1, 1)), "some seeds lack"),
        (array(np.array([1.0, np.nan]).reshape(2, 1, 1, 1)), "has no values"),
    ],
)
def test_invalid_values_are_refused(values: xr.DataArray, message: str) -> None:
    with pytest.raises(HeadnbError, match=message):
        mean_over_trainings(values)
