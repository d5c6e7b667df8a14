"""Selectivity of tasks' patterns, against scipy, uncorrected statistics and known populations."""

from __future__ import annotations

import json
from dataclasses import replace

import headnb
import numpy as np
import pytest
from headnb.analysis.before_after import read_stages
from headnb.analysis.concentration import CONCENTRATIONS, concentration
from headnb.errors import HeadnbError
from headnb.stats import descriptive, jackknife
from headnb.stats.reliability import Evidence
from headnb.stats.run_variance import crossed_means
from scipy import stats
from scipy.cluster import hierarchy

from simulated_finetuning import random_change, scores_of

TASKS = ("svamp", "gsm8k", "boolq")
PAIRS = {task: random_change(seed, task, n=16) for seed, task in enumerate(TASKS)}
BEFORE, AFTER = ({task: pair[stage] for task, pair in PAIRS.items()} for stage in (0, 1))


def levels_of(scores) -> np.ndarray:
    return np.abs(scores["score"].values).reshape(len(scores["sample"]), -1)


def three_runs(scores, spread: float = 0.2):
    rng = np.random.default_rng(9)
    return [scores.assign(score=scores["score"] * rng.lognormal(sigma=spread, size=(8, 5))) for _ in range(3)]


@pytest.mark.parametrize("name", CONCENTRATIONS)
def test_concentration_of_one_run_is_that_of_resampling(name):
    found = concentration(levels_of(BEFORE["svamp"]), levels_of(AFTER["svamp"])[None], name)
    plain = {"gini": descriptive.gini, "cv": descriptive.coefficient_of_variation, "kurtosis": descriptive.kurtosis}[
        name
    ]
    of_stage = {"gini": "gini", "cv": "coefficient_of_variation", "kurtosis": "kurtosis"}[name]
    for stage, scores in (("before", BEFORE["svamp"]), ("after", AFTER["svamp"])):
        assert found[stage] == getattr(jackknife, of_stage)(levels_of(scores))
        assert found[stage].uncorrected == pytest.approx(float(plain(levels_of(scores).mean(axis=0))))
    change = found["change"]
    assert change.uncorrected == pytest.approx(found["after"].uncorrected - found["before"].uncorrected)
    assert change.value == pytest.approx(found["after"].value - found["before"].value, abs=0.15)
    assert change.low < change.value < change.high


def test_change_accounts_for_paired_samples():
    """Equal samples before and after: the change is zero with an interval of zero width."""
    levels = levels_of(BEFORE["svamp"])
    for name in CONCENTRATIONS:
        change = concentration(levels, levels[None], name)["change"]
        assert (change.value, change.low, change.high) == pytest.approx((0, 0, 0), abs=1e-12)


def test_variance_between_runs_widens_the_interval():
    """Identical runs do not change the interval; different runs widen it."""
    before, after = levels_of(BEFORE["svamp"]), levels_of(AFTER["svamp"])
    alone = concentration(before, after[None], "gini")["change"]
    same = concentration(before, np.stack([after] * 3), "gini")["change"]
    assert (same.value, same.low, same.high) == pytest.approx((alone.value, alone.low, alone.high), abs=2e-3)
    differing = np.stack([levels_of(run) for run in three_runs(AFTER["svamp"])])
    apart = concentration(before, differing, "gini")["change"]
    assert apart.high - apart.low > same.high - same.low


def test_intervals_over_two_runs_cover_the_mean_over_runs():
    """At 95 % coverage, fewer than 108 of 120 intervals cover with probability 1 / 100; Welch's had 88 %."""
    rng = np.random.default_rng(1)
    base = np.random.default_rng(5).lognormal(sigma=0.6, size=60)

    def run_patterns(runs: int) -> np.ndarray:
        return base * rng.lognormal(sigma=0.3, size=(runs, 60))

    truth, before, covered = np.mean(descriptive.gini(run_patterns(20000))), base * np.ones((24, 1)), []
    for _ in range(120):
        levels = run_patterns(2)[:, None] * rng.gamma(4, 1 / 4, (2, 24, 60))
        after = concentration(before, levels, "gini")["after"]
        covered += [after.low <= truth <= after.high] if np.isfinite(after.value) else []
    assert np.mean(covered) >= 0.9


