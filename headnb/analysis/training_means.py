"""Means of losses over several fine-tunings, each of several seeds, all tested on the same samples: with intervals.

A training is of one task, with one seed. What was measured of it on the samples of an evaluated task varies between
seeds, and between samples. The trainings of other tasks are independent of each other, but all are tested on the same
samples. So the mean's variance has one part for each trained task (between its seeds) and one for each evaluated task
(between its samples), and the degrees of freedom are Welch and Satterthwaite's. The tasks themselves are taken as they
are: such a mean is of these tasks, not of others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from headnb.call_checks import checked_level
from headnb.errors import HeadnbError
from headnb.stats.estimates import Estimate
from headnb.stats.jackknife import welch_df
from headnb.stats.rounding import interval_text
from headnb.stats.run_variance import RunNoise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headnb.stats.descriptive import Array

DIMS = ("trained", "seed", "evaluated", "sample")


def mean_over_trainings(values: xr.DataArray, level: float = 0.95) -> Estimate:
    """The mean over trained tasks of the mean over evaluated tasks of the mean over seeds and samples.

    Its interval is over samples and seeds: see `run_variance`. Of one seed only the variance between samples is known.

    Args:
        values: (trained, seed, evaluated, sample), in any order of dims, such as paired differences of losses. NaN
            where a trained task is not evaluated on another, or an evaluated task has fewer samples; the same for
            every seed.
        level: of the interval.

    Raises:
        HeadnbError: other dims, a trained task without any value, or values that some seeds have and others lack.
    """
    level = checked_level(level)
    if set(values.dims) != set(DIMS):
        raise HeadnbError(f"a mean over trainings is of {', '.join(DIMS)}; got {', '.join(map(str, values.dims))}")
    found = values.transpose(*DIMS).to_numpy().astype(np.float64)
    known = ~np.isnan(found)
    if (known != known[:, :1]).any():
        raise HeadnbError("some seeds lack values that others have; each seed needs the same tasks and samples")
    counts = known[:, 0].sum(axis=2)  # (T, E)
    if not counts.any(axis=1).all():
        raise HeadnbError("a trained task has no values")
    evaluated = counts > 0
    weights = evaluated / evaluated.sum(axis=1, keepdims=True) / len(found)  # (T, E), their sum is 1
    # Of each value: its task's weight over its task's samples, so that everything below is a sum.
    each = weights[:, None, :, None] * np.divide(found, counts[:, None, :, None], where=known, out=np.zeros_like(found))
    mean = float(each.sum(axis=(0, 2, 3)).mean())
    samples = int(known[:, 0].any(axis=0).sum())
    noise = _noise(each, known)
    if noise is None:
        return Estimate(mean, np.nan, np.nan, level, samples, mean)
    half = float(noise.half_width(level))
    return Estimate(mean, mean - half, mean + half, level, samples, mean)


def _noise(each: Array, known: NDArray[np.bool_]) -> RunNoise | None:
    """The noise of the mean by samples and by seeds; None where no evaluated task has two samples.

    Args:
        each: (T, S, E, n), summands of the mean of every seed.
        known: where there is one.
    """
    of_samples = each.sum(axis=0).mean(axis=0)  # (E, n)
    parts = [
        (n * part[there].var(ddof=1), n - 1.0)  # the variance of a sum of n
        for part, there in zip(of_samples, np.logical_or.reduce(known, axis=(0, 1)), strict=True)
        if (n := int(there.sum())) > 1
    ]
    if not parts:
        return None
    seeds = each.shape[1]
    of_seeds = [(run.var(ddof=1) / seeds, seeds - 1.0) for run in each.sum(axis=(2, 3))] if seeds > 1 else []
    (a, df_a), (b, df_b) = _sum_variances(parts), _sum_variances(of_seeds)
    return RunNoise(np.array(a), df_a, np.array(b), df_b)


def _sum_variances(parts: list[tuple[float, float]]) -> tuple[float, float]:
    """The sum of independent variances, and its degrees of freedom by Welch and Satterthwaite; 0 of none."""
    if not parts:
        return 0.0, 0.0
    variances, df = np.array(parts, dtype=np.float64).T
    return float(variances.sum()), welch_df(variances, df)


def on_own_task(values: xr.DataArray) -> xr.DataArray:
    """Values (trained, seed, sample) on the trained task's own samples, as `mean_over_trainings` takes them."""
    tasks = values["trained"].to_numpy()
    dims = ("trained", "evaluated")
    own = xr.DataArray(np.eye(len(tasks), dtype=bool), dict.fromkeys(dims, tasks), dims)
    return values.where(own)


def direction(estimate: Estimate) -> int:
    """1 or -1 where the interval lies above or below zero; 0 where it does not, or is not known."""
    return int(estimate.low > 0) - int(estimate.high < 0)


def format_estimate(estimate: Estimate, sign: str = "+") -> str:
    """`+0.12 [-0.10, +0.34]`, or the value alone where there is no interval; `sign` is "" for what is no change."""
    return interval_text(estimate.value, estimate.low, estimate.high, sign)
