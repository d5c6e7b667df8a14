"""How fast does a pattern change while a model is fine-tuned? Finding 3 of arXiv 2409.15820.

With P(s) the pattern after s steps, P(0) the first and P(S) the last, and products over heads,

    MSE(s) = mean of (P(s) - P(S))^2,    done(s) = (P(s) - P(0)) . (P(S) - P(0)) / |P(S) - P(0)|^2.

`done` is how far the pattern is on the straight way from first to last: at constant speed it grows in proportion to the
steps, where the squared error would already have lost 19 % in the first tenth of them, and make any change look rapid.
Two noisy patterns are never nearer than their noise lets them be, so a squared error by itself neither reaches zero nor
tells when most of the change is done; here the same samples are scored at each step, and the noise that is left in
their differences is taken off (`headnb.analysis.debiased_products`).
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
from headnb.call_checks import check_arguments, checked_level
from headnb.errors import HeadnbError, unknown_name
from headnb.stats import patterns
from headnb.stats.estimates import Estimate
from headnb.stats.patterns import HEADS

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

    from headnb.stats.descriptive import Array

SHARES = (0.5, 0.9)


@dataclass(frozen=True, repr=False)
class Trajectory(AnalysisResult):
    """One task's pattern along one training run.

    Attributes:
        steps: Dataset (step): `done` with `done_low` and `done_high`; `mse_final` and `mse_first`, mean squared
            difference to the last and the first pattern without noise, and `..._uncorrected` as the patterns have it;
            `relative_distance`, root of `mse_final` over its first value;
            `correlation_final`, `correlation_first`, corrected for noise; `samples_seen`, `tokens_seen`; `movement`,
            the parameters' relative L2 distance from their start (mean over layers), `movement_done`, its share of
            the last; `eval_loss`. What is not known is NaN.
        half, ninety: the step from which on 50 % and 90 % of the change are done (`crossing`), with the interval over
            samples, which ends at tracked steps (`crossing_bounds`).
        early: share of the change done by step `early_steps`, with its interval.
        early_steps: the end of the first tenth of the tracked steps, or what was asked for.
        half_movement: the step at which the parameters had gone half their way.
    """

    task: str
    steps: xr.Dataset
    half: Estimate
    ninety: Estimate
    early: Estimate
    early_steps: float
    half_movement: float
    scale_free: bool

    @property
    def early_speed(self) -> Estimate:
        """How many times faster the pattern changed per step in the early steps than in the later ones."""
        first, last = (float(self.steps["step"][place]) for place in (0, -1))

        def ratio(share: float) -> float:
            left = (1 - share) / (last - self.early_steps)
            return math.inf if left <= 0 else share / (self.early_steps - first) / left

        return _transform_estimate(self.early, ratio)

    def seen(self, step: float, what: str = "samples_seen") -> float:
        """Samples (or "tokens_seen") seen until a step, between tracked steps in proportion."""
        if what not in {"samples_seen", "tokens_seen"}:
            raise unknown_name("count", what, ("samples_seen", "tokens_seen"))
        return float(np.interp(step, self.steps["step"], self.steps[what]))

    @property
    def table(self) -> pd.DataFrame:
        """A row per step: how far the pattern is, and after what; columns of which something is known."""
        names = ["done", "done_low", "done_high", "correlation_final", "correlation_first", "samples_seen", "movement"]
        return self.steps[[name for name in names if not np.isnan(self.steps[name]).all()]].to_dataframe()

    @property
    def verdict(self) -> str:
        """What the numbers show, in sentences."""
        lines = self._change_lines()
        movement = float(self.steps["movement"][-1])
        if math.isfinite(movement):
            moved = f"The parameters moved by {movement:.2%} of their length"
            half = f", half of it by step {self.half_movement:.3g}" if math.isfinite(self.half_movement) else ""
            lines.append(f"{moved}{half}.")
        return " ".join(lines)

    def _change_lines(self) -> list[str]:
        if np.isnan(self.steps["done"]).all():
            return [f"Nothing but noise lies between the first and the last pattern of {self.task}."]
        last = int(self.steps["step"][-1])
        done = (
            f"Half of the change of {self.task}'s pattern was done at step {_steps(self.half)} of {last}, nine tenths "
            f"at {_steps(self.ninety)}."
        )
        lines = [done]
        if math.isfinite(samples := self.seen(self.half.value)):
            lines.append(f"That is after {samples:.0f} and {self.seen(self.ninety.value):.0f} samples.")
        return [*lines, self._early_line()]

    def _early_line(self) -> str:
        speed, first = self.early_speed, float(self.steps["step"][0])
        steps = f"steps {first:g} to {self.early_steps:g}" if first else f"the first {self.early_steps:g} steps"
        if math.isnan(speed.value):
            return f"Whether {steps} changed it faster than later ones cannot be told from this few samples."
        least = speed.value if math.isnan(speed.low) else speed.low
        return (
            f"In {steps} it changed {speed} times as fast per step as after them: "
            f"{'a' if round(least, 1) > 1 else 'no'} sharp early change."
        )

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values (NaN as None)."""
        estimates = {"half": self.half, "ninety": self.ninety, "early": self.early, "early_speed": self.early_speed}
        return {
            "task": self.task,
            "scale_free": self.scale_free,
            "early_steps": self.early_steps,
            "half_movement": to_json_value(self.half_movement),
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
    """How far a tracked pattern is on its way at each step (arXiv 2409.15820, finding 3).

    Args:
        study: what `finetune` and `HeadScoreCallback` collect: `level` (step, task, layer, head), and per step
            `movement`, `eval_loss`, `samples_seen`, `tokens_seen`.
        scores: the samples' scores behind it, (step, sample, layer, head), or a dict of these by task. Without them
            noise is not taken off and there are no intervals.
        task: which of the tracked tasks; by default the first.
        early: the step until which a change counts as early; by default the end of the first tenth of those tracked.
        scale_free: divide each pattern by its mean over heads first: magnitudes fall with the loss.
        level: of the intervals, over samples.
        seed: of the groups.

    Raises:
        HeadnbError: no such task, fewer than three tracked steps, or early steps outside the run.
    """
    level = checked_level(level)
    task, levels = _task_levels(study, task)
    of_task = scores.get(task) if scores is not None and not isinstance(scores, xr.Dataset) else scores
    if scores is not None and of_task is None:
        raise unknown_name("task", task, [str(name) for name in scores])
    rows = _sample_rows(of_task, levels)
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
    )


