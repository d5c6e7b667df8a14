"""Identity of results: attributes apply to results, not to numbers that xarray computed from them.

References: the reliability of a difference is that of `headnb.compare`; values are those of numpy. Each test runs with
xarray keeping attributes (the default since 2025.11) and dropping them (the default before).
"""

from __future__ import annotations

import operator

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb import HeadnbError
from headnb.stats.patterns import normalized, pattern, scale_free
from headnb.stats.reliability import components
from headnb.stats.results import as_result, is_result
from headnb.stats.scoring_revision import SCORING_REVISION

N, LAYERS, HEADS = 24, 3, 4
CLAIMS = {"kind", "units", "reliability", "samples", "samples_for_090", "runs", "runs_for_090", "alpha"}


def scores(seed: int, **attrs: object) -> xr.Dataset:
    """Scores as `score_heads` returns them; heads differ more than samples, so that they are reliable."""
    random = np.random.default_rng(seed)
    strength = np.geomspace(0.1, 10, LAYERS * HEADS).reshape(LAYERS, HEADS)
    found = xr.Dataset(
        {
            "score": (("sample", "layer", "head"), strength * random.standard_normal((N, LAYERS, HEADS))),
            "loss": ("sample", random.random(N)),
            "fingerprint": ("sample", np.arange(N) * 7919),
        },
        coords={"sample": np.arange(N), "layer": np.arange(LAYERS), "head": np.arange(HEADS)},
        attrs={
            "model": f"model {seed}",
            "task": "gcd",
            "method": "activation",
            "reduction": "mean-abs",
            "loss_reduction": "sample-mean",
            "scoring_revision": SCORING_REVISION,
            **attrs,
        },
    )
    return as_result(found)


ONE, TWO = scores(1), scores(2)
P, Q = pattern(ONE), pattern(TWO)


@pytest.fixture(params=[True, False], autouse=True)
def attributes(request):
    with xr.set_options(keep_attrs=request.param):
        yield request.param


def drawn(data):
    payload = headnb.grid(data).payload
    return payload, payload["panels"][0]


def claims_nothing(data):
    payload, panel = drawn(data)
    assert (payload["quantity"], payload["units"], payload["alpha"]) == ("value", "", None)
    assert (panel["reliability"], panel["samples"], panel["statistics"]) == (None, None, {})
    assert "low" not in panel
    return np.array(panel["values"])