def test_correlations_are_corrected_for_noise_and_of_themselves_one():
    found = headnb.selectivity(BEFORE, AFTER).correlation
    for stage, scores in (("before", BEFORE), ("after", AFTER)):
        a, b = (levels_of(scores[task]) for task in TASKS[:2])
        pair = found.sel(stage=stage, task=TASKS[0], other_task=TASKS[1])
        assert pair["uncorrected"].item() == pytest.approx(stats.pearsonr(a.mean(axis=0), b.mean(axis=0)).statistic)
        expected = jackknife.correlation(a, b, paired=False)
        assert pair["value"].item() == pytest.approx(expected.value, abs=0.02)
        assert abs(pair["value"].item()) > abs(pair["uncorrected"].item())
        np.testing.assert_allclose(np.diag(found["value"].sel(stage=stage)), 1)
        np.testing.assert_allclose(found["value"].sel(stage=stage), found["value"].sel(stage=stage).T)
    change = found.sel(stage="change")["uncorrected"]
    np.testing.assert_allclose(
        change, (found.sel(stage="after") - found.sel(stage="before"))["uncorrected"], atol=1e-12
    )


def test_similar_tasks_are_clustered():
    """Two tasks share a pattern and one has another; the tree is scipy's for 1 - correlation."""
    rng = np.random.default_rng(3)
    levels = rng.lognormal(size=(2, 8, 5))
    alike = {
        task: scores_of(levels[which] * rng.gamma(20, 1 / 20, (30, 8, 5)), task)
        for task, which in (("math", 0), ("text", 1), ("sums", 0))
    }
    found = headnb.selectivity(alike, alike)
    assert {frozenset(group) for group in found.clusters(2)} == {frozenset({"math", "sums"}), frozenset({"text"})}
    order = found.order()
    assert abs(order.index("math") - order.index("sums")) == 1
    r = found.correlation["value"].sel(stage="after").values
    expected = hierarchy.average((1 - r)[np.triu_indices(3, 1)])
    np.testing.assert_allclose(found.tree()[:, 2], expected[:, 2], atol=1e-12)


def test_heads_of_one_run_are_compared_as_compare_does():
    found = headnb.selectivity(BEFORE, AFTER)
    expected = headnb.compare(BEFORE["gsm8k"], AFTER["gsm8k"])
    for name in ("difference", "q_value", "p_max_t"):
        np.testing.assert_allclose(found.heads.sel(task="gsm8k")[name], expected[name])
    rose = found.rose("gsm8k", 3)
    assert (rose["difference"] > 0).all()
    largest = int(np.argmax(expected["difference"].values))
    assert rose.index[0] == f"L{largest // 5}H{largest % 5}"


def test_heads_of_several_runs_are_tested_over_samples_and_runs():
    runs = three_runs(AFTER["gsm8k"])
    found = headnb.selectivity({"gsm8k": BEFORE["gsm8k"]}, {"gsm8k": runs}).heads.sel(task="gsm8k")
    expected = crossed_means([levels_of(run) - levels_of(BEFORE["gsm8k"]) for run in runs])
    np.testing.assert_allclose(found["difference"].values.ravel(), expected.mean)
    np.testing.assert_allclose(found["p_value"].values.ravel(), expected.p_values())
    np.testing.assert_allclose(found["low"].values.ravel(), expected.intervals(0.95)[0])


