"""Correlations over heads between tasks' patterns, before and after fine-tuning, and how they changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from headnb.analysis.debiased_products import DebiasedProducts, MeasuredPattern, Products, correlations
from headnb.stats.estimates import UNINFORMATIVE_WIDTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headnb.stats.descriptive import Array


def task_correlations(
    measured: Sequence[MeasuredPattern], tasks: Sequence[str], level: float = 0.95, seed: int = 0
) -> xr.Dataset:
    """Dataset (stage, task, other_task): `value`, `low`, `high` corrected for noise, and `uncorrected`.

    Noise weakens a correlation, so what looks like tasks drawing together may be patterns that became clearer. Values
    and intervals of a correlation are made on Fisher's scale, those of its change as they are; NaN where noise leaves
    no variance between heads, and where the interval says nothing.

    Args:
        measured: the patterns of all tasks before, then of all tasks after.
        tasks: their names.
        level: of the intervals, over samples and training runs.
        seed: of the groups.
    """
    count = len(tasks)
    pairs = np.triu_indices(count, 1)
    moments = DebiasedProducts(measured, seed)

    def coefficients(products: Products) -> Array:
        """Before, after and change, then before and after on Fisher's scale, of each pair."""
        r = correlations(products.about_mean)
        before, after = r[:count, :count][pairs], r[count:, count:][pairs]
        return np.concatenate([before, after, after - before, *(_fisher(stage) for stage in (before, after))])

    columns = {"uncorrected": coefficients(moments.plain())[: 3 * len(pairs[0])]}
    if moments.has_enough_samples and len(pairs[0]):
        found = moments.estimate(coefficients, level)._asdict()
        columns |= _withhold_uninformative(
            {name: _back_transform(column, len(pairs[0])) for name, column in found.items()}
        )
    dims = ("stage", "task", "other_task")
    names = ("value", "low", "high", "uncorrected")
    unknown = np.full(3 * len(pairs[0]), np.nan)
    return xr.Dataset(
        {name: (dims, _matrices(columns.get(name, unknown), count)) for name in names},
        {"stage": ["before", "after", "change"], "task": list(tasks), "other_task": list(tasks)},
    )


def _back_transform(found: Array, pairs: int) -> Array:
    """(5 pairs) -> (3 pairs): back from Fisher's scale, where no replicate left it."""
    plain, on_fisher = found[: 3 * pairs], found[3 * pairs :]
    stages = np.where(np.isfinite(on_fisher), np.tanh(on_fisher), np.clip(plain[: 2 * pairs], -1, 1))
    return np.concatenate([stages, np.clip(plain[2 * pairs :], -2, 2)])


def _withhold_uninformative(columns: dict[str, Array]) -> dict[str, Array]:
    """NaN where an interval is nearly as wide as what a correlation can be."""
    told = columns["high"] - columns["low"] < 2 * UNINFORMATIVE_WIDTH
    return {name: np.where(told, column, np.nan) for name, column in columns.items()}


def _matrices(found: Array, count: int) -> Array:
    """(3 pairs) -> (3, tasks, tasks): a task correlates with itself perfectly, and that does not change."""
    matrices = np.stack([np.eye(count), np.eye(count), np.zeros((count, count))])
    rows, columns = np.triu_indices(count, 1)
    matrices[:, rows, columns] = matrices[:, columns, rows] = found.reshape(3, -1)
    return matrices


def _fisher(r: Array) -> Array:
    inside = np.abs(r) < 1
    return np.where(inside, np.arctanh(np.where(inside, r, 0)), np.nan)
