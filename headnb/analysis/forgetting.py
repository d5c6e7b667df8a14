"""Tasks learned one after another: what becomes of the earlier ones, and whether their head patterns tell.

With L[k, j] the held-out loss of task j after k tasks are learned, and task j itself learned in step j of T:

    forgetting of j = L[T, j] - min over j <= l < T of L[l, j]     (Chaudhry et al. 2018, on losses)
    backward transfer = mean over j < T of L[j, j] - L[T, j]       (TRACE, arXiv 2310.06762, on losses)

so that forgetting and a negative transfer are rises of the loss. Intervals are over samples and training runs; they
say nothing of other tasks or another order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from scipy import stats

from headnb.analysis.json_values import as_records, to_json_value
from headnb.analysis.result import AnalysisResult, signed_text
from headnb.call_checks import check_arguments, checked_level
from headnb.errors import HeadnbError
from headnb.stats.patterns import sample_levels
from headnb.stats.rounding import interval_text
from headnb.stats.significance import crossed_intervals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    from numpy.typing import NDArray

    from headnb.stats.descriptive import Array

    Learned = Sequence[Mapping[str, xr.Dataset]]  # one run: task -> scores, before and after each task

BEFORE = "before"
MIN_PAIRS = 4  # of a rank correlation
RESAMPLES, PERMUTATIONS = 300, 2000


@dataclass(frozen=True, repr=False)
class Association:
    """Rank correlation, over steps and earlier tasks, of how far a pattern moved with how much its task's loss rose.

    Attributes:
        value, low, high: Spearman's rho of the runs' means; its percentile interval over samples and runs.
        p: chance of a rho as far from its mean, if tasks are exchanged within each step.
        pairs: steps times earlier tasks; below four all is NaN.
    """

    value: float
    low: float
    high: float
    p: float
    pairs: int


@dataclass(frozen=True, repr=False)
class Forgetting(AnalysisResult):
    """What learning tasks one after another did to each of them.

    Attributes:
        loss: Dataset (stage, task) of `value`, `low`, `high`: held-out loss in nats, before and after each task.
        rise: the same, of the loss since the task was learned; NaN until then.
        moved: (stage, task), distance of the scale-free pattern from that when the task was learned, relative to that
            one's length about its mean; mean over runs, not freed of noise.
        forgotten: Dataset (task) of `value`, `low`, `high`: forgetting of all tasks but the last.
        mean: Dataset of the same without dims: its mean over tasks. The lowest stage is chosen from the same losses,
            which makes it a little too high.
        transfer: Dataset of the same: backward transfer.
        association: of patterns with losses.
        samples: of each task. `runs`: training runs.
        level: of the intervals.
    """

    loss: xr.Dataset
    rise: xr.Dataset
    moved: xr.DataArray
    forgotten: xr.Dataset
    mean: xr.Dataset
    transfer: xr.Dataset
    association: Association
    samples: int
    runs: int
    level: float

    @property
    def supported(self) -> bool | None:
        """Whether earlier tasks are forgotten: their loss rises, by its backward transfer; None: cannot be told."""
        return True if self.transfer["high"] < 0 else False if self.transfer["low"] > 0 else None

    @property
    def table(self) -> pd.DataFrame:
        """A row per task: loss before, when it was learned, at the end, and what was forgotten."""
        tasks = self.loss["task"].to_numpy().tolist()
        learned = [float(self.loss["value"].isel(stage=place + 1, task=place)) for place in range(len(tasks))]
        forgotten = [*map(signed_text, (self.forgotten.sel(task=task) for task in tasks[:-1])), "–"]
        columns = {
            "loss before": ("task", self.loss["value"].isel(stage=0).to_numpy()),
            "when learned": ("task", np.array(learned)),
            "at the end": ("task", self.loss["value"].isel(stage=-1).to_numpy()),
            "forgotten": ("task", np.array(forgotten)),
            "pattern moved": ("task", self.moved.isel(stage=-1).to_numpy()),
        }
        return xr.Dataset(columns, {"task": tasks}).to_dataframe()

    @property
    def verdict(self) -> str:
        """What the numbers show, in sentences."""
        words = {True: "are forgotten", False: "become better", None: "are not shown to be forgotten"}[self.supported]
        runs = f"{self.runs} run{'s' if self.runs > 1 else ''}"
        total = (
            f"Earlier tasks {words}: backward transfer {signed_text(self.transfer)} nats (below zero: a rise), "
            f"forgetting {signed_text(self.mean)}, over {runs} and {self.samples} held-out samples of each task."
        )
        lines = [total]
        worst = self.forgotten.isel(task=int(self.forgotten["value"].to_numpy().argmax()))
        if worst["value"] > 0:
            lines.append(f"Most was lost of {worst['task'].item()}: {signed_text(worst)}.")
        found = self.association
        if math.isnan(found.value):
            lines.append(f"Too few pairs of a step and an earlier task to ask whether patterns tell: {found.pairs}.")
        else:
            sure = "goes" if found.p < 1 - self.level else "is not shown to go"
            lines.append(
                f"How far an earlier task's pattern moves in a step {sure} with the rise of its loss: rho "
                f"{interval_text(found.value, found.low, found.high)}, {found.pairs} pairs, p = {found.p:.2g}."
            )
        return " ".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values (NaN as None)."""
        tables = {"loss": self.loss, "rise": self.rise, "forgotten": self.forgotten}
        single = {"mean": self.mean, "transfer": self.transfer}
        return {
            **{name: as_records(table) for name, table in tables.items()},
            "moved": as_records(self.moved.to_dataset(name="value")),
            **{name: {key: to_json_value(value) for key, value in one.items()} for name, one in single.items()},
            "association": {key: to_json_value(value) for key, value in vars(self.association).items()},
            "samples": self.samples,
            "runs": self.runs,
            "level": self.level,
            "supported": self.supported,
            "verdict": self.verdict,
        }


