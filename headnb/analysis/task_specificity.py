"""Specificity of fine-tuning: patterns of models trained on different tasks, compared on the same tasks.

P[t, e] is the pattern of the model trained on task t, on the evaluation task e:

- The relative change |P[t, e] - P[e]| / |P[e]| from the base model, with noise-corrected lengths over heads about the
  mean. A permutation of the models tests whether training on e changes the pattern of e more than training on other
  tasks does (the diagonal against the other entries).
- The variance between the models' patterns, compared with the noise of samples or training runs. The test permutes the
  models within samples or, if every task has several training runs, the tasks within each run number. Only the latter
  separates the effect of a task from the effect of a run. Runs of one number may share a seed, and tasks may differ in
  run variance, so the statistic weights each task's mean by its run noise:

      sum over t of R / s_t^2 |m_t - m_w|^2,

  m_t is the mean of task t's R runs, m_w the mean of all tasks weighted by R / s_t^2, and s_t^2 the variance of t's
  runs, pooled over heads. A task with a far larger run variance than the other tasks is excluded, since the test has no
  power with it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from headnb.analysis.before_after import Stages, check_same_grid, on_common_samples, read_stages
from headnb.analysis.debiased_products import DebiasedProducts, MeasuredPattern, Products
from headnb.analysis.json_values import as_records, to_json_value
from headnb.analysis.result import AnalysisResult
from headnb.analysis.task_selectivity import as_runs
from headnb.call_checks import check_arguments
from headnb.errors import HeadnbError
from headnb.stats.results import check_levels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    from numpy.typing import NDArray

    from headnb.analysis.task_selectivity import Runs
    from headnb.stats.descriptive import Array

MIN_TASKS = 2
MIN_EXCHANGES = 20  # fewer permutations cannot give p < 0.05
LEAST_NOISE = 1e-12  # of the squared runs; equal runs would have infinite weight
MAX_RELATIVE_NOISE = 5  # times the median of the tasks' run noise (standard deviations)


@dataclass(frozen=True, repr=False)
class Specificity(AnalysisResult):
    """Patterns of fine-tuned models on all tasks.

    Attributes:
        change: Dataset (train, eval) of `value`, `low`, `high`: relative distance on task `eval` between the pattern of
            the model trained on `train` and the pattern of the base model; noise-corrected, with intervals over samples
            and training runs.
        between: Dataset (eval): `between`, variance of the patterns between models (mean over heads, relative to the
            variance over heads before fine-tuning); `noise`, the variance expected from samples (or runs) alone;
            their `ratio`; and the permutation `p`.
        own: mean relative change of a task's pattern from training on that task.
        others: mean relative change of a task's pattern from training on another task.
        own_p: two-sided permutation p-value of their difference, with changes relative to each task's mean; NaN below
            four tasks, which have too few permutations.
        p: permutation p-value of the variance between models, over all evaluation tasks with enough permutations; NaN
            if there are none, with too few runs or samples.
        unit: what the test permutes: "samples" or "training runs".
        level: confidence level of the intervals; tests are significant for p < 1 - level.
        left_out: trained tasks that are excluded from the test because of their large run variance.
    """

    change: xr.Dataset
    between: xr.Dataset
    own: float
    others: float
    own_p: float
    p: float
    unit: str
    level: float
    left_out: tuple[str, ...] = ()

    @property
    def table(self) -> pd.DataFrame:
        """The relative change, one row per trained task and one column per evaluated task."""
        return self.change["value"].to_pandas()

    @property
    def verdict(self) -> str:
        """The result in sentences."""
        lines = [self._difference()]
        if self.left_out:
            lines.append(
                f"Excluded from the test for large variance between training runs: {', '.join(self.left_out)}."
            )
        if self.unit == "samples" and self.p < 1 - self.level:
            lines.append("With one training run per task, the run rather than the task may cause this difference.")
        if math.isfinite(self.own):
            words = "" if self.own_p < 1 - self.level else ", not significant"
            test = f"permutation p = {self.own_p:.2g}{words}"
            if math.isnan(self.own_p):
                test = "not tested: too few tasks"
            lines.append(
                f"The mean relative change of a task's pattern is {self.own:.2f} after training on that task and "
                f"{self.others:.2f} after training on another task ({test})."
            )
        return " ".join(lines)

    def _difference(self) -> str:
        if math.isnan(self.p) and self.unit == "samples":
            return (
                "The difference between models trained on different tasks was not tested: a permutation of the models "
                "within each sample needs more samples or models."
            )
        if math.isnan(self.p):
            return (
                "The difference between models trained on different tasks was not tested: a permutation of the tasks "
                "within each run number needs more training runs or tasks."
            )
        tasks = self.between.sizes["eval"]
        alpha = 1 - self.level
        significant = int((self.between["p"] < alpha).sum())
        words = "differ" if self.p < alpha else "do not differ significantly"
        ratio = float(self.between["ratio"].median())
        times = ""
        if math.isfinite(ratio):
            times = f"; variance between models {ratio:.1f} times the noise, median over tasks"
        return (
            f"On the same evaluation task, patterns of models trained on different tasks {words} beyond the noise of "
            f"{self.unit} (permutation p = {self.p:.2g}; p < {alpha:.2g} on {significant} of {tasks} tasks{times})."
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values (NaN as None)."""
        return {
            "change": as_records(self.change),
            "between": as_records(self.between),
            "own": to_json_value(self.own),
            "others": to_json_value(self.others),
            "own_p": to_json_value(self.own_p),
            "p": to_json_value(self.p),
            "unit": self.unit,
            "left_out": list(self.left_out),
            "level": self.level,
            "verdict": self.verdict,
        }


