"""Geometry of a head grid's picture in pixels: arithmetic without drawing.

Layer 0 is the top row and head 0 the left column, as in the array, in a printed table and for a screen reader. Heads
that share a key/value head form a group; a gap separates neighbouring groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headnb.display.payload_types import Payload

MAX_WIDTH = 900
LEGEND_HEIGHT = 52
PROFILE_WIDTH = 46
PROFILE_GAP = 10
_LEFT, _RIGHT, _BOTTOM = 40, 8, 34
_PANEL_GAP = 10
_LEGEND_WIDTH = 400
_MIN_WIDTH = 430
_ROW_LABEL, _COLUMN_LABEL = 15, 24


@dataclass(frozen=True)
class Geometry:
    """Sizes of a panel's cells and positions of all panels."""

    layers: int
    heads: int
    group: int  # neighbouring heads that share a key/value head
    cell_width: int
    cell_height: int
    group_gap: int
    panels: int
    titled: bool
    legends: int = 1

    @property
    def _legends_beside(self) -> bool:
        return self.width >= _LEFT + self.legends * _LEGEND_WIDTH

    @property
    def legend_height(self) -> int:
        """Height of the legends, which are in one row if there is room and below each other otherwise."""
        return LEGEND_HEIGHT * (1 if self._legends_beside else self.legends)

    def legend_origin(self, index: int) -> tuple[int, int]:
        """Top left corner of a legend."""
        return (_LEFT + index * _LEGEND_WIDTH, 0) if self._legends_beside else (_LEFT, index * LEGEND_HEIGHT)

    @property
    def gap(self) -> int:
        """Space between cells; 0 if the cells are too small."""
        return 1 if min(self.cell_width, self.cell_height) >= 7 else 0

    @property
    def top(self) -> int:
        """Height above a panel's cells, for its title and the brackets of the key/value groups."""
        return (20 if self.titled else 2) + (20 if self.group_gap else 14)

    @property
    def grid_width(self) -> int:
        return self.x(self.heads - 1) + self.cell_width

    @property
    def grid_height(self) -> int:
        return self.layers * self.cell_height

    @property
    def panel_width(self) -> int:
        return _LEFT + self.grid_width + PROFILE_GAP + PROFILE_WIDTH + _RIGHT

    @property
    def panel_height(self) -> int:
        return self.top + self.grid_height + _BOTTOM

    @property
    def columns(self) -> int:
        """Number of panels in a row."""
        fit = (MAX_WIDTH + _PANEL_GAP) // (self.panel_width + _PANEL_GAP)
        return max(1, min(self.panels, fit))

    @property
    def width(self) -> int:
        return max(self.columns * (self.panel_width + _PANEL_GAP) - _PANEL_GAP, _MIN_WIDTH)

    @property
    def height(self) -> int:
        return self.legend_height + math.ceil(self.panels / self.columns) * self.panel_height

    def x(self, head: int) -> int:
        """Left edge of a head's cells, relative to the grid's left edge."""
        return head * self.cell_width + head // self.group * self.group_gap

    def y(self, layer: int) -> int:
        """Top edge of a layer's cells, relative to the grid's top edge."""
        return layer * self.cell_height

    def origin(self, panel: int) -> tuple[int, int]:
        """Top left corner of a panel's cells in the picture."""
        row, column = divmod(panel, self.columns)
        return (
            _LEFT + column * (self.panel_width + _PANEL_GAP),
            self.legend_height + row * self.panel_height + self.top,
        )

    def layer_ticks(self) -> range:
        return range(0, self.layers, _tick_step(self.cell_height, _ROW_LABEL))

    def head_ticks(self) -> range:
        return range(0, self.heads, _tick_step(self.cell_width, _COLUMN_LABEL if self.heads > 10 else 10))


def grid_geometry(payload: Payload, panels: int, legends: int = 1, *, grouped: bool = True) -> Geometry:
    """Geometry of a picture of so many panels and legends; with `grouped`, key/value groups have gaps between them.

    Cells are as large as fits one panel into a text column, and smaller for several panels, but at least 3 pixels.
    """
    layers, heads = payload["layers"], payload["heads"]
    several = panels > 1
    height, width = (300, 186) if several else (420, 420)
    if max(layers, heads) > 64:
        height, width = (380, 400) if several else (640, 660)
    cell_height = min(max(height // layers, 3), 26)
    cell_width = min(max(width // heads, 3), 2 * cell_height, 30)
    cell_height = min(cell_height, 2 * cell_width)
    group = heads // payload["kv_heads"]
    grouped = grouped and 1 < group < heads
    group_gap = (4 if cell_width >= 7 else 2) if grouped and heads // group <= 32 else int(grouped)
    return Geometry(layers, heads, group, cell_width, cell_height, group_gap, panels, several, legends)


def _tick_step(cell: int, label: int) -> int:
    """The smallest number of cells out of 1, 2, 5, 10, 20, 50, ... that has room for a label."""
    steps = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
    return next(step for step in steps if step * cell >= label)
