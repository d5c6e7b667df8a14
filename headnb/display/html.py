"""Self-contained forms of a picture: an HTML card, an HTML page and a standalone SVG file.

They have no scripts, external resources, class names or ids. The card uses the page's text colour and has no
background, so it suits light and dark notebooks.
"""

from __future__ import annotations

import base64
import textwrap
from typing import TYPE_CHECKING

from headnb.display import grid_text, svg
from headnb.display.before_after import panel_payload
from headnb.display.templating import render
from headnb.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headnb.display.payload_types import Column, Panel, Payload
    from headnb.display.svg import Picture

    _Table = tuple[list[Column], list[list[str]]]  # columns and rows

IMAGE_INK = "#767676"  # an image cannot use the page's text colour; this grey is readable on white and on black


def card(payload: Payload) -> str:
    """The `text/html` form of a payload."""
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


def preview(payload: Payload) -> str:
    """The picture alone, without hover texts, so that it is small enough for two updates per second."""
    panels, _ = grid_text.shown_panels(payload)
    return _inline(payload, svg.picture(payload, panels, titles=False))


def static_html(payload: Payload) -> str:
    """Static content in place of the interactive grid: heading, picture and text, without hover texts."""
    panels, note = grid_text.shown_panels(payload)
    heading, subtitle = grid_text.heading(payload), grid_text.subtitle(payload)
    lines = [*_panel_lines(panels), *_lines(payload, panels), note]
    return render("still.html", heading=heading, subtitle=subtitle, picture=preview(payload), lines=lines)


def page(payload: Payload) -> str:
    """A complete HTML file with the card; it follows the reader's light or dark setting."""
    return render("page.html", title=grid_text.heading(payload), card=card(payload))


def standalone(payload: Payload, *, ink: str = "#222") -> str:
    """The `image/svg+xml` form: heading, picture and text in one SVG file, without hover texts.

    `ink` is the colour of text and lines.
    """
    panels, note = grid_text.shown_panels(payload)
    plain = svg.picture(payload, panels, titles=False)
    notes = [*_panel_lines(panels), *_lines(payload, panels), note]
    return svg_file(plain, ink, grid_text.heading(payload), grid_text.subtitle(payload), notes=notes, least_width=680)


def picture_card(
    inline: str, picture: Picture, heading: str, lines: Sequence[str], subtitle: str = "", table: _Table | None = None
) -> str:
    """A heading, a picture, a table and lines of text, in this order.

    `inline` is the picture as an `<svg>` element. `picture` is the same picture, shown as an image if a page removes
    inline SVG.
    """
    image = base64.b64encode(svg_file(picture, IMAGE_INK).encode()).decode()
    columns, rows = table or ([], [])
    words = {"heading": heading, "subtitle": subtitle, "lines": lines, "columns": columns, "rows": rows}
    return render("picture_card.html", picture=inline, image=image, **words)


def inline_svg(picture: Picture, name: str) -> str:
    """An `<svg>` element for an HTML page; `name` is its label for screen readers."""
    return render("picture.svg", picture=picture, name=name)


def svg_file(
    picture: Picture, ink: str, title: str = "", subtitle: str = "", notes: Sequence[str] = (), least_width: int = 0
) -> str:
    """An SVG file of a picture with a title and subtitle above and notes below; `ink` colours text and lines."""
    width = max(picture.width, least_width)
    titles, subtitles, below = (wrap_lines(lines, width) for lines in ([title], [subtitle], notes))
    words = {"titles": titles, "subtitles": subtitles, "notes": below}
    return render("file.svg", picture=picture, ink=ink, width=width, **words)


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
        lines += [*panel["notes"], panel["reliability_line"]]
    else:
        lines += [f"{panel['title']}: {line}" for panel in panels for line in _panel_notes(payload, panel)]
    return [
        *filter(None, lines),
        grid_text.loss_line(payload),
        grid_text.missing_line(payload),
        grid_text.progress_line(payload),
    ]


def _panel_notes(payload: Payload, panel: Panel) -> list[str]:
    own = grid_text.top_line(panel_payload(payload, panel), panel) if "own" in panel else ""
    return [*filter(None, [own, grid_text.significance_line(payload, panel)]), *panel["notes"]]


def _panel_lines(panels: list[Panel]) -> list[str]:
    """The content of the table as one line per panel, for forms without a table."""
    if len(panels) == 1:
        return []
    return [
        " · ".join(filter(None, (panel["title"], panel["statistics_line"], panel["reliability_line"])))
        for panel in panels
    ]


def _table(payload: Payload, panels: list[Panel]) -> _Table:
    """Table of the statistics and reliability of several panels."""
    columns: list[Column] = [{"label": "", "help": ""}, *payload["columns"]]
    return columns, [[panel["title"], *panel["cells"]] for panel in panels]


def wrap_lines(lines: Sequence[str], width: int) -> list[str]:
    """Wrap lines of text to about `width` pixels; empty lines are dropped."""
    letters = max(int(width / 7.2), 20)
    return [part for line in lines if line for part in textwrap.wrap(printable(line), letters)]