@pytest.mark.parametrize("scale_free", [False, True])
def test_reliability_of_several_runs_counts_their_noise_in_the_same_way_everywhere(scale_free: bool):
    """Runs with weakly correlated patterns: all outputs report the same evidence; more samples do not suffice."""
    rng, n, heads = np.random.default_rng(12), 40, 40
    shape, before = rng.lognormal(sigma=0.3, size=heads), scores_of(rng.gamma(9, size=(40, 8, 5)), "a")
    own = [shape * rng.lognormal(sigma=0.3, size=heads) for _ in range(3)]
    after = [scores_of((run * rng.gamma(9, size=(n, heads))).reshape(n, 8, 5), "a") for run in own]
    found = headnb.selectivity({"a": before}, {"a": after})
    change = (found.shapes if scale_free else found.heads).sel(task="a")
    evidence = {name: change[name].item() for name in Evidence._fields}
    pairs, options = [(before, run) for run in after], {"permutations": 2, "resamples": 2}
    fit = headnb.fit_combination(pairs, {"b": (before, after[0])}, name="a", scale_free=scale_free, **options)
    assert evidence["reliability"] == pytest.approx(fit.reliability.sel(task=fit.target).item())
    assert evidence["runs_for_090"] == fit.reliability.sel(task=fit.target)["runs_for_090"].item()
    changes = [(levels_of(run) - levels_of(before)).mean(axis=0) for run in after]
    agreement = np.corrcoef(changes)[np.triu_indices(3, 1)].mean()
    if not scale_free:  # reliability over runs alone, by Spearman-Brown
        assert evidence["reliability"] == pytest.approx(3 * agreement / (1 + 2 * agreement), abs=0.05)
    assert (evidence["samples"], evidence["runs"], evidence["samples_for_090"]) == (n, 3, -1)
    assert evidence["runs_for_090"] > 3
    line = headnb.grid(change).payload["panels"][0]["reliability_line"]
    assert line.endswith(
        f"(40 samples, 3 runs); more samples alone cannot give 0.90, at least {evidence['runs_for_090']} runs needed"
    )


def test_a_statistic_that_is_withheld_is_said_to_need_more_samples():
    few = [{task: scores[task].isel(sample=slice(3)) for task in ("svamp", "boolq")} for scores in (BEFORE, AFTER)]
    found = headnb.selectivity(*few)
    assert "The correlation of two tasks' patterns needs more samples." in found.verdict
    assert "Kurtosis needs more samples." in found.verdict
    assert set(found.table.filter(like="kurtosis").loc["svamp"]) == {"needs more samples"}
    assert "nan" not in found.verdict


def test_heads_relative_to_the_mean_head_are_compared_as_compare_does():
    found = headnb.selectivity(BEFORE, AFTER)
    expected = headnb.compare(BEFORE["gsm8k"], AFTER["gsm8k"], scale_free=True)
    for name in ("difference", "q_value"):
        np.testing.assert_allclose(found.shapes.sel(task="gsm8k")[name], expected[name])
    largest = int(np.argmax(expected["difference"].values))
    assert found.rose("gsm8k", 1, scale_free=True).index[0] == f"L{largest // 5}H{largest % 5}"
    scale = levels_of(AFTER["gsm8k"]).mean() / levels_of(BEFORE["gsm8k"]).mean()
    assert found.scale.sel(task="gsm8k").item() == pytest.approx(scale)


def test_shapes_of_several_runs_have_each_run_over_its_own_mean():
    """Runs of one shape and three scales: no head changes relative to the mean over heads."""
    runs = [BEFORE["gsm8k"].assign(score=c * BEFORE["gsm8k"]["score"]) for c in (0.2, 0.5, 0.8)]
    found = headnb.selectivity({"gsm8k": BEFORE["gsm8k"]}, {"gsm8k": runs})
    np.testing.assert_allclose(found.shapes["difference"], 0, atol=1e-12)
    assert found.scale.item() == pytest.approx(0.5)
    run = three_runs(AFTER["gsm8k"])
    several = headnb.selectivity({"gsm8k": BEFORE["gsm8k"]}, {"gsm8k": run}).shapes["difference"].values.ravel()
    levels = [levels_of(one).mean(axis=0) for one in (BEFORE["gsm8k"], *run)]
    before, *after = (one / one.mean() for one in levels)
    np.testing.assert_allclose(several, np.mean(after, axis=0) - before)


