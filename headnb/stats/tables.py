"""Tables of heads, indexed by head name."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING

import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

from headnb.errors import HeadnbError
from headnb.head_names import head_name

if TYPE_CHECKING:
    import xarray as xr


def head_table(columns: xr.Dataset, by: str, k: object) -> pd.DataFrame:
    """The k heads with the largest absolute `by`, one row each; ties in the order of layers and heads.

    With leading dims, such as `role`, k heads for each entry of them.
    """
    if not isinstance(k, Integral) or int(k) < 1:
        raise HeadnbError(f"k must be a whole number of heads, at least 1; got {k!r}")
    leading = [str(dim) for dim in columns[by].dims if dim not in {"layer", "head"}]
    cells = columns.transpose(*leading, "layer", "head").to_dataframe().dropna(subset=by).reset_index()
    groups = [of for _, of in cells.groupby(leading, sort=False)] if leading else [cells]
    table = pd.concat([of.sort_values(by, key=abs, ascending=False, kind="stable").head(int(k)) for of in groups])
    table.index = [head_name(layer, head) for layer, head in zip(table["layer"], table["head"], strict=True)]
    return table
