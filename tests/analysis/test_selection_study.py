"""Study of instruction selection: planted precisions and losses, against plain t intervals."""

from __future__ import annotations

import html

import numpy as np
import pytest
import xarray as xr
from headnb.analysis.selection.study import ALONE, TRAININGS, SelectionStudy
from scipy import stats

TARGETS, KS, SEEDS = ["a", "b", "c", "d"], [5, 20], [0, 1, 2]
LEVELS = {"random": 0.25, "tfidf": 0.6, "pattern": 0.6, "gradient-free": 0.9}


# Differences between targets: mean zero for each method, so that mean precisions are LEVELS.
NOISE = {
    "random": [1, 1, -1, -1],
    "tfidf": [1, -1, 1, -1],
    "pattern": [1, -1, -1, 1],
    "gradient-free": [-1, -1, 1, 1],
}


def precisions(ways: list[str]) -> xr.DataArray:
    values = np.array([[[LEVELS[way] + 0.02 * noise] * 2 for noise in NOISE[way]] for way in ways])
    return xr.DataArray(values, {"way": ways, "target": TARGETS, "k": KS}, ("way", "target", "k"))


def study(ways: list[str], *, falls: dict[str, float] | None = None) -> SelectionStudy:
    """`falls`: reduction of the loss by each fine-tuned method, with sample noise that all methods share."""
    arrays = xr.Dataset({"precision": precisions(ways)}, attrs={"pool_samples": 40, "target_samples": 8})
    if falls:
        rng = np.random.default_rng(1)
        before = rng.gamma(4, size=(4, 12))
        noise = rng.normal(size=(len(falls), 4, 1, 3, 12)) * 0.02
        noise -= noise.mean(axis=(2, 3, 4), keepdims=True)
        loss = before[:, None, None] + noise - np.array(list(falls.values())).reshape(-1, 1, 1, 1, 1)
        arrays = arrays.assign(
            loss_before=(("target", "sample"), before),
            loss=(("tuned_way", "target", "tuned_k", "seed", "sample"), loss),
        ).assign_coords(tuned_way=list(falls), tuned_k=[20], seed=SEEDS)
    return SelectionStudy(arrays)


def test_a_difference_of_precisions_is_paired_by_target() -> None:
    found = study(["pattern", "tfidf"])
    values = found.arrays["precision"].sel(k=20)
    test = stats.ttest_rel(values.sel(way="pattern"), values.sel(way="tfidf")).confidence_interval()
    difference = found.precision_of("pattern", 20, "tfidf")
    assert (difference.low, difference.high) == pytest.approx((test.low, test.high))


@pytest.mark.parametrize(
    ("ways", "supported", "sentence"),
    [
        (["random", "tfidf", "gradient-free"], True, "precision of gradient-free is higher than that of tfidf"),
        (["random", "tfidf", "pattern"], None, "precision of pattern is not shown to differ from that of tfidf"),
        (["random", "pattern"], True, "precision of pattern is higher than that of random"),
        (["tfidf", "random"], True, "precision of tfidf is higher than that of random"),
    ],
)
def test_the_verdict_follows_the_paired_intervals(ways: list[str], supported: bool | None, sentence: str) -> None:
    found = study(ways)
    assert found.supported is supported
    assert sentence in found.verdict
    assert f"of {len(TARGETS)} targets" in found.verdict


def test_a_method_worse_than_tfidf_is_not_supported() -> None:
    arrays = xr.Dataset({"precision": precisions(["random", "tfidf"])}, attrs={"pool_samples": 40, "target_samples": 8})
    found = SelectionStudy(arrays.assign_coords(way=["cosine", "tfidf"]))
    assert found.supported is False
    assert "precision of cosine is lower than that of tfidf" in found.verdict


def test_shares_have_intervals_within_zero_and_one() -> None:
    arrays = study(["gradient-free", "random"]).arrays
    arrays["precision"] = arrays["precision"] + xr.DataArray([0.08, -0.23], {"way": ["gradient-free", "random"]}, "way")
    found = SelectionStudy(arrays)
    assert found.precision_of("gradient-free", 20).high == found.precision["high"].max() == 1
    assert found.precision_of("random", 20).low == 0
    assert 0.9 < found.precision_of("gradient-free", 20).low < 1


