"""Patterns and comparisons of labelled scores, against hand calculations and scipy."""

from __future__ import annotations

import math

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb.errors import HeadnbError
from headnb.head_names import head_name, parse_heads
from headnb.stats import patterns
from scipy import stats

ATTRS = {
    "model": "tiny",
    "task": "sums",
    "method": "activation",
    "reduction": "mean-abs",
    "loss_reduction": "sample-mean",
    "kv_heads": 1,
}


def scores_of(score: np.ndarray, ids: list[int | str] | None = None, tokens: list[int] | None = None, **attrs: object):
    score = np.asarray(score, dtype=np.float32)
    n, layers, heads = score.shape
    return xr.Dataset(
        {
            "score": (("sample", "layer", "head"), score),
            "loss": ("sample", np.ones(n, dtype=np.float32)),
            "answer_tokens": ("sample", np.asarray(tokens or [1] * n, dtype=np.int32)),
        },
        coords={"sample": ids or list(range(n)), "layer": range(layers), "head": range(heads)},
        attrs={**ATTRS, **attrs},
    )


def random_scores(n: int, seed: int, layers: int = 4, heads: int = 5, **attrs: object) -> xr.Dataset:
    level = np.random.default_rng(99).lognormal(size=(layers, heads))
    return scores_of(level * np.random.default_rng(seed).normal(size=(n, layers, heads)), **attrs)


def test_pattern_is_the_mean_of_absolute_scores_per_sample():
    pattern = patterns.pattern(scores_of([[[1, -2]], [[-3, -2]]]))
    assert pattern.dims == ("layer", "head")
    assert pattern.dtype == np.float64
    assert pattern.values.tolist() == [[2, 2]]
    assert pattern.name == "activation_level"
    assert pattern.attrs["kind"] == "level"
    assert pattern.attrs["units"] == "nats"
    assert pattern.attrs["model"] == "tiny"
    assert (pattern.attrs["samples"], pattern.attrs["samples_for_090"]) == (2, -1)
    assert math.isnan(pattern.attrs["reliability"])


def test_pattern_of_a_signed_method_keeps_the_sign():
    pattern = patterns.pattern(scores_of([[[1, -2]], [[-3, -2]]], method="ablate-zero", reduction="mean"))
    assert pattern.values.tolist() == [[-1, -2]]
    assert pattern.attrs["kind"] == "signed"
    assert pattern.name == "ablate-zero"


def test_normalisations_by_hand():
    scores = scores_of([[[3, 4], [np.nan, np.nan], [0, 0]]])
    np.testing.assert_allclose(patterns.pattern(scores, "layer"), [[0.6, 0.8], [np.nan] * 2, [np.nan] * 2])
    np.testing.assert_allclose(patterns.pattern(scores, "max"), [[0.75, 1], [np.nan] * 2, [0, 0]])
    np.testing.assert_allclose(patterns.pattern(scores, "rank"), [[0.75, 1], [np.nan] * 2, [1.5 / 4, 1.5 / 4]])
    with pytest.raises(HeadnbError, match="did you mean 'layer'"):
        patterns.pattern(scores, "layers")


def test_scale_free_pattern_has_mean_one():
    pattern = patterns.pattern(scores_of([[[1, 3], [np.nan, np.nan]]]))
    np.testing.assert_allclose(patterns.scale_free(pattern), [[0.5, 1.5], [np.nan, np.nan]])


def test_study_of_several_tasks_keeps_its_leading_dim_and_the_least_evidence():
    good, poor = random_scores(40, 1), random_scores(40, 2)
    poor["score"] = poor["score"] * 0 + np.random.default_rng(3).normal(size=poor["score"].shape)
    study = xr.concat([good, poor], dim="task", coords="minimal", compat="override")
    pattern = patterns.pattern(study)
    assert pattern.dims == ("task", "layer", "head")
    assert pattern.attrs["reliability"] == pytest.approx(patterns.evidence(poor).reliability)
    np.testing.assert_allclose(pattern[0], np.abs(good["score"]).mean("sample"), rtol=1e-6)


def test_scores_of_a_method_without_samples_are_a_pattern():
    gates = xr.Dataset({"score": (("layer", "head"), [[0.1, 0.9]])}, attrs={"method": "gates", "reduction": "none"})
    assert patterns.pattern(gates).values.tolist() == [[0.1, 0.9]]
    assert patterns.evidence(gates) == (0, pytest.approx(math.nan, nan_ok=True), -1, 1, -1)


