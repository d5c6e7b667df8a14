"""Specificity of fine-tuned models, against plain loops, and on models without differences."""

from __future__ import annotations

import itertools
import json

import headnb
import numpy as np
import pytest
from headnb.analysis.debiased_products import MeasuredPattern
from headnb.analysis.task_specificity import _between_runs, _p_value
from headnb.errors import HeadnbError

from simulated_finetuning import scores_of

TASKS = ("gsm8k", "mbpp", "boolq", "arc")
SHAPE = (8, 5)


def models(seed: int, *, own: float, every: float = 0.0, runs: int = 1, spread: float = 0.0, n: int = 16, tasks=TASKS):
    """Scores before and after; log levels change by `own` on the trained task, `every` on all, `spread` per run."""
    rng = np.random.default_rng(seed)
    base = {task: rng.lognormal(sigma=0.5, size=SHAPE) for task in tasks}

    def drawn(task: str, change: np.ndarray):
        return scores_of(base[task] * np.exp(change) * rng.gamma(20, 1 / 20, (n, *SHAPE)), task)

    before = {task: drawn(task, np.zeros(SHAPE)) for task in tasks}
    after = {}
    for train in tasks:
        directions, run_changes = rng.standard_normal((2, *SHAPE)), rng.standard_normal((runs, *SHAPE))
        after[train] = {
            task: [
                drawn(task, own * (train == task) * directions[0] + every * directions[1] + spread * of_run)
                for of_run in run_changes
            ]
            for task in tasks
        }
    return before, {t: {e: found if runs > 1 else found[0] for e, found in row.items()} for t, row in after.items()}


def levels_of(scores) -> np.ndarray:
    return np.abs(scores["score"].values).reshape(len(scores["sample"]), -1)


def test_change_is_the_distance_between_different_samples_by_loops():
    """Unbiased squared distance: mean product of the differences of two different samples."""
    before, after = models(0, own=0.5)
    found = headnb.specificity(before, after, scale_free=False, permutations=10)
    a, b = levels_of(after["gsm8k"]["gsm8k"]), levels_of(before["gsm8k"])
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (a, b))
    d, n = a - b, len(a)
    squared = np.mean([d[x] @ d[y] for x in range(n) for y in range(n) if x != y])
    length = np.mean([b[x] @ b[y] for x in range(n) for y in range(n) if x != y])
    expected = np.sqrt(max(squared / length, 0))
    cell = found.change.sel(train="gsm8k", eval="gsm8k")
    assert cell["value"].item() == pytest.approx(expected, abs=0.02)  # the jackknife corrects the bias of the ratio
    assert cell["low"] <= cell["value"] <= cell["high"]


def test_variance_between_models_and_its_noise_by_loops():
    before, after = models(1, own=0.3)
    row = headnb.specificity(before, after, scale_free=False, permutations=10).between.sel(eval="arc")
    rows = np.stack([levels_of(after[train]["arc"]) for train in TASKS])  # (models, n, heads)
    spread = levels_of(before["arc"]).mean(axis=0).var()
    apart = rows - rows.mean(axis=0)
    assert row["between"].item() == pytest.approx(rows.mean(axis=1).var(axis=0, ddof=1).mean() / spread)
    noise = np.mean([[apart[:, :, h].var(axis=1, ddof=1).sum() / 3 / 16] for h in range(40)])
    assert row["noise"].item() == pytest.approx(noise / spread)
    assert row["ratio"].item() == pytest.approx(row["between"].item() / row["noise"].item())


def test_effects_of_the_trained_task_are_found():
    found = headnb.specificity(*models(2, own=0.5, n=24), permutations=200)
    assert found.own > found.others
    assert found.own_p == pytest.approx(1 / 24)  # 4! permutations of the models
    assert found.p < 0.01
    assert "differ beyond the noise of samples" in found.verdict
    assert "the run rather than the task may cause" in found.verdict
    alike = headnb.specificity(*models(2, own=0, n=24), permutations=200)
    assert "do not differ significantly" in alike.verdict
    assert "rather than the task" not in alike.verdict


def test_equal_models_rarely_differ_significantly():
    """With equal patterns, p < 0.05 in 5 % of replicates; more than 5 of 24 have a probability of about 1 / 1000."""
    low = [
        headnb.specificity(*models(100 + seed, own=0, n=12, tasks=TASKS[:3]), permutations=99).p < 0.05
        for seed in range(24)
    ]
    assert sum(low) <= 5


def test_run_effects_are_not_attributed_to_tasks():
    """Independent changes by run: the test over samples is significant, the test over runs is not."""
    by_runs = []
    for seed in range(12):
        before, after = models(200 + seed, own=0, runs=2, spread=0.3, tasks=TASKS[:3])
        first = {train: {task: runs[0] for task, runs in row.items()} for train, row in after.items()}
        assert headnb.specificity(before, first, permutations=99).p < 0.05
        found = headnb.specificity(before, after, permutations=99)
        assert found.unit == "training runs"
        by_runs.append(found.p)
    assert sum(p < 0.05 for p in by_runs) <= 4


