"""What a chart shows, apart from how it is drawn: axes, marks and words, which SVG and Bokeh both draw from.

A chart is one plot or several beside each other. Marks hold values; an axis says where a value stands on it, which
ticks it has and what they are called, so that the two renderers cannot disagree. `INK` is the page's own text colour.
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
_LETTER = 0.6  # of the font's size: a mean letter's width
_TICK_SPACE = 34

Marker = Literal["circle", "square", "triangle", "diamond"]
MARKERS: tuple[Marker, ...] = ("circle", "square", "triangle", "diamond")


@dataclass(frozen=True)
class Axis:
    """One axis, from `start` (left or bottom) to `end`, in values.

    `unit` makes it logarithmic and keeps zero on it: a value stands at log(1 + value / unit). With `names`, the
    value i is called names[i].
    """

    start: float
    end: float
    label: str = ""
    unit: float | None = None
    names: tuple[str, ...] = ()

    @classmethod
    def rows(cls, names: Sequence[str], label: str = "") -> Axis:
        """Names from top to bottom."""
        return cls(len(names) - 0.5, -0.5, label, names=tuple(names))

    @classmethod
    def columns(cls, names: Sequence[str], label: str = "") -> Axis:
        """Names from left to right."""
        return cls(-0.5, len(names) - 0.5, label, names=tuple(names))

    def transform(self, values: ArrayLike) -> Array:
        """Where values stand: equal distances are equally far apart in the picture."""
        found = np.asarray(values, dtype=np.float64)
        return found if self.unit is None else np.log1p(found / self.unit)

    def fractions(self, values: ArrayLike) -> Array:
        """How far along the axis values stand: 0 at its start, 1 at its end."""
        start, end = self.transform([self.start, self.end])
        shares: Array = (self.transform(values) - start) / (end - start)
        return shares

    def ticks(self, length: float) -> list[tuple[float, str]]:
        """Values that are marked on an axis of `length` pixels, and their names."""
        if self.names:
            return [(float(place), truncate(name)) for place, name in enumerate(self.names)]
        room = max(int(length / _TICK_SPACE), 2)
        if self.unit is None:
            return [
                (tick, format_short(tick)) for tick in ticks(min(self.start, self.end), max(self.start, self.end), room)
            ]
        found, last = [], -math.inf
        for value in [*([0.0] if self.start <= 0 else []), *_log_ticks(self.unit, self.end)]:
            place = float(self.fractions(value)) * length
            if place - last >= _TICK_SPACE:
                found.append((value, format_short(value)))
                last = place
        return found


@dataclass(frozen=True, eq=False)
class Line:
    """Values along x as a line through markers, with their interval as a band where `low` and `high` are not NaN."""

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
    """Single values; `labels` are written beside them where they are not empty."""

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
    """Straight strokes, such as intervals and boxes, `width` pixels wide; of the series `name`."""

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
    """A table of coloured squares of side 1 around (x, y), each with its words in its own ink."""

    x: Array
    y: Array
    colours: tuple[str, ...]
    opacities: tuple[float, ...]
    texts: tuple[str, ...]
    inks: tuple[str, ...]
    hover: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """A line of reference over the whole plot: at an x, at a y, or where x equals y when neither is given.

    `lane` is the line of text that its words stand on, for neighbours that would write over each other.
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
    """Axes and the marks on them. `names_at` says where series are named: at the lines' ends, above, or nowhere."""

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
        """The marks that have a name to be shown."""
        named = [mark for mark in self.marks if isinstance(mark, (Line, Points)) and mark.name]
        return named if self.names_at != "none" else []

    @property
    def has_cell_texts(self) -> bool:
        """Whether words stand in cells: a picture in which letters keep their size must not make these smaller."""
        return any(any(mark.texts) for mark in self.marks if isinstance(mark, Cells))

    @property
    def labels_rotated(self) -> bool:
        """Whether the names below the columns are too long to lie flat."""
        widest = max((text_width(name) for _, name in self.x.ticks(self.width)), default=0)
        return bool(self.x.names) and widest + 6 > self.width / len(self.x.names)

    @property
    def margins(self) -> Margins:
        """The space that titles, ticks and names need."""
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
        """Whether words beside the value `x` stand to its left, since at its right they would leave the frame."""
        return float(self.x.fractions(x)) * self.width + text_width(words) + 8 > self.width

    @property
    def outer_width(self) -> int:
        return self.margins.left + self.width + self.margins.right

    @property
    def outer_height(self) -> int:
        return self.margins.top + self.height + self.margins.bottom


@dataclass(frozen=True, repr=False)
class Drawing:
    """A chart as data: what the SVG and Bokeh renderers draw.

    Attributes:
        title: what the chart is of.
        plots: one or several, beside each other.
        words: what the chart shows, in words: for terminals and screen readers.
        notes: what a reader must know, written below.
    """

    title: str
    plots: tuple[Plot, ...]
    words: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def series_colour(place: int) -> str:
    """The colour of the series at a place: after the last one they begin again."""
    return SERIES[place % len(SERIES)]


def series_style(place: int) -> tuple[Marker, bool]:
    """The marker of the series at a place, and whether its line is dashed: names do not rest on colour alone."""
    return MARKERS[place % len(MARKERS)], place >= len(SERIES)


def offset_in_row(place: int, among: int, width: float) -> float:
    """How far the series at a place stands from the middle, when so many share a row of this width."""
    return width * (place / (among - 1) - 0.5) if among > 1 else 0.0


def truncate(name: str, longest: int = MAX_NAME_LENGTH) -> str:
    """A name of at most `longest` letters."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def text_width(words: str, size: float = LABEL_SIZE) -> float:
    """About how many pixels wide words are."""
    return len(truncate(words)) * size * _LETTER


def space_out(wanted: ArrayLike, gap: float, low: float, high: float) -> Array:
    """Places near the wanted ones, at least `gap` apart and within low..high as far as they fit."""
    wanted = np.asarray(wanted, dtype=np.float64)
    order = np.argsort(wanted, kind="stable")
    found = np.clip(wanted[order], low, high)
    for i in range(1, len(found)):
        found[i] = max(found[i], found[i - 1] + gap)
    if len(found) and found[-1] > high:
        found[-1] = high
        for i in range(len(found) - 2, -1, -1):
            found[i] = min(found[i], found[i + 1] - gap)
    places: Array = np.empty_like(found)
    places[order] = found
    return places


def finite_runs(values: Array) -> Iterator[slice]:
    """Stretches of values that exist: a line is broken where one does not."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.isfinite(values), [0]]).astype(int)))
    for start, end in edges.reshape(-1, 2).tolist():
        yield slice(start, end)


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten from `low` to `high`."""
    powers = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    found = [float(f"{factor}e{power}") for power in powers for factor in (1, 2, 5)]
    return [value for value in found if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
