"""SVG renderer of charts, without scripts, external resources, ids or styles; text and lines have the page's colour.

Marks carry their hover text as `<title>`. In a plot with too many marks, each series is one path without hover texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headnb.display import html
from headnb.display.charts.marks import (
    INK,
    LABEL_SIZE,
    LINE_HEIGHT,
    TITLE_SIZE,
    Cells,
    Line,
    Points,
    Rule,
    Segments,
    finite_runs,
    space_out,
    text_width,
    truncate,
)
from headnb.display.svg import Picture, escaped, label
from headnb.display.templating import render

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import ArrayLike

    from headnb.display.charts.marks import Drawing, Mark, Marker, Plot
    from headnb.stats.descriptive import Array

MAX_TITLED_MARKS = 2500
GAP = 18
_MAX_WIDTH = 960
_DASHES = "5 3"


def card(chart: Drawing) -> str:
    """The `text/html` form: title, picture and notes."""
    plain = picture(chart, titles=False)
    return html.picture_card(inline(chart), plain, chart.title, chart.notes)


def page(chart: Drawing) -> str:
    """A complete HTML file with the card; it follows the reader's light or dark setting."""
    return render("page.html", title=chart.title, card=card(chart))


def standalone(chart: Drawing, *, ink: str) -> str:
    """The `image/svg+xml` form: title, picture and notes in one file, with text in the colour `ink`."""
    plain = picture(chart, titles=False)
    return html.svg_file(plain, ink, chart.title, notes=chart.notes, least_width=420)


def inline(chart: Drawing, plots: Iterable[Plot] | None = None) -> str:
    """An `<svg>` element of a chart, or of the given plots of it, for an HTML page."""
    return html.inline_svg(picture(chart, plots), ". ".join([chart.title, *chart.words]))


def picture(chart: Drawing, plots: Iterable[Plot] | None = None, *, titles: bool = True) -> Picture:
    """The plots of a chart in rows of as many plots as fit."""
    parts: list[str] = []
    x = y = width = row = 0
    for plot in chart.plots if plots is None else plots:
        if x and x + plot.outer_width > _MAX_WIDTH:
            x, y, row = 0, y + row + GAP, 0
        left, top = plot.margins.left, plot.margins.top
        parts += [f'<g transform="translate({x + left:g} {y + top:g})">', *_plot(plot, titles=titles), "</g>"]
        x += plot.outer_width + GAP
        width, row = max(width, x - GAP), max(row, plot.outer_height)
    return Picture("".join(parts), width, y + row)


def _plot(plot: Plot, *, titles: bool) -> Iterator[str]:
    titled = titles and sum(len(mark.hover) for mark in plot.marks if hasattr(mark, "hover")) <= MAX_TITLED_MARKS
    yield from _frame(plot)
    for mark in plot.marks:
        yield from _mark(plot, mark, titled=titled)
    if plot.names_at == "ends":
        yield from _line_labels(plot)
    elif plot.names_at == "top":
        yield from _legend(plot)


def _frame(plot: Plot) -> Iterator[str]:
    """Title, grid lines, tick labels and axis labels."""
    width, height = plot.width, plot.height
    if plot.title:
        shown = truncate(plot.title, int(plot.outer_width / (TITLE_SIZE * 0.58)))
        yield label(shown, 0, 14 - plot.margins.top, size=TITLE_SIZE, weight=True)
    columns = [(_x(plot, [value])[0], name) for value, name in plot.x.ticks(width)]
    rows = [(_y(plot, [value])[0], name) for value, name in plot.y.ticks(height)]
    if plot.has_grid:
        lines = "".join(f"M0 {y:.1f}h{width}" for y, _ in rows)
        lines += "" if plot.x.names else "".join(f"M{x:.1f} 0v{height}" for x, _ in columns)
        yield f'<path d="{lines}" stroke="{INK}" stroke-opacity=".14"/>'
        edge = f"M0 {height}h{width}"
        yield f'<path d="{edge}" stroke="{INK}" stroke-opacity=".5"/>'
    for x, name in columns:
        if plot.labels_rotated:
            tilted = label(name, 0, 0, anchor="end", size=LABEL_SIZE)
            yield f'<g transform="translate({x + 4:.1f} {height + 12}) rotate(-40)">{tilted}</g>'
        else:
            yield label(name, round(x, 1), height + 15, anchor="middle", size=LABEL_SIZE)
    for y, name in rows:
        yield label(name, -7, round(y + 3.8, 1), anchor="end", size=LABEL_SIZE)
    if plot.x.label:
        below = height + plot.margins.bottom - 6
        yield label(plot.x.label, width / 2, below, anchor="middle", size=LABEL_SIZE)
    if plot.y.label:
        name = label(plot.y.label, 0, 0, anchor="middle", size=LABEL_SIZE)
        yield f'<g transform="translate({12 - plot.margins.left} {height / 2:g}) rotate(-90)">{name}</g>'


