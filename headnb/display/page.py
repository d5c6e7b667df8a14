"""The interactive HTML page: one file that needs no server, no kernel and no network.

It holds the payload as JSON and the front end's script. Its content security policy names that one script by its
hash and allows nothing to be fetched, so that nothing in the data can run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headnb.display import grid_text
from headnb.display.frontend import bundle
from headnb.display.templating import render

if TYPE_CHECKING:
    from headnb.display.payload_types import Payload


def interactive_page(payload: Payload) -> str:
    """An HTML file that shows the payload as JupyterLab does; it follows the reader's light or dark setting.

    Without scripts it shows the grid's words. Raises HeadnbError where the front end is not built.
    """
    return render(
        "interactive.html",
        title=grid_text.heading(payload),
        words=grid_text.as_text(payload),
        payload=payload,
        script=page_script(),
    )


def page_script() -> str:
    """The script that draws every grid and chart of a page: each stands as JSON after the element that it fills."""
    return bundle("page.js").read_text(encoding="utf-8").strip()
