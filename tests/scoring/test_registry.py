"""All properties of a method come from its registry entry, and results carry them."""

from __future__ import annotations

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb.display.payload import payload
from headnb.errors import HeadnbError
from headnb.scoring import ablation_scores, registry
from headnb.scoring.registry import Method
from headnb.stats.patterns import pattern_units
from headnb.stats.results import METHOD_ATTRIBUTES

from tiny import tiny_model

TASK = [{"input_ids": [1, 5 + i, 6, 7, 8 + i], "labels": [-100, -100, -100, 7, 8 + i]} for i in range(4)]
NEW = Method("drop", "half of the rise", "bits", "mean", ablation_scores.zero_ablation_scorer, label="drop of evidence")


def test_a_method_without_a_unit_is_refused():
    with pytest.raises(TypeError, match="units"):
        Method("new", "a score", reduction="mean", scorer=ablation_scores.zero_ablation_scorer)
    with pytest.raises(HeadnbError, match="the method 'new' needs a name, units, and either a scorer or a fit"):
        Method("new", "a score", "", "mean", ablation_scores.zero_ablation_scorer)


def test_a_method_scores_samples_or_fits_a_task():
    with pytest.raises(HeadnbError, match="either a scorer or a fit"):
        Method("new", "a score", "bits", "mean")
    assert NEW.dims == ("sample", "layer", "head")
    assert registry.find_method("gates").dims == ("layer", "head")


def test_a_new_method_has_its_unit_and_label_wherever_its_results_are_shown(monkeypatch):
    monkeypatch.setitem(registry._METHODS, "drop", NEW)
    scores = headnb.score_heads(tiny_model(), None, TASK, method="drop")
    assert {name: scores.attrs[name] for name in METHOD_ATTRIBUTES} == NEW.attrs
    shown = [payload(data) for data in (scores, scores["score"].mean("sample"), scores.heads.pattern())]
    assert [(part["quantity"], part["units"]) for part in (shown[0], shown[2])] == [("drop of evidence", "bits")] * 2
    assert shown[1]["units"] == ""  # computed from scores
    changed = payload(headnb.compare(scores, scores))
    assert (changed["quantity"], changed["units"]) == ("change in drop of evidence", "bits")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "1", True, 0, -0.5])
@pytest.mark.parametrize("name", ["learning_rate", "penalty"])
def test_options_are_finite_numbers_above_0(name, value):
    with pytest.raises(HeadnbError, match=f"^{name} must be "):
        registry.find_method("gates").settings({name: value})


def test_numbers_of_numpy_are_options_as_python_numbers():
    settings = registry.find_method("gates").settings({"steps": np.int64(2), "penalty": np.float32(0.5), "samples": 3})
    assert settings == {"steps": 2, "samples": 3, "learning_rate": 1.0, "penalty": 0.5}
    assert [type(value) for value in settings.values()] == [int, int, float, float]


@pytest.mark.parametrize("name", registry._METHODS)
def test_scores_that_were_written_before_units_were_keep_theirs(name):
    """Earlier versions stored no label, and no unit for methods in nats."""
    method = registry._METHODS[name]
    attrs = {name: value for name, value in method.attrs.items() if name != "method_label"}
    if method.units == "nats":
        del attrs["units"]
    values = np.ones((2, 1, 2))[slice(None) if "sample" in method.dims else 0]
    scores = xr.Dataset({"score": (method.dims, values)}, attrs=attrs)
    assert pattern_units(scores) == method.units
    shown = payload(scores)
    assert (shown["quantity"], shown["units"]) == (method.label or name, method.units)


def test_an_earlier_store_without_units_goes_on(tmp_path, monkeypatch):
    out = tmp_path / "a.zarr"
    whole = headnb.score_heads(tiny_model(), None, TASK)
    with monkeypatch.context() as before:
        before.setattr(Method, "attrs", {"method": "activation", "reduction": "mean-abs"})
        headnb.score_heads(tiny_model(), None, TASK, out=out)
    again = headnb.score_heads(tiny_model(), None, TASK, out=out)
    assert "units" not in again.attrs
    xr.testing.assert_equal(again["score"], whole["score"])
    assert again.heads.pattern().attrs["units"] == "nats"


def test_patterns_of_several_methods_have_no_common_unit_or_label():
    model = tiny_model()
    patterns = [
        headnb.score_heads(model, None, TASK, method=name).heads.pattern() for name in ("activation", "output-norm")
    ]
    shown = payload(xr.concat(patterns, "method").assign_coords(method=["activation", "output-norm"]))
    assert (shown["quantity"], shown["units"]) == ("score", "")
