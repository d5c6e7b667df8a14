"""Payload schema and drawing constants, shared by Python and the front end.

The front end's build generates its validator and its constants from the same two JSON files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict


class Drawing(TypedDict):
    """Contents of `drawing.json`."""

    levels: list[str]
    """Viridis from low to high (by Smith and van der Walt, in the public domain)."""
    rise: str
    fall: str
    scale_quantile: float
    """Quantile at which the colour scale ends if the largest value exceeds `scale_excess` times this quantile."""
    scale_excess: float
    smallest_scale: float
    """Smallest difference between the ends of a colour scale."""
    most_cells: int
    """Maximum number of cells of all panels together."""
    most_compact_cells: int
    """Maximum number of cells where all panels have compact values."""
    largest_file: int
    """Maximum size of a file in bytes."""


def _read(name: str) -> Any:
    return json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))


SCHEMA: dict[str, Any] = _read("pattern.schema.json")
VERSION: int = SCHEMA["properties"]["version"]["const"]
KINDS: tuple[str, ...] = (*SCHEMA["properties"]["kind"]["enum"],)
VALUE = "value"  # kind of plain numbers without known meaning; drawn as levels or signed values
MAX_TEXT_LENGTH: int = SCHEMA["$defs"]["text"]["maxLength"]
MAX_SIDE: int = SCHEMA["properties"]["layers"]["maximum"]
DRAWING: Drawing = _read("drawing.json")
