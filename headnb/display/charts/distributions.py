"""Chart of the distribution of values over heads or samples, with all points and a box plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from headnb.display.charts.chart import Chart
from headnb.display.charts.estimates import (
    estimate_text,
    flat_values,
    names_along,
    padded_range,
    point_names,
    quantity_label,
    read_estimates,
)
from headnb.display.charts.marks import INK, Axis, Plot, Points, Segments, series_colour
from headnb.display.grid_text import format_number
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from headnb.display.charts.estimates import Values
    from headnb.stats.descriptive import Array

_ROW, _WIDTH = 58, 520


def distribution(
    groups: Values | Mapping[str, xr.DataArray], *, log: bool = False, title: str = "", quantity: str = ""
) -> Chart:
    """Distribution of values: one row per group, one point per head (or sample), and a box plot.

    The jitter of the points is proportional to their density, so that a row also shows the shape of its distribution.
    The box shows the median and the quartiles, the whiskers the 5th and 95th percentiles. The largest value is named.

    Args:
        groups: name -> values; or an array whose first dim is the group, such as (task, layer, head).
        log: use a logarithmic axis that includes zero; suits levels, few of which are large.
        title: by default the name of the values.
        quantity: name of the values if the arrays have none.
    """
    if isinstance(groups, Mapping) and not isinstance(groups, xr.Dataset):
        parts = {str(name): read_estimates(part).value for name, part in groups.items()}
    else:
        value = read_estimates(groups).value
        names = names_along(value, value.dims[0])
        parts = {name: value.isel({value.dims[0]: index}) for index, name in enumerate(names)}
    if not parts:
        raise HeadnbError("nothing to draw: no groups")
    what = quantity or quantity_label(next(iter(parts.values())))
    values = np.concatenate([flat_values(part) for part in parts.values()])
    values = values[np.isfinite(values)]
    if log and (values.size == 0 or values.min() < 0 or values.max() <= 0):
        raise HeadnbError("a logarithmic axis needs values of at least 0, at least one of them above 0")
    x = Axis(*padded_range(values, least=0.0), what)
    if log:
        unit = float(np.percentile(values[values > 0], 5))  # few values are smaller
        x = Axis(-0.1 * unit, float(values.max()) * 1.15, what, unit)
    points = [_points(name, part, row, x) for row, (name, part) in enumerate(parts.items())]
    boxes = _boxes([flat_values(part) for part in parts.values()])
    plot = Plot(x, Axis.rows(list(parts)), (*points, *boxes), width=_WIDTH, height=_ROW * len(parts) + 8)
    words = [f"{name}: {_quantiles(flat_values(part))}" for name, part in parts.items()]
    notes = ("Box: median and quartiles; whiskers: 5th and 95th percentile.",)
    return Chart(title or f"distribution of {what or 'values'}", (plot,), tuple(words), notes)


def _points(name: str, part: xr.DataArray, row: int, x: Axis) -> Points:
    """A group's values with jitter around their row; the largest value is labelled."""
    values, names = flat_values(part), point_names(part)
    hover = tuple(f"{name} · {point} · {estimate_text(value)}" for point, value in zip(names, values, strict=True))
    labels = [""] * len(names)
    if np.isfinite(values).any():
        top = int(np.nanargmax(values))
        labels[top] = names[top]
    y = row + 0.34 * _jitter(x.transform(values))
    return Points("", values, y, hover, series_colour(row), size=4.5, opacity=0.5, labels=tuple(labels))


def _boxes(groups: list[Array]) -> list[Segments]:
    """Whiskers, box and median of every row."""
    present = [values[np.isfinite(values)] for values in groups]
    unknown = [np.nan] * 5
    quantiles = [np.percentile(values, [5, 25, 50, 75, 95]) if values.size else unknown for values in present]
    least, low, middle, high, most = np.array(quantiles, dtype=np.float64).T
    row = np.arange(len(groups), dtype=np.float64)
    return [
        Segments("", least, row, most, row, INK, 1.2, 0.9),
        Segments("", low, row, high, row, INK, 8.0, 0.4),
        Segments("", middle, row - 0.2, middle, row + 0.2, INK, 2.2, 0.9),
    ]


def _jitter(positions: Array) -> Array:
    """Evenly distributed offsets of points from their row, from -1 to 1, in proportion to their density."""
    from scipy.stats import gaussian_kde  # noqa: PLC0415  half a second to import

    steps = np.modf(np.arange(len(positions)) * 0.618033988749895)[0] * 2 - 1  # the golden ratio fills gaps evenly
    present = np.isfinite(positions)
    finite = positions[present]
    density = np.zeros(len(positions))
    if finite.size > 2 and np.ptp(finite) > 0:
        grid = np.linspace(finite.min(), finite.max(), 200)
        heights = gaussian_kde(finite)(grid)
        density[present] = np.interp(finite, grid, heights / heights.max())
    offsets: Array = steps * density
    return offsets


def _quantiles(values: Array) -> str:
    values = values[np.isfinite(values)]
    if values.size == 0:
        return "no values"
    low, middle, high = np.percentile(values, [5, 50, 95])
    center = f"median {format_number(middle)}, 5th to 95th percentile {format_number(low)} to {format_number(high)}"
    return f"{center}, largest {format_number(float(values.max()))}"
