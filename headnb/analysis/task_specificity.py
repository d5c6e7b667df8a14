"""Does it matter which task a model was trained on? Every fine-tuned model scored on every task.

Concentration is not specificity. Here the patterns P[t, e] of the models trained on tasks t are compared on the same
evaluation task e:

- how far each moved from the model before: |P[t, e] - P[e]| / |P[e]|, lengths over heads about the mean, freed of
  noise; and whether training on e itself moves e's pattern more than training on other tasks does (the diagonal
  against the rest, tested by exchanging the models);
- the variance between the models' patterns against the noise that the samples (and training runs) alone would give,
  tested by exchanging models within samples or, where every task has several training runs, by exchanging the tasks
  within each run number: only the latter can tell a task's doing from a training run's. Runs of one number may share a
  seed, and tasks may differ in how much their runs differ, so the statistic weighs each task's mean by its run noise:

      sum over t of R / s_t^2 |m_t - m_w|^2,

  m_t the mean of task t's R runs, m_w the mean of all weighted by R / s_t^2, s_t^2 the variance of t's runs, pooled
  over heads. A task whose runs differ far more than the others' is left out: no test has power with it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from headnb.analysis.before_after import Stages, check_same_grid, read_stages
from headnb.analysis.debiased_products import DebiasedProducts, MeasuredPattern, Products
from headnb.analysis.json_values import as_records, to_json_value
from headnb.analysis.result import AnalysisResult
from headnb.analysis.task_selectivity import as_runs
from headnb.call_checks import check_arguments, checked_level
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    from numpy.typing import NDArray

    from headnb.analysis.task_selectivity import Runs
    from headnb.stats.descriptive import Array

MIN_TASKS = 2
MIN_EXCHANGES = 20  # of tasks within run numbers: fewer cannot give p < 0.05
MAX_RELATIVE_NOISE = 5  # times the median of the tasks' run noise (standard deviations)


@dataclass(frozen=True, repr=False)
class Specificity(AnalysisResult):
    """Fine-tuned models against tasks.

    Attributes:
        change: Dataset (train, eval) of `value`, `low`, `high`: relative distance of the pattern on task `eval` of the
            model trained on `train` from that of the model before; freed of noise, over samples and training runs.
        between: Dataset (eval): `between`, variance over models of their patterns (mean over heads, relative to the
            variance over heads before); `noise`, what samples (or runs) alone give; `ratio` of the two; `p`.
        own: mean relative change of a task's pattern by training on that task. `others`: by training on another.
        own_p: chance of as large a difference of the two, each task over its mean, if models are exchanged.
        p: chance of as much variance between models, over all evaluation tasks; NaN where runs are too few for a test.
        unit: what was exchanged for it, "samples" or "training runs".
        left_out: trained tasks whose runs differ too much to be tested with the others.
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
        """The relative change, a row per trained task and a column per evaluated one."""
        return self.change["value"].to_pandas()

    @property
    def verdict(self) -> str:
        """What the numbers show, in sentences."""
        lines = [self._difference()]
        if self.left_out:
            lines.append(f"Not tested, because its training runs differ too much: {', '.join(self.left_out)}.")
        if self.unit == "samples" and self.p < 1 - self.level:
            lines.append("With one training run each, that may be the run's doing rather than the task's.")
        if math.isfinite(self.own_p):
            sure = "" if self.own_p < 1 - self.level else ", which chance may have done"
            lines.append(
                f"Training on a task changed that task's pattern by {self.own:.2f} of its length, training on another "
                f"by {self.others:.2f} (p = {self.own_p:.2g}{sure})."
            )
        return " ".join(lines)

    def _difference(self) -> str:
        if math.isnan(self.p):
            return (
                "Whether models trained on different tasks differ was not tested: exchanging tasks within each run "
                "number takes more training runs or tasks."
            )
        tasks = self.between.sizes["eval"]
        found = int((self.between["p"] < 1 - self.level).sum())
        least = "differ" if self.p < 1 - self.level else "cannot be told apart"
        ratio = float(self.between["ratio"].median())
        return (
            f"On the same task models trained on different tasks {least} beyond the noise of {self.unit} (p = "
            f"{self.p:.2g}; on {found} of {tasks} tasks; variance {ratio:.1f} times the noise, median)."
        )

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values (NaN as None)."""
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
    """Compare the patterns of models fine-tuned on different tasks on the same tasks (arXiv 2409.15820, finding 1).

    Args:
        before: evaluated task -> scores of the model before.
        after: trained task -> evaluated task -> scores of that model, of the same samples as before; or a list of
            scores, one per training seed.
        scale_free: divide each pattern by its mean over heads first: magnitudes fall with the loss.
        level: of the intervals.
        permutations: of models, samples or runs; all there are, where these are no more.
        seed: of groups and permutations.

    Raises:
        HeadnbError: fewer than two models, a model without scores on one of the tasks, or scores that cannot be paired.
    """
    level = checked_level(level)
    if len(after) < MIN_TASKS:
        raise HeadnbError(f"specificity compares models trained on different tasks; got {len(after)}")
    tasks = [task for task in before if all(task in scores for scores in after.values())]
    if not tasks:
        raise HeadnbError("there is no task that all models and the model before were scored on")
    trained = list(after)
    stages = {
        (t, e): read_stages([(before[e], run) for run in as_runs(after[t][e])], e) for t in trained for e in tasks
    }
    check_same_grid({f"{t} on {e}": one for (t, e), one in stages.items()})
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
    total = np.sum(permuted, axis=0)
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
    """The models' stages of the samples that all of them have, in one order."""
    common = set.intersection(*(set(one.samples) for one in models))
    order = [sample for sample in models[0].samples if sample in common]
    if len(order) < 2:
        raise HeadnbError(f"{models[0].task}: the models have {len(order)} samples in common; this needs at least 2")
    places = [{sample: i for i, sample in enumerate(one.samples)} for one in models]
    return [one.take(np.array([at[sample] for sample in order])) for one, at in zip(models, places, strict=True)]


