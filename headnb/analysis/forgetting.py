"""Forgetting of earlier tasks in sequential fine-tuning, and its correlation with changes of their head patterns.

L[k, j] is the held-out loss of task j after k tasks are learned; task j is learned in step j of T:

    forgetting of j = L[T, j] - min over j <= l < T of L[l, j]     (Chaudhry et al. 2018, on losses)
    backward transfer = mean over j < T of L[j, j] - L[T, j]       (TRACE, arXiv 2310.06762, on losses)

Positive forgetting and negative backward transfer mean that the loss rises. Intervals are over samples and training
runs; they do not cover other tasks or another order of the tasks.
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
from headnb.call_checks import check_arguments
from headnb.errors import HeadnbError
from headnb.stats.paired import check_comparable, common_samples
from headnb.stats.patterns import HEADS, sample_levels, scale_free_values
from headnb.stats.results import check_levels, is_signed
from headnb.stats.rounding import interval_text
from headnb.stats.significance import crossed_intervals

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    from numpy.typing import NDArray

    from headnb.stats.descriptive import Array

    Learned = Sequence[Mapping[str, xr.Dataset]]  # one run: task -> scores, before and after each task

BEFORE = "before"
MIN_PAIRS = 4  # fewest pairs for a rank correlation
RESAMPLES = 300


@dataclass(frozen=True, repr=False)
class Association:
    """Rank correlation of pattern distance in a step with the rise of the task's loss, over steps and earlier tasks.

    It describes these tasks and has no p-value: a task whose pattern and loss drift does so in every step, so its pairs
    are not independent. A permutation of the tasks within each step finds a correlation in up to 28 % of sequences
    without any.

    Attributes:
        value, low, high: Spearman's rho of the means over runs, with its percentile interval over samples and runs of
            the same tasks.
        pairs: number of pairs of a step and an earlier task; below four, the other attributes are NaN.
    """

    value: float
    low: float
    high: float
    pairs: int


@dataclass(frozen=True, repr=False)
class Forgetting(AnalysisResult):
    """Losses and patterns of tasks that are learned one after another.

    Attributes:
        loss: Dataset (stage, task) of `value`, `low`, `high`: held-out loss in nats, before the first and after each
            task.
        rise: Dataset (stage, task) of `value`, `low`, `high`: rise of the loss since the task was learned; NaN before.
        moved: (stage, task), distance of the scale-free pattern p from the pattern q when the task was learned,
            || p - q || / || q - 1 ||; mean over runs, not noise-corrected, NaN before the task was learned.
        forgotten: Dataset (task) of `value`, `low`, `high`: forgetting of each task but the last.
        mean: Dataset of `value`, `low`, `high`: mean forgetting over tasks. Its bias is slightly positive, since the
            stage of the lowest loss is chosen on the same losses.
        transfer: Dataset of `value`, `low`, `high`: backward transfer.
        association: correlation of pattern distance with the rise of the loss.
        samples: number of samples used of each task: all samples of the task with the fewest.
        left_out: number of samples of the other tasks that are not used.
        runs: number of training runs.
        level: confidence level of the intervals.
    """

    loss: xr.Dataset
    rise: xr.Dataset
    moved: xr.DataArray
    forgotten: xr.Dataset
    mean: xr.Dataset
    transfer: xr.Dataset
    association: Association
    samples: int
    left_out: int
    runs: int
    level: float

    @property
    def supported(self) -> bool | None:
        """Whether earlier tasks are forgotten: negative backward transfer; None if undecided."""
        return True if self.transfer["high"] < 0 else False if self.transfer["low"] > 0 else None

    @property
    def table(self) -> pd.DataFrame:
        """One row per task: loss before, when learned and at the end, forgetting, and pattern distance."""
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
        """The result in sentences."""
        words = {
            True: "Earlier tasks are forgotten",
            False: "Earlier tasks improve",
            None: "No evidence that earlier tasks are forgotten",
        }[self.supported]
        runs = f"{self.runs} training run{'s' if self.runs > 1 else ''}"
        left_out = f"; {self.left_out} samples of tasks with more are left out" if self.left_out else ""
        total = (
            f"{words}: backward transfer {signed_text(self.transfer)} nats (negative: the loss rises), mean forgetting "
            f"{signed_text(self.mean)} nats ({runs}, {self.samples} held-out samples of each task{left_out})."
        )
        lines = [total]
        worst = self.forgotten.isel(task=int(self.forgotten["value"].to_numpy().argmax()))
        if worst["value"] > 0:
            lines.append(f"Forgetting is largest for {worst['task'].item()}: {signed_text(worst)} nats.")
        rho = self.association
        if rho.pairs < MIN_PAIRS:
            lines.append(
                f"Too few pairs of a step and an earlier task ({rho.pairs}) to correlate pattern changes with losses."
            )
        elif math.isnan(rho.value):
            lines.append(
                "Pattern changes cannot be correlated with losses: one of them is undefined, or equal in all "
                f"{rho.pairs} pairs of a step and an earlier task."
            )
        else:
            lines.append(
                f"Between the distance of an earlier task's pattern in a step and the rise of its loss, Spearman's rho "
                f"is {interval_text(rho.value, rho.low, rho.high)} over {rho.pairs} pairs of a step and an earlier "
                "task. This describes these tasks; it was not tested, because the steps of one task are not "
                "independent."
            )
        return " ".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values (NaN as None)."""
        tables = {"loss": self.loss, "rise": self.rise, "forgotten": self.forgotten}
        single = {"mean": self.mean, "transfer": self.transfer}
        return {
            **{name: as_records(table) for name, table in tables.items()},
            "moved": as_records(self.moved.to_dataset(name="value")),
            **{name: {key: to_json_value(value) for key, value in one.items()} for name, one in single.items()},
            "association": {key: to_json_value(value) for key, value in vars(self.association).items()},
            "samples": self.samples,
            "left_out": self.left_out,
            "runs": self.runs,
            "level": self.level,
            "supported": self.supported,
            "verdict": self.verdict,
        }


