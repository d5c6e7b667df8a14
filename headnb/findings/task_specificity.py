"""Does it matter which task a model was trained on? Every fine-tuned model scored on every task.

Concentration is not specificity. Here the patterns P[t, e] of the models trained on tasks t are compared on the same
evaluation task e:

- how far each moved from the model before: |P[t, e] - P[e]| / |P[e]|, lengths over heads about the mean, freed of
  noise; and whether training on e itself moves e's pattern more than training on other tasks does (the diagonal
  against the rest, tested by exchanging the models);
- the variance between the models' patterns against the noise that the samples (and training runs) alone would give,
  tested by exchanging models within samples or, where every task has several training runs, by exchanging runs between
  tasks: only the latter can tell a task's doing from a training run's.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from headnb.argument_types import checked_level
from headnb.errors import HeadnbError, known_keywords
from headnb.findings.moments import Measured, Moments, Products
from headnb.findings.plain import as_records, plain
from headnb.findings.shown import TableAndVerdict
from headnb.findings.stages import Stages, check_one_grid, read_stages
from headnb.findings.task_selectivity import as_runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    from numpy.typing import NDArray

    from headnb.findings.task_selectivity import Runs
    from headnb.statistics import Array

FEWEST_TASKS = 2


@dataclass(frozen=True, repr=False)
class Specificity(TableAndVerdict):
    """Fine-tuned models against tasks.

    Attributes:
        change: Dataset (train, eval) of `value`, `low`, `high`: relative distance of the pattern on task `eval` of the
            model trained on `train` from that of the model before; freed of noise, over samples and training runs.
        between: Dataset (eval): `between`, variance over models of their patterns (mean over heads, relative to the
            variance over heads before); `noise`, what samples (or runs) alone give; `ratio` of the two; `p`.
        own: mean relative change of a task's pattern by training on that task. `others`: by training on another.
        own_p: chance of as large a difference of the two, each task over its mean, if models are exchanged.
        p: chance of as much variance between models, over all evaluation tasks.
        unit: what was exchanged for it, "samples" or "training runs".
    """

    change: xr.Dataset
    between: xr.Dataset
    own: float
    others: float
    own_p: float
    p: float
    unit: str
    level: float

    @property
    def table(self) -> pd.DataFrame:
        """The relative change, a row per trained task and a column per evaluated one."""
        return self.change["value"].to_pandas()

    @property
    def verdict(self) -> str:
        """What the numbers show, in sentences."""
        tasks = self.between.sizes["eval"]
        found = int((self.between["p"] < 1 - self.level).sum())
        least = "differ" if self.p < 1 - self.level else "cannot be told apart"
        ratio = float(self.between["ratio"].median())
        differ = (
            f"On the same task models trained on different tasks {least} beyond the noise of {self.unit} (p = "
            f"{self.p:.2g}; on {found} of {tasks} tasks; variance {ratio:.1f} times the noise, median)."
        )
        lines = [differ]
        if self.unit == "samples" and self.p < 1 - self.level:
            lines.append("With one training run each, that may be the run's doing rather than the task's.")
        if math.isfinite(self.own_p):
            sure = "" if self.own_p < 1 - self.level else ", which chance may have done"
            lines.append(
                f"Training on a task changed that task's pattern by {self.own:.2f} of its length, training on another "
                f"by {self.others:.2f} (p = {self.own_p:.2g}{sure})."
            )
        return " ".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values (NaN as None)."""
        return {
            "change": as_records(self.change),
            "between": as_records(self.between),
            "own": plain(self.own),
            "others": plain(self.others),
            "own_p": plain(self.own_p),
            "p": self.p,
            "unit": self.unit,
            "level": self.level,
            "verdict": self.verdict,
        }


@known_keywords
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
        permutations: of models, samples or runs.
        seed: of groups and permutations.

    Raises:
        HeadnbError: fewer than two models, a model without scores on one of the tasks, or scores that cannot be paired.
    """
    level = checked_level(level)
    if len(after) < FEWEST_TASKS:
        raise HeadnbError(f"specificity compares models trained on different tasks; got {len(after)}")
    tasks = [task for task in before if all(task in scores for scores in after.values())]
    if not tasks:
        raise HeadnbError("there is no task that all models and the model before were scored on")
    trained = list(after)
    stages = {
        (t, e): read_stages([(before[e], run) for run in as_runs(after[t][e])], e) for t in trained for e in tasks
    }
    check_one_grid({f"{t} on {e}": one for (t, e), one in stages.items()})
    on_task = {e: _shared_samples([stages[t, e] for t in trained]) for e in tasks}
    present = ~np.any([one.missing for one in stages.values()], axis=0)
    by_runs = min(one.runs for one in stages.values()) > 1
    change = np.empty((3, len(trained), len(tasks)))
    rows, permuted = [], []
    for place, task in enumerate(tasks):
        models = _patterns(on_task[task], present, scale_free=scale_free)
        change[:, :, place] = _relative_change(models, level, seed)
        row, chance = _between(models, permutations, seed, by_runs=by_runs)
        rows.append(row)
        permuted.append(chance)
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
        p=_p(float(total[-1]), total[:-1]),
        unit="training runs" if by_runs else "samples",
        level=level,
    )


def _shared_samples(models: Sequence[Stages]) -> list[Stages]:
    """The models' stages of the samples that all of them have, in one order."""
    common = set.intersection(*(set(one.samples) for one in models))
    order = [sample for sample in models[0].samples if sample in common]
    if len(order) < 2:
        raise HeadnbError(f"{models[0].task}: the models have {len(order)} samples in common; this needs at least 2")
    places = [{sample: i for i, sample in enumerate(one.samples)} for one in models]
    return [one.at(np.array([at[sample] for sample in order])) for one, at in zip(models, places, strict=True)]