def _patterns(models: Sequence[Stages], present: Array, *, scale_free: bool) -> list[MeasuredPattern]:
    """The pattern before, then that of each model, on the same samples."""
    first = MeasuredPattern(models[0].required_before[None][..., present], None, "shared", scale_free)
    return [first, *(MeasuredPattern(one.after[..., present], None, "shared", scale_free) for one in models)]


def _relative_change(patterns: Sequence[MeasuredPattern], level: float, seed: int) -> Array:
    """(3, models): relative distance of each model's pattern from the first, with its interval."""
    moments = DebiasedProducts(patterns, seed)

    def squared(products: Products) -> Array:
        C = products.about_mean
        diagonal = np.diag(C)
        return np.asarray((diagonal[1:] + C[0, 0] - 2 * C[0, 1:]) / C[0, 0])

    if not moments.has_enough_samples:
        found = np.stack([squared(moments.plain())] + [np.full(len(patterns) - 1, np.nan)] * 2)
    else:
        found = np.stack(moments.estimate(squared, level))
    return np.asarray(np.sqrt(np.maximum(found, 0)))


def _exclude_noisy(
    trained: Sequence[str], models: Mapping[str, Sequence[MeasuredPattern]]
) -> tuple[list[int], tuple[str, ...]]:
    """Places of the trained tasks that can be tested together, and the names of the others."""
    deviations = np.array([[one.run_noise()[0] for one in of_task[1:]] for of_task in models.values()]) ** 0.5
    noise = (deviations / np.median(deviations, axis=1, keepdims=True)).max(axis=0)  # (trained)
    noisy = noise > MAX_RELATIVE_NOISE
    if len(trained) - noisy.sum() < MIN_TASKS:
        noisy[:] = False
    return np.flatnonzero(~noisy).tolist(), tuple(name for name, out in zip(trained, noisy, strict=True) if out)


