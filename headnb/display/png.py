"""Head grids as indexed PNG images.

`cells_png` has one pixel a cell, or five where cells have marks, and is transparent where a cell has no colour: HTML
enlarges it. `picture_png` is a labelled picture on white, for LaTeX and for front ends that show no HTML.
"""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.display import grid_text
from headnb.display.before_after import panel_payload, panels_by_kind
from headnb.display.colours import bins, palette, ticks
from headnb.display.encodings import nearest_ascii
from headnb.display.geometry import Geometry, grid_geometry

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from PIL.ImageDraw import ImageDraw

    from headnb.display.payload_types import Panel, Payload

MARKED_CELL = 5  # pixels a cell that leave room for a dot in a ring
_BAR_WIDTH, _BAR_TOP, _BAR_HEIGHT = 192, 18, 10
_PAGE, _BLACK, _WHITE, _GREY = range(4)
_MARKS = [(255, 255, 255), (0, 0, 0), (255, 255, 255), (128, 128, 128)]
_INK, _SHADES = 34, 4  # darkest grey of text, and the number of greys of its smooth edges
_LINE = 17
_LEAST_WIDTH = 680


def cells_png(payload: Payload, panel: Panel, selected: Collection[tuple[int, int]] = ()) -> bytes:
    """The cells of a panel without gaps, on a transparent page."""
    plain = "significant" not in panel and not selected and np.isfinite(grid_text.panel_matrix(panel)).all()
    size = 1 if plain else MARKED_CELL
    layers, heads = payload["layers"], payload["heads"]
    place = Geometry(layers, heads, heads, size, size, group_gap=0, panels=1, titled=False)
    return _encoded(_cells(payload, panel, place, selected), [_scale(payload)], transparent=True)


def bar_png(payload: Payload) -> bytes:
    """The colour bar, one pixel for each of its colours, on a transparent page."""
    colours = len(palette(_scale(payload)))
    return _encoded(np.arange(colours, dtype=np.uint8)[None] + len(_MARKS), [_scale(payload)], transparent=True)


def picture_png(
    payload: Payload, panels: Sequence[Panel], lines: Sequence[str], selected: Collection[tuple[int, int]] = ()
) -> bytes:
    """A picture of panels with its heading, colour bars and axes, and with lines of text below."""
    from PIL import Image, ImageDraw  # noqa: PLC0415  keeps the import of headnb fast

    kinds = panels_by_kind(payload, panels)
    place = grid_geometry(payload, len(panels), len(kinds))
    width = max(place.width, _LEAST_WIDTH)
    above, below = (
        grid_text.wrap_lines(given, width)
        for given in ([grid_text.heading(payload), grid_text.subtitle(payload)], lines)
    )
    top = _LINE * len(above) + 8
    pixels = np.full((top + place.height + _LINE * len(below) + 8, width), _PAGE, np.uint8)
    mask = Image.new("L", (width, len(pixels)))
    texts = ImageDraw.Draw(mask)
    for number, line in enumerate(above):
        _write(texts, 0, _LINE * number + 12, line, size=12)
    for number, line in enumerate(below):
        _write(texts, 0, top + place.height + _LINE * number + 12, line)
    first_colour: dict[bool, int] = {}  # of the diverging scales, and of the others
    scales: list[tuple[float, float]] = []
    for index, (own, members) in enumerate(kinds):
        if _is_diverging(own) not in first_colour:
            first_colour[_is_diverging(own)] = len(_MARKS) + sum(len(palette(scale)) for scale in scales)
            scales.append(_scale(own))
        x, y = place.legend_origin(index)
        _draw_bar(own, members, pixels, texts, (x, y + top), first_colour[_is_diverging(own)])
    for index, panel in enumerate(panels):
        x, y = place.origin(index)
        y += top
        own = panel_payload(payload, panel)
        cells = _cells(own, panel, place, selected, first_colour[_is_diverging(own)])
        pixels[y : y + place.grid_height, x : x + place.grid_width] = cells
        _label_axes(payload, panel, place, texts, (x, y))
    first_shade = len(_MARKS) + sum(len(palette(scale)) for scale in scales)
    shades = np.asarray(mask).astype(int) * _SHADES // 256
    return _encoded(np.where((shades > 0) & (pixels == _PAGE), first_shade + shades, pixels), scales)


def _cells(
    payload: Payload,
    panel: Panel,
    place: Geometry,
    selected: Collection[tuple[int, int]],
    first_colour: int = len(_MARKS),
) -> np.ndarray:
    """The colours of a panel's cells and their marks, as indices of a palette (grid_height, grid_width)."""
    values = grid_text.panel_matrix(panel)
    width, height = place.cell_width - place.gap, place.cell_height - place.gap
    rows, from_row = _pixels([place.y(layer) for layer in range(place.layers)], height, place.grid_height)
    columns, from_column = _pixels([place.x(head) for head in range(place.heads)], width, place.grid_width)

    def spread(cells: np.ndarray) -> np.ndarray:
        """The cells' values at their pixels, and 0 in gaps."""
        at_pixels: np.ndarray = np.pad(cells, (0, 1))[np.ix_(rows, columns)]
        return at_pixels

    missing = np.isnan(values)
    pixels = spread(np.where(missing, _PAGE, bins(values, _scale(payload)) + first_colour)).astype(np.uint8)
    down, right = from_row[:, None], from_column[None]
    diagonal = np.abs(down * width + right * height) < (width + height) / 3
    pixels[spread(missing) & diagonal] = _GREY
    if "significant" in panel:
        marked = spread(grid_text.panel_matrix(panel, "significant") == 1)
        radius = max(0.6, min(2.5, min(width, height) / 6))
        for colour, reach in ((_WHITE, radius + 0.6), (_BLACK, radius)):
            pixels[marked & (down**2 + right**2 <= reach**2)] = colour
    if selected:
        chosen = np.zeros(values.shape, bool)
        chosen[*np.array(list(selected)).T] = True
        from_edge = np.minimum(height / 2 - np.abs(down), width / 2 - np.abs(right))
        for colour, reach in ((_WHITE, 2), (_BLACK, 1)):
            pixels[spread(chosen) & (from_edge < reach)] = colour
    return pixels


