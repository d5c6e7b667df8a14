"""What a person sees: head grids as JSON payload, HTML, SVG and text, at rest and while a result is computed."""

from __future__ import annotations

from headnb.display.grid import HeadGrid, show
from headnb.display.live import LiveGrid, already_drawn
from headnb.display.payload import MIME_TYPE, payload
from headnb.display.reading import read_payload

__all__ = ["MIME_TYPE", "HeadGrid", "LiveGrid", "already_drawn", "payload", "read_payload", "show"]
