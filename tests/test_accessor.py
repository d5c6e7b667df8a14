"""`.heads` on scores, comparisons and patterns."""

from __future__ import annotations

import math
import subprocess
import sys

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb.errors import HeadnbError
from headnb.stats.estimates import Estimate
from scipy import stats

from simulated_finetuning import scores_of


@pytest.fixture
def scores() -> xr.Dataset:
    rng = np.random.default_rng(0)
    level = np.arange(1, 13).reshape(3, 4)
    score = level * rng.normal(size=(20, 3, 4))
    score[:, 1, 0] = np.nan
    return xr.Dataset(
        {
            "score": (("sample", "layer", "head"), score.astype(np.float32)),
            "loss": ("sample", np.ones(20)),
            "answer_tokens": ("sample", np.arange(1, 21)),
        },
        coords={"sample": [f"s{i}" for i in range(20)], "layer": range(3), "head": range(4)},
        attrs={
            "model": "tiny",
            "task": "sums",
            "method": "activation",
            "reduction": "mean-abs",
            "loss_reduction": "sum",
        },
    )


def levels_of(scores: xr.Dataset) -> np.ndarray:
    values = np.abs(scores["score"].values.astype(float)).reshape(scores.sizes["sample"], -1)
    return values[:, ~np.isnan(values).any(axis=0)]


