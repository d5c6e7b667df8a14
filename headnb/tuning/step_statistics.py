"""Statistics of a tracked step: its reliability, and the paired comparison with the first step."""

from __future__ import annotations

import numpy as np
import xarray as xr

from headnb.stats.paired import paired_levels
from headnb.stats.patterns import HEADS, evidence
from headnb.stats.reliability import Evidence, change_evidence
from headnb.stats.significance import paired_tests

ALPHA = 0.05
"""False discovery rate of the significance marks; 1 - ALPHA is the level of the intervals."""

_COLUMNS = {"change": "difference", "change_low": "low", "change_high": "high", "change_q_value": "q_value"}


def step_statistics(first: xr.Dataset, scores: xr.Dataset) -> xr.Dataset:
    """Compare the scores of a step with those of the first step, which have the same samples.

    Returns:
        `change`, `change_low`, `change_high` and `change_q_value` (layer, head) as `headnb.compare` computes them: the
        difference from the first step, its 95 % interval and its q-value. `level_evidence` and `change_evidence`
        (evidence): the fields of `stats.reliability.Evidence` for the level and for the change. The uncertainty covers
        samples only, not differences between training runs. One sample gives NaN.
    """
    shape = [scores.sizes[dim] for dim in HEADS]
    if scores.sizes["sample"] < 2:
        columns, of_change = {name: np.full(shape, np.nan) for name in _COLUMNS.values()}, Evidence()
    else:
        before, after = (levels.values.reshape(levels.sizes["sample"], -1) for levels in paired_levels(first, scores))
        columns, of_change = paired_tests(after - before, ALPHA), change_evidence(before, after[None])
    variables = {name: (HEADS, columns[column].reshape(shape)) for name, column in _COLUMNS.items()}
    of_level = evidence(scores)
    return xr.Dataset(
        variables | {"level_evidence": ("evidence", list(of_level)), "change_evidence": ("evidence", list(of_change))},
        coords={"evidence": list(Evidence._fields)},
    )
