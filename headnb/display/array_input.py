"""Input of a head grid: plain matrices as labelled arrays, and labels of several results.

A matrix is layers x heads; leading dims become panels.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADS = ("layer", "head")
_LABELS = ("task", "model", "method")  # attributes that may distinguish results, in this order


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


def is_list_of_results(value: object) -> bool:
    """Whether a value is a list of labelled arrays or data sets."""
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(v, xr.Dataset | xr.DataArray) for v in value)
    )


def labelled(results: Sequence[Any], names: Sequence[str] = ()) -> dict[str, Any]:
    """Results by a label of their own.

    The label is the first of the attributes task, model and method that differs between all results. If there is none,
    it is the name in `names`, or else the number of the result; a repeated name is numbered.
    """
    given = list(names) or [str(number) for number in range(1, len(results) + 1)]
    if len(results) == 1:
        return {"": results[0]}
    for attribute in _LABELS:
        found = [str(getattr(result, "attrs", {}).get(attribute, "")) for result in results]
        if all(found) and len(set(found)) == len(found):
            return dict(zip(found, results, strict=True))
    labels = [
        name if given.count(name) == 1 else f"{name} ({given[:place].count(name) + 1})"
        for place, name in enumerate(given)
    ]
    return dict(zip(labels, results, strict=True))


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
