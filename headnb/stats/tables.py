"""Tables of heads, indexed by head name."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

from headnb.errors import HeadnbError
from headnb.head_names import head_name

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    import xarray as xr


def head_table(columns: xr.Dataset, by: str, k: object) -> pd.DataFrame:
    """The k heads with the largest absolute `by`, one row each; ties in the order of layers and heads."""
    if not isinstance(k, Integral) or int(k) < 1:
        raise HeadnbError(f"k must be a whole number of heads, at least 1; got {k!r}")
    table = columns.transpose("layer", "head").to_dataframe().dropna(subset=by).reset_index()
    table = table.sort_values(by, key=abs, ascending=False, kind="stable").head(int(k))
    table.index = [head_name(layer, head) for layer, head in zip(table["layer"], table["head"], strict=True)]
    return table