@check_arguments
def forgetting(order: Sequence[str], runs: Sequence[Learned], *, level: float = 0.95, seed: int = 0) -> Forgetting:
    """What becomes of each task while others are learned after it.

    Args:
        order: the tasks as they were learned.
        runs: one for each training seed: task -> scores with `loss`, before and after each task: T + 1 of them, of the
            same samples in every run and stage.
        level: of the intervals.
        seed: of resamples and permutations.

    Raises:
        HeadnbError: fewer than two tasks, no run, or a stage, task, sample or loss that is missing.
    """
    level = checked_level(level)
    losses, levels = _read_runs(list(order), runs)
    tasks, last = len(order), len(order)
    learned = np.arange(tasks) + 1  # the stage after which each task is learned
    at_learning = losses[:, learned, np.arange(tasks)]  # (runs, tasks, n)
    since = losses - at_learning[:, None]
    since[:, np.arange(tasks + 1)[:, None] < learned] = np.nan
    means = losses.mean(axis=(0, 3))  # (stages, tasks)
    best = np.array([j + 1 + int(means[j + 1 : last, j].argmin()) for j in range(tasks - 1)])
    lost = losses[:, last, :-1] - losses[:, best, np.arange(tasks - 1)]  # (runs, tasks - 1, n)
    labels = {"stage": [BEFORE, *(f"after {task}" for task in order)], "task": list(order)}
    loss_attrs = {"long_name": "held-out loss", "units": "nats"}
    return Forgetting(
        loss=_estimates(losses, labels, level).assign_attrs(loss_attrs),
        rise=_estimates(since, labels, level).assign_attrs(loss_attrs | {"long_name": "rise of the loss"}),
        moved=_distance_since_learning(levels, learned, labels),
        forgotten=_estimates(lost, {"task": list(order)[:-1]}, level),
        # Samples of two tasks are independent whatever their order, so they may be averaged place by place.
        mean=_estimates(lost.mean(axis=1), {}, level),
        transfer=_estimates(-since[:, last, :-1].mean(axis=1), {}, level),
        association=_association(losses, levels, level, seed),
        samples=losses.shape[-1],
        runs=len(losses),
        level=level,
    )


def _read_runs(order: list[str], runs: Sequence[Learned]) -> tuple[Array, Array]:
    """Losses (runs, stages, tasks, n) and levels (runs, stages, tasks, n, heads that are never NaN)."""
    if len(order) < 2 or not runs:
        raise HeadnbError(f"forgetting needs two tasks and a run; got {len(order)} and {len(runs)}")
    stages = len(order) + 1
    if wrong := [len(run) for run in runs if len(run) != stages]:
        raise HeadnbError(
            f"{len(order)} tasks need scores at {stages} stages of each run, the first before; got {wrong[0]}"
        )
    samples = {}
    for task in order:
        found = [stage[task] for run in runs for stage in run if task in stage]
        if len(found) < len(runs) * stages:
            raise HeadnbError(f"{task} lacks scores at {len(runs) * stages - len(found)} stages")
        common = set.intersection(*(set(one["sample"].to_numpy().tolist()) for one in found))
        samples[task] = [sample for sample in found[0]["sample"].to_numpy().tolist() if sample in common]
    n = min(map(len, samples.values()))
    if n < 2:
        raise HeadnbError(
            f"{min(samples, key=lambda task: len(samples[task]))} has {n} samples at all stages; 2 are needed"
        )
    at = [[[stage[task].sel(sample=samples[task][:n]) for task in order] for stage in run] for run in runs]
    losses = np.array([[[one["loss"].to_numpy() for one in row] for row in run] for run in at], np.float64)
    levels = np.array(
        [
            [[sample_levels(one).transpose("sample", ...).to_numpy().reshape(n, -1) for one in r] for r in run]
            for run in at
        ]
    ).astype(np.float64)
    return losses, levels[..., ~np.isnan(levels).any(axis=(0, 1, 2, 3))]


