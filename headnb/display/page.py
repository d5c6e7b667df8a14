"""Interactive HTML page in one file, without a server, a kernel or a network.

The file contains the payload as JSON and the front end's script. Its content security policy allows only this script,
by its hash, and no requests, so that nothing in the data can run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headnb.display import grid_text
from headnb.display.frontend import bundle
from headnb.display.templating import render

if TYPE_CHECKING:
    from headnb.display.payload_types import Payload


def interactive_page(payload: Payload) -> str:
    """An HTML file that shows the payload like JupyterLab; it follows the reader's light or dark setting.

    In a browser without scripts it shows the grid as text. Raises HeadnbError if the front end is not built.
    """
    return render(
        "interactive.html",
        title=grid_text.heading(payload),
        words=grid_text.as_text(payload),
        payload=payload,
        script=page_script(),
    )


def grid_figure(payload: Payload, still: str) -> str:
    """A grid for a page with `page_script`: the HTML `still`, and the data from which the script draws in its place."""
    return render("grid_figure.html", payload=payload, still=still)


def page_script() -> str:
    """The script that draws all grids and charts of a page from the JSON after each element that it fills."""
    return bundle("page.js").read_text(encoding="utf-8").strip()