def test_verdict_names_tasks_whose_pattern_only_shrinks():
    """after = c * before with independent noise: heads fall in nats, not in shape, and the verdict says so."""
    rng = np.random.default_rng(5)
    levels = rng.lognormal(sigma=0.5, size=(8, 5))

    def drawn(task: str, shape: np.ndarray):
        return scores_of(shape * rng.gamma(25, 1 / 25, (40, 8, 5)), task)

    before = {task: drawn(task, levels) for task in ("shrunk", "changed")}
    two_swapped = levels[[1, 0, 2, 3, 4, 5, 6, 7]]
    after = {"shrunk": drawn("shrunk", 0.4 * levels), "changed": drawn("changed", 0.4 * two_swapped)}
    found = headnb.selectivity(before, after)
    assert found.heads["significant"].sel(task="shrunk").all()
    assert not found.shapes["significant"].sel(task="shrunk").any()
    changed = found.shapes["significant"].sel(task="changed").sum("head").values
    assert (changed[:2] >= 3).all()
    assert changed[2:].sum() <= 1
    scale = found.scale.sel(task="shrunk").item()
    assert scale == pytest.approx(0.4, abs=0.02)
    assert (
        f"Only the scale of the pattern changes significantly (by the factor): shrunk ({scale:.2f})." in found.verdict
    )


def test_unknown_tasks_and_statistics_are_refused():
    found = headnb.selectivity(BEFORE, AFTER)
    with pytest.raises(HeadnbError, match="unknown task 'gsm'; did you mean 'gsm8k'"):
        found.rose("gsm")
    with pytest.raises(HeadnbError, match="unknown statistic 'ginny'; did you mean 'gini'"):
        found.means("ginny")


def test_means_before_and_after_are_of_the_same_tasks():
    """A task whose kurtosis is withheld at one stage is excluded from the means of both stages."""
    found = headnb.selectivity(BEFORE, AFTER)
    holes = found.concentration.copy(deep=True)
    holes["value"].loc[{"statistic": "kurtosis", "stage": "before", "task": "boolq"}] = np.nan
    value = holes["value"].sel(statistic="kurtosis", task=["svamp", "gsm8k"])
    expected = [value.sel(stage=stage).mean().item() for stage in ("before", "after")]
    assert replace(found, concentration=holes).means("kurtosis") == pytest.approx(expected)
    assert found.means("gini") == pytest.approx(
        tuple(
            found.concentration["value"].sel(statistic="gini", stage=stage).mean().item()
            for stage in ("before", "after")
        )
    )


def test_verdict_names_tasks_with_one_training_run():
    alone = headnb.selectivity(BEFORE, {**AFTER, "gsm8k": three_runs(AFTER["gsm8k"])})
    assert "only one training run: svamp, boolq;" in alone.verdict
    several = headnb.selectivity(BEFORE, {task: three_runs(scores) for task, scores in AFTER.items()})
    assert "one training run" not in several.verdict


def test_result_is_text_html_and_json():
    found = headnb.selectivity(BEFORE, AFTER)
    assert "Gini changes from" in found.verdict
    assert found.verdict in repr(found)
    assert "<table" in found._repr_html_()
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["samples"] == dict.fromkeys(TASKS, 16)
    assert len(plain["concentration"]) == 3 * 3 * 3


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({}, AFTER, "no scores before fine-tuning"),
        (BEFORE, {}, "no tasks"),
        (BEFORE, {**AFTER, "gsm8k": []}, "gsm8k has no training runs"),
        ({"svamp": BEFORE["svamp"]}, {"svamp": AFTER["gsm8k"]}, "task is 'svamp' before and 'gsm8k' after"),
        (
            {"svamp": BEFORE["svamp"].assign_attrs(reduction="mean")},
            {"svamp": AFTER["svamp"].assign_attrs(reduction="mean")},
            "the scores of svamp are signed",
        ),
    ],
)
def test_incomparable_scores_are_refused(before, after, message):
    with pytest.raises(HeadnbError, match=message):
        headnb.selectivity(before, after)
    with pytest.raises(HeadnbError, match="did you mean 'after'"):
        headnb.selectivity(BEFORE, AFTER).order("afters")


