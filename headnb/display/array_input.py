"""Conversion of plain matrices to labelled arrays that a head grid can draw.

A matrix is layers x heads; leading dims become panels.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import xarray as xr

from headnb.errors import HeadnbError

HEADS = ("layer", "head")


def is_matrix_like(value: object) -> bool:
    """Whether a value is a matrix of numpy, torch, pandas or nested lists; imports none of these packages."""
    if isinstance(value, (list, tuple)):
        return bool(value) and isinstance(value[0], (list, tuple, np.ndarray)) and _is_matrix(value)
    return (isinstance(value, np.ndarray) or _is_tensor(value) or _is_frame(value)) and value.ndim >= 2  # type: ignore[attr-defined]


def to_labelled_array(value: Any) -> xr.DataArray:
    """Convert a matrix of layers x heads, with optional leading dims, to a DataArray with these dims.

    Args:
        value: an array of xarray, numpy or torch, a DataFrame or nested lists. Integer labels of a frame's rows and
            columns become the layer and head numbers.

    Raises:
        HeadnbError: the value has fewer than two dims, no values, or values that are not real numbers.
    """
    if isinstance(value, xr.DataArray):
        unnamed = [str(dim) for dim in value.dims] == ["dim_0", "dim_1"]
        return value.rename(dict(zip(value.dims, HEADS, strict=True))) if unnamed else value
    coords: dict[str, Any] = {}
    if _is_frame(value):
        labels = dict(zip(HEADS, (value.index, value.columns), strict=True))
        coords = {dim: label.to_numpy() for dim, label in labels.items() if label.dtype.kind in "iu"}
        value = value.to_numpy()
    elif _is_tensor(value):
        value = value.detach().cpu().double().numpy()
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise HeadnbError(f"a head grid needs a matrix of numbers, layers x heads: {error}") from None
    if numbers.ndim < 2 or not numbers.size:
        raise HeadnbError(f"a head grid needs a matrix, layers x heads; got an array of shape {numbers.shape}")
    leading = [f"panel_{axis}" if numbers.ndim > 3 else "panel" for axis in range(numbers.ndim - 2)]
    return xr.DataArray(numbers, dims=[*leading, *HEADS], coords=coords)


def _is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_frame(value: object) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def _is_matrix(rows: Any) -> bool:
    try:
        return np.asarray(rows, dtype=np.float64).ndim >= 2
    except (TypeError, ValueError):  # rows of different lengths, or not numbers
        return False