def _mark(plot: Plot, mark: Mark, *, titled: bool) -> Iterator[str]:
    match mark:
        case Line():
            yield from _line(plot, mark, titled=titled)
        case Points():
            yield from _points(plot, mark, titled=titled)
        case Segments():
            yield _segments(plot, mark)
        case Cells():
            yield from _cells(plot, mark, titled=titled)
        case Rule():
            yield from _rule(plot, mark)


def _line(plot: Plot, line: Line, *, titled: bool) -> Iterator[str]:
    x, y = _x(plot, line.x), _y(plot, line.y)
    low, high = _y(plot, line.low), _y(plot, line.high)
    for run in finite_runs(low + high):
        upper = _polyline(x[run], high[run])
        lower = _polyline(x[run][::-1], low[run][::-1]).replace("M", "L", 1)
        yield f'<path d="{upper}{lower}Z" fill="{line.colour}" fill-opacity=".16"/>'
    course = "".join(_polyline(x[run], y[run]) for run in finite_runs(y))
    dashes = f' stroke-dasharray="{_DASHES}"' if line.dashed else ""
    yield f'<path d="{course}" fill="none" stroke="{line.colour}" stroke-width="1.8" stroke-linejoin="round"{dashes}/>'
    fill = f'fill="{line.colour}" fill-opacity="1"'
    yield from _shapes(x, y, _outline(line.marker, 5), fill, line.hover, titled=titled)


def _points(plot: Plot, points: Points, *, titled: bool) -> Iterator[str]:
    x, y = _x(plot, points.x), _y(plot, points.y)
    look = f'fill="{points.colour}" fill-opacity="{points.opacity:g}"'
    if points.hollow:
        look = f'fill="{points.colour}" fill-opacity="0" stroke="{points.colour}" stroke-width="1.4"'
    yield from _shapes(x, y, _outline(points.marker, points.size), look, points.hover, titled=titled)
    for index, (right, down, words) in enumerate(zip(x, y, points.labels, strict=False)):
        if words and np.isfinite(y[index]):
            leftwards = plot.label_fits_left(points.x[index], words)
            shift = -points.size if leftwards else points.size
            yield label(words, round(right + shift, 1), round(down + 3.5, 1), anchor="end" if leftwards else "start")


def _shapes(x: Array, y: Array, outline: str, look: str, hover: Iterable[str], *, titled: bool) -> Iterator[str]:
    """The outline at every position: one path with a title per position, or one path for all positions."""
    points = [(right, down, words) for right, down, words in zip(x, y, hover, strict=True) if np.isfinite(right + down)]
    if titled:
        for right, down, words in points:
            yield f'<path d="M{right:.1f} {down:.1f}{outline}" {look}><title>{escaped(words)}</title></path>'
    elif points:
        yield f'<path d="{"".join(f"M{right:.1f} {down:.1f}{outline}" for right, down, _ in points)}" {look}/>'


def _segments(plot: Plot, strokes: Segments) -> str:
    ends = (_x(plot, strokes.x0), _y(plot, strokes.y0), _x(plot, strokes.x1), _y(plot, strokes.y1))
    path = "".join(
        f"M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"
        for x0, y0, x1, y1 in zip(*ends, strict=True)
        if np.isfinite(x0 + y0 + x1 + y1)
    )
    opacity = f' stroke-opacity="{strokes.opacity:g}"' if strokes.opacity < 1 else ""
    return f'<path d="{path}" fill="none" stroke="{strokes.colour}" stroke-width="{strokes.width:g}"{opacity}/>'


def _cells(plot: Plot, cells: Cells, *, titled: bool) -> Iterator[str]:
    left, right = _x(plot, cells.x - 0.5), _x(plot, cells.x + 0.5)
    top, bottom = _y(plot, cells.y - 0.5), _y(plot, cells.y + 0.5)
    for index, words in enumerate(cells.texts):
        corner = f'x="{left[index]:.1f}" y="{top[index]:.1f}"'
        size = f'width="{right[index] - left[index] - 1:.1f}" height="{bottom[index] - top[index] - 1:.1f}"'
        look = f'fill="{cells.colours[index]}" fill-opacity="{cells.opacities[index]:g}"'
        text = ""
        if words:
            across, down = (left[index] + right[index]) / 2, (top[index] + bottom[index]) / 2 + 3.5
            ink = cells.inks[index]
            text = label(words, round(across, 1), round(down, 1), anchor="middle", size=LABEL_SIZE, ink=ink)
        title = f"<title>{escaped(cells.hover[index])}</title>" if titled else ""
        yield f"<g>{title}<rect {corner} {size} {look}/>{text}</g>"


