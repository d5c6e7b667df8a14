"""Labelled arrays as charts need them: values with their intervals, names of coordinates, words for hovering."""

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
    """Values and the ends of their intervals, NaN where none are known: all of the same dims in the same order."""

    value: xr.DataArray
    low: xr.DataArray
    high: xr.DataArray

    def map(self, do: Callable[[xr.DataArray], xr.DataArray]) -> Estimates:
        """The same done to values and intervals."""
        return Estimates(do(self.value), do(self.low), do(self.high))

    def arrays(self) -> tuple[Array, Array, Array]:
        """As plain numbers."""
        value, low, high = (np.asarray(part, dtype=np.float64) for part in self)
        return value, low, high


def read_estimates(values: Values) -> Estimates:
    """Values with intervals from a DataArray, or from a Dataset of `value` and perhaps `low` and `high`.

    Raises:
        HeadnbError: it is neither, or it is empty.
    """
    if isinstance(values, xr.DataArray):
        value, ends = values, []
    elif isinstance(values, xr.Dataset) and "value" in values:
        value = values["value"].assign_attrs(values.attrs | values["value"].attrs)
        ends = [values[name] for name in ("low", "high") if name in values]
    else:
        raise HeadnbError(
            "a chart needs a DataArray, or a Dataset with the variable value (and low and high where intervals are "
            f"known); got {type(values).__name__}"
        )
    if value.size == 0:
        raise HeadnbError(f"there is nothing to draw: no values along {', '.join(map(str, value.dims))}")
    if len(ends) < 2:
        ends = [xr.full_like(value, np.nan, dtype=np.float64)] * 2
    low, high = (end.broadcast_like(value).transpose(*value.dims) for end in ends)
    return Estimates(value, low, high)


def flat_values(array: xr.DataArray) -> Array:
    """All values as one row."""
    return np.asarray(array, dtype=np.float64).ravel()


def names_along(array: xr.DataArray, dim: Hashable) -> list[str]:
    """What stands along a dim: texts as they are; numbers with the dim's name, since `0` says nothing."""
    found = array.coords[dim].values if dim in array.coords else np.arange(array.sizes[dim])
    return [str(name) if isinstance(name, str) else f"{label_of(dim)} {name}" for name in found.tolist()]


def point_names(array: xr.DataArray) -> list[str]:
    """The name of each value in the array's order: `L3H5` where the dims are layer and head."""
    dims = array.dims
    if set(HEADS) <= set(dims):
        rest = [dim for dim in dims if dim not in HEADS]
        layers, heads = (array.get_index(dim) for dim in HEADS)
        names = [names_along(array, dim) for dim in rest]
        found = []
        for place in np.ndindex(array.shape):
            at = dict(zip(dims, place, strict=True))
            others = [names[i][at[dim]] for i, dim in enumerate(rest)]
            found.append(" ".join([*others, head_name(int(layers[at["layer"]]), int(heads[at["head"]]))]))
        return found
    names = [names_along(array, dim) for dim in dims]
    return [" ".join(names[i][p] for i, p in enumerate(place)) for place in np.ndindex(array.shape)]


def leading_slices(estimates: Estimates, trailing: int) -> Iterator[tuple[str, Estimates]]:
    """A title and the values of every place along the dims before the last `trailing`."""
    leading = estimates.value.dims[: estimates.value.ndim - trailing]
    names = [names_along(estimates.value, dim) for dim in leading]
    for place in np.ndindex(tuple(estimates.value.sizes[dim] for dim in leading)):
        at = dict(zip(leading, place, strict=True))
        title = " · ".join(names[i][p] for i, p in enumerate(place))
        yield title, estimates.map(lambda part, at=at: part.isel(at))  # type: ignore[misc]


def quantity_label(array: xr.DataArray) -> str:
    """What the values are, with units: `activation level (nats)`."""
    name = label_of(array.attrs.get("quantity") or array.name or "")
    name = "" if name == "value" else name
    units = str(array.attrs.get("units", ""))
    return f"{name} ({units})" if name and units else name or units


def estimate_text(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """`0.123 [0.101, 0.145]`, or a dash where there is no value."""
    return "–" if math.isnan(value) else format_with_interval(value, low, high)


def padded_range(*arrays: ArrayLike, pad: float = 0.06, least: float | None = None) -> tuple[float, float]:
    """A range with some room around all finite values; from `least` on where no value is below."""
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
    """A name of a dim, a coordinate or a variable as words."""
    return str(name).replace("_", " ")
