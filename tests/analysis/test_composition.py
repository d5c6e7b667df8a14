"""Combination fits: recovery of known weights, null models, ceilings and verdicts."""

from __future__ import annotations

import json
import math

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb.analysis.composition.design import OTHERS, SHRINKAGE, SHUFFLED_ANSWERS
from headnb.analysis.composition.least_squares import Form, r_squared, uncentred_r_squared
from headnb.analysis.composition.null_models import MEAN, PERMUTED, SINGLE
from headnb.errors import HeadnbError
from scipy import optimize, stats

from combined_changes import BASICS, combined_change
from simulated_finetuning import FineTuning, flat, random_change, scores_of, similar_populations

TARGET = random_change(3, "sgsm")


def fit(target=TARGET, basics=BASICS, **options):
    return headnb.fit_combination(target, basics, **{"permutations": 50, "resamples": 20, **options})


def test_known_weights_come_back_exactly_without_noise():
    found = fit(combined_change({"gsm8k": 0.7, "mbpp": 0.2}, noise=0))
    np.testing.assert_allclose(found.weights, [0.7, 0.2], rtol=1e-9)
    assert (found.r2, found.r2_cv) == pytest.approx((1, 1))
    assert found.target == "sgsm"
    norms = [np.linalg.norm(flat(pair)) for pair in BASICS.values()]
    np.testing.assert_allclose(found.contributions, [0.7 * norms[0], 0.2 * norms[1]], rtol=1e-9)


def test_negative_weight_is_zero_in_the_fit_and_itself_in_the_ordinary_one():
    found = fit(combined_change({"gsm8k": 0.7, "mbpp": -0.2}, noise=0))
    assert found.weights.sel(basic="mbpp") == 0
    assert found.selected.sel(basic="gsm8k") == 1
    np.testing.assert_allclose(found.ordinary.weights, [0.7, -0.2], rtol=1e-9)
    np.testing.assert_allclose(
        fit(combined_change({"gsm8k": 0.7, "mbpp": -0.2}, noise=0), nonnegative=False).weights, [0.7, -0.2]
    )


@pytest.mark.parametrize("on", ["change", "after"])
@pytest.mark.parametrize("scale_free", [False, True], ids=["raw", "scale-free"])
def test_fit_is_scipys_to_patterns_taken_the_plain_way(on, scale_free):
    def pattern(pair):
        before, after = (np.abs(stage["score"].values).mean(axis=0).ravel() for stage in pair)
        if scale_free:
            before, after = before / before.mean(), after / after.mean()
        return after - before if on == "change" else after

    y, X = pattern(TARGET), np.column_stack([pattern(pair) for pair in BASICS.values()])
    found = fit(on=on, scale_free=scale_free)
    weights, error = optimize.nnls(X, y)
    np.testing.assert_allclose(found.weights, weights, atol=1e-12)
    assert found.r2 == pytest.approx(1 - error**2 / ((y - y.mean()) ** 2).sum())
    np.testing.assert_allclose(found.fitted.values.ravel(), X @ weights)
    ordinary, *_ = np.linalg.lstsq(X, y)
    np.testing.assert_allclose(found.ordinary.weights, ordinary)
    assert found.r2 <= found.ordinary.r2 + 1e-12


def test_null_of_shrinkage_is_the_regression_on_the_pattern_before():
    with_intercept = fit(intercept=True, nonnegative=False)
    before = np.abs(TARGET[0]["score"].values).mean(axis=0).ravel()
    by_scipy = stats.linregress(before, flat(TARGET))
    row = with_intercept.nulls.loc[SHRINKAGE]
    assert (row["r2"], row["weight"]) == pytest.approx((by_scipy.rvalue**2, by_scipy.slope))
    plain = fit().nulls.loc[SHRINKAGE]
    assert plain["weight"] == pytest.approx(before @ flat(TARGET) / (before @ before))