def test_one_target_has_a_value_and_no_verdict() -> None:
    found = SelectionStudy(study(["pattern", "tfidf"]).arrays.isel(target=[0]))
    assert found.supported is None
    assert "[" not in found.verdict
    assert "mean of 1 target:" in found.verdict


def test_ways_are_compared_at_the_most_that_a_perfect_choice_can_find() -> None:
    arrays = study(["pattern", "tfidf"]).arrays
    most = {pool: SelectionStudy(arrays.assign_attrs(pool_samples=pool)).most for pool in (40, 20, 19, 3)}
    assert most == {40: 20, 20: 20, 19: 5, 3: 5}


def test_losses_are_compared_by_sample_and_seed() -> None:
    found = study(["pattern", "tfidf", "random"], falls={"pattern": 0.5, "tfidf": 0.5, "random": 0.2})
    change, paired = found.change_of("pattern", 20), found.change_of("pattern", 20, "random")
    assert change.value == pytest.approx(-0.5, abs=1e-9)
    assert paired.value == pytest.approx(-0.3, abs=1e-9)
    assert paired.high < -0.27  # samples differ by more than a nat; pairing removes these differences
    assert "The resulting loss is lower than that with random (difference −0." in found.verdict
    assert "The resulting loss is not shown to differ from that with tfidf" in found.verdict
    expected = found.arrays["loss"].sel(tuned_way="random") - found.arrays["loss_before"]
    assert found.changes("loss")["value"].sel(way="random").item() == pytest.approx(expected.mean().item())


def test_the_study_is_a_table_a_chart_and_plain_numbers() -> None:
    found = study(["random", "pattern", "tfidf"], falls={"pattern": 0.5, "random": 0.2})
    assert list(found.table.index) == ["pattern", "random", "tfidf"]
    changes = found.changes_table.xs(("chosen samples", "loss nats", 20))
    assert list(changes.index) == ["pattern", "random"]
    assert changes.loc["random", "minus random"] == "–"
    chart = found.plot()
    assert [plot.x.label for plot in chart.plots] == ["samples chosen", "change of the target's loss (nats)"]
    two = SelectionStudy(
        xr.concat([found.arrays, found.arrays.assign_coords(tuned_k=[40])], "tuned_k", data_vars="minimal")
    )
    assert [plot.x.label for plot in two.plot().plots] == ["samples chosen"] * 2
    numbers = found.to_dict()
    assert len(numbers["precision"]) == 6
    assert numbers["changes"][0]["minus random"]["high"] < 0
    assert "pattern" in repr(found)
    assert "<table" in found._repr_html_()
    assert f"<b>{found.verdict}</b>" in html.unescape(found._repr_html_())
    assert len(study(["pattern", "random"]).plot().plots) == 1


def test_scarce_trainings_are_compared_with_the_target_alone_and_a_task_without_answers_is_left_out() -> None:
    found = study(["pattern", "random"], falls={"pattern": 0.5, "random": 0.2, "tfidf": 0.1})
    scarce = found.arrays["loss"].rename(tuned_way="scarce_way").assign_coords(scarce_way=["pattern", "random", ALONE])
    right = (scarce < 2).astype(float).where(scarce["target"] != "d")
    before = (found.arrays["loss_before"] < 2).astype(float).where(found.arrays["target"] != "d")
    both = SelectionStudy(found.arrays.assign(scarce_loss=scarce, scarce_exact_match=right, exact_match_before=before))
    assert both.trainings == ["loss", "scarce_loss", "scarce_exact_match"]
    assert both.change_of("pattern", 20, ALONE, "scarce_loss").value == pytest.approx(-0.4, abs=1e-9)
    expected = (right - before).sel(scarce_way="pattern", target=list("abc")).mean()
    assert both.change_of("pattern", 20, of="scarce_exact_match").value == pytest.approx(float(expected))
    assert "The resulting loss is lower than that with target alone (difference −0.4" in both.verdict
    assert len(both.plot().plots) == 3
    assert set(both.changes_table.reset_index()["trained on"]) == {of[0] for of in TRAININGS.values()}


def test_a_study_is_the_same_from_a_file(tmp_path) -> None:
    found = study(["pattern", "tfidf", "random"], falls={"pattern": 0.5, "random": 0.2})
    found.arrays.to_netcdf(tmp_path / "study.nc")
    with xr.open_dataset(tmp_path / "study.nc") as stored:
        assert SelectionStudy(stored.load()).to_dict() == found.to_dict()
