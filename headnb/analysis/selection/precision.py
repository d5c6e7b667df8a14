"""Which way of choosing instructions finds those of the target's own task, in a pool of many tasks."""

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

# The method whose scores a way compares; the other ways read text, or nothing.
SCORE_METHODS = {"pattern": "activation", "cosine": "activation", "gradient-free": "output-norm"}


def selection_precision(
    targets: Mapping[str, object],
    pool: Mapping[str, object],
    ks: Sequence[int],
    by: str,
    *,
    to: str = "mean",
    seeds: Iterable[int] = (0,),
) -> xr.DataArray:
    """The share of the first k chosen samples that are of the target's task: (target, k).

    Args:
        targets: task -> its few samples, or their scores, as `select_instructions` takes them.
        pool: task -> samples of the same tasks, or their scores.
        ks: how many are chosen.
        by: a way of `select_instructions`.
        to: as for `select_instructions`.
        seeds: of "random", whose mean over them is taken, with other draws for each target; the other ways use none.

    Raises:
        HeadnbError: a target that the pool does not have, no ks, or what `select_instructions` raises.
    """
    if not ks or not targets:
        raise HeadnbError("a precision needs at least one target and one k")
    if missing := [name for name in targets if name not in pool]:
        raise HeadnbError(f"the pool has no samples of {missing[0]}; precision is the share of the target's own")
    found = np.empty((len(targets), len(ks)))
    draws_of = tuple(seeds) if by == "random" else (0,)
    for row, (name, target) in enumerate(targets.items()):
        own_seeds = [seed_of_task(seed, name) for seed in draws_of]
        draws = [select_instructions(target, pool, max(ks), by, to=to, seed=seed) for seed in own_seeds]
        own = np.mean([[source_of_sample(str(key), pool) == name for key in chosen.ids] for chosen in draws], axis=0)
        found[row] = [own[:k].mean() for k in ks]
    coords = {"target": list(targets), "k": list(ks)}
    return xr.DataArray(found, coords, ("target", "k"), "precision")


def source_of_sample(key: str, pool: Iterable[str]) -> str:
    """The source of a chosen sample by its id `source/id`; names of sources may have slashes, too."""
    return max((name for name in pool if key.startswith(f"{name}/")), key=len)


def mean_over_targets(precision: xr.DataArray, level: float = 0.95) -> xr.Dataset:
    """The mean over targets with Student's t intervals: `value`, `low`, `high` (..., k).

    Args:
        precision: (..., target, k), or differences of two.
        level: of the intervals; of one target there are none.
    """
    rest = tuple(dim for dim in precision.dims if dim != "target")
    values: Array = precision.transpose("target", *rest).to_numpy()
    ends = t_intervals(values.reshape(len(values), -1), level)
    shape = values.shape[1:]
    coords = {name: coord for name, coord in precision.coords.items() if "target" not in coord.dims}
    columns = zip(("value", "low", "high"), ends, strict=True)
    return xr.Dataset({name: (rest, end.reshape(shape)) for name, end in columns}, coords)
