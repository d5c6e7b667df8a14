"""Renderer-independent description of a chart: axes, marks and text, drawn as SVG and with Bokeh.

A chart has one or several plots. Marks hold values. An axis maps values to positions and defines the ticks and their
labels, so that both renderers agree. `INK` is the page's text colour.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from headnb.display.colours import SERIES, ticks
from headnb.display.grid_text import format_short

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike

    from headnb.stats.descriptive import Array

INK = "currentColor"
LABEL_SIZE, TITLE_SIZE = 11, 12
LINE_HEIGHT = 13
MAX_NAME_LENGTH = 34
_LETTER = 0.6  # mean width of a letter, relative to the font size
_TICK_SPACE = 34

Marker = Literal["circle", "square", "triangle", "diamond"]
MARKERS: tuple[Marker, ...] = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True)
class Axis:
    """An axis from the value `start` (left or bottom) to the value `end`.

    `unit` makes the axis logarithmic with zero included: the position of a value is log(1 + value / unit). With
    `names`, the tick at the value i is labelled names[i].
    """

    start: float
    end: float
    label: str = ""
    unit: float | None = None
    names: tuple[str, ...] = ()

    @classmethod
    def rows(cls, names: Sequence[str], label: str = "") -> Axis:
        """An axis with the names from top to bottom."""
        return cls(len(names) - 0.5, -0.5, label, names=tuple(names))

    @classmethod
    def columns(cls, names: Sequence[str], label: str = "") -> Axis:
        """An axis with the names from left to right."""
        return cls(-0.5, len(names) - 0.5, label, names=tuple(names))

    def transform(self, values: ArrayLike) -> Array:
        """Map values to linear positions: the logarithm on a logarithmic axis, otherwise the values."""
        array = np.asarray(values, dtype=np.float64)
        return array if self.unit is None else np.log1p(array / self.unit)

    def fractions(self, values: ArrayLike) -> Array:
        """Map values to fractions of the axis: 0 at its start, 1 at its end."""
        start, end = self.transform([self.start, self.end])
        shares: Array = (self.transform(values) - start) / (end - start)
        return shares

    def ticks(self, length: float) -> list[tuple[float, str]]:
        """Values and labels of the ticks on an axis of `length` pixels."""
        if self.names:
            return [(float(index), truncate(name)) for index, name in enumerate(self.names)]
        room = max(int(length / _TICK_SPACE), 2)
        if self.unit is None:
            return [
                (tick, format_short(tick)) for tick in ticks(min(self.start, self.end), max(self.start, self.end), room)
            ]
        spaced, last = [], -math.inf
        for value in [*([0.0] if self.start <= 0 else []), *_log_ticks(self.unit, self.end)]:
            position = float(self.fractions(value)) * length
            if position - last >= _TICK_SPACE:
                spaced.append((value, format_short(value)))
                last = position
        return spaced


@dataclass(frozen=True, eq=False)
class Line:
    """A line with markers, and a band for the interval where `low` and `high` are not NaN."""

    name: str
    x: Array
    y: Array
    low: Array
    high: Array
    hover: tuple[str, ...]
    colour: str
    marker: Marker = "circle"
    dashed: bool = False


@dataclass(frozen=True, eq=False)
class Points:
    """Separate points; a non-empty entry of `labels` is written next to its point."""

    name: str
    x: Array
    y: Array
    hover: tuple[str, ...]
    colour: str
    marker: Marker = "circle"
    size: float = 7
    opacity: float = 0.85
    hollow: bool = False
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Segments:
    """Straight strokes of the series `name`, `width` pixels wide, such as intervals and boxes."""

    name: str
    x0: Array
    y0: Array
    x1: Array
    y1: Array
    colour: str
    width: float = 1.5
    opacity: float = 1.0


@dataclass(frozen=True, eq=False)
class Cells:
    """Coloured unit squares centred at (x, y), each with a text and its colour."""

    x: Array
    y: Array
    colours: tuple[str, ...]
    opacities: tuple[float, ...]
    texts: tuple[str, ...]
    inks: tuple[str, ...]
    hover: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """A reference line across the plot: at `x`, at `y`, or where x equals y if neither is given.

    `lane` is the text line of the label, so that labels of neighbouring rules do not overlap.
    """

    text: str = ""
    x: float | None = None
    y: float | None = None
    lane: int = 0


Mark = Line | Points | Segments | Cells | Rule


class Margins(NamedTuple):
    """Pixels around a plot's frame."""

    left: int
    right: int
    top: int
    bottom: int


