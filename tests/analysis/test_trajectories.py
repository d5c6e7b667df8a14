"""Trajectories of a pattern's change, against hand calculations and changes of known speed."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb.analysis.trajectories import crossing, crossing_bounds
from headnb.errors import HeadnbError
from scipy import optimize

from simulated_tracking import EXPONENTIAL, STEPS, simulated_study


def shapes(rng):
    """`done` as a function of the step with a random speed: exponential, power-law and sudden; all end at 1."""
    scale = 80 ** rng.uniform(0.2, 0.7)
    power = rng.uniform(0.2, 0.8)
    return {
        "exponential": lambda step: (1 - np.exp(-step / scale)) / (1 - np.exp(-80 / scale)),
        "power": lambda step: (step / 80) ** power,
        "sudden": lambda step: 1 / (1 + np.exp(-8 * (np.log1p(step) - np.log1p(scale)))),
    }


def true_crossing(done, share: float) -> float:
    return optimize.brentq(lambda step: done(step) / done(80.0) - share, 1e-9, 80)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_crossings_of_an_exponential_approach_are_right_within_two_percent(share: float):
    errors = []
    for scale in np.geomspace(3, 20, 20):
        done = lambda step: (1 - np.exp(-step / scale)) / (1 - np.exp(-80 / scale))  # noqa: B023, E731
        errors.append(crossing(STEPS.astype(float), done(STEPS), share) / true_crossing(done, share) - 1)
    assert np.abs(errors).max() < 0.05
    assert np.abs(errors).mean() < 0.02


def test_crossing_counts_what_is_never_undone():
    steps = np.array([0.0, 10, 20, 30])
    assert 20 < crossing(steps, np.array([0, 0.7, 0.3, 1]), 0.5) < 30
    assert crossing(steps, np.array([0.6, 0.7, 0.8, 1]), 0.5) == 0
    assert math.isnan(crossing(steps, np.full(4, np.nan), 0.5))
    assert math.isnan(crossing(steps, np.array([0, 0.1, 0.2, 0.3]), 0.5))


def test_bounds_of_a_crossing_by_hand():
    steps = np.array([0.0, 1, 2, 5, 10, 20])
    low, high = np.array([0, 0.1, 0.2, 0.45, 0.6, 1]), np.array([0, 0.3, 0.45, 0.65, 0.8, 1])
    assert crossing_bounds(steps, low, high, 0.5) == (2, 10)
    assert crossing_bounds(steps, low, high, 0.9) == (10, 20)
    assert crossing_bounds(steps, low * 0, high, 0.9) == (10, 20)
    assert np.isnan(crossing_bounds(steps, low * np.nan, high, 0.5)).all()


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("shape", ["exponential", "power", "sudden"])
def test_bounds_cover_the_crossing(shape: str, share: float):
    """Limits cover each step in 95 % of cases; coverage below 93 % of 300 has a probability of about 1 / 1000."""
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(300):
        done = shapes(rng)[shape]
        truth, noise = true_crossing(done, share), rng.uniform(0.01, 0.1)
        seen = done(STEPS) / done(80.0) + noise * rng.standard_normal(8) * np.r_[0, np.ones(6), 0]
        margin = 1.96 * noise * np.r_[0, np.ones(6), 0]
        low, high = crossing_bounds(STEPS.astype(float), seen - margin, seen + margin, share)
        covered.append(low <= truth <= high)
    assert np.mean(covered) > 0.93


def test_without_noise_everything_is_as_the_patterns_have_it():
    study, scores = simulated_study(EXPONENTIAL)
    found = headnb.trajectory(study, scores)
    np.testing.assert_allclose(found.steps["done"], EXPONENTIAL, atol=1e-9)
    patterns = study["level"].sel(task="gsm8k").values.reshape(8, -1)
    np.testing.assert_allclose(found.steps["mse_final"], ((patterns - patterns[-1]) ** 2).mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(found.steps["mse_first"], ((patterns - patterns[0]) ** 2).mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(found.steps["correlation_final"], [np.corrcoef(p, patterns[-1])[0, 1] for p in patterns])
    np.testing.assert_allclose(found.steps["relative_distance"], 1 - EXPONENTIAL, atol=1e-6)
    assert found.half.value == pytest.approx(-8 * np.log(1 - 0.5 * (1 - np.exp(-10))), rel=0.02)
    assert found.ninety.value == pytest.approx(-8 * np.log(1 - 0.9 * (1 - np.exp(-10))), rel=0.02)
    assert found.seen(found.half.value) == pytest.approx(8 * found.half.value)
    assert found.steps["eval_loss"].values.tolist() == (2 - EXPONENTIAL).tolist()


def test_change_at_constant_speed_is_not_called_sharp():
    found = headnb.trajectory(*simulated_study(STEPS / 80))
    assert found.early_steps == 8
    assert found.early.value == pytest.approx(0.1, rel=0.01)
    assert found.early_speed.value == pytest.approx(1, rel=0.02)
    assert "no sharp early change" in found.verdict


@pytest.mark.parametrize("early", [None, 40])
def test_a_change_that_is_tracked_from_a_later_step_on_is_measured_from_there(early: int | None):
    study, scores = simulated_study(STEPS / 80)
    late = {"step": slice(10, None)}  # at constant speed
    found = headnb.trajectory(study.sel(late), scores.sel(late), early=early)
    assert found.early_steps == (early or 20)  # the second tracked step is after the first tenth
    assert found.early.value == pytest.approx((found.early_steps - 10) / 70, rel=0.01)
    assert found.early_speed.value == pytest.approx(1, rel=0.02)
    assert f"In steps 10 to {found.early_steps:g}, the change per step is 1.0" in found.verdict
    dense = study.sel(late).assign_coords(step=[100, 101, 102, 200])
    assert headnb.trajectory(dense).early_steps == 110


def test_early_change_is_called_sharp_by_its_interval():
    found = headnb.trajectory(*simulated_study(EXPONENTIAL, noise=0.5))
    assert found.early_speed.low > 1
    assert "a sharp early change" in found.verdict
    share = np.interp(8, STEPS, EXPONENTIAL)
    assert found.early.low < share < found.early.high


def test_distances_are_corrected_for_noise():
    """For patterns of equal expectation, the corrected squared distance is zero on average, the uncorrected is not."""
    finished = np.r_[0, np.ones(7)]
    found = [
        headnb.trajectory(*simulated_study(finished, noise=0.8, seed=seed)).steps.isel(step=3) for seed in range(40)
    ]
    corrected, plain = (np.array([one[f"mse_final{end}"].item() for one in found]) for end in ("", "_uncorrected"))
    assert abs(corrected.mean()) < 4 * corrected.std() / np.sqrt(40)
    assert plain.mean() > 10 * plain.std() / np.sqrt(40)


def test_half_of_the_parameter_distance_is_reported():
    """Parameter distance grows as the root of the steps, so half of it is reached at a quarter of the steps."""
    found = headnb.trajectory(*simulated_study(EXPONENTIAL))
    assert found.half_movement == pytest.approx(20)
    assert "distance is 2.00% (mean over layers); half of it is reached at step 20" in found.verdict


def test_crossings_of_noisy_curves_are_ordered_and_inside_their_intervals():
    noisy = [headnb.trajectory(*simulated_study(EXPONENTIAL, noise=0.8, n=6, seed=seed)) for seed in range(20)]
    changed = [found for found in noisy if np.isfinite(found.half.value)]
    assert len(changed) >= 10  # the others do not differ beyond noise
    for found in changed:
        done = found.steps["done"].values
        for estimate, share in ((found.half, 0.5), (found.ninety, 0.9)):
            np.testing.assert_equal(estimate.value, crossing(STEPS, done, share))
            assert estimate.low <= estimate.value <= estimate.high
        assert found.half.value <= found.ninety.value


def test_without_change_there_is_no_half_and_no_speed():
    found = headnb.trajectory(*simulated_study(np.zeros(8)))
    assert math.isnan(found.half.value)
    assert math.isnan(found.early_speed.value)
    assert found.verdict.startswith("The first and the last pattern of gsm8k do not differ beyond noise.")
    assert "nan" not in found.verdict


def test_an_unknown_speed_is_not_written_as_nan():
    found = headnb.trajectory(*simulated_study(EXPONENTIAL, noise=0.3))
    unknown = replace(found, early=replace(found.early, value=math.nan, low=math.nan, high=math.nan))
    assert "nan" not in unknown.verdict
    assert "The speed in the first 8 steps relative to later steps cannot be determined" in unknown.verdict


def test_study_without_scores_has_no_intervals():
    study, scores = simulated_study(EXPONENTIAL, noise=0.3)
    bare, whole = headnb.trajectory(study), headnb.trajectory(study, {"gsm8k": scores})
    assert math.isnan(bare.half.low)
    np.testing.assert_allclose(bare.steps["mse_final"], whole.steps["mse_final_uncorrected"], rtol=1e-6)
    assert np.isfinite(whole.half.low)
    assert "[" not in bare.verdict
    lean = headnb.trajectory(study[["level"]])
    assert math.isnan(lean.half_movement)
    assert math.isnan(lean.seen(3))


def test_scale_free_trajectory_ignores_a_pattern_that_only_shrinks():
    """All levels fall at once and the shape changes at constant speed; only the change of the shape counts."""
    study, scores = simulated_study(STEPS / 80)
    fall = xr.DataArray(np.r_[1.0, np.full(7, 0.3)], {"step": STEPS}, "step")
    fallen = (study.assign(level=study["level"] * fall), scores.assign(score=scores["score"] * fall))
    shape = headnb.trajectory(*fallen, scale_free=True).steps["done"]
    np.testing.assert_allclose(shape, headnb.trajectory(study, scores, scale_free=True).steps["done"], atol=1e-9)
    assert headnb.trajectory(*fallen).steps["done"][1] > 0.5


def test_result_is_text_html_and_json():
    found = headnb.trajectory(*simulated_study(EXPONENTIAL, noise=0.3))
    assert found.verdict in repr(found)
    assert "<table" in found._repr_html_()
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["samples_at_half"] == pytest.approx(8 * found.half.value)


def test_invalid_input_is_refused():
    study, scores = simulated_study(EXPONENTIAL)
    for arguments, options, message in (
        ((study,), {"task": "gsm8"}, "did you mean 'gsm8k'"),
        ((study.drop_vars("level"),), {}, "no variable 'level'"),
        ((study.isel(step=[0, 7]),), {}, "at least 3 tracked steps"),
        ((study, scores.isel(step=slice(1, None))), {}, "different steps"),
        ((study,), {"early": 80}, "early must lie between steps 0 and 80"),
        ((study, {"mbpp": scores}), {}, "unknown task 'gsm8k'"),
    ):
        with pytest.raises(HeadnbError, match=message):
            headnb.trajectory(*arguments, **options)
    with pytest.raises(HeadnbError, match="unknown count"):
        headnb.trajectory(study).seen(1, "tokens")


def test_signed_scores_are_not_divided_by_their_mean():
    study, scores = simulated_study(EXPONENTIAL)
    study["level"].attrs["kind"] = "signed"
    signed = scores.assign_attrs(reduction="mean")
    for arguments in ((study,), (study, signed)):
        with pytest.raises(HeadnbError, match="scale_free needs activation levels"):
            headnb.trajectory(*arguments, scale_free=True)
        headnb.trajectory(*arguments)


def test_equal_patterns_rarely_seem_to_change():
    """A two-sided 95 % interval lies above zero in 2.5 % of cases; more than 5 of 60 have a probability of 1 / 300."""
    found = [headnb.trajectory(*simulated_study(np.zeros(8), noise=0.5, n=16, seed=seed)) for seed in range(60)]
    assert sum("do not differ beyond noise" not in one.verdict for one in found) <= 5
    unchanged = [one for one in found if np.isnan(one.steps["done"]).all()]
    assert all(math.isnan(x) for one in unchanged for x in (one.half.value, one.half.uncorrected, one.early.value))


def test_a_small_change_is_found():
    """A tenth of the change between two independent patterns, with 16 samples."""
    small = 0.1 * EXPONENTIAL
    found = [headnb.trajectory(*simulated_study(small, noise=0.2, n=16, seed=seed)) for seed in range(20)]
    assert sum(np.isfinite(one.half.value) for one in found) >= 18


def test_a_linear_change_is_not_called_sharp_if_scale_free():
    """Dividing by the mean head bends the line a little."""
    found = headnb.trajectory(*simulated_study(STEPS / 80), scale_free=True)
    assert 1.05 < found.early_speed.value < 1.5
    assert "no sharp early change" in found.verdict


def test_scores_belong_to_the_task_of_the_study():
    """A study of two tasks, whose second has another pattern, and the scores of each."""
    (study, scores), (other, others) = simulated_study(EXPONENTIAL), simulated_study(STEPS / 80, seed=1)
    both = xr.concat([study, other.assign_coords(task=["svamp"])], "task", data_vars="minimal", coords="minimal")
    others = others.assign_attrs(task="svamp")
    with pytest.raises(HeadnbError, match="the scores are of 'svamp', not of 'gsm8k'"):
        headnb.trajectory(both, others)
    found = headnb.trajectory(both, others, task="svamp")
    chosen = headnb.trajectory(both.sel(task="svamp"), others)
    assert found.task == chosen.task == "svamp"
    assert found.verdict == chosen.verdict
    with pytest.raises(HeadnbError, match="unknown task 'gsm8k'"):
        headnb.trajectory(both.sel(task="svamp"), task="gsm8k")
    with pytest.raises(HeadnbError, match="different head dim"):
        headnb.trajectory(study, scores.isel(head=slice(3)))
