"""Selectivity of tasks' patterns before and after fine-tuning (arXiv 2409.15820, finding 1).

`selectivity` measures each task's pattern before and after fine-tuning on that task: its concentration, its correlation
with other tasks' patterns, and the heads whose level rises. `task_specificity` compares all fine-tuned models on all
tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from headnb.analysis.before_after import check_same_grid, on_common_samples, read_stages
from headnb.analysis.changed_heads import RUN_NOISE_ATTRS, changed_heads
from headnb.analysis.concentration import CONCENTRATIONS, STAGES, concentration
from headnb.analysis.debiased_products import MeasuredPattern
from headnb.analysis.json_values import as_records
from headnb.analysis.result import AnalysisResult
from headnb.analysis.task_correlations import task_correlations
from headnb.call_checks import check_arguments
from headnb.errors import HeadnbError, unknown_name
from headnb.stats.patterns import HEADS
from headnb.stats.reliability import Evidence
from headnb.stats.results import as_result, check_levels
from headnb.stats.rounding import NEEDS_MORE_SAMPLES, fixed, interval_text
from headnb.stats.tables import head_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

    from headnb.analysis.before_after import Stages
    from headnb.stats.descriptive import Array

    Runs = xr.Dataset | Sequence[xr.Dataset]


@dataclass(frozen=True, repr=False)
class Selectivity(AnalysisResult):
    """Patterns of several tasks before and after fine-tuning on each of them.

    Attributes:
        concentration: Dataset (task, statistic, stage) of `value`, `low`, `high` and `uncorrected`; statistics are
            "gini", "cv" and "kurtosis", stages "before", "after" and "change". Intervals are over samples, and over
            training runs if there are several.
        correlation: Dataset (stage, task, other_task) of `value`, `low`, `high` and `uncorrected`: noise-corrected
            correlation over heads between two tasks' patterns, and the correlation of the observed patterns.
        heads: Dataset (task, layer, head): the comparison of levels by `headnb.compare`; with several training runs,
            the tests are over samples and runs.
        shapes: Dataset (task, layer, head): the comparison of patterns divided by their mean over heads. Levels fall
            with the loss; a pattern that only shrinks differs in all heads of `heads` and in none of `shapes`.
        scale: (task), the mean level after fine-tuning divided by the mean level before.
        reliability: (task, stage), reliability of the patterns.
        samples: (task), number of samples.
        runs: (task), number of training runs.
        level: confidence level of the intervals.
        alpha: a head has changed if its q-value is below this.
    """

    concentration: xr.Dataset
    correlation: xr.Dataset
    heads: xr.Dataset
    shapes: xr.Dataset
    scale: xr.DataArray
    reliability: xr.DataArray
    samples: xr.DataArray
    runs: xr.DataArray
    level: float
    alpha: float

    def order(self, stage: str = "after") -> list[str]:
        """The tasks ordered by similarity, the leaves of the hierarchical clustering; as given if there is none."""
        tasks = [str(task) for task in self.correlation["task"].to_numpy()]
        if len(tasks) < 2 or not np.isfinite(self._distances(stage)).all():
            return tasks
        return [tasks[leaf] for leaf in hierarchy.leaves_list(self.tree(stage))]

    def clusters(self, number: int = 2, stage: str = "after") -> list[list[str]]:
        """The tasks in at most `number` clusters.

        Raises:
            HeadnbError: one task only, or a task's pattern has no correlation: its heads all have the same level.
        """
        tasks = self.correlation["task"].to_numpy()
        labels = hierarchy.fcluster(self.tree(stage), number, "maxclust")
        return [[str(task) for task in tasks[labels == label]] for label in np.unique(labels)]

    def tree(self, stage: str = "after") -> Array:
        """Average linkage of the distances 1 - correlation, a scipy linkage matrix.

        Raises:
            HeadnbError: one task only, or a task's pattern has no correlation: its heads all have the same level.
        """
        distances = self._distances(stage)
        if len(distances) < 2:
            raise HeadnbError("clusters need at least two tasks")
        distance = squareform(distances, checks=False)
        if not np.isfinite(distance).all():
            raise HeadnbError("there are no clusters: the heads of a task all have the same level")
        return np.asarray(hierarchy.linkage(distance, method="average", optimal_ordering=True))

    def _distances(self, stage: str) -> Array:
        """1 - correlation of all pairs of tasks (task, task); NaN for a constant pattern."""
        if stage not in STAGES[:2]:
            raise unknown_name("stage", stage, STAGES[:2])
        r = self.correlation.sel(stage=stage)
        known = r["value"].where(np.isfinite(r["value"]), r["uncorrected"]).to_numpy()
        distance = np.clip(1 - (known + known.T) / 2, 0, 2)
        np.fill_diagonal(distance, 0)
        return np.asarray(distance)

    def rose(self, task: str, k: int = 10, *, scale_free: bool = False) -> pd.DataFrame:
        """The k heads whose level rises most, by head name, with intervals, q-values and "significant".

        Args:
            task: one of the tasks.
            k: maximum number of heads.
            scale_free: compare levels relative to the mean over heads.

        Raises:
            HeadnbError: the task is unknown.
        """
        tasks = [str(known) for known in self.samples["task"].to_numpy()]
        if task not in tasks:
            raise unknown_name("task", task, tasks)
        change = self.shapes if scale_free else self.heads
        table = head_table(change.sel(task=task), "difference", change.sizes["layer"] * change.sizes["head"])
        return table[table["difference"] > 0].head(k)

    def means(self, statistic: str) -> tuple[float, float]:
        """Mean over tasks of "gini", "cv" or "kurtosis" before and after, over the tasks with both values.

        Raises:
            HeadnbError: the statistic is unknown.
        """
        if statistic not in CONCENTRATIONS:
            raise unknown_name("statistic", statistic, CONCENTRATIONS)
        values = self.concentration["value"].sel(statistic=statistic, stage=list(STAGES[:2]))
        before, after = values.dropna("task").mean("task").to_numpy()
        return float(before), float(after)

    @property
    def table(self) -> pd.DataFrame:
        """One row per task: each statistic before and after, and its change, as text with intervals."""
        columns = {
            f"{statistic} {stage}": ("task", [_interval_text(cells.sel(task=task)) for task in self.samples["task"]])
            for statistic in self.concentration["statistic"].to_numpy()
            for stage in STAGES
            for cells in [self.concentration.sel(statistic=statistic, stage=stage)]
        }
        return xr.Dataset(columns, {"task": self.samples["task"]}).to_dataframe()

    @property
    def verdict(self) -> str:
        """The result in sentences."""
        lines = [self._concentration_line(str(name)) for name in self.concentration["statistic"].to_numpy()]
        if len(self.samples) > 1:
            lines.append(self._correlation_line())
        if len(self.samples) > 2 and np.isfinite(self._distances("after")).all():
            groups = " and ".join("{" + ", ".join(group) + "}" for group in self.clusters())
            lines.append(f"Hierarchical clustering after fine-tuning groups the tasks as {groups}.")
        lines.append(self._heads_line())
        if single := [str(task) for task, runs in self.runs.to_series().items() if runs == 1]:
            lines.append(
                f"Tasks with only one training run: {', '.join(single)}; their intervals do not cover other runs."
            )
        return " ".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values (NaN as None)."""
        return {
            "concentration": as_records(self.concentration),
            "correlation": as_records(self.correlation),
            "reliability": as_records(self.reliability.to_dataset(name="reliability")),
            "heads": as_records(self._counts()),
            "order": self.order(),
            "level": self.level,
            "samples": {str(task): int(n) for task, n in self.samples.to_series().items()},
            "runs": {str(task): int(n) for task, n in self.runs.to_series().items()},
            "verdict": self.verdict,
        }

    def _display_table(self) -> pd.DataFrame:
        return self.table.T  # nine columns of intervals are too wide

    def _concentration_line(self, name: str) -> str:
        change = self.concentration.sel(statistic=name, stage="change")
        before, after = self.means(name)
        up, down, of = int((change["low"] > 0).sum()), int((change["high"] < 0).sum()), change.sizes["task"]
        label = {"gini": "Gini", "cv": "The coefficient of variation", "kurtosis": "Kurtosis"}[name]
        withheld = int(np.isnan(change["value"]).sum())
        if withheld == of:
            return f"{label} {NEEDS_MORE_SAMPLES}."
        line = (
            f"{label} changes from {fixed(before)} to {fixed(after)} (mean over tasks): significant increase in {up}, "
            f"significant decrease in {down} and no significant change in {of - up - down - withheld} of {of} tasks"
        )
        return f"{line}; {NEEDS_MORE_SAMPLES} in {withheld}." if withheld else f"{line}."

    def _correlation_line(self) -> str:
        pairs = np.triu_indices(len(self.samples), 1)
        of_pairs = {stage: self.correlation.sel(stage=stage) for stage in STAGES}
        values = np.stack([of_pairs[stage]["value"].to_numpy()[pairs] for stage in STAGES[:2]])
        known = np.isfinite(values).all(axis=0)
        if not known.any():
            return f"The correlation of two tasks' patterns {NEEDS_MORE_SAMPLES}."
        means = values[:, known].mean(axis=1)
        up = int((of_pairs["change"]["low"].to_numpy()[pairs] > 0).sum())
        down = int((of_pairs["change"]["high"].to_numpy()[pairs] < 0).sum())
        return (
            f"The noise-corrected correlation of two tasks' patterns changes from {fixed(means[0])} to "
            f"{fixed(means[1])} (mean over pairs): significant increase in {up} and significant decrease in {down} of "
            f"{len(pairs[0])} pairs."
        )

    def _counts(self) -> xr.Dataset:
        """(task): number of heads that `rose` and `fell`, also relative to the mean over heads; and `scale`."""
        columns = {}
        for change, ending in ((self.heads, ""), (self.shapes, "_relative")):
            for name, sign in (("rose", 1), ("fell", -1)):
                changed = change["significant"] & (sign * change["difference"] > 0)
                columns[name + ending] = changed.sum(HEADS).reset_coords(drop=True)
        return xr.Dataset({**columns, "scale": self.scale})

    def _heads_line(self) -> str:
        counts = self._counts()
        mean = {name: f"{float(column.mean()):.0f}" for name, column in counts.items()}
        line = (
            f"On average per task, the level of {mean['rose']} heads rises and of {mean['fell']} heads falls "
            f"significantly (q < {self.alpha:g}); relative to the mean over heads, {mean['rose_relative']} heads rise "
            f"and {mean['fell_relative']} fall."
        )
        only_scale = (counts["rose"] + counts["fell"] > 0) & (counts["rose_relative"] + counts["fell_relative"] == 0)
        if not only_scale.any():
            return line
        scales = [f"{task} ({scale:.2f})" for task, scale in self.scale[only_scale].to_series().items()]
        return f"{line} Only the scale of the pattern changes significantly (by the factor): {', '.join(scales)}."