def _between(
    before: MeasuredPattern, models: Sequence[MeasuredPattern], permutations: int, seed: int, *, by_runs: bool
) -> tuple[dict[str, float], Array]:
    """The row of one task, and the test's statistic for every exchange, the observed one first.

    A training run is scored on every task, so the same exchange of runs is made on each: the seed sees to that.
    """
    rng = np.random.default_rng(seed)
    observed, noise, statistics = (_between_runs if by_runs else _between_samples)(models, permutations, rng)
    spread = float(before.values().var())
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
    """Variance between models, that of noise alone, and their ratio when models are exchanged within each sample."""
    rows = np.stack([model.values() + model.influence() for model in models])  # (models, n, heads)
    rows = rows - rows.mean(axis=0)  # what all models do on a sample does not tell them apart
    count, n, heads = rows.shape
    means = rows.mean(axis=1)
    observed = float((means**2).sum() / ((count - 1) * heads))
    noise = float(((rows - means[:, None]) ** 2).sum() / ((count - 1) * n * (n - 1) * heads))
    found = [observed]
    for _ in range(permutations):
        order = np.argsort(rng.random((count, n)), axis=0)
        exchanged = np.take_along_axis(rows, order[..., None], axis=0).mean(axis=1)
        found.append((exchanged**2).sum() / ((count - 1) * heads))
    return observed, noise, np.array(found) / noise if noise > 0 else np.zeros(len(found))


def _between_runs(
    models: Sequence[MeasuredPattern], permutations: int, rng: np.random.Generator
) -> tuple[float, float, Array]:
    """Variance between tasks' mean patterns, that of runs alone, and the statistic when tasks are exchanged.

    Of tasks with more runs than others the first ones are taken: the r-th run of every task has the same number.
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
    """Which task's pattern stands for each task in each run, (T, R), the observed order first.

    The first run keeps its order, since only how runs are combined matters.
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
    """The statistic (see the module) of one exchange, from the patterns' products over heads (T, R, T, R)."""
    runs = order.shape[1]
    of_runs = np.arange(runs)
    P = products[order[:, :, None, None], of_runs[:, None, None], order, of_runs]  # (T, R, T, R)
    G = P.mean(axis=(1, 3))  # products of the tasks' means (T, T)
    squares = np.einsum("trtr->t", P) - runs * np.diag(G)
    weights = runs * (runs - 1) / squares  # R / s_t^2
    share = weights / weights.sum()
    return float(weights @ (np.diag(G) - 2 * G @ share + share @ G @ share))


def _own_task(
    change: Array, trained: Sequence[str], tasks: Sequence[str], permutations: int, seed: int
) -> tuple[float, float, float]:
    """Mean of the diagonal and of the rest, and the chance of their difference if models are exchanged."""
    both = [task for task in trained if task in tasks]
    if len(both) < MIN_TASKS:
        return math.nan, math.nan, math.nan
    square = change[np.ix_([trained.index(t) for t in both], [tasks.index(t) for t in both])]
    mean = square.mean(axis=0)
    relative = np.divide(square, mean, out=np.ones_like(square), where=mean > 0)
    count, rng = len(both), np.random.default_rng(seed)
    own = np.eye(count, dtype=bool)
    every = math.factorial(count) <= permutations
    orders = itertools.permutations(range(count)) if every else (rng.permutation(count) for _ in range(permutations))
    sums = np.array([relative[list(order), np.arange(count)].sum() for order in orders])
    at_least = int((np.abs(sums - sums.mean()) >= abs(relative[own].sum() - sums.mean()) * (1 - 1e-9)).sum())
    p = at_least / len(sums) if every else (1 + at_least) / (1 + len(sums))
    return float(square[own].mean()), float(square[~own].mean()), p


def _p_value(statistics: Array) -> float:
    """The share of exchanges with as large a statistic as the observed one, which comes first and counts."""
    return float((statistics >= statistics[0] * (1 - 1e-9)).mean()) if np.isfinite(statistics[0]) else math.nan