@check_arguments
def specificity(
    before: Mapping[str, xr.Dataset],
    after: Mapping[str, Mapping[str, Runs]],
    *,
    scale_free: bool = True,
    level: float = 0.95,
    permutations: int = 1000,
    seed: int = 0,
) -> Specificity:
    """Compare models fine-tuned on different tasks by their patterns on the same tasks (arXiv 2409.15820, finding 1).

    Args:
        before: evaluated task -> scores of the base model.
        after: trained task -> evaluated task -> scores of the model trained on the trained task, of the same samples as
            `before`; or a list of scores, one per training seed.
        scale_free: first divide each pattern by its mean over heads, since levels fall with the loss.
        level: confidence level of the intervals.
        permutations: number of random permutations; if fewer permutations exist, all are used.
        seed: seed of the jackknife groups and permutations.

    Raises:
        HeadnbError: fewer than two models, no task with scores of all models, a model without the scores of some of its
            training runs on a task, scores that cannot be paired, or signed scores with `scale_free`.
    """
    if len(after) < MIN_TASKS:
        raise HeadnbError(f"specificity needs at least two models trained on different tasks; got {len(after)}")
    tasks = [task for task in before if all(task in scores for scores in after.values())]
    if not tasks:
        raise HeadnbError("no task has scores of all fine-tuned models and of the base model")
    trained = list(after)
    stages = {
        (t, e): read_stages([(before[e], run) for run in as_runs(after[t][e])], e) for t in trained for e in tasks
    }
    check_same_grid({f"{t} on {e}": one for (t, e), one in stages.items()})
    for (t, e), one in stages.items():
        if one.runs != (runs := stages[t, tasks[0]].runs):
            raise HeadnbError(
                f"{t} has scores of {runs} training runs on {tasks[0]} and of {one.runs} on {e}; give the scores of "
                "each run on every task"
            )
    if scale_free:
        for (_, task), one in stages.items():
            check_levels("scale_free", signed=one.signed, of=task)
    on_task = {e: _shared_samples([stages[t, e] for t in trained]) for e in tasks}
    present = ~np.any([one.missing for one in stages.values()], axis=0)
    by_runs = min(one.runs for one in stages.values()) > 1
    models = {e: _patterns(on_task[e], present, scale_free=scale_free) for e in tasks}
    change = np.stack([_relative_change(models[e], level, seed) for e in tasks], axis=-1)
    tested, left_out = _exclude_noisy(trained, models) if by_runs else (list(range(len(trained))), ())
    rows, permuted = zip(
        *(
            _between(models[e][0], [models[e][1 + t] for t in tested], permutations, seed, by_runs=by_runs)
            for e in tasks
        ),
        strict=True,
    )
    own, others, own_p = _own_task(change[0], trained, tasks, permutations, seed)
    testable = [statistics for statistics in permuted if np.isfinite(statistics[0])]
    total = np.sum(testable, axis=0) if testable else np.full(1, np.nan)
    names = ("value", "low", "high")
    return Specificity(
        change=xr.Dataset(
            {name: (("train", "eval"), x) for name, x in zip(names, change, strict=True)},
            {"train": trained, "eval": tasks},
        ),
        between=xr.Dataset({name: ("eval", [row[name] for row in rows]) for name in rows[0]}, {"eval": tasks}),
        own=own,
        others=others,
        own_p=own_p,
        p=_p_value(total),
        unit="training runs" if by_runs else "samples",
        level=level,
        left_out=left_out,
    )