def test_a_sample_that_is_not_finite_is_named():
    scores = scores_of([[[1, 2]], [[np.inf, 2]], [[1, np.nan]]], ids=["a", "b", "c"])
    with pytest.raises(HeadnbError, match=r"2 of 3 samples .* \(the first: b\)"):
        patterns.pattern(scores)
    with pytest.raises(HeadnbError, match="2 of 2 samples"):  # a head that is infinite in every sample is not missing
        patterns.pattern(scores_of([[[1, np.inf]], [[2, -np.inf]]]))
    assert np.isnan(patterns.pattern(scores_of([[[1, np.nan]], [[2, np.nan]]]))[0, 1])


def test_scores_without_samples_or_score_are_refused():
    with pytest.raises(HeadnbError, match="no samples yet"):
        patterns.pattern(random_scores(4, 0).isel(sample=slice(0)))
    with pytest.raises(HeadnbError, match="no variable 'score'"):
        patterns.pattern(xr.Dataset({"loss": ("sample", [1.0])}))


def test_correlations_are_numpys():
    study = xr.concat([patterns.pattern(random_scores(6, s)) for s in range(3)], dim="task").assign_coords(
        task=list("abc")
    )
    found = patterns.correlations(study)
    assert found.dims == ("task", "other_task")
    assert found["other_task"].values.tolist() == ["a", "b", "c"]
    np.testing.assert_allclose(found, np.corrcoef(study.values.reshape(3, -1)))
    with pytest.raises(HeadnbError, match="no dim 'stage'"):
        patterns.correlations(study, "stage")


def test_compare_pairs_by_sample_id_whatever_the_order():
    before = scores_of([[[1, 9]], [[-2, 9]], [[3, 9]]], ids=["a", "b", "c"])
    after = scores_of([[[5, 9]], [[8, 9]], [[-4, 9]], [[0, 0]]], ids=["c", "b", "a", "z"])
    found = headnb.compare(before, after)
    differences = np.array([4 - 1, 8 - 2, 5 - 3])  # samples a, b, c
    reference = stats.ttest_1samp(differences, 0)
    assert found["difference"].values[0] == pytest.approx([11 / 3, 0])
    assert found["p_value"].values[0] == pytest.approx([reference.pvalue, 1])
    interval = reference.confidence_interval(0.95)
    assert (found["low"].values[0, 0], found["high"].values[0, 0]) == pytest.approx(tuple(interval))
    assert found["p_max_t"].values[0, 0] == pytest.approx(2 / 8)  # 2 of the 8 sign patterns: all + and all -
    assert (found.attrs["samples"], found.attrs["samples_unpaired"]) == (3, 1)


def test_compare_finds_the_heads_that_rose_and_only_those():
    before, after = random_scores(80, 1), random_scores(80, 2)
    after["score"][:, 2, 1:3] *= 4
    before["score"][:, 3], after["score"][:, 3] = np.nan, np.nan
    found = headnb.compare(before, after)
    assert np.argwhere(found["significant"].values).tolist() == [[2, 1], [2, 2]]
    assert found["q_value"].isnull().sum("head").values.tolist() == [0, 0, 0, 5]
    present = found["p_value"].values[:3].ravel()
    np.testing.assert_allclose(found["q_value"].values[:3].ravel(), stats.false_discovery_control(present))
    assert found["p_max_t"].values[2, 1] < 0.01
    assert found.attrs["kind"] == "difference"


def test_scale_free_comparison_does_not_see_a_change_of_scale():
    before = random_scores(60, 1)
    after = before.assign(score=before["score"] / 7)
    assert headnb.compare(before, after)["significant"].all()
    assert not headnb.compare(before, after, scale_free=True)["significant"].any()