def test_tasks_in_memory_of_one_name_are_not_paired():
    """Lists of samples all have the name "samples" and ids from 0 on; their fingerprints differ."""

    def in_memory(scores, start: int, n: int):
        prints = ("sample", np.arange(start, start + n))
        return scores.isel(sample=slice(n)).assign(fingerprint=prints).assign_attrs(task="samples")

    def stages(sizes, **attrs):
        return (
            {
                task: in_memory(stage[task], 100 * place, n).assign_attrs({k: v[place] for k, v in attrs.items()})
                for place, (task, n) in enumerate(zip(TASKS, sizes, strict=False))
            }
            for stage in (BEFORE, AFTER)
        )

    for sizes in ((16, 6), (16, 16)):
        unnamed = headnb.selectivity(*stages(sizes)).correlation
        assert unnamed.identical(headnb.selectivity(*stages(sizes, task=("one", "two"))).correlation)


def test_one_task_has_no_clusters():
    alone = headnb.selectivity({"svamp": BEFORE["svamp"]}, {"svamp": AFTER["svamp"]})
    assert alone.order() == ["svamp"]
    for ask in (alone.tree, alone.clusters):
        with pytest.raises(HeadnbError, match="at least two tasks"):
            ask()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [4, 5])
def test_kurtosis_of_few_samples_is_unknown_without_a_warning(n):
    before, after = levels_of(BEFORE["svamp"])[:n], levels_of(AFTER["svamp"])[:n]
    for runs in (after[None], np.stack([after] * 2)):
        assert all(np.isnan(stage.value) for stage in concentration(before, runs, "kurtosis").values())


MARKED = scores_of(np.ones((4, 2, 3))).assign(fingerprint=("sample", range(4)))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (MARKED.assign_attrs(task="products"), "task is 'sums' before run 1 and 'products' before run 2"),
        (MARKED.assign_attrs(method="taylor-token"), "method is 'activation' before run 1"),
        (MARKED.assign(fingerprint=("sample", range(1, 5))), "4 of 4 sample ids .* before run 1 and before run 2"),
        (MARKED.isel(head=slice(None, None, -1)), "head 0 before run 1 corresponds to head 2 before run 2"),
        (MARKED.isel(head=[0, 1]), "2 x 3 heads before run 1 and 2 x 2 before run 2"),
    ],
)
def test_training_runs_of_unequal_scores_are_not_averaged(other, message):
    """Each run is consistent in itself."""
    with pytest.raises(HeadnbError, match=message):
        read_stages([(MARKED, MARKED), (other, other)], "sums")


@pytest.mark.parametrize("sequence", [list, tuple])
@pytest.mark.parametrize("runs", [1, 2, 3])
def test_runs_are_a_list_or_a_tuple_of_pairs(sequence, runs):
    pairs = [random_change(0, "svamp", n=4)] * runs
    stages = read_stages(sequence(pairs), "svamp")
    np.testing.assert_allclose(stages.before, levels_of(pairs[0][0]))
    np.testing.assert_array_equal(stages.after, [levels_of(after) for _, after in pairs])


def test_patterns_before_are_averaged_over_runs_as_scores_are():
    rng = np.random.default_rng(0)
    scores = [[scores_of(rng.random((4, 2, 3))) for _ in range(2)] for _ in range(3)]
    of_scores = read_stages([tuple(run) for run in scores], "sums")
    of_patterns = read_stages([tuple(stage.heads.pattern() for stage in run) for run in scores], "sums")
    np.testing.assert_allclose(of_patterns.before[0], of_scores.before.mean(axis=0))
    np.testing.assert_allclose(of_patterns.after[:, 0], of_scores.after.mean(axis=1))
