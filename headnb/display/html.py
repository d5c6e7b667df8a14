"""Self-contained forms of a picture: an HTML card, a PNG image, an HTML page and a standalone SVG file.

They have no scripts, external resources, class names or ids. The card uses the page's text colour and has no
background, so it suits light and dark notebooks. Its picture is an indexed PNG with axes as text, since a notebook
stores it with every output; a file has an SVG picture with a hover text for every head.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

from headnb.display import grid_text, png, svg
from headnb.display.before_after import panel_payload, panels_by_kind
from headnb.display.geometry import grid_geometry
from headnb.display.role_marks import roles_line
from headnb.display.templating import render

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from headnb.display.payload_types import Column, Panel, Payload
    from headnb.display.svg import Picture

    _Table = tuple[list[Column], list[list[str]]]  # columns and rows

_MOST_NAMED = 40
IMAGE_INK = "#767676"  # an image cannot use the page's text colour; this grey is readable on white and on black


def card(payload: Payload, selected: Collection[tuple[int, int]] = ()) -> str:
    """The `text/html` form of a payload: `selected` heads (row, column) have an outline and are named."""
    panels, note = grid_text.shown_panels(payload)
    columns, rows = _table(payload, panels) if len(panels) > 1 else ([], [])
    place = grid_geometry(payload, len(panels), grouped=False)
    return render(
        "grid_card.html",
        heading=grid_text.heading(payload),
        subtitle=grid_text.subtitle(payload),
        legends=[_legend(own, members) for own, members in panels_by_kind(payload, panels)],
        place=place,
        layers=_axis(grid_text.numbers(payload, "layer"), place.layer_ticks(), place.cell_height),
        heads=_axis(grid_text.numbers(payload, "head"), place.head_ticks(), place.cell_width),
        panels=[_panel_image(payload, panel, selected, titled=len(panels) > 1) for panel in panels],
        columns=columns,
        rows=rows,
        lines=[*_lines(payload, panels), _selection_line(payload, selected), note],
    )


def _legend(payload: Payload, panels: list[Panel]) -> dict[str, object]:
    """The colour bar of panels on one scale, and the meaning of their marks."""
    return {
        "quantity": grid_text.quantity(payload),
        "low": grid_text.format_short(payload["scale"]["low"]),
        "high": grid_text.format_short(payload["scale"]["high"]),
        "bar": _base64(png.bar_png(payload)),
        "keys": grid_text.legend_keys(payload, panels),
    }


def _axis(numbers: Sequence[int], ticks: range, cell: int) -> dict[str, object]:
    """Numbers of evenly spaced rows or columns, and the shift that centres each on its cell, in pixels."""
    step = ticks.step * cell
    return {"numbers": [numbers[tick] for tick in ticks], "step": step, "shift": f"{(cell - step) / 2:g}"}


def _panel_image(
    payload: Payload, panel: Panel, selected: Collection[tuple[int, int]], *, titled: bool
) -> dict[str, object]:
    """The title, image and alternative text of a panel."""
    own = panel_payload(payload, panel)
    title = panel["title"] if titled else ""
    size = f"{payload['layers']} layers × {payload['heads']} heads"
    about = " · ".join(filter(None, (title, grid_text.quantity(own), size)))
    return {
        "title": title,
        "image": _base64(png.cells_png(own, panel, selected)),
        "words": f"{about}. {grid_text.top_line(own, panel)}",
        "framed": own["kind"] != "level",
    }


def picture_png(payload: Payload, selected: Collection[tuple[int, int]] = ()) -> str:
    """The `image/png` form, in base64: heading, picture, notes and reliability on white.

    The statistics are in the other forms: each line of text in an image takes a kilobyte.
    """
    panels, note = grid_text.shown_panels(payload)
    lines = [*_notes(payload, panels), grid_text.missing_line(payload), grid_text.progress_line(payload), note]
    return _base64(png.picture_png(payload, panels, lines, selected))


def _svg_card(payload: Payload) -> str:
    """A card with an SVG picture, with hover texts if the picture has not too many cells."""
    panels, note = grid_text.shown_panels(payload)
    plain = svg.picture(payload, panels, titles=False)
    drawn, lines = plain, [*_lines(payload, panels), note]
    if payload["layers"] * payload["heads"] * len(panels) <= svg.MAX_TITLED_CELLS:
        drawn = svg.picture(payload, panels, titles=True)
    else:
        lines.append(f"No hover texts: the picture has more than {svg.MAX_TITLED_CELLS} cells.")
    table = _table(payload, panels) if len(panels) > 1 else None
    return picture_card(
        _inline(payload, drawn),
        plain,
        grid_text.heading(payload),
        lines,
        subtitle=grid_text.subtitle(payload),
        table=table,
    )


def static_html(payload: Payload) -> str:
    """Static content in place of the interactive grid: heading, picture and text, without hover texts."""
    panels, note = grid_text.shown_panels(payload)
    heading, subtitle = grid_text.heading(payload), grid_text.subtitle(payload)
    lines = [*_panel_lines(panels), *_lines(payload, panels), note]
    picture = _inline(payload, svg.picture(payload, panels, titles=False))
    return render("still.html", heading=heading, subtitle=subtitle, picture=picture, lines=lines)


def page(payload: Payload) -> str:
    """A complete HTML file with the card; it follows the reader's light or dark setting."""
    return render("page.html", title=grid_text.heading(payload), card=_svg_card(payload))


