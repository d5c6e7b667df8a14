"""The paper's three findings, computed from a run folder for notebooks 03 to 05 and for the report."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
import xarray as xr

from headnb.analysis.composition.evidence import GAIN
from headnb.analysis.composition.fit import fit_combination
from headnb.analysis.composition.power import EACH_CONTRIBUTES, composition_power
from headnb.analysis.task_selectivity import selectivity
from headnb.analysis.task_specificity import specificity
from headnb.analysis.trajectories import trajectory
from headnb.errors import HeadnbError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headnb.analysis.composition.fit import CombinationFit
    from headnb.analysis.composition.power import CompositionPower
    from headnb.analysis.task_selectivity import Selectivity
    from headnb.analysis.task_specificity import Specificity
    from headnb.analysis.trajectories import Trajectory
    from headnb.experiments.folder import Run

# Quantities that a combination is fitted to. Levels fall with the loss, so each also has a scale-free form.
FORMS: dict[str, dict[str, Any]] = {
    "dAP": {"on": "change"},
    "dAP, scale-free": {"on": "change", "scale_free": True},
    "AP after": {"on": "after"},
    "AP after, scale-free": {"on": "after", "scale_free": True},
}


def selectivity_of(run: Run) -> Selectivity:
    """Finding 1, concentration: each fine-tuned task before and after fine-tuning on it, over seeds.

    Raises:
        HeadnbError: no task is fine-tuned yet.
    """
    trained = _trained(run)
    return selectivity(
        {task: run.before(task) for task in trained},
        {task: [run.after(task, seed, task) for seed in seeds] for task, seeds in trained.items()},
    )


def changes_of(result: Selectivity, *, scale_free: bool = False) -> dict[str, xr.Dataset]:
    """Task -> change of its pattern by fine-tuning on it (layer, head), in the form that a grid draws."""
    heads = result.shapes if scale_free else result.heads
    return {str(task): heads.sel(task=task).drop_vars("task") for task in heads["task"].to_numpy()}


def specificity_of(run: Run) -> Specificity:
    """Finding 1, specificity: every fine-tuned model evaluated on every task.

    Raises:
        HeadnbError: fewer than two tasks are fine-tuned.
    """
    tasks = run.settings.tasks
    return specificity(
        {task: run.before(task) for task in tasks},
        {
            trained: {task: [run.after(trained, seed, task) for seed in seeds] for task in tasks}
            for trained, seeds in _trained(run).items()
        },
    )


def combinations_of(run: Run, target: str, basics: Sequence[str]) -> dict[str, CombinationFit]:
    """Finding 2: fit of a complex task from basic tasks, in each of `FORMS`.

    Raises:
        HeadnbError: one of the tasks is not fine-tuned.
    """
    changes = _composition_arguments(run, target, basics)
    return {form: fit_combination(**changes, **settings) for form, settings in FORMS.items()}


def power_of(run: Run, target: str, basics: Sequence[str], replicates: int = 40) -> CompositionPower:
    """Power of the composition test at this study's size and noise, simulated from the run's own data.

    Raises:
        HeadnbError: one of the tasks is not fine-tuned, or there are too few runs, samples, layers or heads.
    """
    return composition_power(**_composition_arguments(run, target, basics), replicates=replicates)


def detection_power(run: Run, target: str) -> tuple[float, float]:
    """The largest composed share that notebook 04 simulated, and its probability to be found; NaN if unknown."""
    numbers = run.findings.numbers("composition") if run.findings.has_numbers("composition") else {}
    rates = numbers.get(target, {}).get("power", {}).get("rates", [])
    if not rates:
        return math.nan, math.nan
    largest = max(rates, key=lambda row: row["share"])
    power = largest.get(EACH_CONTRIBUTES, largest[GAIN])
    return float(largest["share"]), math.nan if power is None else float(power)


def _composition_arguments(run: Run, target: str, basics: Sequence[str]) -> dict[str, Any]:
    """Arguments of `fit_combination`."""
    trained = _trained(run)
    for name in (target, *basics):
        if name not in trained:
            raise unknown_name("fine-tuned task", name, trained)
    shuffled = {task: pairs for task in trained if (pairs := run.shuffled_pairs(task))}
    return {
        "target": run.pairs(target),
        "basics": {task: run.pairs(task) for task in basics},
        "name": target,
        "others": {task: run.pairs(task) for task in trained if task not in {target, *basics}} or None,
        "shuffled": shuffled or None,
    }


def pairs_of(run: Run, target: str, form: str = "dAP, scale-free") -> pd.DataFrame:
    """Fit of `target` from every pair of other fine-tuned tasks: `r2` and `r2_cv`, in descending order of `r2`.

    Raises:
        HeadnbError: fewer than three tasks are fine-tuned, or the form is unknown.
    """
    if form not in FORMS:
        raise unknown_name("form", form, FORMS)
    changes = {task: run.pairs(task) for task in _trained(run) if task != target}
    if len(changes) < 2:
        raise HeadnbError("a fit from pairs of tasks needs at least three fine-tuned tasks")
    rows = {}
    for names in itertools.combinations(changes, 2):
        parts = {name: changes[name] for name in names}
        fit = fit_combination(run.pairs(target), parts, name=target, permutations=1, resamples=1, **FORMS[form])
        rows[" + ".join(names)] = {"r2": fit.r2, "r2_cv": fit.r2_cv}
    return pd.DataFrame.from_dict(rows, orient="index").sort_values("r2", ascending=False).rename_axis("basics")


def trajectories_of(run: Run, *, scale_free: bool = True) -> dict[tuple[str, int], Trajectory]:
    """Finding 3: (task, seed) -> trajectory of the task's pattern during fine-tuning.

    Raises:
        HeadnbError: no task is fine-tuned yet, or a training was tracked at fewer than three steps.
    """
    trajectories = {}
    for task, seeds in _trained(run).items():
        for seed in seeds:
            tuned = run.tuned(task, seed)
            trajectories[task, seed] = trajectory(tuned.study, tuned.scores, scale_free=scale_free)
    return trajectories


def progress_of(trajectories: Mapping[tuple[str, int], Trajectory]) -> xr.Dataset:
    """Fraction of the change completed: `value`, `low`, `high` (task, seed, step)."""
    columns = {"done": "value", "done_low": "low", "done_high": "high"}
    rows: dict[str, list[xr.Dataset]] = {}
    for (task, seed), of_run in trajectories.items():
        steps = of_run.steps[list(columns)].rename(columns)
        rows.setdefault(task, []).append(steps.expand_dims(seed=[seed]))
    tasks = [xr.concat(seeds, "seed") for seeds in rows.values()]
    joined = xr.concat(tasks, xr.DataArray(list(rows), dims="task", name="task"), join="outer")
    joined["value"].attrs["long_name"] = "fraction of the change completed"
    return joined.transpose("task", "seed", "step")


def training_curves(trajectories: Mapping[tuple[str, int], Trajectory]) -> xr.Dataset:
    """Mean curves over seeds (task, step) of the pattern and of the parameters.

    `relative_distance`: distance to the final pattern divided by its value at the first step. `correlation_first` and
    `correlation_final`: correlation with the first and the final pattern. `movement`: relative parameter distance.
    Coordinate `samples_seen` (step): mean over runs.
    """
    names = ["relative_distance", "correlation_first", "correlation_final", "movement"]
    rows: dict[str, list[xr.Dataset]] = {}
    for (task, _), of_run in trajectories.items():
        rows.setdefault(task, []).append(of_run.steps[[*names, "samples_seen"]])
    tasks = [xr.concat(seeds, "seed", join="outer").mean("seed") for seeds in rows.values()]
    joined = xr.concat(tasks, xr.DataArray(list(rows), dims="task", name="task"), join="outer")
    for name in names:
        joined[name].attrs["long_name"] = name.replace("_", " ")
    return joined[names].assign_coords(samples_seen=joined["samples_seen"].mean("task"))


def trajectory_table(trajectories: Mapping[tuple[str, int], Trajectory]) -> pd.DataFrame:
    """One row per task, mean over seeds: half-change and 90 % steps, early speed, relative parameter distance.

    Runs whose pattern does not change beyond noise count in the columns of the parameters only; "measured in runs" has
    the number of the other runs.
    """
    rows = [
        {
            "task": task,
            "half-change step": of_run.half.value,
            "90 % step": of_run.ninety.value,
            "samples at half-change": of_run.seen(of_run.half.value),
            "early speed": of_run.early_speed.value,
            "half-distance step of parameters": of_run.half_movement,
            "parameter distance": float(of_run.steps["movement"][-1]),
        }
        for (task, _), of_run in trajectories.items()
    ]
    of_tasks = pd.DataFrame(rows).groupby("task", sort=False)
    halves = of_tasks["half-change step"]
    measured = [f"{count} of {runs}" for count, runs in zip(halves.count(), halves.size(), strict=True)]
    return of_tasks.mean().assign(**{"measured in runs": measured})


def measured_runs(trajectories: Mapping[tuple[str, int], Trajectory]) -> str:
    """` (measured in 1 of 4 runs)` if the other patterns do not change beyond noise and means omit them; else empty."""
    measured = sum(math.isfinite(of_run.half.value) for of_run in trajectories.values())
    return "" if measured == len(trajectories) else f" (measured in {measured} of {len(trajectories)} runs)"


def _trained(run: Run) -> dict[str, tuple[int, ...]]:
    trained = run.trained
    if not trained:
        raise HeadnbError(f"{run.folder} has no fine-tuning yet; run notebook 02_finetune first")
    return trained
