"""Head grids as SVG: colour bar, and per panel its cells, axes, key/value groups and layer profile.

Cells are strokes rather than rectangles (`M<x> 0h<width>` relative to a row), which keeps 126 x 128 heads with hover
titles near one megabyte. Text and lines use the page's text colour (`currentColor`). There are no ids, styles or
scripts, so that several pictures on one page do not interfere and sanitisers remove nothing. Labels inherit
`fill-opacity` from the embedding element.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from headnb.display import geometry, grid_text
from headnb.display.before_after import panel_payload, panels_by_kind, scale_key
from headnb.display.colours import BINS, paint, ticks
from headnb.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from headnb.display.colours import Paint
    from headnb.display.geometry import Geometry
    from headnb.display.payload_types import Panel, Payload

MAX_TITLED_CELLS = 20_000  # with more cells a picture with titles would be too large for a notebook
_FULL_TITLES = 4_096
_BAR_WIDTH, _BAR_TOP, _BAR_HEIGHT = 192, 18, 10
_LETTER = 6.2  # mean width of a letter in 11 px text


class Picture(NamedTuple):
    """SVG elements and the size of the picture in pixels."""

    body: str
    width: int
    height: int


def picture(payload: Payload, panels: Sequence[Panel], *, titles: bool) -> Picture:
    """Draw `panels`, which are all or some of the payload's panels.

    `titles` adds a hover text to every cell. Without titles all cells of one colour are one path, which takes a tenth
    of the size.
    """
    kinds = panels_by_kind(payload, panels)
    place = geometry.grid_geometry(payload, len(panels), len(kinds))
    parts: list[str] = []
    for index, (own, members) in enumerate(kinds):
        x, y = place.legend_origin(index)
        legend = _legend(own, members)
        parts += [f'<g transform="translate({x} {y})">', *legend, "</g>"]
    means = [_layer_means(panel) for panel in panels]
    longest = {scale_key(own): _longest(map(_layer_means, members)) for own, members in kinds}
    for index, (panel, mean) in enumerate(zip(panels, means, strict=True)):
        own = panel_payload(payload, panel)
        x, y = place.origin(index)
        parts.append(f'<g transform="translate({x} {y})">')
        parts += _axes(own, panel, place, first=index % place.columns == 0)
        parts += _titled_cells(own, panel, place) if titles else _merged_cells(own, panel, place)
        parts += _missing(own, panel, place)
        parts += _marks(panel, place)
        parts += _profile(own, mean, longest[scale_key(own)], place)
        parts.append("</g>")
    return Picture("".join(parts), place.width, place.height)


def _titled_cells(payload: Payload, panel: Panel, place: Geometry) -> Iterator[str]:
    values, gap = grid_text.panel_matrix(panel), place.gap
    scale = (payload["scale"]["low"], payload["scale"]["high"])
    titles = _hover_texts(payload, panel)
    yield f'<g stroke-width="{place.cell_height - gap}">'
    middle = (place.cell_height - gap) / 2
    for layer in np.flatnonzero(np.isfinite(values).any(axis=1)).tolist():
        yield f'<g transform="translate(0 {place.y(layer) + middle:g})">'
        for head in np.flatnonzero(np.isfinite(values[layer])).tolist():
            stroke = _stroke(paint(values[layer, head], scale))
            path = f'd="M{place.x(head)} 0h{place.cell_width - gap}"'
            yield f"<path {path} {stroke}><title>{titles[layer, head]}</title></path>"
        yield "</g>"
    yield "</g>"


def _merged_cells(payload: Payload, panel: Panel, place: Geometry) -> Iterator[str]:
    values, gap = grid_text.panel_matrix(panel), place.gap
    scale = (payload["scale"]["low"], payload["scale"]["high"])
    paths: dict[Paint, list[str]] = {}
    for layer, head in np.argwhere(np.isfinite(values)).tolist():
        step = f"M{place.x(head)} {place.y(layer)}h{place.cell_width - gap}"
        paths.setdefault(paint(values[layer, head], scale), []).append(step)
    middle = (place.cell_height - gap) / 2
    yield f'<g stroke-width="{place.cell_height - gap}" transform="translate(0 {middle:g})">'
    for colour, steps in paths.items():
        yield f'<path d="{"".join(steps)}" {_stroke(colour)}/>'
    yield "</g>"


def _hover_texts(payload: Payload, panel: Panel) -> dict[tuple[int, int], str]:
    """Hover text of each cell: head, value with units and rank; in smaller grids also interval and key/value head."""
    values, ranked = grid_text.panel_matrix(panel), grid_text.ranking(panel)
    full = len(ranked) <= _FULL_TITLES
    units = escaped(f" {payload['units']}") if payload["units"] else ""
    bounds = [grid_text.panel_matrix(panel, name) for name in ("low", "high") if name in panel]
    marked = grid_text.panel_matrix(panel, "significant") if "significant" in panel else np.zeros_like(values)
    group = payload["heads"] // payload["kv_heads"]
    texts = {}
    for rank, (layer, head) in enumerate(ranked, start=1):
        line = f"{grid_text.head_name(payload, (layer, head))} {grid_text.format_number(values[layer, head], 4)}{units}"
        if full:
            if len(bounds) == 2 and np.isfinite([bounds[0][layer, head], bounds[1][layer, head]]).all():
                low, high = (grid_text.format_number(bound[layer, head]) for bound in bounds)
                line += f"\n{100 * payload['interval_level']:g} % interval {low} to {high}"
            line += f"\nrank {rank} of {len(ranked)}"
            line += f"\nkey/value head {head // group}" if group > 1 else ""
            line += "\nsignificant" if marked[layer, head] else ""
        else:
            line += f", rank {rank}"
        texts[layer, head] = line
    return texts


def _missing(payload: Payload, panel: Panel, place: Geometry) -> Iterator[str]:
    """A slash in each cell without a value, so that complete layers look hatched."""
    absent = np.isnan(grid_text.panel_matrix(panel))
    if not absent.any():
        return
    width, height = place.cell_width - place.gap, place.cell_height - place.gap
    steps = "".join(
        f"M{place.x(head)} {place.y(layer) + height}l{width} {-height}" for layer, head in np.argwhere(absent).tolist()
    )
    yield f'<path d="{steps}" stroke="currentColor" stroke-opacity=".4" stroke-width=".8"/>'
    for layer in np.flatnonzero(absent.all(axis=1)).tolist():
        line = f'd="M0 {place.y(layer) + height / 2:g}h{place.grid_width}" stroke-width="{height}"'
        title = f"<title>layer {grid_text.numbers(payload, 'layer')[layer]}: no softmax heads</title>"
        yield f'<path {line} stroke="currentColor" stroke-opacity="0">{title}</path>'


def _marks(panel: Panel, place: Geometry) -> Iterator[str]:
    """A dot on every significant head: black in a white ring, visible on every colour and page."""
    if "significant" not in panel:
        return
    width, height = place.cell_width - place.gap, place.cell_height - place.gap
    steps = "".join(
        f"M{place.x(head) + width / 2:g} {place.y(layer) + height / 2:g}h0"
        for layer, head in np.argwhere(grid_text.panel_matrix(panel, "significant") == 1).tolist()
    )
    if steps:
        size = max(1.8, min(5.0, min(width, height) / 3))
        for colour, across in (("#fff", size + 1.6), ("#000", size)):
            dots = f'stroke="{colour}" stroke-width="{across:.1f}" stroke-linecap="round" pointer-events="none"'
            yield f'<path d="{steps}" {dots}/>'


def _axes(payload: Payload, panel: Panel, place: Geometry, *, first: bool) -> Iterator[str]:
    width, height, gap = place.grid_width, place.grid_height, place.gap
    if place.titled:
        yield label(
            _truncate(panel["title"], place.panel_width - 40), 0, -28 if place.group_gap else -20, size=12, weight=True
        )
    if payload["kind"] != "level":  # cells near zero fade into the page, so a frame shows the grid's outline
        frame = f'x="-1.5" y="-1.5" width="{width - gap + 3}" height="{height - gap + 3}"'
        yield f'<rect {frame} fill="none" stroke="currentColor" stroke-opacity=".3"/>'
    if place.group_gap:
        for group in range(payload["kv_heads"]):
            start, last = group * place.group, (group + 1) * place.group - 1
            line = f'd="M{place.x(start)} -6h{place.x(last) + place.cell_width - gap - place.x(start)}"'
            title = f"<title>key/value head {group}: heads {start} to {last}</title>"
            yield f'<path {line} stroke="currentColor" stroke-opacity=".5" stroke-width="2">{title}</path>'
        if first:
            yield label("key/value heads", 0, -11, size=9)
    layers, heads = grid_text.numbers(payload, "layer"), grid_text.numbers(payload, "head")
    for layer in place.layer_ticks():
        yield label(str(layers[layer]), -5, place.y(layer) + place.cell_height / 2 + 3.5, anchor="end")
    for head in place.head_ticks():
        yield label(str(heads[head]), place.x(head) + (place.cell_width - gap) / 2, height + 13, anchor="middle")
    yield label("head", width / 2, height + 28, anchor="middle", size=11)
    if first:
        name = label("layer", 0, 0, anchor="middle", size=11)
        yield f'<g transform="translate(-27 {height / 2:g}) rotate(-90)">{name}</g>'


def _profile(payload: Payload, means: np.ndarray, longest: float, place: Geometry) -> Iterator[str]:
    """One bar per layer for the mean of its heads; all panels have the same scale."""
    left, gap = place.grid_width + geometry.PROFILE_GAP, place.gap
    signed = payload["kind"] != "level"
    zero = left + geometry.PROFILE_WIDTH / 2 if signed else left
    reach = geometry.PROFILE_WIDTH / (2 if signed else 1)
    yield label("layer mean", left + geometry.PROFILE_WIDTH / 2, -6, anchor="middle", size=9)
    axis = f"M{zero:g} 0v{place.grid_height - gap}"
    yield f'<path d="{axis}" stroke="currentColor" stroke-opacity=".35" stroke-width="1"/>'
    thickness = max(place.cell_height - gap - (2 if place.cell_height >= 9 else 0), 1)
    yield f'<g stroke="currentColor" stroke-opacity=".5" stroke-width="{thickness}">'
    units = escaped(f" {payload['units']}") if payload["units"] else ""
    for layer in np.flatnonzero(np.isfinite(means)).tolist():
        middle = place.y(layer) + (place.cell_height - gap) / 2
        line = f'd="M{zero:g} {middle:g}h{reach * means[layer] / longest:.1f}"'
        number = grid_text.numbers(payload, "layer")[layer]
        yield f"<path {line}><title>layer {number}: mean {grid_text.format_number(means[layer])}{units}</title></path>"
    yield "</g>"


def _legend(payload: Payload, panels: Sequence[Panel]) -> Iterator[str]:
    """Colour bar with units, and the meaning of the other marks in the picture."""
    low, high = payload["scale"]["low"], payload["scale"]["high"]
    yield label(grid_text.quantity(payload), 0, 11, size=11)
    step, middle = _BAR_WIDTH / BINS, _BAR_TOP + _BAR_HEIGHT / 2
    yield f'<g stroke-width="{_BAR_HEIGHT}">'
    for index in range(BINS):
        value = low + (index + 0.5) / BINS * (high - low)
        yield f'<path d="M{index * step:g} {middle:g}h{step:g}" {_stroke(paint(value, (low, high)))}/>'
    yield "</g>"
    for tick in ticks(low, high, 4):
        x = (tick - low) / (high - low) * _BAR_WIDTH
        yield f'<path d="M{x:.1f} {_BAR_TOP + _BAR_HEIGHT}v4" stroke="currentColor" stroke-opacity=".6"/>'
        yield label(grid_text.format_short(tick), x, _BAR_TOP + _BAR_HEIGHT + 14, anchor="middle")
    keys = grid_text.legend_keys(payload, panels)
    if keys and keys[0].startswith("▸"):
        tip = f"M{_BAR_WIDTH + 1} {_BAR_TOP}l8 {_BAR_HEIGHT / 2:g}l-8 {_BAR_HEIGHT / 2:g}z"
        yield f'<path d="{tip}" {_fill(paint(high, (low, high)))}/>'
        if low < 0:
            tip = f"M-1 {_BAR_TOP}l-8 {_BAR_HEIGHT / 2:g}l8 {_BAR_HEIGHT / 2:g}z"
            yield f'<path d="{tip}" {_fill(paint(low, (low, high)))}/>'
    for line, key in enumerate(keys):
        yield label(key, _BAR_WIDTH + 18, _BAR_TOP + _BAR_HEIGHT - 1 + 14 * (line - (len(keys) > 1)))


def _longest(means: Iterable[np.ndarray]) -> float:
    """The largest absolute mean, which is the full length of the bars."""
    return max((float(np.abs(mean[np.isfinite(mean)]).max(initial=0)) for mean in means), default=0) or 1.0


def _layer_means(panel: Panel) -> np.ndarray:
    values = grid_text.panel_matrix(panel)
    present = np.isfinite(values)
    counts = present.sum(axis=1)
    sums = np.where(present, values, 0).sum(axis=1)
    means: np.ndarray = np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)
    return means


def _stroke(colour: Paint) -> str:
    return f'stroke="{colour.colour}"' + (f' opacity="{colour.opacity:g}"' if colour.opacity < 1 else "")


def _fill(colour: Paint) -> str:
    return f'fill="{colour.colour}" fill-opacity="{colour.opacity:g}"'


def label(
    words: str,
    x: float,
    y: float,
    *,
    anchor: str = "start",
    size: int = 10,
    weight: bool = False,
    ink: str = "currentColor",
) -> str:
    """A text element at (x, y), by default in the page's text colour."""
    style = f'font-size="{size}" text-anchor="{anchor}" fill="{ink}"' + (' font-weight="600"' if weight else "")
    return f'<text x="{x:g}" y="{y:g}" {style}>{escaped(words)}</text>'


def escaped(words: str) -> str:
    """Text as the content of an SVG element: escaped, and without control characters, which XML does not allow."""
    return escape(printable(words))


def _truncate(words: str, width: float) -> str:
    letters = max(int(width / _LETTER), 4)
    return words if len(words) <= letters else words[: letters - 1] + "…"