def test_other_null_models_equal_scipys_correlations():
    others = {"boolq": random_change(5, "boolq"), "arc": random_change(6, "arc")}
    shuffled = random_change(7, "sgsm")
    found = fit(others=others, shuffled=shuffled, intercept=True, nonnegative=False).nulls
    mean = (flat(others["boolq"]) + flat(others["arc"])) / 2
    y = flat(TARGET)
    singles = [stats.pearsonr(flat(pair), y).statistic ** 2 for pair in BASICS.values()]
    assert found.loc[OTHERS, "r2"] == pytest.approx(stats.pearsonr(mean, y).statistic ** 2)
    assert found.loc[SHUFFLED_ANSWERS, "r2"] == pytest.approx(stats.pearsonr(flat(shuffled), y).statistic ** 2)
    assert found.loc[SINGLE, "r2"] == pytest.approx(max(singles))
    assert found.loc[MEAN, ["r2", "r2_cv"]].tolist() == [0, 0]
    assert list(found.index) == [MEAN, SHRINKAGE, OTHERS, SHUFFLED_ANSWERS, SINGLE, PERMUTED]


def test_verdict_names_the_shrinkage_of_patterns_that_only_shrank():
    """after = c * before in every task: the fit has a high R^2, and the verdict names the shrinkage."""
    rng = np.random.default_rng(8)
    tuned = [
        FineTuning.of(one, c * one.activation_levels)
        for one, c in zip(similar_populations(rng, 0.5, 3, 0.9), (0.4, 0.5, 0.6), strict=True)
    ]
    target, *basics = (one.draw(rng, 256, task) for one, task in zip(tuned, ("sgsm", "gsm8k", "mbpp"), strict=True))
    found = fit(target, dict(zip(("gsm8k", "mbpp"), basics, strict=True)))
    assert found.r2_corrected.value > 0.6
    row = found.nulls.loc[SHRINKAGE]
    assert row["high"] < 0
    assert f"Shrinkage alone ({1 + row['weight']:.2f} times the pattern before fine-tuning)" in found.verdict
    assert 1 + row["weight"] == pytest.approx(0.4, abs=0.05)


def test_corrected_weights_of_a_composition_cover_it_and_the_fit_beats_its_null_models():
    rng = np.random.default_rng(9)
    before = similar_populations(rng, 0.5, 3)
    basics = [FineTuning.of(one, one.activation_levels * rng.lognormal(sigma=0.5, size=270)) for one in before[1:]]
    levels = before[0].activation_levels + 0.6 * basics[0].change + 0.5 * basics[1].change
    tuned = [FineTuning.of(before[0], levels), *basics]
    target, *drawn = (one.draw(rng, 128, task) for one, task in zip(tuned, ("sgsm", "gsm8k", "mbpp"), strict=True))
    found = fit(target, dict(zip(("gsm8k", "mbpp"), drawn, strict=True)), permutations=200)
    low, high = found.interval["low"].values, found.interval["high"].values
    assert ((low < [0.6, 0.5]) & (high > [0.6, 0.5])).all()
    assert found.r2 < found.ceiling < found.r2_corrected.high
    assert (found.nulls["p"] < 0.05).all()


def test_uncentred_r_squared_equals_a_regression_without_a_constant_and_is_labelled():
    """statsmodels reports 1 - SSE / sum of squares if there is no constant; computed here by hand."""
    found = fit(nonnegative=False)
    y, X = flat(TARGET), np.column_stack([flat(pair) for pair in BASICS.values()])
    error = y - X @ np.linalg.lstsq(X, y)[0]
    assert found.r2_uncentred == pytest.approx(1 - error @ error / (y @ y))
    before = np.abs(TARGET[0]["score"].values).mean(axis=0).ravel()
    error = y - before * (before @ y) / (before @ before)
    assert found.nulls.loc[SHRINKAGE, "r2_uncentred"] == pytest.approx(1 - error @ error / (y @ y))
    label = "uncentred: high without composition"
    texts = (found.verdict, repr(found), found._repr_html_(), " ".join(found.plot().words))
    assert all(label in text for text in texts)
    assert found.to_dict()["r2_uncentred"] == found.r2_uncentred


