"""Results as plain JSON values; JSON has no NaN and no infinity, so None replaces them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

    from headnb.stats.estimates import Estimate


def to_json_value(value: Any) -> Any:
    """Convert a number, numpy scalar or DataArray without dims to a plain value; other values are unchanged."""
    plain = value.item() if hasattr(value, "item") else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def as_records(table: xr.Dataset | pd.DataFrame) -> list[dict[str, Any]]:
    """One object per row, with its labels."""
    frame = table.to_dataframe() if isinstance(table, xr.Dataset) else table
    rows = frame.reset_index().to_dict("records")
    return [{str(name): to_json_value(value) for name, value in row.items()} for row in rows]


def with_interval(estimate: Estimate) -> dict[str, float | None]:
    """`value`, `low` and `high` of an estimate."""
    return {name: to_json_value(getattr(estimate, name)) for name in ("value", "low", "high")}
