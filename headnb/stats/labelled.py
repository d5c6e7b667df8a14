"""Type aliases of labelled results: at runtime `Scores` and `Pattern` are xarray classes.

Type checkers and editors read `labelled.pyi` instead, where both classes have a typed `.heads`.
"""

from __future__ import annotations

import xarray as xr

Scores = xr.Dataset
Pattern = xr.DataArray
