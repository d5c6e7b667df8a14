"""Interactive head grids in pages that Sphinx builds with MyST-NB.

MyST-NB finds `GridRenderer` by the entry point `myst_nb.mime_renderers`, so a site needs no configuration. Each grid of
a page is a static picture, and data from which one script per page draws the interactive grid. Other formats, such as
LaTeX, use the other forms that a notebook stores.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from headnb.display import html
from headnb.display.page import grid_figure, page_script
from headnb.display.payload import MIME_TYPE
from headnb.display.payload_parser import parse_payload
from headnb.display.templating import render
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from docutils.nodes import Element
    from myst_nb.core.render import MimeData, NbElementRenderer

_BEFORE_HTML = 5  # MyST-NB's priorities are 10, 20, ...; the lowest number is chosen


class GridRenderer:
    """Plugin of MyST-NB for outputs of headnb's MIME type."""

    mime_priority_overrides: ClassVar[list[tuple[str, str, int]]] = [
        (builder, MIME_TYPE, _BEFORE_HTML) for builder in ("html", "dirhtml", "singlehtml")
    ]

    @staticmethod
    def handle_mime(renderer: NbElementRenderer, data: MimeData, inline: bool) -> list[Element] | None:  # noqa: ARG004
        """The nodes of a grid; none and a warning if it cannot be drawn; None for an output of another type."""
        if data.mime_type != MIME_TYPE:
            return None
        try:
            payload = parse_payload(data.content)
            script = page_script()
        except HeadnbError as error:
            message = f"head grid not drawn: {error}"
            renderer.logger.warning(message, subtype="headnb", line=data.line)
            return []
        figure = render("sphinx_grid.html", figure=grid_figure(payload, html.card(payload)))
        renderer.add_js_file("headnb", None, {"type": "module", "body": script})  # a module runs when the page is read
        nodes: list[Element] = renderer.render_text_html(replace(data, content=figure))
        for node in nodes:
            node["classes"] = ["output"]  # some themes give other HTML outputs a light background
        return nodes