def test_importing_headnb_registers_heads_and_loads_nothing_heavy():
    code = (
        "import sys, xarray, headnb; xarray.Dataset().heads; "
        "print([m for m in ('torch', 'scipy', 'zarr', 'IPython', 'headnb.stats.descriptive') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pattern_statistics_are_plain_floats(scores):
    pattern = scores.heads.pattern()
    x = levels_of(scores).mean(axis=0)
    assert isinstance(pattern.heads.gini(), float)
    assert pattern.heads.cv() == pytest.approx(x.std() / x.mean())
    assert pattern.heads.kurtosis() == pytest.approx(stats.kurtosis(x))
    assert pattern.heads.gini() == pytest.approx(np.abs(x[:, None] - x).mean() / (2 * x.mean()))


def test_study_statistics_keep_the_leading_dim(scores):
    pattern = scores.heads.pattern()
    study = xr.concat([pattern, pattern.heads.scale_free()], dim="stage").assign_coords(stage=["raw", "free"])
    found = study.heads.gini()
    assert found.dims == ("stage",)
    assert found.values == pytest.approx([pattern.heads.gini()] * 2)
    assert study.heads.correlation(dim="stage").values == pytest.approx(np.ones((2, 2)))
    with pytest.raises(HeadnbError, match="several along stage"):
        study.heads.top()


def test_scores_statistics_are_estimates_with_intervals(scores):
    for estimate in (scores.heads.gini(), scores.heads.cv(), scores.heads.kurtosis(), scores.heads.gini(level=0.8)):
        assert isinstance(estimate, Estimate)
        assert estimate.low < estimate.value < estimate.high
        assert estimate.samples == 20
    assert scores.heads.gini().uncorrected == pytest.approx(scores.heads.pattern().heads.gini())
    wide, narrow = scores.heads.gini(), scores.heads.gini(level=0.8)
    assert narrow.high - narrow.low < wide.high - wide.low


def test_correlation_of_patterns_and_of_scores(scores):
    other = scores.assign(score=scores["score"] ** 2)
    one, two = levels_of(scores).mean(axis=0), levels_of(other).mean(axis=0)
    r = stats.pearsonr(one, two).statistic
    assert scores.heads.pattern().heads.correlation(other.heads.pattern()) == pytest.approx(r)
    paired = scores.heads.correlation(other)
    assert paired.uncorrected == pytest.approx(r)
    assert scores.heads.correlation(other.isel(sample=slice(10))).samples == 10
    independent = scores.heads.correlation(other.isel(sample=slice(10)).assign_attrs(task="other"))
    assert independent.samples == 10
    assert independent.uncorrected == pytest.approx(stats.pearsonr(one, levels_of(other)[:10].mean(axis=0)).statistic)


def test_correlation_of_scores_refuses_other_samples_and_other_heads(scores):
    scores = scores.assign(fingerprint=("sample", np.arange(20)))
    other = scores.assign(fingerprint=("sample", np.arange(20) + 1))
    with pytest.raises(HeadnbError, match="20 of 20 sample ids"):
        scores.heads.correlation(other)
    renamed = other.assign_attrs(task="other")  # now independent, as the message suggests
    assert scores.heads.correlation(renamed).samples == 20
    for task in ("sums", "other"):  # paired and independent
        turned = scores.isel(layer=[2, 1, 0]).assign_attrs(task=task)
        with pytest.raises(HeadnbError, match="layer 0 before corresponds to layer 2 after"):
            scores.heads.correlation(turned)


def test_evidence_is_the_same_on_scores_and_their_pattern(scores):
    evidence = scores.heads.evidence()
    assert evidence.samples == 20
    assert evidence == scores.heads.pattern().heads.evidence()
    assert evidence.reliability == scores.heads.reliability() == scores.heads.pattern().heads.reliability()
    r = evidence.reliability
    assert evidence.samples_for_090 == math.ceil(20 * 0.9 * (1 - r) / (r * 0.1))


def test_interval_holds_each_heads_mean(scores):
    means = scores.heads.interval(0.9)
    assert means["low"].dims == ("layer", "head")
    present = means["value"].notnull()
    np.testing.assert_allclose(means["value"].values[present], levels_of(scores).mean(axis=0), rtol=1e-9)
    assert ((means["low"] <= means["value"]) & (means["value"] <= means["high"])).where(present, True).all()
    assert (means["low"].where(present, 0) >= 0).all()
    assert means.attrs["interval_level"] == 0.9


def test_top_names_the_strongest_heads(scores):
    pattern = scores.heads.pattern()
    table = pattern.heads.top(3)
    flat = pattern.values.ravel()
    best = np.argsort(-np.nan_to_num(flat))[:3]
    assert table.index.tolist() == [f"L{i // 4}H{i % 4}" for i in best]
    assert table["value"].tolist() == pytest.approx(flat[best])
    with_ranks = scores.heads.top(3)
    assert with_ranks.index.tolist() == table.index.tolist()
    assert ((with_ranks["rank_low"] <= [1, 2, 3]) & (with_ranks["rank_high"] >= [1, 2, 3])).all()
    assert len(pattern.heads.top(100)) == 11  # one head of twelve is NaN


@pytest.mark.parametrize("k", [0, -3, 2.5, "3"])
def test_top_is_of_at_least_one_head(scores, k):
    for ranked in (scores, scores.heads.pattern(), headnb.compare(scores, scores)):
        with pytest.raises(HeadnbError, match="k must be a whole number"):
            ranked.heads.top(k)
    assert len(scores.heads.top(np.int64(2))) == 2


@pytest.mark.parametrize("method", ["gini", "cv", "kurtosis", "interval", "top"])
def test_a_level_in_percent_is_refused(scores, method):
    with pytest.raises(HeadnbError, match=r"level must lie between 0 and 1, such as 0.95; got 95"):
        getattr(scores.heads, method)(level=95)


def test_selection_by_head_name(scores):
    pattern = scores.heads.pattern()
    assert pattern.heads["L2H3"] == pytest.approx(float(pattern[2, 3]))
    picked = pattern.heads.select("L2H3,L0H1")
    assert picked["selected"].values.tolist() == ["L2H3", "L0H1"]
    assert picked.values.tolist() == [float(pattern[2, 3]), float(pattern[0, 1])]
    assert scores.heads["L2H3"]["score"].values.tolist() == scores["score"].values[:, 2, 3].tolist()
    with pytest.raises(HeadnbError, match="no head L9H0: the pattern has 3 layers of 4 heads"):
        pattern.heads["L9H0"]
    for heads in (pattern.heads, scores.heads):
        with pytest.raises(HeadnbError, match="names 2 heads"):
            heads["L0H0,L0H1"]


def test_comparison_has_heads_too(scores):
    after = scores.assign(score=scores["score"] * (1 + (scores["layer"] == 2)))
    change = headnb.compare(scores, after)
    assert change.heads.top(1).index[0].startswith("L2")
    assert bool(change.heads["L2H3"]["significant"])
    pattern = change.heads.pattern()
    assert pattern.attrs["kind"] == "difference"
    with pytest.raises(HeadnbError, match="these values are signed"):
        pattern.heads.gini()
    with pytest.raises(HeadnbError, match="these values are signed"):
        scores.assign_attrs(reduction="mean").heads.gini()
    with pytest.raises(HeadnbError, match="no variable 'score'"):
        change.heads.gini()
    assert change.heads.evidence().samples == 20


def test_layer_profile_skips_missing_heads(scores):
    profile = scores.heads.layer_profile()
    pattern = scores.heads.pattern()
    assert profile.dims == ("layer",)
    assert profile.values[1] == pytest.approx(pattern.values[1, 1:].mean())


def test_with_loss_and_normalisations_are_reachable(scores):
    assert scores.heads.with_loss("sample-mean").attrs["loss_reduction"] == "sample-mean"
    assert scores.heads.pattern("max").max() == 1
    assert scores.heads.pattern().heads.normalized("max").identical(scores.heads.pattern("max"))
    assert scores.heads.scale_free().mean() == pytest.approx(1)


@pytest.mark.parametrize(
    "signed",
    [
        lambda scores: scores.assign_attrs(reduction="mean").heads.pattern(),
        lambda scores: headnb.compare(scores, scores).difference,
        lambda scores: scores.heads.pattern() - 2 * scores.heads.pattern(),
    ],
)
def test_signed_patterns_are_not_divided_by_a_mean_that_may_be_zero(scores, signed):
    with pytest.raises(HeadnbError, match="scale_free needs activation levels"):
        signed(scores).heads.scale_free()


def test_what_is_no_pattern_says_so():
    with pytest.raises(HeadnbError, match="no dim layer"):
        xr.DataArray([1.0, 2.0], dims="head").heads.gini()
    with pytest.raises(HeadnbError, match="no variable 'score'"):
        xr.Dataset().heads.pattern()


def test_grid_is_a_head_grid(scores):
    from headnb.display.grid import HeadGrid

    for shown in (scores, scores.heads.pattern(), headnb.compare(scores, scores)):
        assert isinstance(shown.heads.grid(), HeadGrid)


@pytest.mark.parametrize("other", [3, "scores.zarr", None, xr.DataArray([1.0])])
def test_what_is_compared_with_scores_must_be_scores(scores: xr.Dataset, other: object) -> None:
    for call in (scores.heads.correlation, lambda other: headnb.compare(scores, other)):
        with pytest.raises(HeadnbError, match=rf"expected a Dataset of head scores .*, got {type(other).__name__}"):
            call(other)


@pytest.mark.parametrize("name", [3, (3, 1), [(3, 1)], None])
def test_what_is_not_the_name_of_a_head_is_refused(scores: xr.Dataset, name: object) -> None:
    for heads in (scores.heads, scores.heads.pattern().heads):
        with pytest.raises(HeadnbError, match="is not a head; write layer 3, head 10 as L3H10"):
            heads[name]


@pytest.mark.parametrize("kind", ["scores", "array", "number"])
def test_what_is_compared_with_a_pattern_must_be_a_pattern(scores: xr.Dataset, kind: str) -> None:
    other = {"scores": scores, "array": np.ones((2, 2)), "number": 3}[kind]
    with pytest.raises(HeadnbError, match=r"expected a pattern \(DataArray\), got \w+; scores\.heads\.pattern\(\)"):
        scores.heads.pattern().heads.correlation(other)


def test_scores_without_sample_ids_correlate_as_independent_ones():
    one, other = (
        scores_of(np.random.default_rng(0).random((8, 3, 4))),
        scores_of(np.random.default_rng(1).random((8, 3, 4))),
    )
    apart = other.assign_attrs(task="another task")
    without = other.drop_vars("sample")
    assert one.heads.correlation(without) == one.heads.correlation(apart)
    assert without.heads.correlation(one) == apart.heads.correlation(one)


@pytest.mark.parametrize("place", [0, 1])
def test_what_has_no_samples_has_no_corrected_correlation(place):
    scores = scores_of(np.random.default_rng(0).random((8, 3, 4)))
    for wrong in (headnb.compare(scores, scores * 2), scores.mean("sample", keep_attrs=True)):
        pair = (wrong, scores) if place == 0 else (scores, wrong)
        with pytest.raises(HeadnbError, match=r"not head scores|select one set of samples"):
            pair[0].heads.correlation(pair[1])
