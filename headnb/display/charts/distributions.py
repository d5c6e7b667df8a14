"""How values are spread over heads or samples, as a chart: every point to be seen, and their middle half."""

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
    """How values are spread: a row for each group, a point for each head (or sample), the middle half as a box.

    Points are moved aside by how many others there are, so that a row is also the outline of its distribution. The
    box has the median and the quartiles, its whiskers the 5th and the 95th percentile; the largest value is named.

    Args:
        groups: name -> values; or an array whose first dim is the group, such as (task, layer, head).
        log: equal distances for equal ratios, for levels, of which few are large; zero stays on the axis.
        title: by default what the values are.
        quantity: what the values are, where the arrays do not say it.
    """
    if isinstance(groups, Mapping) and not isinstance(groups, xr.Dataset):
        parts = {str(name): read_estimates(part).value for name, part in groups.items()}
    else:
        value = read_estimates(groups).value
        names = names_along(value, value.dims[0])
        parts = {name: value.isel({value.dims[0]: place}) for place, name in enumerate(names)}
    if not parts:
        raise HeadnbError("there is nothing to draw: no groups")
    what = quantity or quantity_label(next(iter(parts.values())))
    every = np.concatenate([flat_values(part) for part in parts.values()])
    every = every[np.isfinite(every)]
    if log and (every.size == 0 or every.min() < 0 or every.max() <= 0):
        raise HeadnbError("a logarithmic axis needs values from 0 on")
    x = Axis(*padded_range(every, least=0.0), what)
    if log:
        unit = float(np.percentile(every[every > 0], 5))  # few values lie below
        x = Axis(-0.1 * unit, float(every.max()) * 1.15, what, unit)
    points = [_points(name, part, row, x) for row, (name, part) in enumerate(parts.items())]
    boxes = _boxes([flat_values(part) for part in parts.values()])
    plot = Plot(x, Axis.rows(list(parts)), (*points, *boxes), width=_WIDTH, height=_ROW * len(parts) + 8)
    words = [f"{name}: {_quantiles(flat_values(part))}" for name, part in parts.items()]
    notes = ("Box: median and quartiles; whiskers: 5th and 95th percentile.",)
    return Chart(title or f"distribution of {what or 'values'}", (plot,), tuple(words), notes)


def _points(name: str, part: xr.DataArray, row: int, x: Axis) -> Points:
    """A group's values, moved aside from their row; the largest is named."""
    values, names = flat_values(part), point_names(part)
    hover = tuple(f"{name} · {point} · {estimate_text(value)}" for point, value in zip(names, values, strict=True))
    labels = [""] * len(names)
    if np.isfinite(values).any():
        top = int(np.nanargmax(values))
        labels[top] = names[top]
    y = row + 0.34 * _jitter(x.transform(values))
    return Points("", values, y, hover, series_colour(row), size=4.5, opacity=0.5, labels=tuple(labels))


def _boxes(groups: list[Array]) -> list[Segments]:
    """Of every row the whiskers, the box and the median."""
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


def _jitter(places: Array) -> Array:
    """How far points step aside, -1 to 1: evenly, and in proportion to how dense they lie."""
    from scipy.stats import gaussian_kde  # noqa: PLC0415  half a second to import

    steps = np.modf(np.arange(len(places)) * 0.618033988749895)[0] * 2 - 1  # the golden ratio fills gaps evenly
    present = np.isfinite(places)
    found = places[present]
    density = np.zeros(len(places))
    if found.size > 2 and np.ptp(found) > 0:
        grid = np.linspace(found.min(), found.max(), 200)
        heights = gaussian_kde(found)(grid)
        density[present] = np.interp(found, grid, heights / heights.max())
    sides: Array = steps * density
    return sides


def _quantiles(values: Array) -> str:
    values = values[np.isfinite(values)]
    if values.size == 0:
        return "no values"
    low, middle, high = np.percentile(values, [5, 50, 95])
    usual = f"median {format_number(middle)}, 5th to 95th percentile {format_number(low)} to {format_number(high)}"
    return f"{usual}, largest {format_number(float(values.max()))}"
