"""Input of charts from labelled arrays: values with intervals, names of coordinates, hover texts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from headnb.display.grid_text import format_with_interval
from headnb.errors import HeadnbError
from headnb.head_names import head_name
from headnb.stats.patterns import HEADS

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from numpy.typing import ArrayLike

    from headnb.stats.descriptive import Array

    Values = xr.DataArray | xr.Dataset


class Estimates(NamedTuple):
    """Values and the ends of their intervals (NaN without an interval), all with the same dims in the same order."""

    value: xr.DataArray
    low: xr.DataArray
    high: xr.DataArray

    def map(self, do: Callable[[xr.DataArray], xr.DataArray]) -> Estimates:
        """Apply a function to the values and to both ends of the intervals."""
        return Estimates(do(self.value), do(self.low), do(self.high))

    def arrays(self) -> tuple[Array, Array, Array]:
        """Values, lower ends and upper ends as float arrays."""
        value, low, high = (np.asarray(part, dtype=np.float64) for part in self)
        return value, low, high


def read_estimates(values: Values) -> Estimates:
    """Read values with intervals from a DataArray, or from a Dataset of `value` and optionally `low` and `high`.

    Raises:
        HeadnbError: `values` has another type, or is empty.
    """
    if isinstance(values, xr.DataArray):
        value, ends = values, []
    elif isinstance(values, xr.Dataset) and "value" in values:
        value = values["value"].assign_attrs(values.attrs | values["value"].attrs)
        ends = [values[name] for name in ("low", "high") if name in values]
    else:
        raise HeadnbError(
            "a chart needs a DataArray, or a Dataset with the variable value (and low and high for intervals); got "
            f"{type(values).__name__}"
        )
    if value.size == 0:
        raise HeadnbError(f"nothing to draw: no values along {', '.join(map(str, value.dims))}")
    if len(ends) < 2:
        ends = [xr.full_like(value, np.nan, dtype=np.float64)] * 2
    low, high = (end.broadcast_like(value).transpose(*value.dims) for end in ends)
    return Estimates(value, low, high)


def flat_values(array: xr.DataArray) -> Array:
    """All values as a one-dimensional float array."""
    return np.asarray(array, dtype=np.float64).ravel()


def names_along(array: xr.DataArray, dim: Hashable) -> list[str]:
    """The coordinates of a dim as names: texts unchanged, numbers with the dim's name, such as `seed 0`."""
    coords = array.coords[dim].values if dim in array.coords else np.arange(array.sizes[dim])
    return [str(name) if isinstance(name, str) else f"{label_of(dim)} {name}" for name in coords.tolist()]


def point_names(array: xr.DataArray) -> list[str]:
    """The name of each value in the array's order, such as `L3H5` for the dims layer and head."""
    dims = array.dims
    if set(HEADS) <= set(dims):
        rest = [dim for dim in dims if dim not in HEADS]
        layers, heads = (array.get_index(dim) for dim in HEADS)
        names = [names_along(array, dim) for dim in rest]
        points = []
        for index in np.ndindex(array.shape):
            at = dict(zip(dims, index, strict=True))
            others = [names[i][at[dim]] for i, dim in enumerate(rest)]
            points.append(" ".join([*others, head_name(int(layers[at["layer"]]), int(heads[at["head"]]))]))
        return points
    names = [names_along(array, dim) for dim in dims]
    return [" ".join(names[i][p] for i, p in enumerate(index)) for index in np.ndindex(array.shape)]


def leading_slices(estimates: Estimates, trailing: int) -> Iterator[tuple[str, Estimates]]:
    """A title and the estimates of every slice along the dims before the last `trailing` dims."""
    leading = estimates.value.dims[: estimates.value.ndim - trailing]
    names = [names_along(estimates.value, dim) for dim in leading]
    for index in np.ndindex(tuple(estimates.value.sizes[dim] for dim in leading)):
        at = dict(zip(leading, index, strict=True))
        title = " · ".join(names[i][p] for i, p in enumerate(index))
        yield title, estimates.map(lambda part, at=at: part.isel(at))  # type: ignore[misc]


def quantity_label(array: xr.DataArray) -> str:
    """Name of the values with units: `activation level (nats)`."""
    name = label_of(array.attrs.get("quantity") or array.name or "")
    name = "" if name == "value" else name
    units = str(array.attrs.get("units", ""))
    return f"{name} ({units})" if name and units else name or units


def estimate_text(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """`0.123 [0.101, 0.145]`, or a dash for a missing value."""
    return "–" if math.isnan(value) else format_with_interval(value, low, high)


def padded_range(*arrays: ArrayLike, pad: float = 0.06, least: float | None = None) -> tuple[float, float]:
    """The range of all finite values with padding; it starts at or above `least` if no value is below `least`."""
    values = np.concatenate([np.ravel(np.asarray(array, dtype=np.float64)) for array in arrays])
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = pad * (high - low) or abs(high) * 0.1 or 1.0
    bottom = low - room
    if least is not None and low >= least:
        bottom = max(bottom, least) if low - least > high - low else least
    return bottom, high + room


def label_of(name: object) -> str:
    """The name of a dim, a coordinate or a variable with spaces instead of underscores."""
    return str(name).replace("_", " ")
