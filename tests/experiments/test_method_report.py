"""Report section on methods: arrays, verdicts and sentences agree with the deletion curves and correlations."""

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
    """A curve whose top heads raise the loss by `difference` (replacement, k) more than random heads."""
    coords = {"replacement": list(REPLACEMENTS), "k": KS}
    top = xr.DataArray(np.broadcast_to(difference, (2, 2)), coords, ("replacement", "k"))
    both = xr.concat([top, 0 * top], xr.DataArray(["top", "bottom"], dims="choice", name="choice"))
    rise = xr.concat([top + 1, 0 * top + 1, 0 * top], xr.DataArray(list(CHOICES), dims="choice", name="choice"))
    parts = [xr.Dataset({"value": values, "low": values - half, "high": values + half}) for values in (rise, both)]
    losses = xr.Dataset({"loss": ("sample", np.zeros(4))})
    heads = xr.DataArray([["L0H0", "L0H0"]] * 2, {"choice": ["top", "bottom"], "k": KS}, ("choice", "k"))
    return DeletionCurve(*parts, losses, heads, "tiny", "sums", "activation", 4, 0.95)


def agreement(seed=0):
    random = np.random.default_rng(seed)
    heads = random.lognormal(size=(4, 5))
    levels = np.stack([heads, heads * np.exp(0.1 * random.normal(size=(4, 5))), 1 / heads])[:, None]
    levels = levels * random.lognormal(sigma=0.2, size=(3, 12, 4, 5))
    return compare_methods(
        {name: scores_of(of_method) for name, of_method in zip(("one", "like", "against"), levels, strict=True)}
    )


def test_arrays_keep_the_estimates_of_every_task():
    agreements, curves = {"a": agreement(0), "b": agreement(1)}, {"a": curve(0.3), "b": curve(0.5)}
    arrays = method_report.agreement_arrays(agreements, curves)
    for task in "ab":
        for name, expected in (("correlation", agreements[task].correlation), ("rise", curves[task].rise)):
            stored = method_report.estimates(arrays, name).sel(task=task)
            for end in ("value", "low", "high"):
                np.testing.assert_array_equal(stored[end].transpose(*expected[end].dims), expected[end])
    assert method_report.correlation_chart(arrays).svg().startswith("<svg")
    titles = [chart.title for chart in method_report.deletion_charts(arrays)]
    assert titles == ["Rise of the loss on a (nats)", "Rise of the loss on b (nats)"]


@pytest.mark.parametrize(
    ("difference", "verdict", "counts"),
    [
        (0.3, "found", (4, 0, 0)),
        (-0.3, "not found", (0, 4, 0)),
        (0.05, "undecided", (0, 0, 4)),
        ([[0.3, 0.05], [0.3, 0.05]], "undecided", (2, 0, 2)),
        ([[0.3, 0.3], [0.3, 0.05]], "found", (3, 0, 1)),
        ([[0.3, -0.3], [-0.3, -0.06]], "not found", (1, 3, 0)),  # [-0.16, 0.04] excludes 0.05 nats
    ],
)
def test_the_verdict_is_that_of_most_cases(difference, verdict, counts):
    arrays = method_report.agreement_arrays({"a": agreement()}, {"a": curve(difference)})
    answer = method_report.deletion_answer(arrays)
    assert answer.verdict == verdict
    found, excluded, undecided = counts
    assert f"Found in {found}, not found in {excluded} and undecided in {undecided} of 4 cases" in answer.reason
    largest = f"{np.max(difference):+.2f} [".replace("-", "−")
    assert method_report.largest_difference(arrays).startswith(largest)


def test_the_methods_with_the_highest_and_lowest_correlation_are_named():
    sentence = method_report.agreement_verdict(
        method_report.agreement_arrays({"a": agreement()}, {"a": curve(0)}), "one"
    )
    assert "highest for like (0.9" in sentence or "highest for like (1.0" in sentence
    assert "lowest for against (−" in sentence
    assert "Negative correlation: against." in sentence


def test_methods_without_a_correlation_are_not_named():
    arrays = method_report.agreement_arrays({"a": agreement()}, {"a": curve(0)})
    unknown = arrays["correlation"].where(arrays["other_measure"] != "like")
    sentence = method_report.agreement_verdict(arrays.assign(correlation=unknown), "one")
    assert "like" not in sentence
    nothing = method_report.agreement_verdict(arrays.assign(correlation=unknown * np.nan), "one")
    assert nothing == "Rank correlations of the methods are not available: too few samples."
