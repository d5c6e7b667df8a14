"""What a person sees: head grids as JSON payload, HTML, SVG and text, at rest and while a result is computed."""

from __future__ import annotations
