"""Display of head grids as JSON payload, HTML, SVG and text, for finished results and during a computation."""

from __future__ import annotations
