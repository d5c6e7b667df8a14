"""Square tables as charts: correlations of tasks, and models fine-tuned on one task scored on every other."""

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
_MIN_TEXT_WIDTH = 33  # pixels of a cell that holds a minus, a point and two digits
_DIGITS = (3, 2, 1)  # of a table's largest value: the first number of them that fits into the cells is written
_DIGIT, _SPACE = 0.64, 4  # a digit's width in a wide font, of the font's size; pixels that stay free
_STRONGEST = 0.72  # of a difference's colour: the page's ink can be read on it in light and dark


def correlation_matrix(correlations: Values, *, order: Sequence[str] | None = None, title: str = "") -> Chart:
    """Correlations of every pair, coloured by sign and size, similar ones beside each other.

    Args:
        correlations: (..., task, other_task) as `headnb.stats.patterns.correlations` makes them; a place along the dims
            before those (a stage) is a plot of its own, all in one order.
        order: names in the order wanted; by default that of a hierarchical clustering of the mean matrix.
        title: by default "correlation of patterns".

    Raises:
        HeadnbError: the last two dims are not the same names, or `order` leaves some out.
    """
    found = read_estimates(correlations)
    names = _square_names(found.value)
    wanted = clustered(found.value) if order is None else list(order)
    if sorted(wanted) != sorted(names):
        raise HeadnbError(f"the order needs each of {', '.join(names)} once; got {', '.join(map(str, wanted))}")
    at = [names.index(name) for name in wanted]
    plots, words = [], []
    for heading, part in leading_slices(found, 2):
        value, low, high = (end[np.ix_(at, at)] for end in part.arrays())
        plots.append(_table(wanted, wanted, value, low, high, (-1.0, 1.0), heading, diagonal=False))
        words += _strongest(wanted, value, heading)
    return Chart(title or "correlation of patterns", tuple(plots), tuple(words))


def clustered(correlations: xr.DataArray) -> list[str]:
    """The names in the order of an average-linkage clustering of 1 - r, near ones beside each other."""
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
    return [names[place] for place in leaves_list(tree).tolist()]


def train_eval(values: Values, *, title: str = "") -> Chart:
    """Every model (a row: the task that it was fine-tuned on) scored on every task (a column).

    Args:
        values: (..., train, eval), any quantity; a place along the dims before those is a plot of its own.
        title: by default what the values are.

    Raises:
        HeadnbError: fewer than two dims.
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
    return Chart(title or quantity_label(found.value) or "fine-tuned on × scored on", tuple(plots), tuple(words))


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
    """Cells with their values; without `diagonal`, where each is compared with itself, there is only the number."""
    width = int(min(_CELL_WIDTH, max(_MAX_WIDTH / len(columns), 14)))
    names = [(row, column) for row in rows for column in columns]
    written = _cell_texts(value.ravel().tolist(), scale[1], width)
    cells = [
        _cell(cell, words, scale, muted=not diagonal and row == column)
        for (row, column), cell, words in zip(names, value.ravel().tolist(), written, strict=True)
    ]
    numbers = zip(names, value.ravel(), low.ravel(), high.ravel(), strict=True)
    hover = tuple(f"{row} · {column} · {estimate_text(*of_cell)}" for (row, column), *of_cell in numbers)
    y, x = (places.ravel().astype(np.float64) for places in np.indices(value.shape))
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
    """A cell's colour, opacity, words and the ink of the words."""
    if not np.isfinite(value):
        return INK, 0.0, "", INK
    if muted:
        return INK, 0.05, words, INK
    colour, opacity = paint(value, scale)
    if scale[0] < 0:
        return colour, round(_STRONGEST * opacity, 3), words, INK
    return colour, opacity, words, _contrasting_ink(colour)


def _cell_texts(values: Sequence[float], largest: float, width: int) -> list[str]:
    """The words of a table's cells, all of one number of decimals; empty where not even few digits fit the width."""
    for digits in _DIGITS if width >= _MIN_TEXT_WIDTH else ():
        written = [_cell_text(value, largest, digits) if np.isfinite(value) else "" for value in values]
        if max(map(len, written)) * _DIGIT * LABEL_SIZE + _SPACE <= width:
            return written
    return [""] * len(values)


def _cell_text(value: float, largest: float, digits: int) -> str:
    """With as many decimals as the table's largest value needs for so many digits, so that columns can be compared."""
    decimals = max(digits - 1 - math.floor(math.log10(largest)), 0)
    if decimals > 4:
        return format_number(value, 2)
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")  # + 0.0: no minus before a zero


def _contrasting_ink(colour: str) -> str:
    """Black or white, whichever is read better on a colour (WCAG's relative luminance)."""
    red, green, blue = ((int(colour[i : i + 2], 16) / 255) ** 2.2 for i in (1, 3, 5))
    return "#000000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "#ffffff"


def _square_names(correlations: xr.DataArray) -> list[str]:
    if correlations.ndim < 2:
        raise HeadnbError(f"a correlation matrix has two dims of the same names; got {correlations.dims}")
    rows, columns = (names_along(correlations, dim) for dim in correlations.dims[-2:])
    if len(rows) != len(columns) or any(
        str(one) != str(other)
        for one, other in zip(*(correlations.get_index(dim) for dim in correlations.dims[-2:]), strict=True)
    ):
        raise HeadnbError(f"a correlation matrix has the same names along both dims; got {rows} and {columns}")
    return rows


def _strongest(names: Sequence[str], value: Array, heading: str) -> list[str]:
    """The pair that is most and the pair that is least alike."""
    pairs = np.where(np.tri(len(names), k=-1, dtype=bool), value, np.nan)
    if not np.isfinite(pairs).any():
        return []
    said = []
    for words, place in (("most", np.nanargmax(pairs)), ("least", np.nanargmin(pairs))):
        i, j = divmod(int(place), len(names))
        said.append(f"{words} alike {names[i]} and {names[j]}, r = {format_number(value[i, j])}")
    return [f"{heading}: {'; '.join(said)}".removeprefix(": ")]
