"""The interactive HTML page: one file that needs no server, no kernel and no network.

It holds the payload as JSON and the front end's script. Its content security policy names that one script by its
hash and allows nothing to be fetched, so that nothing in the data can run.
"""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING

from headnb.display import text
from headnb.display.frontend import bundle

if TYPE_CHECKING:
    from headnb.display.payload_types import Payload

_STYLE = "body{margin:24px;color-scheme:light dark;font-family:system-ui,sans-serif}pre{white-space:pre-wrap}"


def interactive_page(payload: Payload) -> str:
    """An HTML file that shows the payload as JupyterLab does; it follows the reader's light or dark setting.

    Without scripts it shows the grid's words. Raises HeadnbError where the front end is not built.
    """
    script = page_script()
    policy = f"default-src 'none';script-src {source_of(script)};style-src {source_of(_STYLE)};img-src blob:"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(text.heading(payload))}</title><style>{_STYLE}</style></head>"
        f"<body><noscript><pre>{escape(text.as_text(payload))}</pre></noscript>"
        '<div id="headnb-grid"></div>'
        f'<script type="application/json" id="headnb-payload">{embedded(payload)}</script>'
        f"<script>{script}</script></body></html>\n"
    )


def page_script() -> str:
    """The script that draws every grid and chart of a page: each stands as JSON after the element that it fills."""
    return bundle("page.js").read_text(encoding="utf-8").strip()


def embedded(found: object) -> str:
    """JSON that cannot end its script element: every `<` is written as an escape."""
    return json.dumps(found, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def source_of(content: str) -> str:
    """What a content security policy calls this script or style."""
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"
