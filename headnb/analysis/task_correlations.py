"""Noise-corrected correlations over heads between tasks' patterns, before and after fine-tuning, and their change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from headnb.analysis.debiased_products import DebiasedProducts, MeasuredPattern, Products, correlations
from headnb.stats.estimates import UNINFORMATIVE_WIDTH
from headnb.stats.jackknife import fisher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headnb.stats.descriptive import Array


def task_correlations(
    measured: Sequence[MeasuredPattern], tasks: Sequence[str], level: float = 0.95, seed: int = 0
) -> xr.Dataset:
    """Dataset (stage, task, other_task) of noise-corrected `value`, `low`, `high`, and `uncorrected`.

    Noise weakens a correlation, so uncorrected correlations also rise when patterns become less noisy. Correlations
    and their intervals are computed on Fisher's scale, changes on the scale of correlations. NaN where no variance
    between heads remains after the correction, or where the interval is uninformative.

    Args:
        measured: the patterns of all tasks before fine-tuning, then of all tasks after.
        tasks: names of the tasks.
        level: confidence level of the intervals, which are over samples and training runs.
        seed: seed of the jackknife groups.
    """
    count = len(tasks)
    pairs = np.triu_indices(count, 1)
    moments = DebiasedProducts(measured, seed)

    def coefficients(products: Products) -> Array:
        """For each pair: before, after and change, then before and after on Fisher's scale."""
        r = correlations(products.about_mean)
        before, after = r[:count, :count][pairs], r[count:, count:][pairs]
        return np.concatenate([before, after, after - before, *(fisher(stage) for stage in (before, after))])

    columns = {"uncorrected": coefficients(moments.plain())[: 3 * len(pairs[0])]}
    if moments.has_enough_samples and len(pairs[0]):
        estimates = moments.estimate(coefficients, level)._asdict()
        columns |= _withhold_uninformative(
            {name: _back_transform(column, len(pairs[0])) for name, column in estimates.items()}
        )
    dims = ("stage", "task", "other_task")
    names = ("value", "low", "high", "uncorrected")
    unknown = np.full(3 * len(pairs[0]), np.nan)
    return xr.Dataset(
        {name: (dims, _matrices(columns.get(name, unknown), count)) for name in names},
        {"stage": ["before", "after", "change"], "task": list(tasks), "other_task": list(tasks)},
    )


def _back_transform(values: Array, pairs: int) -> Array:
    """(5 pairs) -> (3 pairs): transform back from Fisher's scale where all replicates are finite on it."""
    plain, on_fisher = values[: 3 * pairs], values[3 * pairs :]
    stages = np.where(np.isfinite(on_fisher), np.tanh(on_fisher), np.clip(plain[: 2 * pairs], -1, 1))
    return np.concatenate([stages, np.clip(plain[2 * pairs :], -2, 2)])


def _withhold_uninformative(columns: dict[str, Array]) -> dict[str, Array]:
    """NaN where an interval is nearly as wide as the range of a correlation."""
    informative = columns["high"] - columns["low"] < 2 * UNINFORMATIVE_WIDTH
    return {name: np.where(informative, column, np.nan) for name, column in columns.items()}


def _matrices(values: Array, count: int) -> Array:
    """(3 pairs) -> (3, tasks, tasks); on the diagonal the correlation is 1 and its change 0."""
    matrices = np.stack([np.eye(count), np.eye(count), np.zeros((count, count))])
    rows, columns = np.triu_indices(count, 1)
    matrices[:, rows, columns] = matrices[:, columns, rows] = values.reshape(3, -1)
    return matrices
