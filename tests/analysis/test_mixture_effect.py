"""Effect of mixtures before a complex task: intervals against the paired formulas, and verdicts of either sign."""

from __future__ import annotations

import html
import json
from typing import Any

import numpy as np
import pytest
import xarray as xr
from headnb.analysis.mixture_effect import BASE, FITTED, PLAIN, RANDOM, mixture_effect
from headnb.errors import HeadnbError
from headnb.experiments.report_applications import mixture_answer
from scipy import stats


def evaluated(losses: np.ndarray, exact: np.ndarray | None = None) -> xr.Dataset:
    columns: dict[str, Any] = {"loss": ("sample", losses)}
    columns |= {"exact_match": ("sample", exact)} if exact is not None else {}
    return xr.Dataset(columns, {"sample": [f"id{place}" for place in range(len(losses))]})


def trained(shift: float, *, runs: int = 3, n: int = 40, noise: float = 0.05, seed: int = 0) -> list[xr.Dataset]:
    """Runs with the losses of the samples plus a shift and independent noise."""
    samples = np.random.default_rng(99).gamma(4, 0.5, n)
    rng = np.random.default_rng(seed)
    return [evaluated(samples + shift + noise * rng.standard_normal(n)) for _ in range(runs)]


def test_one_run_is_compared_by_the_paired_t_interval() -> None:
    ways = {PLAIN: trained(0, runs=1), RANDOM: trained(-0.1, runs=1, seed=1), FITTED: trained(-0.2, runs=1, seed=2)}
    found = mixture_effect("sums", ways)
    difference = ways[FITTED][0]["loss"].values - ways[RANDOM][0]["loss"].values
    low, high = stats.t.interval(0.95, 39, difference.mean(), stats.sem(difference))
    change = found.loss_change.sel(against=RANDOM, way=FITTED)
    np.testing.assert_allclose([change["value"], change["low"], change["high"]], [difference.mean(), low, high])
    np.testing.assert_allclose(found.loss["value"].sel(way=PLAIN), ways[PLAIN][0]["loss"].mean())
    assert (found.samples, found.runs) == (40, 1)


def test_seeds_that_disagree_widen_the_interval_beyond_that_of_samples() -> None:
    plain, random = trained(0), trained(0, seed=1)
    shifts = (-0.5, -0.1, -0.3)
    fitted = [trained(shift, runs=1, seed=9)[0] for shift in shifts]
    change = mixture_effect("sums", {PLAIN: plain, RANDOM: random, FITTED: fitted}).loss_change
    one = change.sel(against=RANDOM, way=FITTED)
    assert one["value"] == pytest.approx(-0.3, abs=0.03)
    assert one["high"] - one["low"] > 2 * stats.t.ppf(0.975, 3) * np.std(shifts, ddof=1) / np.sqrt(3) * 0.8


@pytest.mark.parametrize(("shift", "holds", "said"), [(-0.2, True, "lower"), (0.2, False, "higher")])
def test_a_planted_change_is_found_with_its_sign(shift: float, holds: bool, said: str) -> None:
    found = mixture_effect("sums", {PLAIN: trained(0.4), RANDOM: trained(0, seed=1), FITTED: trained(shift, seed=2)})
    assert found.supported is holds
    assert f"the loss on sums is {said} than with a random mixture first" in found.verdict


def test_without_a_difference_few_replicates_are_significant() -> None:
    shown = [
        mixture_effect(
            "sums", {PLAIN: trained(0), RANDOM: trained(0, seed=i), FITTED: trained(0, seed=900 + i)}
        ).supported
        for i in range(60)
    ]
    assert sum(one is not None for one in shown) <= 8
    same = trained(0)
    found = mixture_effect("sums", {PLAIN: same, RANDOM: same, FITTED: same})
    assert found.supported is None
    assert "the loss on sums does not differ significantly from the loss with a random mixture" in found.verdict


def test_only_samples_that_all_have_count_and_answers_are_those_that_were_asked() -> None:
    exact = np.array([1.0, 0.0, 1.0, np.nan])
    runs = {
        BASE: [evaluated(np.ones(4), np.array([0, 0, 0, np.nan]))],
        PLAIN: [evaluated(np.zeros(4), exact).isel(sample=[3, 1, 0, 2])],
        RANDOM: [evaluated(np.zeros(4), exact)],
        FITTED: [evaluated(np.arange(4.0), exact).isel(sample=[0, 1, 2])],
    }
    found = mixture_effect("sums", runs)
    assert (found.samples, found.asked) == (3, 3)
    assert found.loss["value"].sel(way=FITTED) == 1
    assert found.exact is not None
    assert found.exact["value"].sel(way=PLAIN) == pytest.approx(2 / 3)
    assert "The difference in exact match between" in found.verdict
    assert "(3 answers in each run)" in found.verdict
    assert f"<b>{found.verdict}</b>" in html.unescape(found._repr_html_())
    assert repr(found).startswith("sums\n")
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["asked"] == 3


def test_verdict_reports_a_missing_mixture() -> None:
    found = mixture_effect("sums", {PLAIN: trained(0), RANDOM: trained(0, seed=1)})
    assert found.supported is None
    assert "No model was trained on the fit's mixture." in found.verdict
    assert mixture_answer(found)[0].reason == "It was not tested: there is no training on the fit's mixture first."
    alone = mixture_effect("sums", {PLAIN: trained(0), FITTED: trained(0, seed=1)})
    assert mixture_answer(alone)[0].reason == "It was not tested: there is no training on a random mixture first."


def test_incomparable_scores_are_refused() -> None:
    with pytest.raises(HeadnbError, match="task alone"):
        mixture_effect("sums", {RANDOM: trained(0)})
    with pytest.raises(HeadnbError, match="no training runs"):
        mixture_effect("sums", {PLAIN: []})
    with pytest.raises(HeadnbError, match="the same number of training runs"):
        mixture_effect("sums", {PLAIN: trained(0), RANDOM: trained(0, runs=2)})
    with pytest.raises(HeadnbError, match="0 samples in common"):
        mixture_effect("sums", {PLAIN: trained(0), RANDOM: [run.assign_coords(sample=range(40)) for run in trained(0)]})
