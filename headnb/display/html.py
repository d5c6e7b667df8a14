"""The self-contained forms of a head grid: an HTML card, a whole HTML page, and a standalone SVG file.

No script, nothing fetched, no class names or ids. The card takes the page's colours and has no background of its
own, so it is at home in light and dark notebooks.
"""

from __future__ import annotations

import base64
import textwrap
from html import escape
from typing import TYPE_CHECKING

from headnb.display import svg, text

if TYPE_CHECKING:
    from headnb.display.payload_types import Column, Panel, Payload

_FONT = "var(--jp-ui-font-family,system-ui,-apple-system,'Segoe UI',sans-serif)"
CARD_STYLE = f"font:13px/1.5 {_FONT};color:var(--jp-ui-font-color1,currentColor);max-width:960px"
IMAGE_INK = "#767676"  # as an image a picture cannot know its page: readable on white and on black
SVG_FONT = "system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif"
_LINE = 17
_LABEL_OPACITY = ".75"
_CELL = "padding:1px 12px 1px 0;text-align:left;background:none"


def card(payload: Payload) -> str:
    """The `text/html` form."""
    panels, note = text.shown_panels(payload)
    titles = payload["layers"] * payload["heads"] * len(panels) <= svg.MOST_TITLED_CELLS
    body, width, height = svg.picture(payload, panels, titles=titles)
    lines = [*_lines(payload, panels), note]
    if not titles:
        lines.append("Values under the mouse are left out of a picture this large.")
    words = "".join(f"<div>{escape(line)}</div>" for line in lines if line)
    table = _table(payload, panels) if len(panels) > 1 else ""
    return (
        f'<div style="{CARD_STYLE}"><div><b>{escape(text.heading(payload))}</b> '
        f'<span style="opacity:{_LABEL_OPACITY}">{escape(text.subtitle(payload))}</span></div>'
        f"{survives_sanitizers(_svg(payload, body, width, height), _image(payload, panels))}{table}{words}</div>"
    )


def preview(payload: Payload) -> str:
    """The picture alone, without hover texts: light enough to be sent twice a second."""
    panels, _ = text.shown_panels(payload)
    return _svg(payload, *svg.picture(payload, panels, titles=False))


def static(payload: Payload) -> str:
    """What stands where the interactive grid is drawn: heading, picture and words, without hover texts."""
    panels, note = text.shown_panels(payload)
    lines = [*_panel_lines(panels), *_lines(payload, panels), note]
    words = "".join(f"<div>{escape(line)}</div>" for line in lines if line)
    return (
        f"<div><b>{escape(text.heading(payload))}</b> {escape(text.subtitle(payload))}</div>{preview(payload)}{words}"
    )


def page(payload: Payload) -> str:
    """A whole HTML file around the card; it follows the reader's light or dark setting."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(text.heading(payload))}</title></head>"
        f'<body style="margin:24px">{card(payload)}</body></html>\n'
    )


def standalone(payload: Payload, *, ink: str = "#222") -> str:
    """The `image/svg+xml` form: heading, picture and words in one SVG file, without hover texts.

    `ink` is the colour of text and lines.
    """
    panels, note = text.shown_panels(payload)
    body, width, height = svg.picture(payload, panels, titles=False)
    width = max(width, 680)
    heads = wrapped([text.heading(payload), text.subtitle(payload)], width)
    words = wrapped([*_panel_lines(panels), *_lines(payload, panels), note], width)
    top = len(heads) * _LINE + 10
    total = top + height + len(words) * _LINE + 8
    title = escape(text.printable(text.heading(payload)))
    written = [(line, _LINE * (i + 1) - 3, 400 if i else 600) for i, line in enumerate(heads)]
    written += [(line, top + height + _LINE * (i + 1) - 3, 400) for i, line in enumerate(words)]
    labels = "".join(
        f'<text x="0" y="{y}" font-size="12.5" font-weight="{weight}" fill="{ink}">{escape(line)}</text>'
        for line, y, weight in written
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{total}" viewBox="0 0 {width} {total}" '
        f'color="{ink}" font-family="{SVG_FONT}" role="img"><title>{title}</title>'
        f'{labels}<g transform="translate(0 {top})">{body}</g></svg>'
    )


def _svg(payload: Payload, body: str, width: int, height: int) -> str:
    named = f"{text.heading(payload)}: {text.quantity(payload)}, {text.subtitle(payload)}"
    name = escape(text.printable(named), quote=True)
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    style = "max-width:100%;height:auto;display:block;margin:6px 0"
    return f'<svg {size} fill-opacity="{_LABEL_OPACITY}" style="{style}" role="img" aria-label="{name}">{body}</svg>'


def _image(payload: Payload, panels: list[Panel]) -> str:
    """The picture as an `<img>`: an SVG file of its own, in an ink that can be read on white and on black."""
    body, width, height = svg.picture(payload, panels, titles=False)
    file = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'color="{IMAGE_INK}" font-family="{SVG_FONT}">{body}</svg>'
    )
    return hidden_image(file, text.heading(payload))


def hidden_image(file: str, name: str) -> str:
    """An SVG file as an `<img>` that shows only where a sanitiser drops `hidden`."""
    source = base64.b64encode(file.encode()).decode()
    return f'<img hidden="" alt="{escape(name, quote=True)}" src="data:image/svg+xml;base64,{source}"/>'


def survives_sanitizers(picture: str, image: str) -> str:
    """A picture for pages that remove inline SVG, as JupyterLab does in an untrusted notebook.

    They keep the texts inside of it, hence the font size; and they drop `hidden`, so that the image shows there only.
    """
    return f'<div style="font-size:0;line-height:0">{picture}{image}</div>'


def _lines(payload: Payload, panels: list[Panel]) -> list[str]:
    """The words under the picture; several panels have theirs in the table."""
    lines = []
    if len(panels) == 1:
        panel = panels[0]
        lines += [text.top_line(payload, panel), panel["statistics_line"], text.significance_line(payload, panel)]
        lines += [*panel["notes"], panel["reliability_line"]]
    else:
        lines += [f"{panel['title']}: {note}" for panel in panels for note in panel["notes"]]
    return [*filter(None, lines), text.missing_line(payload), text.progress_line(payload)]


def _panel_lines(panels: list[Panel]) -> list[str]:
    """What the table says, as one line a panel, where there can be no table."""
    if len(panels) == 1:
        return []
    return [
        " · ".join(filter(None, (panel["title"], panel["statistics_line"], panel["reliability_line"])))
        for panel in panels
    ]


def _table(payload: Payload, panels: list[Panel]) -> str:
    """Statistics and reliability of several panels."""
    columns: list[Column] = [{"label": "", "help": ""}, *payload["columns"]]
    head = "".join(
        f'<th style="{_CELL};font-weight:600" title="{escape(column["help"])}">{escape(column["label"])}</th>'
        for column in columns
    )
    rows = [
        "".join(f'<td style="{_CELL}">{escape(cell)}</td>' for cell in (panel["title"], *panel["cells"]))
        for panel in panels
    ]
    return (
        f'<table style="border-collapse:collapse;margin:4px 0;font-size:12px">'
        f"<tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
    )


def wrapped(lines: list[str], width: int) -> list[str]:
    """Lines of text broken so that each is at most about `width` pixels wide; empty ones are left out."""
    letters = max(int(width / 7.2), 20)
    return [part for line in lines if line for part in textwrap.wrap(text.printable(line), letters)]
