"""Curves and tables over several runs: means over seeds of the results of `trajectory`."""

from __future__ import annotations

import headnb
import numpy as np
import pytest
from headnb.display.charts import plots
from headnb.display.payload import payload
from headnb.experiments.findings import changes_of, progress_of, training_curves, trajectory_table
from headnb.experiments.summaries import speed_summary

from simulated_finetuning import random_change
from simulated_tracking import EXPONENTIAL, STEPS, simulated_study

RUNS = {
    (task, seed): headnb.trajectory(*simulated_study(done, noise=0.2, seed=seed), task="gsm8k")
    for task, done in (("gsm8k", EXPONENTIAL), ("mbpp", STEPS / 80))
    for seed in (0, 1)
}


def mean_of(name: str, task: str) -> np.ndarray:
    return np.mean([RUNS[task, seed].steps[name].values for seed in (0, 1)], axis=0)


def test_the_curve_of_a_task_is_the_mean_over_its_seeds() -> None:
    found = training_curves(RUNS)
    for task in ("gsm8k", "mbpp"):
        for name in ("relative_distance", "correlation_first", "correlation_final", "movement"):
            np.testing.assert_allclose(found[name].sel(task=task), mean_of(name, task))
    np.testing.assert_array_equal(found["samples_seen"], STEPS * 8)
    assert found["relative_distance"].sel(task="gsm8k", step=0) == 1
    assert found["correlation_final"].sel(task="mbpp", step=80) == pytest.approx(1)


def test_curves_are_drawn_against_the_samples_seen() -> None:
    chart = plots.curves(training_curves(RUNS), along="samples_seen", log=True)
    assert len(chart.plots) == 4
    assert {plot.x.label for plot in chart.plots} == {"samples seen"}
    assert [plot.y.label for plot in chart.plots][:2] == ["relative distance", "correlation first"]
    assert chart.title == "over samples seen"


def test_tasks_tracked_at_different_steps_are_combined() -> None:
    study, scores = simulated_study(EXPONENTIAL)
    fewer = headnb.trajectory(study.isel(step=[0, 2, 7]), scores.isel(step=[0, 2, 7]))
    found = training_curves({("gsm8k", 0): RUNS["gsm8k", 0], ("mbpp", 0): fewer})
    assert found["step"].values.tolist() == STEPS.tolist()
    assert found["movement"].sel(task="mbpp").notnull().values.tolist() == [s in {0, 2, 80} for s in STEPS]
    assert found["samples_seen"].notnull().all()


def test_progress_keeps_every_seed_and_the_table_has_their_mean() -> None:
    progress, table = progress_of(RUNS), trajectory_table(RUNS)
    assert dict(progress.sizes) == {"task": 2, "seed": 2, "step": 8}
    np.testing.assert_array_equal(progress["value"].sel(task="mbpp", seed=1), RUNS["mbpp", 1].steps["done"])
    halves = [RUNS["gsm8k", seed].half.value for seed in (0, 1)]
    assert table.loc["gsm8k", "half-change step"] == pytest.approx(np.mean(halves))
    assert table.loc["gsm8k", "samples at half-change"] == pytest.approx(8 * np.mean(halves))


def test_runs_without_a_change_are_counted_and_not_hidden_in_the_means() -> None:
    flat = headnb.trajectory(*simulated_study(np.zeros(8)))
    runs = {("gsm8k", 0): RUNS["gsm8k", 0], ("gsm8k", 1): flat, ("mbpp", 0): flat, ("mbpp", 1): flat}
    table = trajectory_table(runs)
    assert table["measured in runs"].to_dict() == {"gsm8k": "1 of 2", "mbpp": "0 of 2"}
    assert "Mean over tasks (measured in 1 of 4 runs): half of the change" in speed_summary(runs, table)
    assert "measured in" not in speed_summary(RUNS, trajectory_table(RUNS))
    assert speed_summary({("mbpp", 0): flat}, table.loc[["mbpp"]]) == "No pattern changes beyond noise."


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("scale_free", [False, True])
def test_grids_of_changes_mark_significant_heads_and_show_the_reliability(runs: int, scale_free: bool) -> None:
    pairs = {"svamp": random_change(0, "svamp", n=16), "boolq": random_change(1, "boolq", n=20)}
    found = headnb.selectivity(
        {task: before for task, (before, _) in pairs.items()},
        {task: [after] * runs for task, (_, after) in pairs.items()},
    )
    drawn = payload(changes_of(found, scale_free=scale_free))
    table = found.shapes if scale_free else found.heads
    for panel, (task, pair) in zip(drawn["panels"], pairs.items(), strict=True):
        compared = headnb.compare(*pair, scale_free=scale_free)
        assert (drawn["kind"], drawn["units"]) == ("difference", compared.attrs["units"])
        assert panel["samples"] == compared.attrs["samples"] == len(pair[0]["sample"])
        assert panel["reliability"] == pytest.approx(
            compared.attrs["reliability"], abs=1e-3
        )  # the runs are equal, so the reliability is that of one run
        np.testing.assert_array_equal(panel["significant"], table["significant"].sel(task=task))