@check_arguments
def selectivity(
    before: Mapping[str, xr.Dataset],
    after: Mapping[str, Runs],
    *,
    level: float = 0.95,
    alpha: float = 0.05,
    seed: int = 0,
) -> Selectivity:
    """Compare each task's pattern before and after fine-tuning on it: concentration, correlations, changed heads.

    Gini, coefficient of variation, kurtosis and correlations do not depend on a pattern's scale, which falls with the
    loss (arXiv 2409.15820, finding 1). Intervals are bias-corrected and over samples and training runs, never heads.

    Args:
        before: task -> scores of the base model.
        after: task -> scores of the model fine-tuned on it, of the same samples; or a list, one per training seed.
        level: confidence level of the intervals.
        alpha: a head has changed if its q-value is below this.
        seed: seed of the jackknife groups and the sign flips.

    Raises:
        HeadnbError: a task without scores before, different heads, signed scores, or samples that cannot be paired.
    """
    if unknown := set(after) - set(before):
        raise HeadnbError(f"no scores before fine-tuning for tasks with scores after: {', '.join(sorted(unknown))}")
    if not after:
        raise HeadnbError("no tasks to compare; pass task -> scores before and after fine-tuning")
    if empty := [task for task, runs in after.items() if not as_runs(runs)]:
        raise HeadnbError(f"{empty[0]} has no training runs; give its scores after fine-tuning")
    tasks = [task for task in before if task in after]
    pairs = {task: [(before[task], run) for run in as_runs(after[task])] for task in tasks}
    stages = {task: read_stages(pairs[task], task) for task in tasks}
    check_same_grid(stages)
    for task, one in stages.items():
        check_levels("selectivity", signed=one.signed, of=task)
    measured = _measured(on_common_samples(stages))
    shape = (2, len(tasks))
    return Selectivity(
        concentration=_concentrations(stages, level, seed),
        correlation=task_correlations(measured, tasks, level, seed),
        heads=_compare_tasks(pairs, stages, alpha, seed),
        shapes=_compare_tasks(pairs, stages, alpha, seed, scale_free=True),
        scale=xr.DataArray(
            [float(np.nanmean(one.after) / np.nanmean(one.required_before)) for one in stages.values()],
            {"task": tasks},
            name="scale",
        ),
        reliability=xr.DataArray(
            np.reshape([one.components().reliability for one in measured], shape).T,
            {"task": tasks, "stage": list(STAGES[:2])},
            ("task", "stage"),
            "reliability",
        ),
        samples=xr.DataArray([stages[task].n for task in tasks], {"task": tasks}, name="samples"),
        runs=xr.DataArray([stages[task].runs for task in tasks], {"task": tasks}, name="runs"),
        level=level,
        alpha=alpha,
    )