def _shared_samples(models: Sequence[Stages]) -> list[Stages]:
    """The models' stages reduced to their common samples, in one order."""
    common = list(on_common_samples(dict(enumerate(models))).values())
    if len({one.sample_set for one in common}) > 1 or common[0].n < 2:
        raise HeadnbError(f"{models[0].task}: the models have fewer than 2 samples in common")
    return common


def _patterns(models: Sequence[Stages], present: Array, *, scale_free: bool) -> list[MeasuredPattern]:
    """The pattern of the base model, then of each fine-tuned model, on the same samples."""
    first = MeasuredPattern(models[0].required_before[None][..., present], None, "shared", scale_free)
    return [first, *(MeasuredPattern(one.after[..., present], None, "shared", scale_free) for one in models)]


def _relative_change(patterns: Sequence[MeasuredPattern], level: float, seed: int) -> Array:
    """(3, models): relative distance of each model's pattern from the first pattern, with its interval."""
    moments = DebiasedProducts(patterns, seed)

    def squared(products: Products) -> Array:
        C = products.about_mean
        diagonal = np.diag(C)
        return np.asarray((diagonal[1:] + C[0, 0] - 2 * C[0, 1:]) / (C[0, 0] or math.nan))

    if not moments.has_enough_samples:
        squares = np.stack([squared(moments.plain())] + [np.full(len(patterns) - 1, np.nan)] * 2)
    else:
        squares = np.stack(moments.estimate(squared, level))
    return np.asarray(np.sqrt(np.maximum(squares, 0)))


def _exclude_noisy(
    trained: Sequence[str], models: Mapping[str, Sequence[MeasuredPattern]]
) -> tuple[list[int], tuple[str, ...]]:
    """Indices of the trained tasks in the test, and names of the tasks excluded for their run noise."""
    deviations = np.array([[one.run_noise()[0] for one in of_task[1:]] for of_task in models.values()]) ** 0.5
    middle = np.median(deviations, axis=1, keepdims=True)
    relative = np.divide(deviations, middle, out=np.where(deviations > 0, np.inf, 1.0), where=middle > 0)
    noise = relative.max(axis=0)  # (trained)
    noisy = noise > MAX_RELATIVE_NOISE
    if len(trained) - noisy.sum() < MIN_TASKS:
        noisy[:] = False
    return np.flatnonzero(~noisy).tolist(), tuple(name for name, out in zip(trained, noisy, strict=True) if out)


def _between(
    before: MeasuredPattern, models: Sequence[MeasuredPattern], permutations: int, seed: int, *, by_runs: bool
) -> tuple[dict[str, float], Array]:
    """Row of `between` for one evaluation task, and the test statistic of every permutation, the observed one first.

    A training run is scored on every task, so equal seeds permute the runs in the same way on each task.
    """
    rng = np.random.default_rng(seed)
    observed, noise, statistics = (_between_runs if by_runs else _between_samples)(models, permutations, rng)
    spread = float(before.values().var()) or math.nan  # a base model with equal heads has no scale
    row = {
        "between": observed / spread,
        "noise": noise / spread,
        "ratio": observed / noise if noise > 0 else math.nan,
        "p": _p_value(statistics),
    }
    return row, statistics


def _between_samples(
    models: Sequence[MeasuredPattern], permutations: int, rng: np.random.Generator
) -> tuple[float, float, Array]:
    """Variance between models, its noise, and their ratio under permutations of the models within each sample."""
    rows = np.stack([model.values() + model.influence() for model in models])  # (models, n, heads)
    rows = rows - rows.mean(axis=0)  # remove the effect of samples common to all models
    count, n, heads = rows.shape
    means = rows.mean(axis=1)
    observed = float((means**2).sum() / ((count - 1) * heads))
    noise = float(((rows - means[:, None]) ** 2).sum() / ((count - 1) * n * (n - 1) * heads))
    if math.factorial(count) ** (n - 1) < MIN_EXCHANGES:  # only the combination of samples matters
        return observed, noise, np.full(1, np.nan)
    statistics = [observed]
    for _ in range(permutations):
        order = np.argsort(rng.random((count, n)), axis=0)
        exchanged = np.take_along_axis(rows, order[..., None], axis=0).mean(axis=1)
        statistics.append((exchanged**2).sum() / ((count - 1) * heads))
    return observed, noise, np.array(statistics) / noise if noise > 0 else np.zeros(len(statistics))