def _estimates(values: Array, labels: Mapping[str, list[str]], level: float) -> xr.Dataset:
    """Means over runs and samples of values (runs, ..., n), with intervals; NaN where values are."""
    shape = values.shape[1:-1]
    found = crossed_intervals(np.moveaxis(values.reshape(len(values), -1, values.shape[-1]), 1, 2), level)
    parts = {"value": found.mean, "low": found.low, "high": found.high}
    return xr.Dataset({name: (tuple(labels), part.reshape(shape)) for name, part in parts.items()}, labels)


def _scale_free_patterns(levels: Array) -> Array:
    """Patterns over their mean over heads, from levels (..., n, heads)."""
    pattern = levels.mean(axis=-2)
    return np.asarray(pattern / pattern.mean(axis=-1, keepdims=True))


def _distance(shape: Array, origin: Array) -> Array:
    """Relative to the origin's length about its mean, which is 1."""
    return np.asarray(np.linalg.norm(shape - origin, axis=-1) / np.linalg.norm(origin - 1, axis=-1))


def _distance_since_learning(
    levels: Array, learned: NDArray[np.int64], labels: Mapping[str, list[str]]
) -> xr.DataArray:
    shapes = _scale_free_patterns(levels)  # (runs, stages, tasks, heads)
    moved = _distance(shapes, shapes[:, learned, np.arange(len(learned))][:, None]).mean(axis=0)
    moved[np.arange(len(moved))[:, None] < learned] = np.nan
    return xr.DataArray(moved, labels, tuple(labels), attrs={"long_name": "distance of the pattern"})


def _step_changes(losses: Array, levels: Array) -> tuple[Array, Array]:
    """Of each step and earlier task, in that order: how far its pattern moved, how much its loss rose; runs' means."""
    shapes = _scale_free_patterns(levels)
    moved = _distance(shapes[:, 1:], shapes[:, :-1]).mean(axis=0)  # (steps, tasks)
    rose = np.diff(losses.mean(axis=-1), axis=1).mean(axis=0)
    earlier = np.arange(moved.shape[0])[:, None] > np.arange(moved.shape[1])
    return moved[earlier], rose[earlier]


def _association(losses: Array, levels: Array, level: float, seed: int) -> Association:
    moved, rose = _step_changes(losses, levels)
    if len(moved) < MIN_PAIRS:
        return Association(math.nan, math.nan, math.nan, math.nan, len(moved))
    ranks = [_unit_ranks(values) for values in (moved, rose)]
    rho = float(ranks[0] @ ranks[1])
    rng = np.random.default_rng(seed)
    runs, tasks, n = len(losses), losses.shape[2], losses.shape[3]
    drawn = []
    for _ in range(RESAMPLES):
        run, sample = rng.integers(runs, size=runs), rng.integers(n, size=(tasks, n))
        at = (run[:, None, None, None], np.arange(tasks + 1)[:, None, None], np.arange(tasks)[:, None], sample)
        again = [_unit_ranks(values) for values in _step_changes(losses[at], levels[at])]
        drawn.append(float(again[0] @ again[1]))
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    steps = np.split(ranks[1], np.cumsum(range(1, tasks - 1)))  # of 1, 2, ... earlier tasks
    permuted = np.array(
        [ranks[0] @ np.concatenate([rng.permutation(step) for step in steps]) for _ in range(PERMUTATIONS)]
    )
    centre = permuted.mean()
    p = (1 + int((np.abs(permuted - centre) >= abs(rho - centre) - 1e-12).sum())) / (1 + PERMUTATIONS)
    return Association(rho, float(low), float(high), p, len(moved))


def _unit_ranks(values: Array) -> Array:
    """Ranks about their mean, of unit length: the product of two is Spearman's rho; NaN if all are equal."""
    ranks = stats.rankdata(values) - (len(values) + 1) / 2
    length = float(np.linalg.norm(ranks))
    return np.asarray(ranks / length if length else np.full_like(ranks, np.nan))
