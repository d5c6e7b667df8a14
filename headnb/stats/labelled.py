"""Types of labelled results, for annotations: `Scores` and `Pattern` are xarray's classes.

Type checkers and editors read `labelled.pyi` instead, where both have a typed `.heads`.
"""

from __future__ import annotations

import xarray as xr

Scores = xr.Dataset
Pattern = xr.DataArray