def _rule(plot: Plot, rule: Rule) -> Iterator[str]:
    width, height = plot.width, plot.height
    if rule.x is not None:
        x = float(_x(plot, [rule.x])[0])
        leftwards, down = plot.label_fits_left(rule.x, rule.text), 10 + LINE_HEIGHT * rule.lane
        shift, anchor = (-4, "end") if leftwards else (4, "start")
        path, name = f"M{x:.1f} 0v{height}", label(rule.text, round(x + shift, 1), down, anchor=anchor)
    elif rule.y is not None:
        y = float(_y(plot, [rule.y])[0])
        path, name = f"M0 {y:.1f}h{width}", label(rule.text, width - 2, round(y - 4, 1), anchor="end")
    else:
        ends = np.array([max(plot.x.start, plot.y.start), min(plot.x.end, plot.y.end)])
        path, name = _polyline(_x(plot, ends), _y(plot, ends)), label(rule.text, width - 4, height - 8, anchor="end")
    yield f'<path d="{path}" fill="none" stroke="{INK}" stroke-opacity=".55" stroke-dasharray="3 3"/>'
    if rule.text:
        yield name


def _line_labels(plot: Plot) -> Iterator[str]:
    """Each line's name next to its last value, with overlapping names moved apart."""
    lines = [mark for mark in plot.series if isinstance(mark, Line) and np.isfinite(mark.y).any()]
    lasts = [int(np.flatnonzero(np.isfinite(line.y))[-1]) for line in lines]
    ends = [float(_y(plot, line.y[[last]])[0]) for line, last in zip(lines, lasts, strict=True)]
    heights = space_out(ends, LINE_HEIGHT, 0, plot.height)
    for line, last, end, height in zip(lines, lasts, ends, heights, strict=True):
        x = float(_x(plot, line.x[[last]])[0])
        path = f"M{x + 4:.1f} {end:.1f}L{plot.width + 10} {height:.1f}"
        yield f'<path d="{path}" fill="none" stroke="{line.colour}" stroke-opacity=".6"/>'
        yield label(truncate(line.name), plot.width + 13, round(height + 3.8, 1), size=LABEL_SIZE)


def _legend(plot: Plot) -> Iterator[str]:
    """Markers and names of the series in a row above the frame."""
    x = 5.0
    for mark in plot.series:
        outline = _outline(mark.marker, 7)
        hollow = isinstance(mark, Points) and mark.hollow
        look = f'stroke="{mark.colour}" stroke-width="1.4" fill="{mark.colour}" fill-opacity="{0 if hollow else 1}"'
        yield f'<path d="M{x:g} -9{outline}" {look}/>'
        yield label(truncate(mark.name), x + 8, -5, size=LABEL_SIZE)
        x += text_width(mark.name) + 28


def _outline(marker: Marker, size: float) -> str:
    """A marker centred at the current point, as relative path commands."""
    r = size / 2
    if marker == "circle":
        return f"m{-r:g} 0a{r:g} {r:g} 0 1 0 {size:g} 0a{r:g} {r:g} 0 1 0 {-size:g} 0z"
    if marker == "square":
        r *= 0.9
        return f"m{-r:g} {-r:g}h{2 * r:g}v{2 * r:g}h{-2 * r:g}z"
    if marker == "triangle":
        r *= 1.1
        return f"m0 {-r:g}l{r:g} {1.8 * r:g}h{-2 * r:g}z"
    r *= 1.2
    return f"m0 {-r:g}l{r:g} {r:g}l{-r:g} {r:g}l{-r:g} {-r:g}z"


def _polyline(x: Array, y: Array) -> str:
    return "M" + "L".join(f"{right:.1f} {down:.1f}" for right, down in zip(x, y, strict=True))


def _x(plot: Plot, values: ArrayLike) -> Array:
    return plot.x.fractions(values) * plot.width


def _y(plot: Plot, values: ArrayLike) -> Array:
    return plot.height - plot.y.fractions(values) * plot.height
