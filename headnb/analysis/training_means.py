"""Means of losses, with intervals, over fine-tunings on several tasks and seeds that are evaluated on the same samples.

A training run has one trained task and one seed. Its losses on an evaluated task vary between seeds and samples. Runs
of different trained tasks are independent, but all are evaluated on the same samples. The variance of the mean
therefore has one part per trained task (between seeds) and one per evaluated task (between samples), with degrees of
freedom by Welch and Satterthwaite. The tasks are fixed: the interval does not cover other tasks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from headnb.call_checks import checked_level
from headnb.errors import HeadnbError
from headnb.stats.estimates import Estimate
from headnb.stats.jackknife import sum_variances
from headnb.stats.rounding import interval_text
from headnb.stats.run_variance import RunNoise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headnb.stats.descriptive import Array

DIMS = ("trained", "seed", "evaluated", "sample")


def mean_over_trainings(values: xr.DataArray, level: float = 0.95) -> Estimate:
    """Mean over trained tasks of the mean over evaluated tasks of the mean over seeds and samples.

    The interval is over samples and seeds: see `run_variance`. With one seed, it is over samples only.

    Args:
        values: (trained, seed, evaluated, sample), in any order of dims, such as paired differences of losses. NaN
            where a trained task is not evaluated on another task, or an evaluated task has fewer samples; equal NaN for
            every seed.
        level: confidence level of the interval.

    Raises:
        HeadnbError: other dims, a trained task without values, or values that are missing for some seeds only.
    """
    level = checked_level(level)
    if set(values.dims) != set(DIMS):
        raise HeadnbError(
            f"a mean over training runs needs the dims {', '.join(DIMS)}; got {', '.join(map(str, values.dims))}"
        )
    array = values.transpose(*DIMS).to_numpy().astype(np.float64)
    known = ~np.isnan(array)
    if (known != known[:, :1]).any():
        raise HeadnbError("some seeds lack values that other seeds have; each seed needs the same tasks and samples")
    counts = known[:, 0].sum(axis=2)  # (T, E)
    if not counts.any(axis=1).all():
        raise HeadnbError("a trained task has no values; each needs at least one")
    evaluated = counts > 0
    weights = evaluated / evaluated.sum(axis=1, keepdims=True) / len(array)  # (T, E), sum 1
    # Each value is weighted by its task's weight over its task's samples, so that the mean is a sum.
    terms = weights[:, None, :, None] * np.divide(
        array, counts[:, None, :, None], where=known, out=np.zeros_like(array)
    )
    mean = float(terms.sum(axis=(0, 2, 3)).mean())
    samples = int(known[:, 0].any(axis=0).sum())
    noise = _noise(terms, known)
    if noise is None:
        return Estimate(mean, np.nan, np.nan, level, samples, mean)
    half = float(noise.half_width(level))
    return Estimate(mean, mean - half, mean + half, level, samples, mean)


def _noise(terms: Array, known: NDArray[np.bool_]) -> RunNoise | None:
    """Noise of the mean from samples and from seeds; None if no evaluated task has two samples.

    Args:
        terms: (T, S, E, n), terms of the mean of every seed.
        known: (T, S, E, n), which values are not missing.
    """
    of_samples = terms.sum(axis=0).mean(axis=0)  # (E, n)
    parts = [
        (n * part[there].var(ddof=1), n - 1.0)  # variance of a sum of n terms
        for part, there in zip(of_samples, np.logical_or.reduce(known, axis=(0, 1)), strict=True)
        if (n := int(there.sum())) > 1
    ]
    if not parts:
        return None
    seeds = terms.shape[1]
    of_seeds = [(run.var(ddof=1) / seeds, seeds - 1.0) for run in terms.sum(axis=(2, 3))] if seeds > 1 else []
    (a, df_a), (b, df_b) = sum_variances(parts), sum_variances(of_seeds)
    return RunNoise(np.array(a), df_a, np.array(b), df_b)


def on_own_task(values: xr.DataArray) -> xr.DataArray:
    """Expand values (trained, seed, sample) on the trained task's own samples for `mean_over_trainings`."""
    tasks = values["trained"].to_numpy()
    dims = ("trained", "evaluated")
    own = xr.DataArray(np.eye(len(tasks), dtype=bool), dict.fromkeys(dims, tasks), dims)
    return values.where(own)


def direction(estimate: Estimate) -> int:
    """1 or -1 if the interval lies above or below zero; 0 if it contains zero or is not available."""
    return int(estimate.low > 0) - int(estimate.high < 0)


def format_estimate(estimate: Estimate, sign: str = "+") -> str:
    """`+0.12 [−0.10, +0.34]`, or the value alone without an interval; `sign` is "" for values that are not changes."""
    return interval_text(estimate.value, estimate.low, estimate.high, sign)