def _pixels(starts: Sequence[int], size: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel along a side: the index of its cell, or -1 in a gap, and its distance from the cell's centre."""
    cells, distances = np.full(length, -1), np.zeros(length)
    for index, start in enumerate(starts):
        cells[start : start + size] = index
        distances[start : start + size] = np.arange(size) - (size - 1) / 2
    return cells, distances


def _draw_bar(
    payload: Payload,
    panels: Sequence[Panel],
    pixels: np.ndarray,
    texts: ImageDraw,
    origin: tuple[int, int],
    first_colour: int,
) -> None:
    """Draw a colour bar with its ticks, and the meaning of the marks beside it."""
    left, top = origin
    low, high = _scale(payload)
    across = np.arange(_BAR_WIDTH) * len(palette((low, high))) // _BAR_WIDTH
    bottom = top + _BAR_TOP + _BAR_HEIGHT
    pixels[top + _BAR_TOP : bottom, left : left + _BAR_WIDTH] = across + first_colour
    _write(texts, left, top + 11, grid_text.quantity(payload))
    for tick in ticks(low, high, 4):
        x = left + (tick - low) / (high - low) * _BAR_WIDTH
        _write(texts, x, bottom + 14, grid_text.format_short(tick), anchor="ms")
    keys = grid_text.legend_keys(payload, panels)
    for line, key in enumerate(keys):
        _write(texts, left + _BAR_WIDTH + 18, bottom - 1 + 14 * (line - (len(keys) > 1)), key)


def _label_axes(payload: Payload, panel: Panel, place: Geometry, texts: ImageDraw, origin: tuple[int, int]) -> None:
    left, top = origin
    if place.titled:
        _write(texts, left, top - 20, panel["title"], size=12)
    layers, heads = grid_text.numbers(payload, "layer"), grid_text.numbers(payload, "head")
    _write(texts, left - 5, top - 5, "layer", anchor="rs")
    for layer in place.layer_ticks():
        _write(texts, left - 5, top + place.y(layer) + place.cell_height / 2 + 3.5, str(layers[layer]), anchor="rs")
    for head in place.head_ticks():
        middle = left + place.x(head) + (place.cell_width - place.gap) / 2
        _write(texts, middle, top + place.grid_height + 13, str(heads[head]), anchor="ms")
    _write(texts, left + place.grid_width / 2, top + place.grid_height + 28, "head", anchor="ms")


def _write(texts: ImageDraw, x: float, y: float, words: str, *, size: int = 11, anchor: str = "ls") -> None:
    """Write a text on its base line, in ASCII: Pillow's own font has few other characters."""
    texts.text((x, y), nearest_ascii(words.replace(" · ", ", ")), fill=255, font=_font(size), anchor=anchor)


@cache
def _font(size: int) -> Any:
    from PIL import ImageFont  # noqa: PLC0415

    return ImageFont.load_default(size)


def _scale(payload: Payload) -> tuple[float, float]:
    return payload["scale"]["low"], payload["scale"]["high"]


def _is_diverging(payload: Payload) -> bool:
    """Whether the colour scale is diverging; all scales that are, and all that are not, have the same colours."""
    return payload["scale"]["low"] < 0


def _encoded(pixels: np.ndarray, scales: Sequence[tuple[float, float]], *, transparent: bool = False) -> bytes:
    """An indexed PNG with the scales' colours; on an opaque page, colours with an opacity are mixed with white."""
    from PIL import Image  # noqa: PLC0415

    paints = [paint for scale in scales for paint in palette(scale)]
    opacities = np.array([paint.opacity for paint in paints])
    colours = np.array([[int(paint.colour[i : i + 2], 16) for i in (1, 3, 5)] for paint in paints])
    if not transparent:
        colours = np.rint(255 + (colours - 255) * opacities[:, None]).astype(int)
    greys = np.linspace(255, _INK, _SHADES).astype(int).repeat(3).reshape(-1, 3)
    image = Image.fromarray(pixels.astype(np.uint8))
    image.putpalette(np.concatenate([_MARKS, colours, greys]).astype(np.uint8).tobytes())
    alphas = [0, 255, 255, 255, *np.rint(255 * opacities).astype(int).tolist()]
    file = io.BytesIO()
    image.save(file, "png", optimize=True, **({"transparency": bytes(alphas)} if transparent else {}))
    return file.getvalue()