def crossing(steps: Array, done: Array, share: float) -> float:
    """The step from which on at least this share is done, never undone later; NaN if there is none.

    Between the tracked steps the curve is PCHIP's in log(step + 1), which is monotone where the points are. Of an
    exponential approach nine tenths are off by 2 % at most on steps such as 0, 1, 2, 5, 10, 20; a straight line between
    the steps is off by 16 to 27 %.
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
    """The interval of a crossing, from the limits of the share done at each step (steps).

    It reaches from the last step whose upper limit lies below the share to the first after it whose lower limit does
    not. Where between two steps a sudden change happens, no sample tells: limits that are interpolated between steps
    cover it in 4 to 30 % of cases.
    """
    if np.isnan([low, high]).any():
        return math.nan, math.nan
    begun = np.flatnonzero(high < share)
    first = int(begun[-1]) if begun.size else 0
    ended = first + np.flatnonzero(low[first:] >= share)
    return float(steps[first]), float(steps[ended[0]] if ended.size else steps[-1])


def _curve(steps: Array, done: Array) -> interpolate.PchipInterpolator:
    """The share done, of log(step + 1)."""
    return interpolate.PchipInterpolator(np.log1p(steps), done)


def _trajectory_table(
    measured: list[MeasuredPattern], steps: Array, early_steps: float, level: float, seed: int
) -> tuple[dict[str, Array], list[Estimate]]:
    """What is known of each step, and the estimates of half, ninety and the early share."""
    moments = DebiasedProducts(measured, seed)
    raw = moments.plain()
    products = moments.corrected() if moments.has_enough_samples else raw

    def path(products: Products) -> Array:
        """`done` of each step, then the share done early."""
        done = _share_done(products.about_zero)
        early = math.nan if np.isnan(done).any() else float(_curve(steps, done)(np.log1p(early_steps)))
        return np.array([*done, early])

    at_hand = path(raw)
    found = moments.estimate(path, level) if moments.has_enough_samples else None
    value, low, high = found or (path(products), *np.full((2, len(at_hand)), np.nan))
    count, n = len(steps), measured[0].samples
    distances, uncorrected = (_squared_distances(p.about_zero) for p in (products, raw))
    r = np.clip(correlations(products.about_mean), -1, 1)
    table = {
        "done": path(products)[:count],
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
        ends = crossing_bounds(steps, low[:count], high[:count], share) if found else (math.nan, math.nan)
        estimates.append(Estimate(middle, *ends, level, n, crossing(steps, at_hand[:count], share)))
    part, below, above = (float(min(column[count], 1.0)) for column in (value, low, high))
    estimates.append(Estimate(part, below, above, level, n, float(at_hand[count])))
    return table, estimates


def _squared_distances(products: Array) -> Array:
    diagonal = np.diag(products)
    return np.asarray(diagonal[:, None] + diagonal[None, :] - 2 * products)


def _relative_distance(squared: Array) -> Array:
    """Squared distances as distances, the first being 1; NaN where it is none."""
    return np.sqrt(np.maximum(squared / squared[0], 0)) if squared[0] > 0 else np.full(len(squared), np.nan)


def _share_done(products: Array) -> Array:
    """(steps): 0 at the first, 1 at the last; NaN where nothing but noise lies between first and last."""
    along = products[:, -1] - products[:, 0] - products[0, -1] + products[0, 0]
    return along / along[-1] if along[-1] > 0 else np.full(len(along), np.nan)


def _task_levels(study: xr.Dataset, task: str | None) -> tuple[str, xr.DataArray]:
    """(step, layer, head) of one task."""
    if "level" not in study or "step" not in study["level"].dims:
        raise HeadnbError("not a study of head scores: it has no variable 'level' with a dim step")
    levels = study["level"]
    if "task" in levels.dims:
        tasks = [str(name) for name in levels["task"].to_numpy()]
        if task is not None and task not in tasks:
            raise unknown_name("task", task, tasks)
        task = task or tasks[0]
        levels = levels.sel(task=task)
    if levels.sizes["step"] < 3:
        raise HeadnbError(f"a trajectory needs at least 3 tracked steps, got {levels.sizes['step']}")
    return task or "the task", levels.transpose("step", *HEADS)


def _sample_rows(scores: xr.Dataset | None, levels: xr.DataArray) -> Array:
    """(step, sample, heads), heads that are NaN left out; of a study without scores one row per step."""
    if scores is None:
        rows = levels.to_numpy().reshape(levels.sizes["step"], 1, -1)
    else:
        if "step" not in scores.dims or not scores.get_index("step").equals(levels.get_index("step")):
            raise HeadnbError("the scores have other steps than the study")
        found = patterns.sample_levels(scores).transpose("step", "sample", *HEADS)
        rows = found.to_numpy().reshape(*found.shape[:2], -1)
    return np.asarray(rows[..., ~np.isnan(rows).any(axis=(0, 1))], dtype=np.float64)


def _training_columns(study: xr.Dataset, task: str) -> dict[str, Array]:
    """What the study knows of each step beside the pattern."""
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
    """An increasing function of an estimate."""
    value, low, high = (function(x) for x in (estimate.value, estimate.low, estimate.high))
    return Estimate(value, low, high, estimate.level, estimate.samples, function(estimate.uncorrected))


def _steps(estimate: Estimate) -> str:
    return str(estimate)