def test_scale_free_difference_is_that_of_scale_free_patterns():
    before, after = random_scores(30, 1), random_scores(30, 2)
    after["score"] = after["score"] * 0.1
    expected = patterns.scale_free(patterns.pattern(after)) - patterns.scale_free(patterns.pattern(before))
    found = headnb.compare(before, after, scale_free=True)
    np.testing.assert_allclose(found["difference"], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "other"}, "task is 'sums' before and 'other' after"),
        ({"method": "taylor-token"}, "method is 'activation' before"),
        ({"loss_reduction": "sum"}, "loss_reduction is 'sample-mean' before and 'sum' after"),
    ],
)
def test_scores_made_differently_are_not_compared(change, message):
    with pytest.raises(HeadnbError, match=message):
        headnb.compare(random_scores(5, 0), random_scores(5, 1, **change))


def test_errors_name_why_scores_cannot_be_paired():
    before = random_scores(5, 0)
    with pytest.raises(HeadnbError, match="0 sample ids in common"):
        headnb.compare(before, before.assign_coords(sample=range(10, 15)))
    with pytest.raises(HeadnbError, match="4 x 5 heads before and 4 x 6 after"):
        headnb.compare(before, random_scores(5, 1, heads=6))
    with pytest.raises(HeadnbError, match="1 of 5 samples are repeated"):
        headnb.compare(before, before.assign_coords(sample=[0, 0, 1, 2, 3]))
    with pytest.raises(HeadnbError, match="scale_free needs activation levels"):
        headnb.compare(random_scores(5, 0, reduction="mean"), random_scores(5, 1, reduction="mean"), scale_free=True)


def test_row_numbers_do_not_make_pairs_of_unrelated_samples():
    before = random_scores(5, 0).assign(fingerprint=("sample", np.array([7, -8, 9, 10, 2**62])))
    after = random_scores(5, 1).assign(fingerprint=("sample", np.array([7, -8, 11, 10, 2**62 + 1])))
    with pytest.raises(HeadnbError, match=r"2 of 5 sample ids .* different tokens .* \(the first: 2\); score the same"):
        headnb.compare(before, after)
    same = after.assign(fingerprint=before["fingerprint"])
    assert headnb.compare(before, same.isel(sample=[4, 2, 0])).attrs["samples"] == 3  # compared by id, not by position


def test_scores_without_fingerprints_are_compared_by_answer_tokens():
    before, after = random_scores(4, 0, tokens=[3, 4, 5, 6]), random_scores(4, 1, tokens=[3, 4, 5, 7])
    with pytest.raises(HeadnbError, match=r"1 of 4 sample ids .* numbers of answer tokens .* \(the first: 3\)"):
        headnb.compare(before, after.assign(fingerprint=("sample", range(4))))
    unknown = before.drop_vars("answer_tokens")
    assert headnb.compare(unknown, after).attrs["samples"] == 4


def test_heads_are_not_paired_by_place():
    scores = random_scores(5, 0)
    first, last = scores.isel(layer=slice(2)), scores.isel(layer=slice(2, 4))
    with pytest.raises(HeadnbError, match="layer 0 before corresponds to layer 2 after; select the same layers"):
        headnb.compare(first, last)
    with pytest.raises(HeadnbError, match="head 0 before corresponds to head 4 after"):
        headnb.compare(scores, scores.isel(head=slice(None, None, -1)))
    assert headnb.compare(last, last)["layer"].values.tolist() == [2, 3]


def test_compare_survives_differences_that_cancel_out():
    before = scores_of(np.full((4, 1, 2), 2.0))
    after = scores_of([[[1, 3]], [[3, 1]], [[1, 3]], [[3, 1]]])
    found = headnb.compare(before, after)
    assert found["difference"].values.tolist() == [[0, 0]]
    assert (found.attrs["reliability"], found.attrs["samples_for_090"]) == (-1, -1)


@pytest.mark.parametrize("alpha", [0, 1, 5, -0.05, math.nan, "0.05"])
def test_alpha_is_a_share_between_0_and_1(alpha):
    with pytest.raises(HeadnbError, match=r"alpha must lie between 0 and 1, such as 0.05; got "):
        headnb.compare(random_scores(5, 0), random_scores(5, 1), alpha=alpha)


def test_compare_changes_nothing_in_its_arguments():
    before, after = random_scores(6, 0), random_scores(6, 1)
    copies = before.copy(deep=True), after.copy(deep=True)
    headnb.compare(before, after, scale_free=True)
    assert before.identical(copies[0])
    assert after.identical(copies[1])


