"""Speed of a pattern's change during fine-tuning (arXiv 2409.15820, finding 3).

P(s) is the pattern after s steps, P(0) the first and P(S) the last pattern; products are over heads:

    MSE(s) = mean of (P(s) - P(S))^2,    done(s) = (P(s) - P(0)) . (P(S) - P(0)) / |P(S) - P(0)|^2.

`done` is the fraction of the change completed, along the line from the first to the last pattern. At constant speed it
is proportional to the steps, whereas the squared error already falls by 19 % in the first tenth of the steps, so any
change looks rapid. Noise keeps the squared error of two patterns above zero. The same samples are therefore scored at
each step, and the remaining noise of the differences is corrected (`headnb.analysis.debiased_products`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from scipy import interpolate, optimize

from headnb.analysis.debiased_products import DebiasedProducts, MeasuredPattern, Products, correlations
from headnb.analysis.json_values import to_json_value, with_interval
from headnb.analysis.result import AnalysisResult
from headnb.call_checks import check_arguments
from headnb.errors import HeadnbError, unknown_name
from headnb.stats import patterns
from headnb.stats.estimates import Estimate
from headnb.stats.patterns import HEADS
from headnb.stats.results import check_levels, is_signed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

    from headnb.stats.descriptive import Array

SHARES = (0.5, 0.9)
FEWEST_STEPS = 3  # tracked steps of a trajectory
SHARP = 2  # smallest `early_speed` of a sharp early change; dividing by the mean head alone gives `Trajectory.scale`


@dataclass(frozen=True, repr=False)
class Trajectory(AnalysisResult):
    """Change of one task's pattern during one training run.

    Attributes:
        task: name of the task.
        steps: Dataset (step): `done` with `done_low` and `done_high`; `mse_final` and `mse_first`, noise-corrected mean
            squared difference from the last and the first pattern, and `..._uncorrected` without correction;
            `relative_distance`, root of `mse_final` over its first value; `correlation_final`, `correlation_first`,
            noise-corrected; `samples_seen`, `tokens_seen`; `movement`, the relative L2 parameter distance from the
            start (mean over layers); `movement_done`, its fraction of the last value; `eval_loss`. Unavailable values
            are NaN; so is `done` if the interval of |P(S) - P(0)|^2 contains zero, since there is no change to measure.
        half, ninety: the step from which at least 50 % and 90 % of the change is completed (`crossing`), with an
            interval over samples whose ends are tracked steps (`crossing_bounds`).
        early: fraction of the change completed by step `early_steps`, with its interval.
        early_steps: end of the early steps; by default the first tenth of the tracked steps.
        half_movement: the step at which half of the parameter distance is reached.
        scale_free: whether each pattern is divided by its mean over heads.
        scale: the mean level of the last pattern divided by that of the first, if `scale_free`, else 1: the
            `early_speed` of levels that change at constant speed.
    """

    task: str
    steps: xr.Dataset
    half: Estimate
    ninety: Estimate
    early: Estimate
    early_steps: float
    half_movement: float
    scale_free: bool
    scale: float

    @property
    def early_speed(self) -> Estimate:
        """Ratio of the change per step in the early steps to the change per step in the later steps.

        The verdict calls the early change sharp if the lower limit of this ratio (the ratio without an interval) is
        above 2.
        """
        first, last = (float(self.steps["step"][place]) for place in (0, -1))

        def ratio(share: float) -> float:
            left = (1 - share) / (last - self.early_steps)
            return math.inf if left <= 0 else share / (self.early_steps - first) / left

        return _transform_estimate(self.early, ratio)

    @property
    def half_loss(self) -> float:
        """The step at which half of the fall of `eval_loss` is reached; NaN if it does not fall or is unknown."""
        losses = self.steps["eval_loss"].to_numpy().astype(np.float64)
        fell = losses[0] - losses[-1]
        steps = self.steps["step"].to_numpy().astype(np.float64)
        return crossing(steps, (losses[0] - losses) / fell, 0.5) if fell > 0 else math.nan

    def seen(self, step: float, what: str = "samples_seen") -> float:
        """Samples (or "tokens_seen") seen until a step, interpolated linearly between tracked steps."""
        if what not in {"samples_seen", "tokens_seen"}:
            raise unknown_name("count", what, ("samples_seen", "tokens_seen"))
        return float(np.interp(step, self.steps["step"], self.steps[what]))

    @property
    def table(self) -> pd.DataFrame:
        """One row per step: progress of the pattern, samples seen and parameter distance; without all-NaN columns."""
        names = ["done", "done_low", "done_high", "correlation_final", "correlation_first", "samples_seen", "movement"]
        return self.steps[[name for name in names if not np.isnan(self.steps[name]).all()]].to_dataframe()

    @property
    def verdict(self) -> str:
        """The result in sentences."""
        lines = self._change_lines()
        movement = float(self.steps["movement"][-1])
        if math.isfinite(movement):
            half = f"; half of it is reached at step {self.half_movement:.3g}"
            half = half if math.isfinite(self.half_movement) else ""
            lines.append(f"The relative parameter distance is {movement:.2%} (mean over layers){half}.")
        return " ".join(lines)

    def _change_lines(self) -> list[str]:
        if np.isnan(self.steps["done"]).all():
            return [f"The first and the last pattern of {self.task} do not differ beyond noise."]
        last = int(self.steps["step"][-1])
        done = (
            f"The pattern of {self.task} reaches half of its change at step {self.half} of {last}, and 90 % of it at "
            f"step {self.ninety}."
        )
        lines = [done]
        if math.isfinite(samples := self.seen(self.half.value)):
            at_ninety = self.seen(self.ninety.value)
            lines.append(f"These steps correspond to {samples:.0f} and {at_ninety:.0f} training samples.")
        return [*lines, self._early_line()]

    def _early_line(self) -> str:
        speed, first = self.early_speed, float(self.steps["step"][0])
        steps = f"steps {first:g} to {self.early_steps:g}" if first else f"the first {self.early_steps:g} steps"
        if math.isnan(speed.value):
            return f"The speed in {steps} relative to later steps cannot be determined from these samples."
        least = speed.value if math.isnan(speed.low) else speed.low
        return (
            f"In {steps}, the change per step is {speed} times that in later steps: "
            f"{'a' if least > SHARP else 'no'} sharp early change."
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values (NaN as None)."""
        estimates = {"half": self.half, "ninety": self.ninety, "early": self.early, "early_speed": self.early_speed}
        return {
            "task": self.task,
            "scale_free": self.scale_free,
            "early_steps": self.early_steps,
            "half_movement": to_json_value(self.half_movement),
            "half_loss": to_json_value(self.half_loss),
            "samples_at_half": to_json_value(self.seen(self.half.value)),
            "samples_at_ninety": to_json_value(self.seen(self.ninety.value)),
            **{name: with_interval(one) for name, one in estimates.items()},
            "verdict": self.verdict,
        }