def test_runs_are_exchanged_between_tasks_within_their_number_by_loops():
    tasks, runs = TASKS[:3], 3
    before, after = models(7, own=0.1, runs=runs, spread=0.2, tasks=tasks)
    found = headnb.specificity(before, after, scale_free=False, permutations=36)
    every = list(itertools.permutations(range(3)))

    def statistic(groups):
        means = [np.mean(group, axis=0) for group in groups]
        noise = [np.var(group, axis=0, ddof=1).mean() for group in groups]
        middle = sum(m / s for m, s in zip(means, noise, strict=True)) / sum(1 / s for s in noise)
        return sum(runs / s * ((m - middle) ** 2).mean() for m, s in zip(means, noise, strict=True))

    for task in tasks:
        patterns = [[levels_of(run).mean(axis=0) for run in after[train][task]] for train in tasks]
        chance = [
            statistic([[patterns[t][0], patterns[one[t]][1], patterns[two[t]][2]] for t in range(3)])
            for one, two in itertools.product(every, every)
        ]
        p = np.mean([value >= chance[0] * (1 - 1e-9) for value in chance])
        assert found.between.sel(eval=task)["p"].item() == pytest.approx(p)


def simulated(rng, noise, *, runs=3, own=0.0, heads=120):
    """Patterns of models with run noise of the given sizes; the r-th runs of all tasks share a component."""
    common = rng.standard_normal((runs, heads))
    return [
        MeasuredPattern(
            (own * rng.standard_normal(heads) + 0.5 * common + size * rng.standard_normal((runs, heads)))[:, None]
        )
        for size in noise
    ]


@pytest.mark.parametrize("largest", [1, 3, 15])
def test_models_that_differ_by_runs_alone_rarely_differ_significantly(largest: int):
    """At a level of 5 %, 14 or more of 100 replicates have a probability of 1 / 1000, also with unequal run noise."""
    rng = np.random.default_rng(largest)
    noise = [1, 1, 1, largest]
    found = [_p_value(_between_runs(simulated(rng, noise), 200, rng)[2]) for _ in range(100)]
    assert sum(p < 0.05 for p in found) < 14


@pytest.mark.parametrize("largest", [1, 3])
def test_models_that_differ_by_task_are_found_with_three_runs(largest: int):
    rng = np.random.default_rng(largest)
    noise = [1, 1, 1, largest]
    found = [_p_value(_between_runs(simulated(rng, noise, own=0.6), 200, rng)[2]) for _ in range(20)]
    assert sum(p < 0.05 for p in found) >= 14


def test_a_task_whose_runs_differ_too_much_is_left_out_and_named():
    before, after = models(8, own=0.3, runs=3, spread=0.02)
    for task, scores in after["boolq"].items():
        after["boolq"][task] = [
            run.assign(score=run["score"] * scale) for run, scale in zip(scores, (1, 3, 9), strict=True)
        ]
    found = headnb.specificity(before, after, scale_free=False, permutations=200)
    assert found.left_out == ("boolq",)
    assert "large variance between training runs: boolq" in found.verdict
    assert found.p < 0.05


def test_too_few_runs_are_no_test():
    found = headnb.specificity(*models(9, own=0.3, runs=2, spread=0.02, tasks=TASKS[:2]), permutations=200)
    assert np.isnan(found.p)
    assert "was not tested" in found.verdict
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["p"] is None


def test_result_is_text_html_and_json():
    found = headnb.specificity(*models(3, own=0.3), permutations=20)
    assert found.table.shape == (4, 4)
    assert found.verdict in repr(found)
    assert "<table" in found._repr_html_()
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert len(plain["change"]) == 16
    assert plain["unit"] == "samples"


def test_incomparable_scores_are_refused():
    before, after = models(4, own=0)
    with pytest.raises(HeadnbError, match="at least two models trained on different tasks; got 1"):
        headnb.specificity(before, {"gsm8k": after["gsm8k"]})
    with pytest.raises(HeadnbError, match="no task has scores of all fine-tuned models"):
        headnb.specificity(before, {"gsm8k": {}, "mbpp": after["mbpp"]})
    with pytest.raises(HeadnbError, match="did you mean 'scale_free'"):
        headnb.specificity(before, after, scalefree=True)


def test_signed_scores_have_no_relative_change():
    before, after = models(5, own=0.3)
    signed = [
        {t: scores.assign_attrs(reduction="mean") for t, scores in row.items()} for row in (before, *after.values())
    ]
    stages = signed[0], dict(zip(after, signed[1:], strict=True))
    with pytest.raises(HeadnbError, match="scale_free needs activation levels"):
        headnb.specificity(*stages)
    headnb.specificity(*stages, scale_free=False, permutations=10)


def test_three_tasks_are_no_test_of_the_own_task():
    """3! = 6 permutations of the models: p is at least 1 / 6."""
    found = headnb.specificity(*models(2, own=0.5, tasks=TASKS[:3]), permutations=50)
    assert np.isnan(found.own_p)
    assert found.own > found.others
    assert "(not tested: too few tasks)" in found.verdict


def test_three_samples_of_two_models_are_no_test():
    """2! ** 2 = 4 permutations of the models within samples."""
    found = headnb.specificity(*models(2, own=0.5, n=3, tasks=TASKS[:2]), permutations=50)
    assert np.isnan(found.p)
    assert np.isnan(found.between["p"]).all()
    assert "needs more samples or models" in found.verdict
    assert "nan" not in found.verdict


def test_a_run_that_is_scored_on_some_tasks_only_is_refused():
    """Which run lacks the scores is unknown, so runs of two evaluated tasks cannot be permuted together."""
    before, after = models(2, own=0.5, tasks=TASKS[:3])
    runs = {t: {e: [one] * (3 if e == TASKS[0] else 2) for e, one in row.items()} for t, row in after.items()}
    with pytest.raises(HeadnbError, match=r"of 3 training runs on .* and of 2 on .*; give the scores of each run"):
        headnb.specificity(before, runs)
