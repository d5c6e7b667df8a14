"""Statistics of the panels of a head grid: concentration of patterns and of scores."""

from __future__ import annotations

import json
import math
import warnings
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from headnb.stats.score_statistics import CONCENTRATION, samples_of

if TYPE_CHECKING:
    import xarray as xr

    from headnb.display.payload_types import Statistic

Statistics: TypeAlias = "tuple[dict[str, Statistic], dict[str, str]]"  # statistics shown; reasons of those withheld


def pattern_statistics(cells: xr.Dataset) -> list[Statistics]:
    """Uncorrected statistics of every pattern along the leading dims; empty for values that are not levels."""
    values = cells["values"]
    patterns = int(np.prod(values.shape[:-2]))
    if cells.attrs.get("kind") != "level":
        return [({}, {})] * patterns
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a pattern without values has no statistics
        flat = values.transpose(..., "layer", "head").to_numpy().reshape(patterns, -1)
        columns = {
            name: np.array([one.of_pattern(row) for row in flat], dtype=np.float64)
            for name, one in CONCENTRATION.items()
        }
    shown = {name: [rounded(value, 4) for value in column.tolist()] for name, column in columns.items()}
    rows = [{name: column[i] for name, column in shown.items()} for i in range(patterns)]
    return [({name: {"value": value} for name, value in row.items() if value is not None}, {}) for row in rows]


def score_statistics(data: xr.Dataset) -> Statistics:
    """Statistics of scores, bias-corrected, with 95 % intervals, and the reasons of those withheld."""
    shown: dict[str, Statistic] = {}
    withheld: dict[str, str] = {}
    samples = samples_of(data)
    for name, one in CONCENTRATION.items():
        estimate = one.of_samples(samples)
        value = rounded(float(estimate), 4)
        if value is None:
            withheld[name] = estimate.reason
            continue
        shown[name] = {"value": value}
        low, high = (rounded(getattr(estimate, end, None), 4) for end in ("low", "high"))
        if low is not None and high is not None:
            shown[name] |= {"low": low, "high": high}
    return shown, withheld


def stored_statistics(cells: xr.Dataset) -> list[Statistics]:
    """Statistics in the coordinate `statistics` of a study of tasks (JSON of `score_statistics`); empty without it."""
    stored = cells.coords.get("statistics")
    if stored is None or cells.attrs.get("kind") != "level" or set(stored.dims) != set(cells["values"].dims[:-2]):
        return []
    try:
        return [tuple(json.loads(text)) for text in stored.values.ravel().tolist()]
    except (TypeError, ValueError):  # computed or edited by the user
        return []


def rounded(value: float | None, digits: int) -> float | None:
    """A number rounded to this many significant digits; None if it is not finite."""
    return float(f"{value:.{digits}g}") if value is not None and math.isfinite(value) else None