def standalone(payload: Payload, colours: tuple[str, str] = ("", "#222")) -> str:
    """An SVG file: heading, picture and text, without hover texts.

    `colours` are those of the page, which is transparent if its colour is empty, and of text and lines.
    """
    page_colour, ink = colours
    panels, note = grid_text.shown_panels(payload)
    plain = svg.picture(payload, panels, titles=False)
    notes = [*_panel_lines(panels), *_lines(payload, panels), note]
    return svg_file(
        plain,
        ink,
        grid_text.heading(payload),
        grid_text.subtitle(payload),
        notes=notes,
        least_width=680,
        page=page_colour,
    )


def picture_card(
    inline: str, picture: Picture, heading: str, lines: Sequence[str], subtitle: str = "", table: _Table | None = None
) -> str:
    """A heading, a picture, a table and lines of text, in this order.

    `inline` is the picture as an `<svg>` element. `picture` is the same picture, shown as an image if a page removes
    inline SVG.
    """
    image = _base64(svg_file(picture, IMAGE_INK).encode())
    columns, rows = table or ([], [])
    words = {"heading": heading, "subtitle": subtitle, "lines": lines, "columns": columns, "rows": rows}
    return render("picture_card.html", picture=inline, image=image, **words)


def inline_svg(picture: Picture, name: str) -> str:
    """An `<svg>` element for an HTML page; `name` is its label for screen readers."""
    return render("picture.svg", picture=picture, name=name)


def svg_file(
    picture: Picture,
    ink: str,
    title: str = "",
    subtitle: str = "",
    notes: Sequence[str] = (),
    least_width: int = 0,
    page: str = "",
) -> str:
    """An SVG file of a picture with a title and subtitle above and notes below.

    `ink` colours text and lines; `page` colours the background, which is otherwise transparent.
    """
    width = max(picture.width, least_width)
    titles, subtitles, below = (grid_text.wrap_lines(lines, width) for lines in ([title], [subtitle], notes))
    words = {"titles": titles, "subtitles": subtitles, "notes": below}
    return render("file.svg", picture=picture, ink=ink, page=page, width=width, **words)


def _inline(payload: Payload, picture: Picture) -> str:
    return inline_svg(
        picture, f"{grid_text.heading(payload)}: {grid_text.quantity(payload)}, {grid_text.subtitle(payload)}"
    )


def _lines(payload: Payload, panels: list[Panel]) -> list[str]:
    """Lines of text below the picture; the statistics of several panels are in the table instead."""
    lines = []
    if len(panels) == 1:
        panel = panels[0]
        lines += [
            grid_text.top_line(payload, panel),
            panel["statistics_line"],
            grid_text.significance_line(payload, panel),
        ]
    lines += _notes(payload, panels)
    common = (
        grid_text.loss_line(payload),
        roles_line(payload),
        grid_text.missing_line(payload),
        grid_text.progress_line(payload),
    )
    return [*filter(None, lines), *common]


def _panel_lines(panels: list[Panel]) -> list[str]:
    """The content of the table as one line per panel, for forms without a table."""
    if len(panels) == 1:
        return []
    return [
        " · ".join(filter(None, (panel["title"], panel["statistics_line"], panel["reliability_line"])))
        for panel in panels
    ]


def _notes(payload: Payload, panels: list[Panel]) -> list[str]:
    """Notes of the panels, and the reliability of a single panel; that of several is in the table."""
    if len(panels) == 1:
        return [*panels[0]["notes"], panels[0]["reliability_line"]]
    return [f"{panel['title']}: {line}" for panel in panels for line in _panel_notes(payload, panel)]


def _panel_notes(payload: Payload, panel: Panel) -> list[str]:
    """The significance of one of several panels, and its largest heads if it shows another quantity than the others."""
    own = grid_text.top_line(panel_payload(payload, panel), panel) if "own" in panel else ""
    return [*filter(None, [own, grid_text.significance_line(payload, panel)]), *panel["notes"]]


def _selection_line(payload: Payload, selected: Collection[tuple[int, int]]) -> str:
    names = [grid_text.head_name(payload, cell) for cell in sorted(selected)]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"Selected: {', '.join(names[:_MOST_NAMED])}{more}" if names else ""


def _table(payload: Payload, panels: list[Panel]) -> _Table:
    """Table of the statistics and reliability of several panels."""
    columns: list[Column] = [{"label": "", "help": ""}, *payload["columns"]]
    return columns, [[panel["title"], *panel["cells"]] for panel in panels]


def _base64(content: bytes) -> str:
    return b64encode(content).decode()