def _patterns(models: Sequence[Stages], present: Array, *, scale_free: bool) -> list[Measured]:
    """The pattern before, then that of each model, on the same samples."""
    first = Measured(models[0].start[None][..., present], None, "shared", scale_free)
    return [first, *(Measured(one.after[..., present], None, "shared", scale_free) for one in models)]


def _relative_change(patterns: Sequence[Measured], level: float, seed: int) -> Array:
    """(3, models): relative distance of each model's pattern from the first, with its interval."""
    moments = Moments(patterns, seed)

    def squared(products: Products) -> Array:
        C = products.about_mean
        diagonal = np.diag(C)
        return np.asarray((diagonal[1:] + C[0, 0] - 2 * C[0, 1:]) / C[0, 0])

    if not moments.known:
        found = np.stack([squared(moments.plain())] + [np.full(len(patterns) - 1, np.nan)] * 2)
    else:
        found = np.stack(moments.estimate(squared, level))
    return np.asarray(np.sqrt(np.maximum(found, 0)))


def _between(
    patterns: Sequence[Measured], permutations: int, seed: int, *, by_runs: bool
) -> tuple[dict[str, float], Array]:
    """The row of one task, and the ratios to noise that exchanging gives, the observed one last.

    A training run is scored on every task, so the same exchange of runs is made on each: the seed sees to that.
    """
    rng = np.random.default_rng(seed)
    observed, noise, chance = (_between_runs if by_runs else _between_samples)(patterns[1:], permutations, rng)
    spread = float(patterns[0].values().var())
    row = {
        "between": observed / spread,
        "noise": noise / spread,
        "ratio": observed / noise if noise > 0 else math.nan,
        "p": _p(observed, chance),
    }
    every = np.append(chance, observed)
    return row, every / noise if noise > 0 else 0 * every


def _between_samples(
    models: Sequence[Measured], permutations: int, rng: np.random.Generator
) -> tuple[float, float, Array]:
    """Variance between models, that of noise alone, and what exchanging the models within each sample gives."""
    rows = np.stack([model.values() + model.influence() for model in models])  # (models, n, heads)
    rows = rows - rows.mean(axis=0)  # what all models do on a sample does not tell them apart
    count, n, heads = rows.shape
    means = rows.mean(axis=1)
    observed = float((means**2).sum() / ((count - 1) * heads))
    noise = float(((rows - means[:, None]) ** 2).sum() / ((count - 1) * n * (n - 1) * heads))
    chance = np.empty(permutations)
    for draw in range(permutations):
        order = np.argsort(rng.random((count, n)), axis=0)
        exchanged = np.take_along_axis(rows, order[..., None], axis=0).mean(axis=1)
        chance[draw] = (exchanged**2).sum() / ((count - 1) * heads)
    return observed, noise, chance


def _between_runs(
    models: Sequence[Measured], permutations: int, rng: np.random.Generator
) -> tuple[float, float, Array]:
    """Variance between tasks' mean patterns, that of runs alone, and what exchanging runs between tasks gives."""
    by_run = [model.by_run() for model in models]
    sizes = np.array([len(runs) for runs in by_run])
    runs = np.concatenate(by_run)
    runs = runs - runs.mean(axis=0)
    label = np.repeat(np.arange(len(sizes)), sizes)

    def between(order: NDArray[np.int64]) -> float:
        means = np.stack([runs[order[label == task]].mean(axis=0) for task in range(len(sizes))])
        return float((means**2).sum() / ((len(sizes) - 1) * runs.shape[1]))

    within = np.mean([runs[label == task].var(axis=0, ddof=1).mean() / sizes[task] for task in range(len(sizes))])
    observed = between(np.arange(len(runs)))
    return observed, float(within), np.array([between(rng.permutation(len(runs))) for _ in range(permutations)])


def _own_task(
    change: Array, trained: Sequence[str], tasks: Sequence[str], permutations: int, seed: int
) -> tuple[float, float, float]:
    """Mean of the diagonal and of the rest, and the chance of their difference if models are exchanged."""
    both = [task for task in trained if task in tasks]
    if len(both) < FEWEST_TASKS:
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


def _p(observed: float, chance: Array) -> float:
    return float((1 + (chance >= observed * (1 - 1e-9)).sum()) / (1 + len(chance)))