COMPUTED = {
    "difference": lambda p, q: p - q,
    "ratio": lambda p, q: p / q,
    "of itself": lambda p, _: p / p.max(),
    "share": lambda p, _: p / p.sum("head"),
    "negative": lambda p, _: -p,
    "twice": lambda p, _: p * 2,
    "log": lambda p, _: np.log(p),
    "power": operator.pow,
    "where": lambda p, q: xr.where(p > q, p, q),
    "clipped": lambda p, _: p.clip(max=float(p.mean())),
    "selected, then computed": lambda p, q: p.isel(layer=slice(2)) - q.isel(layer=slice(2)),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_what_is_computed_from_patterns_is_a_plain_value(name, attributes):
    found = COMPUTED[name](P, Q)
    values = claims_nothing(found)
    np.testing.assert_allclose(values, found.values, rtol=1e-3)
    assert np.isnan(found.heads.reliability())
    if attributes is True:
        assert any("headnb.compare" in note for note in drawn(found)[1]["notes"])


def test_a_pattern_changed_in_place_is_a_plain_value():
    found = P.copy()
    found -= 0.5 * P
    claims_nothing(found)
    found = P.copy()
    found.values[:] = Q.values
    claims_nothing(found)


@pytest.mark.parametrize("of", ["data sets", "arrays"])
def test_a_difference_of_scores_does_not_have_the_reliability_of_levels(of):
    one, two = (ONE, TWO) if of == "data sets" else (ONE.score, TWO.score)
    difference = one - two
    np.testing.assert_allclose(claims_nothing(difference), (ONE.score - TWO.score).mean("sample").values, rtol=1e-3)
    truth = components((abs(ONE.score) - abs(TWO.score)).values.reshape(N, -1)).reliability
    assert headnb.compare(TWO, ONE).attrs["reliability"] == pytest.approx(truth)
    assert abs(ONE.heads.reliability() - truth) > 0.1  # the reliability that the difference would claim
    if of == "data sets":
        assert difference.heads.pattern().attrs["kind"] == "value"
        for refused in (
            difference.heads.evidence,
            difference.heads.interval,
            lambda: headnb.compare(ONE, difference),
            lambda: difference.heads.with_loss("sum"),
        ):
            with pytest.raises(HeadnbError, match=r"headnb\.compare"):
                refused()


SELECTED = {
    "itself": lambda x: x,
    "layers": lambda x: x.isel(layer=slice(1, 3)),
    "heads": lambda x: x.sel(head=[2, 0]),
    "reversed": lambda x: x.isel(layer=slice(None, None, -1)),
    "sorted": lambda x: x.sortby("head", ascending=False),
    "copy": lambda x: x.copy(deep=True),
    "transposed": lambda x: x.transpose("head", "layer", ...),
    "chunked": lambda x: x.chunk({"layer": 1}),
    "labelled": lambda x: x.assign_coords(stage="before"),
}


@pytest.mark.parametrize("name", SELECTED)
@pytest.mark.parametrize("of", ["pattern", "scores", "score", "comparison"])
def test_a_selection_of_a_result_is_a_result(of, name):
    whole = {"pattern": P, "scores": ONE, "score": ONE.score, "comparison": headnb.compare(TWO, ONE)}[of]
    found = SELECTED[name](whole)
    assert is_result(found)
    payload, panel = drawn(found)
    assert (payload["kind"], payload["units"]) == ("difference" if of == "comparison" else "level", "nats")
    assert panel["samples"] == N


@pytest.mark.parametrize("how", ["netcdf", "zarr"])
@pytest.mark.parametrize("of", ["pattern", "scores", "comparison"])
def test_what_xarray_wrote_and_read_is_the_same_result(of, how, tmp_path):
    whole = {"pattern": P.to_dataset(name="level"), "scores": ONE, "comparison": headnb.compare(TWO, ONE)}[of]
    if how == "netcdf":
        whole.to_netcdf(tmp_path / "a.nc")
        found = xr.open_dataset(tmp_path / "a.nc")
    else:
        whole.to_zarr(tmp_path / "a.zarr", consolidated=False)
        found = xr.open_zarr(tmp_path / "a.zarr", consolidated=False)
    found = found["level"].rename("activation_level") if of == "pattern" else found
    expected = P if of == "pattern" else whole
    assert headnb.grid(found).payload == headnb.grid(expected).payload
    values = found if of == "pattern" else found["score" if of == "scores" else "difference"]
    claims_nothing(values * 2)


def test_computed_values_are_not_results_after_writing_and_reading(tmp_path):
    (P / P.max()).to_netcdf(tmp_path / "a.nc")
    claims_nothing(xr.open_dataarray(tmp_path / "a.nc"))


def test_a_selection_of_scores_in_a_file_opens_as_scores(tmp_path):
    ONE.isel(sample=slice(10)).to_netcdf(tmp_path / "a.nc")
    found = headnb.open_scores(tmp_path / "a.nc")
    xr.testing.assert_allclose(found.heads.pattern(), pattern(ONE.isel(sample=slice(10))))
    assert drawn(found.isel(layer=[1]))[1]["samples"] == 10


def test_concatenated_patterns_do_not_have_the_reliability_of_the_first():
    both = xr.concat([P, Q], "model")
    payload, panel = drawn(both)
    assert (payload["kind"], payload["units"], panel["reliability"]) == ("level", "nats", None)


@pytest.mark.parametrize("rescaled", [scale_free, lambda x: normalized(x, "max"), lambda x: normalized(x, "rank")])
def test_a_pattern_on_another_scale_is_a_result_of_its_own(rescaled):
    found = rescaled(P)
    assert drawn(found)[0]["kind"] == "level"
    assert found.attrs["result_id"] != P.attrs["result_id"]
    claims_nothing(rescaled(P - Q * 0.01).rename("x") * 1.5)


def test_the_score_variable_is_drawn_as_its_scores_are():
    one, other = (headnb.grid(data).payload for data in (ONE, ONE.score))
    assert one["panels"][0]["values"] == other["panels"][0]["values"]
    assert one["panels"][0]["reliability"] == other["panels"][0]["reliability"]
    assert (other["kind"], other["units"], other["method"]) == ("level", "nats", "activation")


def test_the_same_samples_do_not_count_twice():
    twice = xr.concat([ONE, ONE], "sample")
    for refused in (twice.heads.pattern, twice.heads.evidence, twice.heads.reliability, twice.heads.grid):
        with pytest.raises(HeadnbError, match=rf"{N} of {2 * N} samples are repeated \(the first: 0\)"):
            refused()
    others = TWO.assign(fingerprint=TWO.fingerprint + 1)  # rows of another task with the same numbers
    assert xr.concat([ONE, others], "sample").heads.evidence().samples == 2 * N


def test_negative_losses_and_levels_are_refused():
    with pytest.raises(HeadnbError, match="negative losses"):
        as_result(ONE.assign(loss=ONE.loss - 2)).heads.pattern()
    level = xr.DataArray(np.array([[1.0, -1.0]]), dims=("layer", "head"), attrs={"kind": "level"})
    with pytest.raises(HeadnbError, match="levels are never negative"):
        headnb.grid(level)


def test_scores_of_two_revisions_are_not_compared():
    with pytest.raises(HeadnbError, match="different scoring revisions, 1 and 2"):
        headnb.compare(scores(1, scoring_revision=1), TWO)
    notes = drawn(scores(1, scoring_revision=1))[1]["notes"]
    assert any("scoring revision 1" in note for note in notes)
    assert not any("revision" in note for note in drawn(ONE)[1]["notes"])


def test_attributes_set_by_a_user_are_trusted():
    by_hand = xr.DataArray(np.eye(2), dims=("layer", "head"), attrs={"kind": "level", "units": "bits", "samples": 5})
    payload, panel = drawn(by_hand)
    assert (payload["kind"], payload["units"], panel["samples"]) == ("level", "bits", 5)