def test_batch_mean_loss_is_that_of_batches_in_input_order():
    # Batches of four, as in the official script: tokens (1, 2, 3, 4) of 10 and (5, 15) of 20
    scores = scores_of(np.full((6, 1, 1), 2.0), tokens=[1, 2, 3, 4, 5, 15])
    found = patterns.with_loss(scores, "batch-mean")
    np.testing.assert_allclose(found["score"].values.ravel(), [0.2, 0.4, 0.6, 0.8, 0.5, 1.5], rtol=1e-6)
    assert found.attrs["loss_reduction"] == "batch-mean"
    assert scores.attrs["loss_reduction"] == "sample-mean"
    summed = patterns.with_loss(found, "sum")
    np.testing.assert_allclose(summed["score"].values.ravel(), [2, 4, 6, 8, 10, 30], rtol=1e-6)
    pairs = patterns.with_loss(summed, "batch-mean", batch_size=2)
    np.testing.assert_allclose(pairs["score"].values.ravel()[:2], [2 / 3, 4 / 3], rtol=1e-6)
    back = patterns.with_loss(pairs, "sample-mean")
    np.testing.assert_allclose(back["score"], scores["score"], rtol=1e-6)
    assert back["score"].dtype == np.float32


@pytest.mark.parametrize("rows", [[0, 2, 4, 5], [5], [4, 3, 1]])
def test_batch_mean_of_some_samples_is_that_of_the_whole_tasks_batches(rows):
    batches = np.array([10, 10, 10, 10, 20, 20], dtype=np.int32)  # tokens (1, 2, 3, 4) of 10 and (5, 15) of 20
    scores = scores_of(np.full((6, 1, 1), 2.0), tokens=[1, 2, 3, 4, 5, 15], samples_requested=6, complete=1)
    part = scores.assign(batch_answer_tokens=("sample", batches)).isel(sample=rows)
    for complete in (0, 1):
        found = patterns.with_loss(part.assign_attrs(complete=complete), "batch-mean")
        np.testing.assert_allclose(found["score"].values.ravel(), np.array([0.2, 0.4, 0.6, 0.8, 0.5, 1.5])[rows])
        summed = patterns.with_loss(found, "sum")
        np.testing.assert_allclose(summed["score"].values.ravel(), np.array([2, 4, 6, 8, 10, 30])[rows])


@pytest.mark.parametrize("attrs", [{"complete": 0}, {"complete": 1, "samples_requested": 8, "left_out": 1}])
def test_batches_are_not_made_up_from_some_of_the_samples(attrs):
    part = scores_of(np.full((6, 1, 1), 2.0), tokens=[1, 2, 3, 4, 5, 15], **attrs)
    known = part.assign(batch_answer_tokens=("sample", [10, 10, 10, 10, 20, 20]))
    stored = known.assign_attrs(loss_reduction="batch-mean", loss_batch_size=2)
    for scores, loss, batch_size in ((part, "batch-mean", 4), (known, "batch-mean", 2), (stored, "sum", 4)):
        with pytest.raises(
            HeadnbError, match=r"cannot be determined from a part of the task's samples \(6 available\)"
        ):
            patterns.with_loss(scores, loss, batch_size)
    assert patterns.with_loss(part, "sum")["score"].values.ravel().tolist() == [2, 4, 6, 8, 10, 30]
    whole = part.assign_attrs(complete=1, samples_requested=8, left_out=2)  # two samples have no answer token
    assert patterns.with_loss(whole, "batch-mean")["score"].values[-1, 0, 0] == pytest.approx(1.5)


def test_unknown_loss_and_missing_tokens_are_errors():
    with pytest.raises(HeadnbError, match="did you mean 'batch-mean'"):
        patterns.with_loss(random_scores(4, 0), "batchmean")
    with pytest.raises(HeadnbError, match="answer_tokens"):
        patterns.with_loss(random_scores(4, 0).drop_vars("answer_tokens"), "sum")
    with pytest.raises(HeadnbError, match="at least 1"):
        patterns.with_loss(random_scores(4, 0), "batch-mean", batch_size=0)


def test_heads_are_written_l3h10():
    assert parse_heads("L3H10, l7h1") == [(3, 10), (7, 1)]
    assert head_name(3, 10) == "L3H10"
    for wrong in ("3.10", "L3", "L3H", ""):
        with pytest.raises(HeadnbError, match="L3H10"):
            parse_heads(wrong)