@dataclass(frozen=True)
class Plot:
    """Axes and their marks; `names_at` sets where the names of series are: at line ends, at the top, or nowhere."""

    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    title: str = ""
    width: int = 310
    height: int = 220
    names_at: Literal["ends", "top", "none"] = "none"
    has_grid: bool = True

    @property
    def series(self) -> list[Line | Points]:
        """The marks whose names are shown."""
        named = [mark for mark in self.marks if isinstance(mark, (Line, Points)) and mark.name]
        return named if self.names_at != "none" else []

    @property
    def has_cell_texts(self) -> bool:
        """Whether cells contain text; such a plot must not shrink, since the font size stays the same."""
        return any(any(mark.texts) for mark in self.marks if isinstance(mark, Cells))

    @property
    def labels_rotated(self) -> bool:
        """Whether the names below the columns are too long for horizontal labels."""
        widest = max((text_width(name) for _, name in self.x.ticks(self.width)), default=0)
        return bool(self.x.names) and widest + 6 > self.width / len(self.x.names)

    @property
    def margins(self) -> Margins:
        """The space for titles, tick labels and names of series."""
        names = [name for _, name in self.y.ticks(self.height)]
        left = 10 + max(map(text_width, names), default=0) + (18 if self.y.label else 0)
        below = max((text_width(name) for _, name in self.x.ticks(self.width)), default=0)
        bottom = (18 + 0.64 * below if self.labels_rotated else 20) + (18 if self.x.label else 0)
        if self.labels_rotated:
            left = max(left, 0.77 * below - self.width / len(self.x.names) / 2 + 8)
        ends = max((text_width(mark.name) for mark in self.series), default=0) + 20 if self.names_at == "ends" else 0
        top = 8 + (18 if self.title else 0) + (18 if self.names_at == "top" else 0)
        return Margins(round(left), round(max(ends, 14)), top, round(bottom))

    def label_fits_left(self, x: float, words: str) -> bool:
        """Whether a label at the value `x` goes to its left, because it would leave the frame at its right."""
        return float(self.x.fractions(x)) * self.width + text_width(words) + 8 > self.width

    @property
    def outer_width(self) -> int:
        return self.margins.left + self.width + self.margins.right

    @property
    def outer_height(self) -> int:
        return self.margins.top + self.height + self.margins.bottom


@dataclass(frozen=True, repr=False)
class Drawing:
    """A chart as data for the SVG and Bokeh renderers.

    Attributes:
        title: title of the chart.
        plots: one or several plots in a row.
        words: the content of the chart as text, for terminals and screen readers.
        notes: notes below the chart.
    """

    title: str
    plots: tuple[Plot, ...]
    words: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def series_colour(index: int) -> str:
    """The colour of the series with this index; colours repeat."""
    return SERIES[index % len(SERIES)]


def series_style(index: int) -> tuple[Marker, bool]:
    """The marker of the series with this index, and whether its line is dashed, so that colour is not needed."""
    return MARKERS[index % len(MARKERS)], index >= len(SERIES)


def offset_in_row(index: int, count: int, width: float) -> float:
    """The offset of a series from the middle of a row of this width that `count` series share."""
    return width * (index / (count - 1) - 0.5) if count > 1 else 0.0


def truncate(name: str, longest: int = MAX_NAME_LENGTH) -> str:
    """Truncate a name to at most `longest` characters."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def text_width(words: str, size: float = LABEL_SIZE) -> float:
    """Approximate width of a text in pixels."""
    return len(truncate(words)) * size * _LETTER


def space_out(wanted: ArrayLike, gap: float, low: float, high: float) -> Array:
    """Positions close to the wanted ones, at least `gap` apart, and within low..high if they fit."""
    wanted = np.asarray(wanted, dtype=np.float64)
    order = np.argsort(wanted, kind="stable")
    spaced = np.clip(wanted[order], low, high)
    for i in range(1, len(spaced)):
        spaced[i] = max(spaced[i], spaced[i - 1] + gap)
    if len(spaced) and spaced[-1] > high:
        spaced[-1] = high
        for i in range(len(spaced) - 2, -1, -1):
            spaced[i] = min(spaced[i], spaced[i + 1] - gap)
    positions: Array = np.empty_like(spaced)
    positions[order] = spaced
    return positions


def finite_runs(values: Array) -> Iterator[slice]:
    """Slices of consecutive finite values; a line is interrupted between them."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.isfinite(values), [0]]).astype(int)))
    for start, end in edges.reshape(-1, 2).tolist():
        yield slice(start, end)


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten from `low` to `high`."""
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    values = [float(f"{factor}e{power}") for power in powers for factor in (1, 2, 5)]
    return [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