@check_arguments
def trajectory(
    study: xr.Dataset,
    scores: xr.Dataset | Mapping[str, xr.Dataset] | None = None,
    *,
    task: str | None = None,
    early: float | None = None,
    scale_free: bool = False,
    level: float = 0.95,
    seed: int = 0,
) -> Trajectory:
    """Measure the fraction of a pattern's change completed at each tracked step (arXiv 2409.15820, finding 3).

    Args:
        study: the study of `finetune` or `HeadScoreCallback`: `level` (step, task, layer, head), and per step
            `movement`, `eval_loss`, `samples_seen`, `tokens_seen`.
        scores: per-sample scores of the study, (step, sample, layer, head), or a dict of them by task. Without scores
            there is no noise correction and there are no intervals.
        task: one of the tracked tasks; by default the first.
        early: the last step that counts as early; by default the end of the first tenth of the tracked steps.
        scale_free: first divide each pattern by its mean over heads, since levels fall with the loss.
        level: confidence level of the intervals, which are over samples.
        seed: seed of the jackknife groups.

    Raises:
        HeadnbError: an unknown task, scores of another task or of other heads, fewer than three tracked steps, `early`
            outside the tracked steps, or signed scores with `scale_free`.
    """
    task, levels = _task_levels(study, task)
    of_task = scores.get(task) if scores is not None and not isinstance(scores, xr.Dataset) else scores
    if scores is not None and of_task is None:
        raise unknown_name("task", task, [str(name) for name in scores])
    if scale_free:
        check_levels("scale_free", signed=is_signed(levels if of_task is None else of_task))
    rows = _sample_rows(of_task, levels, task)
    steps = levels["step"].to_numpy().astype(np.float64)
    early_steps = float(early) if early is not None else max(steps[1], steps[0] + (steps[-1] - steps[0]) / 10)
    if not steps[0] < early_steps < steps[-1]:
        raise HeadnbError(f"early must lie between steps {steps[0]:g} and {steps[-1]:g}, got {early_steps:g}")
    measured = [MeasuredPattern(row[None], None, "samples", scale_free) for row in rows]
    table, (half, ninety, early_share) = _trajectory_table(measured, steps, early_steps, level, seed)
    table |= _training_columns(study, task)
    moved = table["movement_done"]
    return Trajectory(
        task=task,
        steps=xr.Dataset({name: ("step", column) for name, column in table.items()}, {"step": levels["step"]}),
        half=half,
        ninety=ninety,
        early=early_share,
        early_steps=early_steps,
        half_movement=crossing(steps, moved, 0.5) if np.isfinite(moved).all() else math.nan,
        scale_free=scale_free,
        scale=float(rows[-1].mean() / rows[0].mean()) if scale_free else 1.0,
    )