def test_patterns_that_only_shrank_have_a_high_uncentred_r_squared():
    """Two patterns that correlate at 0.55, after = 0.5 before: uncentred 0.80, centred 0.35 (by simulation)."""
    rng = np.random.default_rng(1)
    base = rng.standard_normal((2, 100_000))
    base[1] = 0.55 * base[0] + np.sqrt(1 - 0.55**2) * base[1]
    y, x = -0.5 * (2 + base)  # coefficient of variation 0.5
    fitted = x * (x @ y) / (x @ x)
    assert uncentred_r_squared(y, fitted) == pytest.approx(0.83, abs=0.01)
    assert r_squared(x[:, None], y, Form(intercept=True, nonnegative=False)) == pytest.approx(0.55**2, abs=0.01)


def test_noise_attenuates_the_weights_and_the_corrected_ones_are_the_populations():
    """Mean over simulations: 12 samples with noise as large as the change make the plain weight too small."""
    rng = np.random.default_rng(10)
    levels = rng.lognormal(sigma=0.3, size=(2, 8, 5))
    plain, corrected = [], []
    for _ in range(60):
        draw = [[scores_of(level * rng.gamma(4, 1 / 4, (12, 8, 5)), task) for level in levels] for task in ("a", "b")]
        found = fit(tuple(draw[0]), {"b": tuple(draw[1])}, permutations=1, resamples=1)
        plain.append(float(found.ordinary.weights[0]))
        corrected.append(float(found.interval["value"][0]))
    error = np.std(corrected) / np.sqrt(60)
    assert np.mean(plain) < 1 - 5 * error
    assert abs(np.mean(corrected) - 1) < 4 * error


def test_tasks_with_fewer_than_three_training_runs_are_named():
    assert "it needs at least 3 training runs of each task, with different seeds; too few for sgsm (1)" in fit().verdict
    assert "too few for gsm8k (1) and mbpp (1)" in fit([TARGET] * 3).verdict
    three = {name: [pair] * 3 for name, pair in BASICS.items()}
    assert "training runs" not in fit([TARGET] * 3, three).verdict


def test_training_runs_are_averaged_and_their_differences_widen_intervals():
    runs = [
        (
            TARGET[0],
            scores_of(
                np.abs(TARGET[1]["score"].values) * (1 + 0.4 * np.random.default_rng(s).standard_normal((8, 5))), "sgsm"
            ),
        )
        for s in range(3)
    ]
    found, alone = fit(runs), fit(runs[0])
    np.testing.assert_allclose(found.observed.values.ravel(), np.mean([flat(run) for run in runs], axis=0))
    assert found.runs.sel(task="sgsm") == 3
    assert (found.interval["high"] - found.interval["low"] > alone.interval["high"] - alone.interval["low"]).all()
    assert found.ceiling < alone.ceiling


def test_patterns_and_differences_without_samples_give_fits_without_noise():
    patterns = {name: tuple(stage.heads.pattern() for stage in pair) for name, pair in BASICS.items()}
    target = tuple(stage.heads.pattern() for stage in TARGET)
    from_patterns = fit(target, patterns, name="sgsm")
    differences = {name: after - before for name, (before, after) in patterns.items()}
    from_differences = fit(target[1] - target[0], differences)
    for found in (from_patterns, from_differences):
        np.testing.assert_allclose(found.weights, fit().weights)
        assert math.isnan(found.ceiling)
        assert not found.supported
        assert "No verdict on composition: it needs scores per sample" in found.verdict
        assert "The noise is unknown" in found.verdict
    assert SHRINKAGE in from_patterns.nulls.index
    assert SHRINKAGE not in from_differences.nulls.index


