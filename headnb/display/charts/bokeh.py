"""Bokeh renderer of charts, with the same marks and positions as the SVG renderer, plus zoom, tooltips and legends.

Axes have the ticks of `marks.Axis`. Names are passed as plain text, never as Bokeh strings: Bokeh would read `$$` in a
task's name as mathematics and load a typesetter from the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.display.charts.marks import (
    INK,
    LABEL_SIZE,
    LINE_HEIGHT,
    TITLE_SIZE,
    Axis,
    Cells,
    Line,
    Points,
    Rule,
    Segments,
    finite_runs,
    truncate,
)
from headnb.display.html import IMAGE_INK
from headnb.errors import optional_import

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headnb.display.charts.marks import Drawing, Mark, Plot
    from headnb.stats.descriptive import Array

_FONT = "system-ui, sans-serif"
_TOOLTIP = '<div style="font:12px system-ui,sans-serif;max-width:320px">@hover</div>'
_TEXT_STYLE: dict[str, Any] = {"text_font": {"value": _FONT}, "text_baseline": "middle"}
_DASHES = [5, 3]


def layout(chart: Drawing) -> Any:
    """A figure, or a row of figures if the chart has several plots. Raises HeadnbError if Bokeh is not installed."""
    figures = [figure(plot) for plot in chart.plots]
    if len(figures) == 1:
        return figures[0]
    from bokeh.layouts import row  # noqa: PLC0415

    for drawn in figures:
        drawn.sizing_mode = "fixed"  # a row has no width to which its figures could scale
    return row(*figures, sizing_mode="stretch_width", styles={"flex-wrap": "wrap"})


def show(chart: Drawing) -> None:
    """Draw the chart in a notebook; the first chart of a kernel loads BokehJS."""
    drawn = layout(chart)
    from bokeh.io import output_notebook  # noqa: PLC0415
    from bokeh.io import show as show_figure  # noqa: PLC0415
    from bokeh.io.state import curstate  # noqa: PLC0415

    if not curstate().notebook:
        output_notebook(resources=resources(), hide_banner=True)
    show_figure(drawn)


def as_json(plot: Plot) -> dict[str, Any]:
    """A plot as the JSON that BokehJS embeds."""
    drawn = figure(plot)
    from bokeh.embed import json_item  # noqa: PLC0415

    return dict(json_item(drawn))


def resources() -> Any:
    """BokehJS for inclusion in a page, without widgets, tables, WebGL and mathematics: a third of the full size."""
    with optional_import("suite"):
        from bokeh.resources import Resources  # noqa: PLC0415
    return Resources(mode="inline", components=["bokeh"], log_level="warn")


def figure(plot: Plot, *, ink: str = IMAGE_INK) -> Any:
    """One plot as a Bokeh figure with text and lines in the colour `ink`."""
    with optional_import("suite"):
        from bokeh.models import HoverTool, PlainText, Range1d  # noqa: PLC0415
        from bokeh.models.annotations import Title  # noqa: PLC0415
        from bokeh.plotting import figure as new_figure  # noqa: PLC0415
    margins = plot.margins
    tools = "" if any(isinstance(mark, Cells) for mark in plot.marks) else "pan,box_zoom,wheel_zoom,reset,save"
    drawn = new_figure(
        width=plot.outer_width,
        height=plot.outer_height,
        x_range=Range1d(**_range(plot.x)),
        y_range=Range1d(**_range(plot.y)),
        min_border_left=margins.left,
        min_border_bottom=margins.bottom,
        min_border_top=0 if plot.title or plot.names_at == "top" else margins.top,
        min_border_right=14,
        tools=tools,
        toolbar_location="above",
        active_scroll=None,
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        sizing_mode="fixed" if plot.has_cell_texts else "scale_width",
        max_width=plot.outer_width,
    )
    drawn.toolbar.logo = None
    drawn.toolbar.autohide = True
    drawn.toolbar_inner = True  # drawn over the frame; outside it, every chart would reserve room for it
    drawn.toolbar.stylesheets = [":host{background:none!important}"]
    _axis(drawn.xaxis[0], drawn.xgrid[0], plot.x, plot.width, ink, lined=plot.has_grid and not plot.x.names)
    _axis(drawn.yaxis[0], drawn.ygrid[0], plot.y, plot.height, ink, lined=plot.has_grid)
    drawn.yaxis[0].axis_line_color = None
    if not plot.has_grid:
        drawn.xaxis[0].axis_line_color = None
    drawn.xaxis[0].major_label_orientation = 0.7 if plot.labels_rotated else "horizontal"
    if plot.title:
        look: dict[str, Any] = {"text_font": _FONT, "text_font_size": f"{TITLE_SIZE}px", "text_color": ink}
        drawn.title = Title(text=PlainText(text=plot.title), **look)
    hoverable = [glyph for mark in plot.marks for glyph in _mark(drawn, plot, mark, ink)]
    if hoverable:
        drawn.add_tools(HoverTool(renderers=hoverable, tooltips=_TOOLTIP, visible=False))
    if plot.series:
        _legend(drawn, plot, ink)
    return drawn


def _range(axis: Axis) -> dict[str, Any]:
    start, end = axis.transform([axis.start, axis.end]).tolist()
    return {"start": start, "end": end}


def _axis(drawn: Any, grid: Any, axis: Axis, length: float, ink: str, *, lined: bool) -> None:
    """Set the ticks of `axis`; Bokeh has no scale that is logarithmic and includes zero."""
    from bokeh.models import FixedTicker, PlainText  # noqa: PLC0415

    ticks = axis.ticks(length)
    positions = axis.transform([value for value, _ in ticks]).tolist()
    drawn.ticker = FixedTicker(ticks=positions)
    drawn.major_label_overrides = {
        position: PlainText(text=name) for position, (_, name) in zip(positions, ticks, strict=True)
    }
    drawn.axis_label = PlainText(text=axis.label) if axis.label else None
    drawn.axis_label_text_font = drawn.major_label_text_font = _FONT
    drawn.axis_label_text_font_size = drawn.major_label_text_font_size = f"{LABEL_SIZE}px"
    drawn.axis_label_text_font_style = "normal"
    drawn.axis_label_text_color = drawn.major_label_text_color = ink
    drawn.axis_line_color, drawn.axis_line_alpha = ink, 0.5
    drawn.major_tick_line_color = drawn.minor_tick_line_color = None
    grid.ticker = drawn.ticker
    grid.grid_line_color, grid.grid_line_alpha = (ink if lined else None), 0.14


def _mark(drawn: Any, plot: Plot, mark: Mark, ink: str) -> list[Any]:
    """Draw a mark; returns the renderers that have a tooltip."""
    match mark:
        case Line():
            return [_line(drawn, plot, mark, ink)]
        case Points():
            return [_points(drawn, plot, mark, ink)]
        case Segments():
            ends = {"x0": plot.x, "y0": plot.y, "x1": plot.x, "y1": plot.y}
            columns = {name: axis.transform(getattr(mark, name)) for name, axis in ends.items()}
            look = {"line_color": _colour(mark.colour, ink), "line_width": mark.width, "line_alpha": mark.opacity}
            _glyph(drawn, "Segment", columns, mark.name, **look)
        case Cells():
            return [_cells(drawn, plot, mark, ink)]
        case Rule():
            _rule(drawn, plot, mark, ink)
    return []


def _line(drawn: Any, plot: Plot, line: Line, ink: str) -> Any:
    x, y, colour = plot.x.transform(line.x), plot.y.transform(line.y), _colour(line.colour, ink)
    low, high = plot.y.transform(line.low), plot.y.transform(line.high)
    for run in finite_runs(low + high):
        band = {"x": x[run], "y1": low[run], "y2": high[run]}
        _glyph(drawn, "VArea", band, line.name, fill_color=colour, fill_alpha=0.16)
    dash = _DASHES if line.dashed else []
    _glyph(drawn, "Line", {"x": x, "y": y}, line.name, line_color=colour, line_width=1.8, line_dash=dash)
    columns = {"x": x, "y": y, "hover": list(line.hover)}
    look: dict[str, Any] = {"fill_color": colour, "line_color": None}
    return _glyph(drawn, "Scatter", columns, line.name, marker={"value": line.marker}, size=5, **look)


def _points(drawn: Any, plot: Plot, points: Points, ink: str) -> Any:
    x, y, colour = plot.x.transform(points.x), plot.y.transform(points.y), _colour(points.colour, ink)
    columns = {"x": x, "y": y, "hover": list(points.hover)}
    look: dict[str, Any] = {"fill_color": colour, "fill_alpha": points.opacity, "line_color": None}
    if points.hollow:
        look = {"fill_alpha": 0, "line_color": colour, "line_width": 1.4}
    look |= {"marker": {"value": points.marker}, "size": points.size}
    renderer = _glyph(drawn, "Scatter", columns, points.name, **look)
    labelled = [index for index, words in enumerate(points.labels) if words and np.isfinite(y[index])]
    if labelled:
        words = [points.labels[index] for index in labelled]
        leftwards = [plot.label_fits_left(points.x[index], points.labels[index]) for index in labelled]
        _draw_texts(drawn, x[labelled], y[labelled], words, ink, leftwards, gap=points.size)
    return renderer


def _cells(drawn: Any, plot: Plot, cells: Cells, ink: str) -> Any:
    x, y = plot.x.transform(cells.x), plot.y.transform(cells.y)
    columns: dict[str, Any] = {"x": x, "y": y, "hover": list(cells.hover), "text": list(cells.texts)}
    columns |= {"colour": [_colour(colour, ink) for colour in cells.colours], "opacity": list(cells.opacities)}
    columns["ink"] = [_colour(colour, ink) for colour in cells.inks]
    squares: dict[str, Any] = {"fill_color": {"field": "colour"}, "fill_alpha": {"field": "opacity"}}
    squares["width"] = 1 - 1 / plot.width * abs(plot.x.end - plot.x.start)
    squares["height"] = 1 - 1 / plot.height * abs(plot.y.end - plot.y.start)
    renderer = _glyph(drawn, "Rect", columns, line_color=None, **squares)
    words: dict[str, Any] = {"text_color": {"field": "ink"}, "text_font_size": f"{LABEL_SIZE}px"}
    _glyph(drawn, "Text", columns, text_align="center", **words, **_TEXT_STYLE)
    return renderer


def _rule(drawn: Any, plot: Plot, rule: Rule, ink: str) -> None:
    from bokeh.models.annotations import Slope, Span  # noqa: PLC0415

    look: dict[str, Any] = {"line_color": ink, "line_alpha": 0.55, "line_dash": [3, 3]}
    right, top = plot.x.transform([plot.x.end]), plot.y.transform([plot.y.end])
    if rule.x is not None:
        x = plot.x.transform([rule.x])
        drawn.add_layout(Span(location=float(x[0]), dimension="height", **look))
        _draw_texts(
            drawn,
            x,
            top,
            [rule.text],
            ink,
            [plot.label_fits_left(rule.x, rule.text)],
            below=7 + LINE_HEIGHT * rule.lane,
        )
    elif rule.y is not None:
        y = plot.y.transform([rule.y])
        drawn.add_layout(Span(location=float(y[0]), dimension="width", **look))
        _draw_texts(drawn, right, y, [rule.text], ink, [True], below=-7)
    else:
        drawn.add_layout(Slope(gradient=1, y_intercept=0, **look))
        bottom = plot.y.transform([plot.y.start])
        _draw_texts(drawn, right, bottom, [rule.text], ink, [True], below=-11)


def _draw_texts(
    drawn: Any,
    x: Array,
    y: Array,
    words: Sequence[str],
    ink: str,
    leftwards: Sequence[bool],
    gap: float = 4,
    below: float = 0,
) -> None:
    """Draw each text to the right of its position (x, y), or to the left if its entry of `leftwards` is true."""
    columns: dict[str, Any] = {"x": x, "y": y, "text": list(words)}
    columns["align"] = ["right" if left else "left" for left in leftwards]
    columns["shift"] = [-gap if left else gap for left in leftwards]
    look: dict[str, Any] = {"text_align": {"field": "align"}, "x_offset": {"field": "shift"}, "y_offset": below}
    _glyph(drawn, "Text", columns, text_color=ink, text_font_size="10px", **look, **_TEXT_STYLE)


def _legend(drawn: Any, plot: Plot, ink: str) -> None:
    """Add a legend whose entries hide their series on a click; a legend at the right is in the order of line ends."""
    from bokeh.core.properties import value  # noqa: PLC0415
    from bokeh.models.annotations import Legend, LegendItem  # noqa: PLC0415

    series = plot.series
    if plot.names_at == "ends":
        series = sorted(series, key=_last_value, reverse=plot.y.end > plot.y.start)
    entries = [
        LegendItem(
            label=value(truncate(mark.name)),
            renderers=[renderer for renderer in drawn.renderers if renderer.name == mark.name],
        )
        for mark in series
    ]
    space: dict[str, Any] = {"padding": 0, "margin": 4, "spacing": 1, "glyph_width": 14}
    legend = Legend(items=entries, click_policy="hide", **space)
    legend.orientation = "vertical" if plot.names_at == "ends" else "horizontal"
    legend.label_text_font, legend.label_text_font_size = _FONT, f"{LABEL_SIZE}px"
    legend.label_text_color = ink
    legend.background_fill_alpha, legend.border_line_color = 0, None
    if plot.names_at == "top":
        legend.location, legend.spacing = "left", 14
    drawn.add_layout(legend, "right" if plot.names_at == "ends" else "above")


def _last_value(mark: Line | Points) -> float:
    finite = mark.y[np.isfinite(mark.y)]
    return float(finite[-1]) if finite.size else 0.0


def _glyph(drawn: Any, kind: str, columns: dict[str, Any], name: str = "", **look: Any) -> Any:
    """Add a glyph directly: the figure's methods add four glyphs each, for selections, which charts do not use."""
    from bokeh.models import ColumnDataSource, glyphs  # noqa: PLC0415

    glyph = getattr(glyphs, kind)(**look)
    return drawn.add_glyph(ColumnDataSource(columns), glyph, name=name or None)


def _colour(colour: str, ink: str) -> str:
    return ink if colour == INK else colour
