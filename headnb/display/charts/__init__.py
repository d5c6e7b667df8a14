"""Charts: one description of marks and axes, rendered as SVG and as Bokeh figures."""

from __future__ import annotations