@check_arguments
def forgetting(order: Sequence[str], runs: Sequence[Learned], *, level: float = 0.95, seed: int = 0) -> Forgetting:
    """Measure how the loss and the pattern of each task change while later tasks are learned.

    Args:
        order: the tasks in the order in which they were learned.
        runs: one entry per training seed: the T + 1 stages, before the first and after each task; each is task ->
            scores with `loss`, of the same samples in every run and stage.
        level: confidence level of the intervals.
        seed: seed of the resamples.

    Raises:
        HeadnbError: fewer than two tasks, a task that is learned twice, no run, signed scores, a missing stage, task or
            loss, or scores of a task that cannot be paired.
    """
    losses, levels, left_out = _read_runs(list(order), runs)
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
        # Samples of different tasks are independent, so they may be paired in any order for averaging.
        mean=_estimates(lost.mean(axis=1), {}, level),
        transfer=_estimates(-since[:, last, :-1].mean(axis=1), {}, level),
        association=_association(losses, levels, level, seed),
        samples=losses.shape[-1],
        left_out=left_out,
        runs=len(losses),
        level=level,
    )


def _read_runs(order: list[str], runs: Sequence[Learned]) -> tuple[Array, Array, int]:
    """Losses (runs, stages, tasks, n), levels (runs, stages, tasks, n, heads) and the number of samples left out.

    Heads that are ever NaN are omitted. All tasks have as many samples as the task with the fewest.
    """
    if len(order) < 2 or not runs:
        raise HeadnbError(f"forgetting needs at least two tasks and one run; got {len(order)} and {len(runs)}")
    if twice := sorted({task for task in order if order.count(task) > 1}):
        raise HeadnbError(f"{twice[0]} is learned twice; each task may be learned once")
    stages = len(order) + 1
    if wrong := [len(run) for run in runs if len(run) != stages]:
        raise HeadnbError(
            f"{len(order)} tasks need scores at {stages} stages of each run, including before training; got {wrong[0]}"
        )
    labels = [BEFORE, *(f"after {task}" for task in order)]
    first, losses, levels = {}, [], []
    for task in order:
        scores = {
            f"{label} in run {number}": stage[task]
            for number, run in enumerate(runs, 1)
            for label, stage in zip(labels, run, strict=True)
            if task in stage
        }
        if missing := len(runs) * stages - len(scores):
            raise HeadnbError(f"{task} has no scores at {missing} of {len(runs) * stages} stages of all runs")
        by_sample = [sample_levels(one) for one in scores.values()]
        ids = common_samples(scores)
        check_levels("forgetting", signed=any(map(is_signed, scores.values())), of=task)
        rows = np.stack([one.sel(sample=ids).transpose("sample", *HEADS).to_numpy() for one in by_sample])
        levels.append(rows.reshape(len(runs), stages, len(ids), -1))
        of_stages = [_losses(one, ids, f"{task} {name}") for name, one in scores.items()]
        losses.append(np.reshape(of_stages, (len(runs), stages, -1)))
        first[f"of {task}"] = scores[f"{BEFORE} in run 1"]
    check_comparable(first, ())
    n = min(of_task.shape[2] for of_task in losses)
    left_out = sum(of_task.shape[2] - n for of_task in losses)
    joined = np.stack([of_task[:, :, :n] for of_task in levels], axis=2)
    present = ~np.isnan(joined).any(axis=(0, 1, 2, 3))
    return np.stack([of_task[:, :, :n] for of_task in losses], axis=2), joined[..., present], left_out


