"""What Python and the front end draw by: the payload's schema and the constants beside it.

The build of the front end generates its validator and its constants from the same two files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict


class Drawing(TypedDict):
    """Contents of `drawing.json`."""

    levels: list[str]
    """Viridis (by Smith and van der Walt, in the public domain) from low to high."""
    rise: str
    fall: str
    scale_quantile: float
    """Where the colour scale ends if the largest value is more than `scale_excess` times this quantile."""
    scale_excess: float
    smallest_scale: float
    """Least difference between the ends of a colour scale."""
    most_cells: int
    """Of all panels together."""
    most_compact_cells: int
    """The same where all panels are compact."""
    largest_file: int
    """In bytes."""


def _read(name: str) -> Any:
    return json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))


SCHEMA: dict[str, Any] = _read("pattern.schema.json")
VERSION: int = SCHEMA["properties"]["version"]["const"]
KINDS: tuple[str, ...] = (*SCHEMA["properties"]["kind"]["enum"],)
MAX_TEXT_LENGTH: int = SCHEMA["$defs"]["text"]["maxLength"]
MAX_SIDE: int = SCHEMA["properties"]["layers"]["maximum"]
DRAWING: Drawing = _read("drawing.json")
