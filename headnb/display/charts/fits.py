"""Charts of fits: observed against fitted values, weights with intervals, null models."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

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
from headnb.display.charts.marks import (
    LINE_HEIGHT,
    Axis,
    Plot,
    Points,
    Rule,
    Segments,
    offset_in_row,
    series_colour,
    series_style,
)
from headnb.display.colours import FALL
from headnb.display.grid_text import format_number
from headnb.errors import HeadnbError
from headnb.stats.descriptive import r_squared

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    import xarray as xr

    from headnb.display.charts.estimates import Values
    from headnb.display.charts.marks import Mark
    from headnb.stats.descriptive import Array

_ROW, _SQUARE = 36, 300
_NAMED_HEADS, _NAME_WIDTH = 5, 48
_MIN_R2 = -1.0  # smaller R^2 of null models are drawn at this edge with their number


def regression(observed: xr.DataArray, fitted: xr.DataArray, *, title: str = "") -> Chart:
    """Scatter plot of observed against fitted values with the line of equality; the largest residuals are labelled.

    Args:
        observed: (layer, head), or any other dims.
        fitted: the same dims and sizes.
        title: by default "observed and fitted" with R^2 about the observed mean.
    """
    if dict(observed.sizes) != dict(fitted.sizes):
        raise HeadnbError(f"observed and fitted values differ in shape: {dict(observed.sizes)}, {dict(fitted.sizes)}")
    x, y = (flat_values(part) for part in (fitted.transpose(*observed.dims), observed))
    both = np.isfinite(x + y)
    r2 = float(r_squared(y[both], x[both])) if both.any() else math.nan
    names = point_names(observed)
    ends = padded_range(x, y)
    named = _non_overlapping(np.where(both, np.abs(y - x), np.nan), x, y, (ends[1] - ends[0]) / _SQUARE)
    labels = tuple(name if index in named else "" for index, name in enumerate(names))
    hover = tuple(
        f"{name} · observed {format_number(y_value)} · fitted {format_number(x_value)}"
        for name, y_value, x_value in zip(names, y, x, strict=True)
    )
    units = f" ({observed.attrs['units']})" if observed.attrs.get("units") else ""
    points = Points("", x, y, hover, FALL, size=6, opacity=0.55, labels=labels)
    marks = (Rule("dashed: fitted = observed"), points)
    plot = Plot(Axis(*ends, f"fitted{units}"), Axis(*ends, f"observed{units}"), marks, width=_SQUARE, height=_SQUARE)
    words = f"{int(both.sum())} points, R² {estimate_text(r2)}"
    return Chart(title or f"observed and fitted, R² {estimate_text(r2)}", (plot,), (words,))


def weights(
    values: Values,
    *,
    name: str = "weight",
    others: Mapping[str, xr.DataArray] | None = None,
    selected: xr.DataArray | None = None,
    title: str = "",
) -> Chart:
    """Weights with their intervals, one row per weight, and a reference line at zero.

    Args:
        values: weights along one dim, such as basic.
        name: name of the weights in the legend, used if `others` are given.
        others: weights of other fits of the same basic tasks, without intervals: name -> values.
        selected: fraction of resamples in which each weight was above zero; shown as a note.
        title: by default "weights".
    """
    found = read_estimates(values)
    if found.value.ndim != 1:
        raise HeadnbError(f"weights need exactly one dim, such as basic; got {found.value.dims}")
    names = names_along(found.value, found.value.dims[0])
    series = [_Series(name, *found.arrays())]
    series += [_Series.without_interval(other, flat_values(part)) for other, part in (others or {}).items()]
    notes = []
    if selected is not None and not np.isnan(flat_values(selected)).any():
        shares = ", ".join(f"{row} {share:.0%}" for row, share in zip(names, flat_values(selected), strict=True))
        notes.append(f"Fraction of resamples with a weight above zero: {shares}.")
    plot = _rows(names, series, quantity_label(found.value) or "weight", (Rule("", x=0.0),))
    words = [f"{row}: {estimate_text(*of_row)}" for row, *of_row in zip(names, *found.arrays(), strict=True)]
    return Chart(title or "weights", (plot,), tuple(words), tuple(notes))


def nulls(table: pd.DataFrame, *, ceiling: float = math.nan, title: str = "") -> Chart:
    """R^2 of a fit and of its null models, one row per model: in sample, and by leave-layers-out cross-validation.

    Args:
        table: indexed by name, with the columns `r2` and `r2_cv`; the fit itself is the first row.
        ceiling: the largest R^2 that the noise of the target allows.
        title: by default "the fit and its null models".
    """
    if missing := {"r2", "r2_cv"} - set(table.columns):
        raise HeadnbError(f"a table of null models needs the columns r2 and r2_cv; missing: {', '.join(missing)}")
    names = [str(name) for name in table.index]
    r2, r2_cv = (table[column].to_numpy(dtype=np.float64) for column in ("r2", "r2_cv"))
    rules = [Rule("", x=0.0), *([Rule("ceiling", x=ceiling)] if math.isfinite(ceiling) else [])]
    series = [_Series.without_interval("in sample", r2), _Series.without_interval("leave-layers-out", r2_cv)]
    plot = _rows(names, series, "R²", tuple(rules), lowest=_MIN_R2)
    words = tuple(
        f"{name}: R² {estimate_text(in_sample)}, leave-layers-out R² {estimate_text(left_out)}"
        for name, in_sample, left_out in zip(names, r2, r2_cv, strict=True)
    )
    return Chart(title or "the fit and its null models", (plot,), words)


def _non_overlapping(distances: Array, x: Array, y: Array, pixel: float) -> list[int]:
    """Indices of the points with the largest distances whose labels do not overlap."""
    named: list[int] = []
    for index in np.argsort(-distances, kind="stable").tolist():  # NaN comes last
        if len(named) == _NAMED_HEADS or np.isnan(distances[index]):
            break
        across, down = (np.abs(values[named] - values[index]) / pixel for values in (x, y))
        if not np.any((across < _NAME_WIDTH) & (down < LINE_HEIGHT)):
            named.append(index)
    return named


@dataclass(frozen=True, eq=False)
class _Series:
    """One value per row, with intervals."""

    name: str
    value: Array
    low: Array
    high: Array

    @classmethod
    def without_interval(cls, name: str, value: Array) -> _Series:
        unknown = np.full_like(value, np.nan)
        return cls(name, value, unknown, unknown)


def _rows(
    names: Sequence[str], series: Sequence[_Series], label: str, rules: Sequence[Rule], lowest: float = -math.inf
) -> Plot:
    """Rows of points with intervals, the series of a row below each other; values below `lowest` are drawn there."""
    references = [rule.x for rule in rules if rule.x is not None]
    values = np.concatenate([references, *(part for one in series for part in (one.value, one.low, one.high))])
    marks: list[Mark] = list(rules)
    for number, one in enumerate(series):
        y = np.arange(len(names), dtype=np.float64) + offset_in_row(number, len(series), 0.4)
        colour, (marker, _) = series_colour(number), series_style(number)
        texts = [estimate_text(*of_row) for of_row in zip(one.value, one.low, one.high, strict=True)]
        hover = tuple(f"{row} · {one.name} {words}" for row, words in zip(names, texts, strict=True))
        labels = tuple(format_number(value) if value < lowest else "" for value in one.value)
        marks += [
            Segments(one.name, np.maximum(one.low, lowest), y, np.maximum(one.high, lowest), y, colour),
            Points(one.name, np.maximum(one.value, lowest), y, hover, colour, marker, hollow=number > 0, labels=labels),
        ]
    headroom = 0.4 if any(rule.text for rule in rules) else 0.0
    return Plot(
        Axis(*padded_range(np.maximum(values, lowest), pad=0.08), label),
        replace(Axis.rows(names), end=-0.5 - headroom),
        tuple(marks),
        height=round(_ROW * (len(names) + headroom)) + 8,
        names_at="top" if len(series) > 1 else "none",
    )