def _between_runs(
    models: Sequence[MeasuredPattern], permutations: int, rng: np.random.Generator
) -> tuple[float, float, Array]:
    """Variance between tasks' mean patterns, its run noise, and the statistic under permutations of the tasks.

    Tasks with more runs than others are truncated to the first runs; the r-th run of every task has the same number.
    """
    runs = min(len(model.plus) for model in models)
    patterns = np.stack([model.by_run()[:runs] for model in models])  # (T, R, heads)
    means = patterns.mean(axis=1)
    observed = float(means.var(axis=0, ddof=1).mean())
    noise = float(patterns.var(axis=1, ddof=1).mean() / runs)
    products = np.einsum("tph,sqh->tpsq", patterns, patterns) / patterns.shape[-1]
    exchanges = list(_exchanges(len(models), runs, permutations, rng))
    if len(exchanges) < MIN_EXCHANGES:
        return observed, noise, np.full(1, np.nan)
    return observed, noise, np.array([_weighted_distance(products, order) for order in exchanges])


def _exchanges(tasks: int, runs: int, most: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Permutations of the tasks within each run, (T, R) of task indices, the observed order first.

    The order in the first run is fixed, since only the combination of runs matters.
    """
    every = list(itertools.permutations(range(tasks))) if math.factorial(tasks) <= most else None
    if every is not None and len(every) ** (runs - 1) <= most:
        for orders in itertools.product(every, repeat=runs - 1):
            yield np.array([every[0], *orders]).T
        return
    yield np.tile(np.arange(tasks)[:, None], runs)
    for _ in range(most):
        yield np.array([np.arange(tasks), *(rng.permutation(tasks) for _ in range(runs - 1))]).T


def _weighted_distance(products: Array, order: NDArray[np.int64]) -> float:
    """The statistic (see the module) of one permutation, from the patterns' products over heads (T, R, T, R)."""
    runs = order.shape[1]
    of_runs = np.arange(runs)
    P = products[order[:, :, None, None], of_runs[:, None, None], order, of_runs]  # (T, R, T, R)
    G = P.mean(axis=(1, 3))  # products of the tasks' means (T, T)
    total = np.einsum("trtr->t", P)
    squares = np.maximum(total - runs * np.diag(G), LEAST_NOISE * total)
    weights = runs * (runs - 1) / squares  # R / s_t^2
    share = weights / weights.sum()
    return float(weights @ (np.diag(G) - 2 * G @ share + share @ G @ share))


def _own_task(
    change: Array, trained: Sequence[str], tasks: Sequence[str], permutations: int, seed: int
) -> tuple[float, float, float]:
    """Mean of the diagonal and of the other entries, and the permutation p-value of their difference.

    Tasks whose patterns are constant over heads have no relative change and are left out.
    """
    known = dict(zip(tasks, np.atleast_1d(np.isfinite(change).all(axis=0)), strict=True))
    both = [task for task in trained if known.get(task, False)]
    if len(both) < MIN_TASKS:
        return math.nan, math.nan, math.nan
    square = change[np.ix_([trained.index(t) for t in both], [tasks.index(t) for t in both])]
    mean = square.mean(axis=0)
    relative = np.divide(square, mean, out=np.ones_like(square), where=mean > 0)
    count, rng = len(both), np.random.default_rng(seed)
    own = np.eye(count, dtype=bool)
    if math.factorial(count) < MIN_EXCHANGES:
        return float(square[own].mean()), float(square[~own].mean()), math.nan
    every = math.factorial(count) <= permutations
    orders = itertools.permutations(range(count)) if every else (rng.permutation(count) for _ in range(permutations))
    sums = np.array([relative[list(order), np.arange(count)].sum() for order in orders])
    at_least = int((np.abs(sums - sums.mean()) >= abs(relative[own].sum() - sums.mean()) * (1 - 1e-9)).sum())
    p = at_least / len(sums) if every else (1 + at_least) / (1 + len(sums))
    return float(square[own].mean()), float(square[~own].mean()), p


def _p_value(statistics: Array) -> float:
    """Fraction of permutations with at least the observed statistic, which comes first and is counted."""
    return float((statistics >= statistics[0] * (1 - 1e-9)).mean()) if np.isfinite(statistics[0]) else math.nan
