"""Charts of matrices: correlations of tasks, and models trained on one task and evaluated on others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from headnb.display.charts.chart import Chart
from headnb.display.charts.estimates import (
    estimate_text,
    label_of,
    leading_slices,
    names_along,
    quantity_label,
    read_estimates,
)
from headnb.display.charts.marks import INK, LABEL_SIZE, Axis, Cells, Plot
from headnb.display.colours import paint, shared_scale
from headnb.display.grid_text import format_number
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from headnb.display.charts.estimates import Values
    from headnb.stats.descriptive import Array

_CELL_WIDTH, _CELL_HEIGHT = 48, 30
_MAX_WIDTH = 500
_MIN_TEXT_WIDTH = 33  # width in pixels of a cell with a minus, a point and two digits
_DIGITS = (3, 2, 1)  # significant digits of the largest value; the first of these that fits into the cells is used
_DIGIT, _SPACE = 0.64, 4  # width of a digit in a wide font, relative to the font size; padding in pixels
_STRONGEST = 0.72  # maximum opacity of differences, so that the text stays readable on light and dark pages


def correlation_matrix(correlations: Values, *, order: Sequence[str] | None = None, title: str = "") -> Chart:
    """Matrix of the correlations of all pairs, coloured by sign and size, with similar tasks next to each other.

    Args:
        correlations: (..., task, other_task) as returned by `headnb.stats.patterns.correlations`; each slice along
            leading dims (such as stage) is a separate plot, all with the same order of tasks.
        order: the order of the names; by default that of a hierarchical clustering of the mean matrix.
        title: by default "correlation of patterns".

    Raises:
        HeadnbError: the last two dims do not have the same names, or `order` does not contain each name once.
    """
    found = read_estimates(correlations)
    names = _square_names(found.value)
    wanted = clustered(found.value) if order is None else list(order)
    if sorted(wanted) != sorted(names):
        raise HeadnbError(f"the order must contain each of {', '.join(names)} once; got {', '.join(map(str, wanted))}")
    at = [names.index(name) for name in wanted]
    plots, words = [], []
    for heading, part in leading_slices(found, 2):
        value, low, high = (end[np.ix_(at, at)] for end in part.arrays())
        plots.append(_table(wanted, wanted, value, low, high, (-1.0, 1.0), heading, diagonal=False))
        words += _strongest(wanted, value, heading)
    return Chart(title or "correlation of patterns", tuple(plots), tuple(words))


def clustered(correlations: xr.DataArray) -> list[str]:
    """The names in the order of an average-linkage clustering of 1 - r, with similar names next to each other."""
    names = _square_names(correlations)
    if len(names) < 3:
        return names
    from scipy.cluster.hierarchy import leaves_list, linkage  # noqa: PLC0415
    from scipy.spatial.distance import squareform  # noqa: PLC0415

    leading = correlations.dims[:-2]
    mean = np.nan_to_num(correlations.mean(leading).values.astype(np.float64))
    distance = np.clip(1 - (mean + mean.T) / 2, 0, None)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=True)
    return [names[leaf] for leaf in leaves_list(tree).tolist()]


def train_eval(values: Values, *, title: str = "") -> Chart:
    """Matrix of models (rows: the task trained on) and tasks (columns: the task evaluated on).

    Args:
        values: (..., train, eval), any quantity; each slice along leading dims is a separate plot.
        title: by default the name of the values.

    Raises:
        HeadnbError: `values` has fewer than two dims.
    """
    found = read_estimates(values)
    if found.value.ndim < 2:
        raise HeadnbError(f"a matrix needs the dims train and eval last; got {found.value.dims}")
    rows, columns = (names_along(found.value, dim) for dim in found.value.dims[-2:])
    finite = found.value.values[np.isfinite(found.value.values)]
    scale = shared_scale(found.value.values, "difference" if (finite < 0).any() else "level")
    plots, words = [], []
    for heading, part in leading_slices(found, 2):
        plots.append(_table(rows, columns, *part.arrays(), scale, heading, labels=found.value.dims[-2:]))
        words += [
            f"{' '.join(filter(None, (heading, row)))}: " + ", ".join(map(format_number, line))
            for row, line in zip(rows, part.arrays()[0], strict=True)
        ]
    return Chart(title or quantity_label(found.value) or "trained on × evaluated on", tuple(plots), tuple(words))


def _table(
    rows: Sequence[str],
    columns: Sequence[str],
    value: Array,
    low: Array,
    high: Array,
    scale: tuple[float, float],
    title: str,
    *,
    diagonal: bool = True,
    labels: Sequence[object] = ("", ""),
) -> Plot:
    """A plot of cells with their values; without `diagonal`, cells with equal row and column names are not coloured."""
    width = int(min(_CELL_WIDTH, max(_MAX_WIDTH / len(columns), 14)))
    names = [(row, column) for row in rows for column in columns]
    cell_texts = _cell_texts(value.ravel().tolist(), scale[1], width)
    cells = [
        _cell(cell, words, scale, muted=not diagonal and row == column)
        for (row, column), cell, words in zip(names, value.ravel().tolist(), cell_texts, strict=True)
    ]
    numbers = zip(names, value.ravel(), low.ravel(), high.ravel(), strict=True)
    hover = tuple(f"{row} · {column} · {estimate_text(*of_cell)}" for (row, column), *of_cell in numbers)
    y, x = (indices.ravel().astype(np.float64) for indices in np.indices(value.shape))
    colours, opacities, texts, inks = zip(*cells, strict=True)
    return Plot(
        Axis.columns(columns, label_of(labels[1])),
        Axis.rows(rows, label_of(labels[0])),
        (Cells(x, y, colours, opacities, texts, inks, hover),),
        title,
        width * len(columns),
        min(width, _CELL_HEIGHT) * len(rows),
        has_grid=False,
    )


def _cell(value: float, words: str, scale: tuple[float, float], *, muted: bool) -> tuple[str, float, str, str]:
    """A cell's colour, opacity, text and text colour."""
    if not np.isfinite(value):
        return INK, 0.0, "", INK
    if muted:
        return INK, 0.05, words, INK
    colour, opacity = paint(value, scale)
    if scale[0] < 0:
        return colour, round(_STRONGEST * opacity, 3), words, INK
    return colour, opacity, words, _contrasting_ink(colour)