def crossing(steps: Array, done: Array, share: float) -> float:
    """The step from which `done` stays at or above this fraction; NaN if there is none.

    `done` is interpolated between tracked steps by PCHIP in log(step + 1), which is monotone where the points are. For
    an exponential approach, the 90 % step has an error of at most 2 % on steps such as 0, 1, 2, 5, 10, 20; with linear
    interpolation the error is 16 to 27 %.
    """
    if np.isnan(done).any():
        return math.nan
    below = np.flatnonzero(done < share)
    if not below.size:
        return float(steps[0])
    last = int(below[-1])
    if last == len(steps) - 1:
        return math.nan
    curve, x = _curve(steps, done), np.log1p(steps)
    return float(np.expm1(optimize.brentq(lambda at: float(curve(at)) - share, x[last], x[last + 1])))


def crossing_bounds(steps: Array, low: Array, high: Array, share: float) -> tuple[float, float]:
    """Interval of a crossing, from the limits `low` and `high` of `done` at each step (steps).

    It extends from the last step whose upper limit is below the fraction to the next step whose lower limit is not.
    Samples do not locate a sudden change between two tracked steps: interpolated limits cover it in only 4 to 30 % of
    cases.
    """
    if np.isnan([low, high]).any():
        return math.nan, math.nan
    begun = np.flatnonzero(high < share)
    first = int(begun[-1]) if begun.size else 0
    ended = first + np.flatnonzero(low[first:] >= share)
    return float(steps[first]), float(steps[ended[0]] if ended.size else steps[-1])


def _curve(steps: Array, done: Array) -> interpolate.PchipInterpolator:
    """`done` as a function of log(step + 1)."""
    return interpolate.PchipInterpolator(np.log1p(steps), done)


def _trajectory_table(
    measured: list[MeasuredPattern], steps: Array, early_steps: float, level: float, seed: int
) -> tuple[dict[str, Array], list[Estimate]]:
    """Columns of `Trajectory.steps` from the patterns, and the estimates of `half`, `ninety` and `early`."""
    moments = DebiasedProducts(measured, seed)
    raw = moments.plain()
    products = moments.corrected() if moments.has_enough_samples else raw

    def path(products: Products) -> Array:
        """`done` at each step, then at `early_steps`, then |P(S) - P(0)|^2."""
        along = _along_change(products.about_zero)
        done = along / along[-1] if along[-1] > 0 else np.full(len(along), np.nan)
        early = math.nan if np.isnan(done).any() else float(_curve(steps, done)(np.log1p(early_steps)))
        return np.array([*done, early, along[-1]])

    at_hand, corrected = path(raw), path(products)
    estimated = moments.estimate(path, level) if moments.has_enough_samples else None
    value, low, high = estimated or (corrected, *np.full((2, len(at_hand)), np.nan))
    count, n = len(steps), measured[0].samples
    if estimated and not low[-1] > 0:  # the corrected distance of equal patterns is positive in half of all cases
        for column in (at_hand, corrected, value, low, high):
            column[:] = np.nan
    distances, uncorrected = (_squared_distances(p.about_zero) for p in (products, raw))
    r = np.clip(correlations(products.about_mean), -1, 1)
    table = {
        "done": corrected[:count],
        "done_low": low[:count],
        "done_high": high[:count],
        "relative_distance": _relative_distance(distances[:, -1]),
        "mse_final": distances[:, -1],
        "mse_first": distances[:, 0],
        "mse_final_uncorrected": uncorrected[:, -1],
        "mse_first_uncorrected": uncorrected[:, 0],
        "correlation_final": r[:, -1],
        "correlation_first": r[:, 0],
    }
    estimates = []
    for share in SHARES:
        middle = crossing(steps, table["done"], share)
        ends = crossing_bounds(steps, low[:count], high[:count], share) if estimated else (math.nan, math.nan)
        estimates.append(Estimate(middle, *ends, level, n, crossing(steps, at_hand[:count], share)))
    part, below, above = (float(min(column[count], 1.0)) for column in (value, low, high))
    estimates.append(Estimate(part, below, above, level, n, float(at_hand[count])))
    return table, estimates