def _losses(scores: xr.Dataset, ids: list[Hashable], name: str) -> Array:
    """Losses of these samples; `name` is for error messages."""
    if "loss" not in scores:
        raise HeadnbError(f"forgetting needs the losses of samples; the scores of {name} have no variable 'loss'")
    losses = scores["loss"].sel(sample=ids).to_numpy().astype(np.float64)
    if unknown := int((~np.isfinite(losses)).sum()):
        raise HeadnbError(f"{unknown} of {len(ids)} losses of {name} are not finite; score these samples again")
    return losses


def _estimates(values: Array, labels: Mapping[str, list[str]], level: float) -> xr.Dataset:
    """Means over runs and samples of values (runs, ..., n), with intervals; NaN where a value is NaN."""
    shape = values.shape[1:-1]
    means = crossed_intervals(np.moveaxis(values.reshape(len(values), -1, values.shape[-1]), 1, 2), level)
    parts = {"value": means.mean, "low": means.low, "high": means.high}
    return xr.Dataset({name: (tuple(labels), part.reshape(shape)) for name, part in parts.items()}, labels)


def _distance(shape: Array, origin: Array) -> Array:
    """|| shape - origin || / || origin - 1 ||: the mean of a scale-free pattern over heads is 1. NaN if all are 1."""
    length = np.linalg.norm(origin - 1, axis=-1)
    return np.asarray(np.linalg.norm(shape - origin, axis=-1) / np.where(length > 0, length, np.nan))


def _distance_since_learning(
    levels: Array, learned: NDArray[np.int64], labels: Mapping[str, list[str]]
) -> xr.DataArray:
    shapes = scale_free_values(levels.mean(axis=-2))  # (runs, stages, tasks, heads)
    moved = _distance(shapes, shapes[:, learned, np.arange(len(learned))][:, None]).mean(axis=0)
    moved[np.arange(len(moved))[:, None] < learned] = np.nan
    return xr.DataArray(moved, labels, tuple(labels), attrs={"long_name": "distance of the pattern"})


def _step_changes(losses: Array, levels: Array) -> tuple[Array, Array]:
    """Pattern distance and rise of the loss, means over runs, for each step and earlier task, in that order."""
    shapes = scale_free_values(levels.mean(axis=-2))
    moved = _distance(shapes[:, 1:], shapes[:, :-1]).mean(axis=0)  # (steps, tasks)
    rose = np.diff(losses.mean(axis=-1), axis=1).mean(axis=0)
    earlier = np.arange(moved.shape[0])[:, None] > np.arange(moved.shape[1])
    return moved[earlier], rose[earlier]


def _association(losses: Array, levels: Array, level: float, seed: int) -> Association:
    moved, rose = _step_changes(losses, levels)
    rho = float(_unit_ranks(moved) @ _unit_ranks(rose)) if len(moved) >= MIN_PAIRS else math.nan
    if math.isnan(rho):
        return Association(math.nan, math.nan, math.nan, len(moved))
    rng = np.random.default_rng(seed)
    runs, tasks, n = len(losses), losses.shape[2], losses.shape[3]
    drawn = []
    for _ in range(RESAMPLES):
        run, sample = rng.integers(runs, size=runs), rng.integers(n, size=(tasks, n))
        at = (run[:, None, None, None], np.arange(tasks + 1)[:, None, None], np.arange(tasks)[:, None], sample)
        again = [_unit_ranks(values) for values in _step_changes(losses[at], levels[at])]
        drawn.append(float(again[0] @ again[1]))
    low, high = np.nanquantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    # Resampling adds noise, which weakens the correlation, so the percentiles may exclude rho itself.
    low, high = min(low, rho), max(high, rho)
    return Association(rho, float(low), float(high), len(moved))


def _unit_ranks(values: Array) -> Array:
    """Centred ranks of unit length; the product of two is Spearman's rho; NaN if all values are equal."""
    ranks = stats.rankdata(values) - (len(values) + 1) / 2
    length = float(np.linalg.norm(ranks))
    return np.asarray(ranks / length if length else np.full_like(ranks, np.nan))