def _cell_texts(values: Sequence[float], largest: float, width: int) -> list[str]:
    """Texts of all cells with the same number of decimals; empty if not even one digit fits the width."""
    for digits in _DIGITS if width >= _MIN_TEXT_WIDTH else ():
        texts = [_cell_text(value, largest, digits) if np.isfinite(value) else "" for value in values]
        if max(map(len, texts)) * _DIGIT * LABEL_SIZE + _SPACE <= width:
            return texts
    return [""] * len(values)


def _cell_text(value: float, largest: float, digits: int) -> str:
    """A value with the number of decimals that gives the table's largest value this many significant digits."""
    decimals = max(digits - 1 - math.floor(math.log10(largest)), 0)
    if decimals > 4:
        return format_number(value, 2)
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")  # + 0.0: no minus before a zero


def _contrasting_ink(colour: str) -> str:
    """Black or white, whichever has more contrast to a colour (by WCAG's relative luminance)."""
    red, green, blue = ((int(colour[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "#ffffff"


def _square_names(correlations: xr.DataArray) -> list[str]:
    if correlations.ndim < 2:
        raise HeadnbError(f"a correlation matrix needs two dims with the same names; got {correlations.dims}")
    rows, columns = (names_along(correlations, dim) for dim in correlations.dims[-2:])
    if len(rows) != len(columns) or any(
        str(one) != str(other)
        for one, other in zip(*(correlations.get_index(dim) for dim in correlations.dims[-2:]), strict=True)
    ):
        raise HeadnbError(f"a correlation matrix needs the same names along both dims; got {rows} and {columns}")
    return rows


def _strongest(names: Sequence[str], value: Array, heading: str) -> list[str]:
    """The most similar and the least similar pair, as text."""
    pairs = np.where(np.tri(len(names), k=-1, dtype=bool), value, np.nan)
    if not np.isfinite(pairs).any():
        return []
    parts = []
    for degree, index in (("most", np.nanargmax(pairs)), ("least", np.nanargmin(pairs))):
        i, j = divmod(int(index), len(names))
        parts.append(f"{degree} similar: {names[i]} and {names[j]}, r = {format_number(value[i, j])}")
    return [f"{heading}: {'; '.join(parts)}".removeprefix(": ")]
