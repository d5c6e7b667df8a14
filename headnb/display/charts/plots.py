"""Chart functions for the labelled arrays of studies, comparisons and fits.

Values are a DataArray, or a Dataset of `value`, `low` and `high` for values with intervals. Lines and rows are named by
their coordinates, heads as `L3H5`. Each function returns a `Chart`, which a notebook shows, and raises HeadnbError if
the arrays lack the dims that it needs.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from headnb.display.charts.chart import Chart, chart_row
from headnb.display.charts.distributions import distribution
from headnb.display.charts.estimates import (
    estimate_text,
    flat_values,
    label_of,
    leading_slices,
    names_along,
    padded_range,
    quantity_label,
    read_estimates,
)
from headnb.display.charts.fits import nulls, regression, weights
from headnb.display.charts.marks import Axis, Line, Plot, Rule, Segments, offset_in_row, series_colour, series_style
from headnb.display.charts.matrices import correlation_matrix, train_eval
from headnb.display.grid_text import format_short
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from headnb.display.charts.estimates import Estimates, Values
    from headnb.display.charts.marks import Mark
    from headnb.stats.descriptive import Array

__all__ = [
    "correlation_matrix",
    "curves",
    "distribution",
    "nulls",
    "regression",
    "slopes",
    "train_eval",
    "trajectory",
    "weights",
]

_SLOPE_WIDTH = 120


def trajectory(
    values: Values,
    *,
    along: str = "step",
    log: bool = False,
    marks: Mapping[str, float] | None = None,
    title: str = "",
) -> Chart:
    """Line chart of values over training steps, with one line per slice along the other dims and intervals as bands.

    Args:
        values: values with the dim of the coordinate `along`.
        along: coordinate of the x axis: step, or another coordinate of the same dim (samples_seen, tokens_seen).
        log: use a logarithmic x axis that includes zero.
        marks: vertical reference lines: label -> position on the x axis.
        title: by default the name of the values.
    """
    found = read_estimates(values)
    if along not in found.value.coords or found.value.coords[along].ndim != 1:
        known = ", ".join(map(str, found.value.coords)) or "none"
        raise HeadnbError(f"no coordinate {along!r} to draw along; these values have {known}")
    dim = found.value.coords[along].dims[0]
    found = found.map(lambda part: part.transpose(..., dim))
    x = flat_values(found.value.coords[along])
    if log and (x.min() < 0 or x.max() <= 0):
        raise HeadnbError(
            f"a logarithmic axis needs {along} of at least 0; got {format_short(x.min())} to {format_short(x.max())}"
        )
    rules = [Rule(str(name), x=float(at), lane=lane) for lane, (name, at) in enumerate((marks or {}).items())]
    plot = Plot(
        _along_axis(x, label_of(along), log=log),
        Axis(*padded_range(*found.arrays(), least=0.0), quantity_label(found.value)),
        (*rules, *_lines(found, along, x)),
        names_at="ends" if found.value.ndim > 1 else "none",
    )
    words = [_describe_course(name, along, x, line.arrays()[0]) for name, line in leading_slices(found, 1)]
    return Chart(title or quantity_label(found.value) or f"over {label_of(along)}", (plot,), tuple(words))


def curves(values: xr.Dataset, *, along: str = "step", log: bool = False, title: str = "") -> Chart:
    """Line charts of several quantities over training steps, one plot per quantity.

    Args:
        values: a Dataset whose variables are as in `trajectory`.
        along: as in `trajectory`.
        log: as in `trajectory`.
        title: by default "over" and the name of `along`.
    """
    parts = [trajectory(column, along=along, log=log) for column in values.values()]
    return chart_row(*parts, title=title or f"over {label_of(along)}")


def slopes(values: Values, *, title: str = "") -> Chart:
    """Slope chart of each task's value from stage to stage, with intervals.

    Args:
        values: (..., task, stage), the stages in order, such as before and after; each slice along leading dims (such
            as a statistic) is a separate plot.
        title: by default the name of the values.
    """
    found = read_estimates(values)
    if found.value.ndim < 2 or found.value.sizes[found.value.dims[-1]] < 2:
        raise HeadnbError(f"slopes need the dims task and stage last, with two stages; got {found.value.dims}")
    task, stage = found.value.dims[-2:]
    rows, stages = names_along(found.value, task), names_along(found.value, stage)
    plots, words = [], []
    for heading, part in leading_slices(found, 2):
        label = "" if heading else quantity_label(found.value)
        marks = [mark for index, name in enumerate(rows) for mark in _slope_marks(part, index, name, stages)]
        y = Axis(*padded_range(*part.arrays()), label)
        plots.append(Plot(Axis.columns(stages), y, tuple(marks), heading, _SLOPE_WIDTH, names_at="ends"))
        words += [
            f"{heading} {name}: {' → '.join(map(estimate_text, course))}".lstrip()
            for name, course in zip(rows, part.arrays()[0], strict=True)
        ]
    return Chart(title or quantity_label(found.value) or " to ".join(stages), tuple(plots), tuple(words))


def _lines(found: Estimates, along: str, x: Array) -> list[Line]:
    """One line per slice; lines along further dims (seeds) have the colour of the first dim's line, without a name."""
    first = names_along(found.value, found.value.dims[0]) if found.value.ndim > 1 else [""]
    repeats = math.prod(found.value.shape[1:-1])
    lines = []
    for index, (name, line) in enumerate(leading_slices(found, 1)):
        series, run = divmod(index, repeats)
        y, low, high = line.arrays()
        hover = tuple(
            " · ".join(filter(None, (name, f"{label_of(along)} {format_short(at)}", estimate_text(*estimate))))
            for at, *estimate in zip(x, y, low, high, strict=True)
        )
        shown = first[series] if run == 0 else ""
        lines.append(Line(shown, x, y, low, high, hover, series_colour(series), *series_style(series)))
    return lines


def _slope_marks(part: Estimates, task: int, name: str, stages: list[str]) -> list[Mark]:
    """One task's line, with a small horizontal offset so that the intervals of different tasks do not overlap."""
    value, low, high = (end[task] for end in part.arrays())
    x = np.arange(len(stages), dtype=np.float64) + offset_in_row(task, len(part.value), 0.14)
    hover = tuple(
        f"{name} · {stage} · {estimate_text(*of_stage)}"
        for stage, *of_stage in zip(stages, value, low, high, strict=True)
    )
    unknown, colour = np.full_like(value, np.nan), series_colour(task)
    return [
        Segments(name, x, low, x, high, colour, 1.5, 0.7),
        Line(name, x, value, unknown, unknown, hover, colour, *series_style(task)),
    ]


def _along_axis(x: Array, label: str, *, log: bool) -> Axis:
    if not log:
        return Axis(*padded_range(x, pad=0.02), label)
    unit = float(x[x > 0].min())
    return Axis(-0.1 * unit, float(x.max()) * 1.1, label, unit)


def _describe_course(name: str, along: str, x: Array, y: Array) -> str:
    """`gsm8k: 0 → 0.62 over step 0 to 60`."""
    present = np.flatnonzero(np.isfinite(y))
    if present.size == 0:
        return f"{name}: no values".removeprefix(": ")
    first, last = present[0], present[-1]
    span = f"over {label_of(along)} {format_short(x[first])} to {format_short(x[last])}"
    return f"{name}: {estimate_text(y[first])} → {estimate_text(y[last])} {span}".removeprefix(": ")
