"""Precision of instruction selection: the fraction of chosen samples that belong to the target's own task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from headnb.analysis.selection.select import select_instructions
from headnb.errors import HeadnbError
from headnb.stats.seeds import seed_of_task
from headnb.stats.significance import t_intervals

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from headnb.stats.descriptive import Array

# Score methods of the selection methods that compare scores; the other selection methods use text, or nothing.
SCORE_METHODS = {"pattern": "activation", "cosine": "activation", "gradient-free": "output-norm"}

_ROUNDING = 1e-9  # of precisions, which are fractions


def selection_precision(
    targets: Mapping[str, object],
    pool: Mapping[str, object],
    ks: Sequence[int],
    by: str,
    *,
    to: str = "mean",
    seeds: Iterable[int] = (0,),
) -> xr.DataArray:
    """Fraction of the first k chosen samples that belong to the target's task: (target, k).

    Args:
        targets: task -> its few samples, or their scores, as in `select_instructions`.
        pool: task -> samples of the same tasks, or their scores.
        ks: numbers of chosen samples.
        by: a selection method of `select_instructions`.
        to: as in `select_instructions`.
        seeds: seeds of "random", which is averaged over them and chooses independently for each target; ignored by the
            other methods.

    Raises:
        HeadnbError: a target that the pool does not have, no targets, no ks, or an error of `select_instructions`.
    """
    if not ks or not targets:
        raise HeadnbError("a precision needs at least one target and one k")
    if missing := [name for name in targets if name not in pool]:
        raise HeadnbError(f"the pool has no samples of {missing[0]}, so the precision for this target is undefined")
    precision = np.empty((len(targets), len(ks)))
    seeds = tuple(seeds) if by == "random" else (0,)
    for row, (name, target) in enumerate(targets.items()):
        own_seeds = [seed_of_task(seed, name) for seed in seeds]
        selections = [select_instructions(target, pool, max(ks), by, to=to, seed=seed) for seed in own_seeds]
        own = np.mean([[source_of_sample(str(key), pool) == name for key in s.ids] for s in selections], axis=0)
        precision[row] = [own[:k].mean() for k in ks]
    coords = {"target": list(targets), "k": list(ks)}
    return xr.DataArray(precision, coords, ("target", "k"), "precision")


def source_of_sample(key: str, pool: Iterable[str]) -> str:
    """The source of a chosen sample with id `source/id`; names of sources may contain slashes."""
    return max((name for name in pool if key.startswith(f"{name}/")), key=len)


def mean_over_targets(precision: xr.DataArray, level: float = 0.95) -> xr.Dataset:
    """Mean over targets with Student's t intervals: `value`, `low`, `high` (..., k).

    Args:
        precision: (..., target, k), precisions or differences of precisions.
        level: confidence level of the intervals, which are NaN if all targets have the same value, up to rounding.
    """
    rest = tuple(dim for dim in precision.dims if dim != "target")
    values: Array = precision.transpose("target", *rest).to_numpy()
    rows = values.reshape(len(values), -1)
    mean, *limits = t_intervals(rows, level)
    varied = np.ptp(rows, axis=0) > _ROUNDING  # equal values do not say how much others would vary
    ends = (mean, *(np.where(varied, limit, np.nan) for limit in limits))
    shape = values.shape[1:]
    coords = {name: coord for name, coord in precision.coords.items() if "target" not in coord.dims}
    columns = zip(("value", "low", "high"), ends, strict=True)
    return xr.Dataset({name: (rest, end.reshape(shape)) for name, end in columns}, coords)
