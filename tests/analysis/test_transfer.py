"""Prediction of transfer on simulated matrices: nothing is found where nothing is, and a signal is found."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from headnb import HeadnbError
from headnb.analysis.transfer import MIN_TASKS, predict_transfer
from scipy import stats

DIMS = ("trained", "evaluated")


def matrix(values, dims=DIMS):
    names = [f"task{i}" for i in range(len(values))]
    return xr.DataArray(values, dict.fromkeys(dims, names), dims)


def similarity(rng, tasks):
    """Pairs that share a task are correlated: latent vectors, and effects of the trained and the evaluated task."""
    latent = rng.normal(size=(tasks, 3))
    return latent @ latent.T + rng.normal(size=tasks) + rng.normal(size=(tasks, 1))


def simulated(seed, tasks, signal):
    """Gain = baselines + signal * predictor + noise; `nothing` is independent of it, and similar to the text."""
    rng = np.random.default_rng(seed)
    loss, text, predictor = rng.normal(size=tasks), similarity(rng, tasks), similarity(rng, tasks)
    gain = loss + 0.5 * text + signal * predictor + 0.5 * similarity(rng, tasks) + 0.3 * rng.normal(size=(tasks, tasks))
    nothing = similarity(rng, tasks) + text
    predictors = {"predictor": matrix(predictor), "nothing": matrix(nothing)}
    return matrix(gain), predictors, {"loss": matrix(loss, ("evaluated",)), "text": matrix(text)}


def test_no_predictor_works_where_none_carries_the_signal():
    """Tasks are the unit: permuting pairs would call a quarter of these predictors working."""
    replicates, tasks, working, skills = 60, 10, 0, []

    def with_effects(rng):
        return matrix(
            0.5 * rng.normal(size=(tasks, tasks)) + 4 * (rng.normal(size=tasks) + rng.normal(size=(tasks, 1)))
        )

    for seed in range(replicates):
        rng = np.random.default_rng(seed)
        text, predictor, rest = (with_effects(rng) for _ in range(3))
        found = predict_transfer(text + rest, {"x": predictor}, {"text": text}, permutations=39).predictors.loc["x"]
        working += found["works"]
        skills.append(found["skill"])
    assert working <= stats.binom.ppf(0.99, replicates, 0.05)
    assert np.median(skills) < 0


def test_a_predictor_that_carries_the_signal_is_found_and_said():
    results = [predict_transfer(*simulated(seed, 8, 1.5), permutations=99) for seed in range(12)]
    assert sum(result.predictors["works"]["predictor"] for result in results) >= 10
    assert sum(result.predictors["works"]["nothing"] for result in results) <= 3
    result = results[0]
    assert result.predictors["r2"]["predictor"] > result.r2_baselines
    assert "predictor predicts transfer beyond the baselines" in result.verdict
    assert "nothing does not predict transfer beyond the baselines" in result.verdict
    assert result.to_dict()["predictors"][0]["predictor"] == "predictor"


def test_skill_is_that_of_fits_without_each_task():
    gain, predictors, baselines = simulated(3, 6, 1)
    found = predict_transfer(gain, predictors, baselines, permutations=9)
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]

    def error(*columns):
        design = np.array([[1, *(float(column[pair]) for column in columns)] for pair in pairs])
        y, total = np.array([float(gain[pair]) for pair in pairs]), 0.0
        for task in range(6):
            left_out = np.array([task in pair for pair in pairs])
            weights = np.linalg.lstsq(design[~left_out], y[~left_out], rcond=None)[0]
            total += ((y - design @ weights)[left_out] ** 2).sum()
        return total

    x, text = predictors["predictor"].values, baselines["text"].values
    loss = np.tile(baselines["loss"].values, (6, 1))
    row = found.predictors.loc["predictor"]
    assert row["skill"] == pytest.approx(1 - error(loss, text, x) / error(loss, text))
    assert row["r2"] == pytest.approx(1 - error(loss, text, x) / error())
    assert row["r2_alone"] == pytest.approx(1 - error(x) / error())
    assert found.r2_baselines == pytest.approx(1 - error(loss, text) / error())


def test_a_predictor_that_the_baselines_contain_is_no_finding():
    """What is left of it is rounding, whose permutations must not be a null distribution."""
    gain, predictors, baselines = simulated(3, 6, 1)
    copy = 3 * baselines["text"] + 2 * baselines["loss"] - 1
    found = predict_transfer(gain, {"copy": copy, "predictor": predictors["predictor"]}, baselines).predictors
    assert found["skill"]["copy"] == pytest.approx(0, abs=1e-9)
    assert found["p_value"]["copy"] == 1


def test_gains_without_differences_are_refused():
    gain, predictors, baselines = simulated(3, 6, 1)
    with pytest.raises(HeadnbError, match="nothing to predict"):
        predict_transfer(gain * 0 + 1, predictors, baselines)


def test_names_order_and_diagonal_do_not_matter():
    gain, predictors, baselines = simulated(3, 6, 1)
    first = predict_transfer(gain, predictors, baselines, permutations=9)
    turned = {name: values[::-1, ::-1] + 7 * np.eye(6) for name, values in predictors.items()}
    second = predict_transfer(gain, turned, baselines, permutations=9)
    np.testing.assert_allclose(second.predictors["skill"], first.predictors["skill"])


def test_too_few_tasks_are_not_tested_and_missing_values_are_refused():
    few = predict_transfer(*simulated(0, MIN_TASKS - 1, 1))
    assert few.verdict == "Transfer is not tested: that needs 5 trained tasks, and there are 4."
    assert not few.predictors["works"].any()
    gain, predictors, baselines = simulated(0, 5, 1)
    with pytest.raises(HeadnbError, match="is missing for some pairs"):
        predict_transfer(gain.where(gain["trained"] != "task1"), predictors, baselines)
    with pytest.raises(HeadnbError, match="is missing for some pairs"):
        predict_transfer(gain, {name: values[1:] for name, values in predictors.items()}, baselines)
    with pytest.raises(HeadnbError, match="has the dims step besides trained and evaluated"):
        predict_transfer(gain, {name: values.expand_dims(step=2) for name, values in predictors.items()}, baselines)
    with pytest.raises(HeadnbError, match="too many for 5 tasks"):
        predict_transfer(gain, predictors, {str(i): baselines["text"] for i in range(11)})


def test_without_baselines_the_verdict_names_none():
    gain, predictors, _ = simulated(0, 8, 1.5)
    verdict = predict_transfer(gain, predictors, {}, permutations=9).verdict
    assert "Without baselines, the mean gain has R²" in verdict
    assert "baselines (" not in verdict
    assert "beyond the baselines" not in verdict