def test_heads_that_are_nan_anywhere_are_left_out():
    holes = BASICS["gsm8k"][1].copy(deep=True)
    holes["score"][:, 2] = np.nan
    found = fit(basics={**BASICS, "gsm8k": (BASICS["gsm8k"][0], holes)})
    present = np.delete(np.arange(40), np.s_[10:15])
    X = np.column_stack([flat(pair) for pair in BASICS.values()])[present]
    np.testing.assert_allclose(found.weights, optimize.nnls(X, flat(TARGET)[present])[0], atol=1e-12)
    assert np.isnan(found.fitted.sel(layer=2)).all()


def test_tasks_on_the_same_samples_share_their_noise():
    """A basic identical to the target, on the same samples, has weight 1 without uncertainty."""
    found = fit(TARGET, {"same": TARGET}, name="sgsm")
    assert found.interval["value"].item() == pytest.approx(1)
    assert found.interval["high"].item() - found.interval["low"].item() < 1e-6


def test_verdict_names_collinear_basics():
    twin = tuple(
        scores_of(np.abs(stage["score"].values) * f, "twin")
        for stage, f in zip(BASICS["gsm8k"], (1, 1.001), strict=True)
    )
    found = fit(basics={"gsm8k": BASICS["gsm8k"], "twin": twin})
    assert found.condition > 30
    assert "their patterns are nearly collinear" in found.verdict


def test_result_is_a_table_in_text_html_and_json():
    found = fit()
    assert "gsm8k" in repr(found)
    assert found.verdict in repr(found)
    assert found._repr_html_().count("<table") == 2
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [row["basic"] for row in plain["weights"]] == ["gsm8k", "mbpp"]
    assert plain["nulls"][0] == {**plain["nulls"][0], "null": MEAN, "r2": 0.0, "weight": None}


def test_names_in_html_are_escaped():
    assert "<i>sgsm" not in fit(name="<i>sgsm")._repr_html_()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"basics": {}}, "no basic tasks"),
        ({"on": "afters"}, "did you mean 'after'"),
        ({"basics": {"gsm8k": 3}}, "gsm8k: expected a .before, after. pair"),
        ({"basics": {"sgsm": TARGET}}, "both the target and a basic"),
        ({"others": {"gsm8k": TARGET}}, "both a basic and another"),
        ({"basics": {"gsm8k": random_change(1, "gsm8k", layers=3)}}, "8 x 5 heads and basic gsm8k has 3 x 5"),
        ({"target": flat(TARGET)}, "target: expected"),
        ({"level": 95}, "between 0 and 1"),
        ({"intercepts": True}, "did you mean 'intercept'"),
        (
            {"target": TARGET[1].heads.pattern() - TARGET[0].heads.pattern(), "on": "after"},
            "difference alone",
        ),
        ({"target": (TARGET[0], TARGET[1].heads.pattern())}, "both be scores, or both be patterns"),
    ],
)
def test_invalid_fits_raise_an_error(options, message):
    with pytest.raises(HeadnbError, match=message):
        fit(**options)


def test_without_samples_there_is_no_selection_frequency():
    bare = {name: after.heads.pattern() - before.heads.pattern() for name, (before, after) in BASICS.items()}
    found = headnb.fit_combination(TARGET, bare, permutations=20, resamples=5)
    assert np.isnan(found.selected).all()
    assert np.isnan(found.interval["low"]).all()
    assert "in resamples" not in repr(found.plot())
    assert found.to_dict()["weights"][0]["selected"] is None
    assert fit().selected.notnull().all()


def test_signed_scores_have_no_scale_free_form():
    signed = tuple(stage.assign_attrs(reduction="mean") for stage in TARGET)
    with pytest.raises(HeadnbError, match="are signed"):
        fit(signed, scale_free=True)
    assert isinstance(fit(signed).weights, xr.DataArray)