def as_runs(scores: Runs) -> list[xr.Dataset]:
    """The scores of each training run."""
    return [scores] if isinstance(scores, xr.Dataset) else list(scores)


def _compare_tasks(
    pairs: Mapping[str, list[tuple[xr.Dataset, xr.Dataset]]],
    stages: Mapping[str, Stages],
    alpha: float,
    seed: int,
    *,
    scale_free: bool = False,
) -> xr.Dataset:
    """Tests of which heads changed, (task, layer, head), with the evidence of each task as coordinates (task)."""
    changes = []
    for task, one in stages.items():
        change = changed_heads(pairs[task], one.required_before, one.after, alpha, seed, scale_free=scale_free)
        names = [*Evidence._fields, *(name for name in RUN_NOISE_ATTRS if name in change.attrs)]
        changes.append(change.assign_coords({name: change.attrs[name] for name in names}))
    tasks = xr.DataArray(list(stages), dims="task", name="task")
    return as_result(xr.concat(changes, tasks, combine_attrs="drop_conflicts"))


def _concentrations(stages: Mapping[str, Stages], level: float, seed: int) -> xr.Dataset:
    estimates = []
    for one in stages.values():
        before, after = one.required_before[:, ~one.missing], one.after[..., ~one.missing]
        estimates.append([list(concentration(before, after, name, level, seed).values()) for name in CONCENTRATIONS])
    return _estimates(estimates, {"task": list(stages), "statistic": list(CONCENTRATIONS), "stage": list(STAGES)})


def _estimates(estimates: Sequence[Any], coords: dict[str, list[str]]) -> xr.Dataset:
    columns = np.vectorize(lambda one: (one.value, one.low, one.high, one.uncorrected))(
        np.array(estimates, dtype=object)
    )
    names = ("value", "low", "high", "uncorrected")
    return xr.Dataset({n: (tuple(coords), column) for n, column in zip(names, columns, strict=True)}, coords)


def _measured(stages: Mapping[str, Stages]) -> list[MeasuredPattern]:
    """The patterns of all tasks before fine-tuning, then those after, on common heads."""
    present = ~np.any([one.missing for one in stages.values()], axis=0)
    before, after = [], []
    for one in stages.values():
        before.append(MeasuredPattern(one.required_before[None][..., present], None, one.sample_set))
        after.append(MeasuredPattern(one.after[..., present], None, one.sample_set))
    return before + after


def _interval_text(row: xr.Dataset) -> str:
    value, low, high = (float(row[name]) for name in ("value", "low", "high"))
    return interval_text(value, low, high)