def _squared_distances(products: Array) -> Array:
    diagonal = np.diag(products)
    return np.asarray(diagonal[:, None] + diagonal[None, :] - 2 * products)


def _relative_distance(squared: Array) -> Array:
    """Square roots of squared distances relative to the first; NaN if the first is not positive."""
    return np.sqrt(np.maximum(squared / squared[0], 0)) if squared[0] > 0 else np.full(len(squared), np.nan)


def _along_change(products: Array) -> Array:
    """(P(s) - P(0)) . (P(S) - P(0)) at each step (steps)."""
    return np.asarray(products[:, -1] - products[:, 0] - products[0, -1] + products[0, 0])


def _task_levels(study: xr.Dataset, task: str | None) -> tuple[str, xr.DataArray]:
    """Name and levels (step, layer, head) of one task."""
    if "level" not in study or "step" not in study["level"].dims:
        raise HeadnbError("not a study of head scores: it has no variable 'level' with the dim 'step'")
    levels = study["level"]
    if "task" in levels.dims:
        tasks = [str(name) for name in levels["task"].to_numpy()]
        if task is not None and task not in tasks:
            raise unknown_name("task", task, tasks)
        task = task or tasks[0]
        levels = levels.sel(task=task)
    elif "task" in levels.coords:  # after study.sel(task=...)
        name = str(levels["task"].item())
        if task is not None and task != name:
            raise unknown_name("task", task, [name])
        task = name
    if levels.sizes["step"] < FEWEST_STEPS:
        raise HeadnbError(f"a trajectory needs at least {FEWEST_STEPS} tracked steps, got {levels.sizes['step']}")
    return task or "the task", levels.transpose("step", *HEADS)


def _sample_rows(scores: xr.Dataset | None, levels: xr.DataArray, task: str) -> Array:
    """(step, sample, heads), without heads that are NaN; without scores, one row per step."""
    if scores is None:
        rows = levels.to_numpy().reshape(levels.sizes["step"], 1, -1)
    else:
        if "step" not in scores.dims or not scores.get_index("step").equals(levels.get_index("step")):
            raise HeadnbError("the scores and the study have different steps")
        if "task" in levels.coords and (scored := str(scores.attrs.get("task", task))) != task:
            raise HeadnbError(
                f"the scores are of {scored!r:.60}, not of {task!r:.60}; pass task=, or the task's scores"
            )
        for dim in HEADS:
            if not scores.get_index(dim).equals(levels.get_index(dim)):
                raise HeadnbError(f"the scores and the study have a different {dim} dim")
        per_sample = patterns.sample_levels(scores).transpose("step", "sample", *HEADS)
        rows = per_sample.to_numpy().reshape(*per_sample.shape[:2], -1)
    return np.asarray(rows[..., ~np.isnan(rows).any(axis=(0, 1))], dtype=np.float64)


def _training_columns(study: xr.Dataset, task: str) -> dict[str, Array]:
    """Columns of `Trajectory.steps` that come from the training, NaN if the study lacks them."""
    unknown = np.full(study.sizes["step"], np.nan)
    movement = study["movement"].mean("layer").to_numpy() if "movement" in study else unknown
    loss = study.get("eval_loss")
    if loss is not None and "task" in loss.dims:
        loss = loss.sel(task=task)
    last = movement[-1]
    return {
        "movement": movement,
        "movement_done": movement / last if last > 0 else unknown,
        "eval_loss": unknown if loss is None else loss.to_numpy(),
        **{name: study[name].to_numpy() if name in study else unknown for name in ("samples_seen", "tokens_seen")},
    }


def _transform_estimate(estimate: Estimate, function: Any) -> Estimate:
    """Apply an increasing function to an estimate and its interval."""
    value, low, high = (function(x) for x in (estimate.value, estimate.low, estimate.high))
    return Estimate(value, low, high, estimate.level, estimate.samples, function(estimate.uncorrected))
