"""Head grids drawn by matplotlib, for papers: a print size, vector text, and names that are never read as mathematics.

Figures are made without pyplot, so that nothing in a session's plotting state changes.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from headnb.display import grid_text
from headnb.display.before_after import panels_by_kind
from headnb.display.colours import palette, ticks
from headnb.display.geometry import grid_geometry
from headnb.errors import HeadnbError, optional_import, unknown_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    from headnb.display.payload_types import Panel, Payload

Theme = Literal["light", "dark"]
THEMES: dict[str, tuple[str, str]] = {"light": ("#ffffff", "#222222"), "dark": ("#111111", "#dddddd")}
"""Colours of the page and of text and lines."""
_COLUMN, _PAGE = "85 mm", "170 mm"  # widths of a paper's column and of its text
_COLUMN_HEADS = 32  # most heads of a layer that fit a column
_INCHES = {"mm": 1 / 25.4, "cm": 1 / 2.54, "in": 1.0}
_MOST_COLUMNS = 3
_TALLEST = 9.0  # inches: the height of a page's text
_VECTOR_CELLS = 20_000  # with more cells, the cells are an image inside the vector file
_DPI = 300
_SIZE = 8  # points


def figure(payload: Payload, *, ax: Axes | None = None, width: str | None = None, theme: str = "light") -> Figure:
    """Draw the panels of a payload, or its only panel in `ax`; see `PatternHeads.plot`."""
    page, ink = theme_colours(theme)
    panels, note = grid_text.shown_panels(payload)
    if ax is not None:
        if len(panels) > 1:
            raise HeadnbError(f"ax= draws one grid, but there are {len(panels)}; select one, or remove ax=")
        _add_bar(payload, panels, _draw_panel(payload, panels[0], ax, page, ink), [ax], ink)
        return _figure_of(ax)
    with optional_import("plot"):
        from headnb.display.notebook_figure import NotebookFigure  # noqa: PLC0415  needs matplotlib
    columns = min(len(panels), _MOST_COLUMNS)
    rows = -(-len(panels) // columns)
    column = len(panels) == 1 and payload["heads"] <= _COLUMN_HEADS
    across = _inches(width or (_COLUMN if column else _PAGE))
    size = (across, _height(payload, across, rows, columns))
    drawn = NotebookFigure(figsize=size, layout="constrained", facecolor=page, dpi=_DPI)
    axes = drawn.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in axes[len(panels) :]:
        unused.remove()
    axes = axes[: len(panels)]
    if len(panels) > 1:
        for panel, one in zip(panels, axes, strict=True):
            _plain(one.set_title(panel["title"], fontsize=_SIZE, color=ink))
    kinds = panels_by_kind(payload, panels)
    for own, members in kinds:
        places = [place for place, panel in enumerate(panels) if any(panel is member for member in members)]
        theirs = [axes[place] for place in places]
        meshes = [_draw_panel(own, panel, one, page, ink) for panel, one in zip(members, theirs, strict=True)]
        if len(kinds) == 1 or _is_block(places, columns):
            _add_bar(own, members, meshes[0], theirs, ink)
            continue
        for member, mesh, one in zip(members, meshes, theirs, strict=True):
            _add_bar(own, [member], mesh, [one], ink)
    _plain(drawn.suptitle(grid_text.heading(payload), fontsize=_SIZE + 1, color=ink))
    keys = [key for own, members in kinds for key in grid_text.legend_keys(own, members)] + ([note] if note else [])
    _plain(drawn.supxlabel(" · ".join(keys), fontsize=_SIZE - 1, color=ink))
    return drawn


def _is_block(places: Sequence[int], columns: int) -> bool:
    """Whether places fill a rectangle of a figure with this number of columns, so that one bar fits beside it."""
    rows, across = zip(*(divmod(place, columns) for place in places), strict=True)
    return len(set(rows)) * len(set(across)) == len(places)


def picture(payload: Payload, form: Literal["png", "pdf"], theme: str) -> bytes:
    """A PNG of 300 dots per inch, or a PDF whose text is text."""
    drawn = figure(payload, theme=theme)
    from matplotlib import rc_context  # noqa: PLC0415

    file = io.BytesIO()
    with rc_context({"pdf.fonttype": 42}):
        drawn.savefig(file, format=form)
    return file.getvalue()


def check_installed() -> None:
    """Raise HeadnbError if matplotlib is not installed."""
    with optional_import("plot"):
        import matplotlib.figure  # noqa: F401, PLC0415


def theme_colours(theme: str) -> tuple[str, str]:
    """The page's and the text's colour. Raises HeadnbError for an unknown theme."""
    if theme not in THEMES:
        raise unknown_name("theme", theme, THEMES)
    return THEMES[theme]


def _figure_of(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    if figure is None:
        raise HeadnbError("ax= must belong to a figure")
    return figure


def _inches(width: str) -> float:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(mm|cm|in)\s*", str(width))
    if not found or not 0.5 <= (inches := float(found[1]) * _INCHES[found[2]]) <= 100:
        raise HeadnbError(f"width must be a length such as '85 mm' or '3.3 in', got {width!r:.40}")
    return inches


def _height(payload: Payload, width: float, rows: int, columns: int) -> float:
    """The height in inches at which cells have the same proportions as on a page."""
    place = grid_geometry(payload, columns)
    grid = (width - 0.9) / columns - 0.4
    tall = grid * place.layers * place.cell_height / (place.heads * place.cell_width)
    return min(rows * (tall + 0.6) + 0.5, _TALLEST)


def _draw_panel(payload: Payload, panel: Panel, ax: Axes, page: str, ink: str) -> Any:
    """Draw cells, marks and axes; returns the mesh of the cells."""
    values = grid_text.panel_matrix(panel)
    low, high, colours = payload["scale"]["low"], payload["scale"]["high"], _colours(payload, page)
    half = (high - low) / (colours.N - 1) / 2  # the first and last colours are at the ends of the scale
    mesh = ax.pcolormesh(
        np.ma.masked_invalid(values),
        cmap=colours,
        vmin=low - half,
        vmax=high + half,
        edgecolors=page,
        linewidth=0.3 if max(values.shape) <= 40 else 0,
        rasterized=values.size > _VECTOR_CELLS,
    )
    ax.set_facecolor(page)
    ax.set_ylim(payload["layers"], 0)
    group = payload["heads"] // payload["kv_heads"]
    if 1 < group < payload["heads"]:
        ax.vlines(range(group, payload["heads"], group), 0, payload["layers"], colors=page, linewidth=1.5)
    size = 72 * min(np.divide(ax.get_window_extent().size, values.shape[::-1])) / _figure_of(ax).dpi
    _mark(ax, np.isnan(values), marker=(2, 2, -45), s=size**2 / 3, linewidths=0.5, c=ink, alpha=0.5)
    if "significant" in panel:
        significant = grid_text.panel_matrix(panel, "significant") == 1
        _mark(ax, significant, marker="o", s=min(size**2 / 5, 12), c="black", edgecolors="white", linewidths=0.4)
    for side, axis in (("layer", ax.yaxis), ("head", ax.xaxis)):
        numbers = grid_text.numbers(payload, side)  # type: ignore[arg-type]
        shown = _shown_ticks(len(numbers))
        axis.set_ticks([index + 0.5 for index in shown], [str(numbers[index]) for index in shown])
        axis.set_label_text(side, fontsize=_SIZE, color=ink)
    ax.tick_params(labelsize=_SIZE - 1, colors=ink, length=2, width=0.5)
    ax.spines[:].set(color=ink, alpha=0.4, linewidth=0.5)
    return mesh


def _mark(ax: Axes, cells: np.ndarray, **look: Any) -> None:
    layers, heads = np.nonzero(cells)
    if len(layers):
        ax.scatter(heads + 0.5, layers + 0.5, clip_on=False, **look)


def _shown_ticks(size: int) -> list[int]:
    return [int(tick) for tick in ticks(0, size - 1, 8) if tick.is_integer()] if size > 1 else [0]


def _add_bar(payload: Payload, panels: Sequence[Panel], mesh: Any, axes: list[Axes], ink: str) -> None:
    """A colour bar with units; its ends are pointed if values are off scale."""
    low, high = payload["scale"]["low"], payload["scale"]["high"]
    values = np.concatenate([grid_text.panel_matrix(panel).ravel() for panel in panels])
    beyond = ("both" if low < 0 else "max") if (np.abs(values[np.isfinite(values)]) > high).any() else "neither"
    bar = _figure_of(axes[0]).colorbar(mesh, ax=axes, extend=beyond, fraction=0.05, pad=0.02, aspect=30)
    bar.ax.set_ylim(low, high)
    shown = ticks(low, high, 4)
    bar.set_ticks(shown, labels=[grid_text.format_short(tick) for tick in shown])
    bar.ax.tick_params(labelsize=_SIZE - 1, colors=ink, length=2, width=0.5)
    bar.outline.set(linewidth=0)
    bar.set_label(grid_text.quantity(payload), fontsize=_SIZE, color=ink)
    _plain(bar.ax.yaxis.label)


def _colours(payload: Payload, page: str) -> ListedColormap:
    """The payload's colours; those with an opacity are mixed with the page's."""
    with optional_import("plot"):
        from matplotlib.colors import ListedColormap, to_rgb  # noqa: PLC0415

    def mixed(colour: str, opacity: float) -> np.ndarray:
        share: np.ndarray = np.multiply(opacity, to_rgb(colour)) + np.multiply(1 - opacity, to_rgb(page))
        return share

    paints = palette((payload["scale"]["low"], payload["scale"]["high"]))
    return ListedColormap([mixed(*paint) for paint in paints])


def _plain(text: Text) -> None:
    """Show a text from data as it is: `$` and backslashes are not mathematics."""
    text.set_parse_math(False)
    text.set_usetex(False)
