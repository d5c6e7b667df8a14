"""Statistics of labelled scores, shared by `.heads` and the packages below it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from headnb.errors import HeadnbError
from headnb.stats import descriptive, jackknife, patterns, significance
from headnb.stats.results import as_result, is_signed, require_scores

if TYPE_CHECKING:
    from collections.abc import Callable

    from headnb.stats.descriptive import Array
    from headnb.stats.estimates import Estimate


class ConcentrationStatistic(NamedTuple):
    """A concentration statistic of levels over heads, as shown under grids and in tables."""

    label: str
    help: str
    of_pattern: Callable[[Array], Array]
    of_samples: Callable[..., Estimate]
    """Noise-corrected estimate from (n, heads) levels."""


CONCENTRATION = {
    "gini": ConcentrationStatistic(
        "Gini",
        "Gini coefficient over the heads: 0 if all are equal, near 1 if one head has everything",
        descriptive.gini,
        jackknife.gini,
    ),
    "cv": ConcentrationStatistic(
        "CV",
        "Coefficient of variation over the heads: standard deviation divided by the mean",
        descriptive.coefficient_of_variation,
        jackknife.coefficient_of_variation,
    ),
    "kurtosis": ConcentrationStatistic(
        "excess kurtosis",
        "Excess kurtosis over the heads: 0 for a normal distribution, large if few heads stand out",
        descriptive.kurtosis,
        jackknife.kurtosis,
    ),
}


def samples_of(scores: xr.Dataset) -> Array:
    """(n, heads): the levels of one set of samples.

    Raises:
        HeadnbError: the scores have several sets of samples, or none.
    """
    levels = patterns.sample_levels(scores)
    if set(levels.dims) != {"sample", "layer", "head"}:
        raise HeadnbError(f"select one set of samples with .sel first; the dims are {', '.join(map(str, levels.dims))}")
    values = levels.transpose("sample", "layer", "head").values
    return np.asarray(values.reshape(len(values), -1))


def head_intervals(scores: xr.Dataset, level: float = 0.95, seed: int = 0) -> xr.Dataset:
    """Each head's mean over the samples with its interval: `value`, `low`, `high` (layer, head)."""
    flat = samples_of(scores)
    require_scores(scores)
    if is_signed(scores):
        intervals = significance.t_intervals(flat, level)
    else:
        intervals = significance.level_intervals(flat, level, seed=seed)
    grid = patterns.pattern(scores)
    columns = {"value": intervals.mean, "low": intervals.low, "high": intervals.high}
    interval = xr.Dataset(
        {name: grid.drop_attrs().copy(data=column.reshape(grid.shape)) for name, column in columns.items()},
        attrs={**grid.attrs, "interval_level": level},
    )
    return as_result(interval)
