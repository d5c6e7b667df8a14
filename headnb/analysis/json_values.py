"""Findings as plain JSON values, which know no NaN and no infinity: None stands for these."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

    from headnb.stats.estimates import Estimate


def to_json_value(value: Any) -> Any:
    """A number, also numpy's or a DataArray's without dims; what is no number stays as it is."""
    found = value.item() if hasattr(value, "item") else value
    return None if isinstance(found, float) and not math.isfinite(found) else found


def as_records(table: xr.Dataset | pd.DataFrame) -> list[dict[str, Any]]:
    """One object per row of labels."""
    frame = table.to_dataframe() if isinstance(table, xr.Dataset) else table
    rows = frame.reset_index().to_dict("records")
    return [{str(name): to_json_value(value) for name, value in row.items()} for row in rows]


def with_interval(estimate: Estimate) -> dict[str, float | None]:
    """`value`, `low` and `high`."""
    return {name: to_json_value(getattr(estimate, name)) for name in ("value", "low", "high")}
