"""What the report says of methods and deletion curves is what the curves hold, also where that is nothing."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from headnb.analysis.agreement import compare_methods
from headnb.analysis.deletion import CHOICES, REPLACEMENTS, DeletionCurve
from headnb.experiments import report_methods as method_report

from simulated_finetuning import scores_of

KS = [1, 5]


def curve(difference, half=0.1):
    """A curve whose top heads hurt by `difference` (replacement, k) more than random ones do."""
    coords = {"replacement": list(REPLACEMENTS), "k": KS}
    top = xr.DataArray(np.broadcast_to(difference, (2, 2)), coords, ("replacement", "k"))
    both = xr.concat([top, 0 * top], xr.DataArray(["top", "bottom"], dims="choice", name="choice"))
    rise = xr.concat([top + 1, 0 * top + 1, 0 * top], xr.DataArray(list(CHOICES), dims="choice", name="choice"))
    parts = [xr.Dataset({"value": each, "low": each - half, "high": each + half}) for each in (rise, both)]
    losses = xr.Dataset({"loss": ("sample", np.zeros(4))})
    heads = xr.DataArray([["L0H0", "L0H0"]] * 2, {"choice": ["top", "bottom"], "k": KS}, ("choice", "k"))
    return DeletionCurve(*parts, losses, heads, "tiny", "sums", "activation", 4, 0.95)


def agreement(seed=0):
    random = np.random.default_rng(seed)
    heads = random.lognormal(size=(4, 5))
    levels = np.stack([heads, heads * np.exp(0.1 * random.normal(size=(4, 5))), 1 / heads])[:, None]
    levels = levels * random.lognormal(sigma=0.2, size=(3, 12, 4, 5))
    return compare_methods(
        {name: scores_of(each) for name, each in zip(("one", "like", "against"), levels, strict=True)}
    )


def test_arrays_keep_the_estimates_of_every_task():
    agreements, curves = {"a": agreement(0), "b": agreement(1)}, {"a": curve(0.3), "b": curve(0.5)}
    arrays = method_report.agreement_arrays(agreements, curves)
    for task in "ab":
        for name, expected in (("correlation", agreements[task].correlation), ("rise", curves[task].rise)):
            kept = method_report.estimates(arrays, name).sel(task=task)
            for end in ("value", "low", "high"):
                np.testing.assert_array_equal(kept[end].transpose(*expected[end].dims), expected[end])
    assert method_report.correlation_chart(arrays).svg().startswith("<svg")
    assert [chart.title[:2] for chart in method_report.deletion_charts(arrays)] == ["a:", "b:"]


@pytest.mark.parametrize(
    ("difference", "holds", "words"),
    [
        (0.3, True, "hurts more than removing random heads of the same layers: more in 4 of 4 cases"),
        (-0.3, False, "hurts less than"),
        (0.05, None, "is not shown to hurt more than"),
        ([[0.3, 0.05], [0.3, 0.05]], None, "more in 2 of 4 cases"),
        ([[0.3, 0.3], [0.3, 0.05]], True, "more in 3 of 4 cases"),
    ],
)
def test_the_verdict_is_that_of_most_cases(difference, holds, words):
    arrays = method_report.agreement_arrays({"a": agreement()}, {"a": curve(difference)})
    found, sentence = method_report.deletion_verdict(arrays)
    assert found is holds
    assert words in sentence
    assert f": {np.max(difference):+.2f} [" in sentence


def test_the_methods_most_and_least_alike_are_named():
    said = method_report.agreement_verdict(method_report.agreement_arrays({"a": agreement()}, {"a": curve(0)}), "one")
    assert "like (0.9" in said or "like (1.0" in said
    assert "is most like one and against (-" in said
    assert "Ranked the other way round by against." in said


def test_methods_whose_likeness_is_not_known_are_not_named():
    arrays = method_report.agreement_arrays({"a": agreement()}, {"a": curve(0)})
    unknown = arrays["correlation"].where(arrays["other_measure"] != "like")
    said = method_report.agreement_verdict(arrays.assign(correlation=unknown), "one")
    assert "like" not in said.replace("is most like one", "")
    nothing = method_report.agreement_verdict(arrays.assign(correlation=unknown * np.nan), "one")
    assert nothing == "How far the methods rank heads alike is not known from these samples."
