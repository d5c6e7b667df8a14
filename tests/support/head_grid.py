"""A head grid on a web page, operated like a reader would.

The positions of its cells come from the Python geometry, enlarged by the rule for wide pages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from headnb.display import geometry
from playwright.sync_api import TimeoutError as NotInTime

if TYPE_CHECKING:
    from headnb.display.grid import HeadGrid
    from playwright.sync_api import Locator, Page

Colour = tuple[int, int, int, int]


def enlarged(layout: geometry.Geometry, width: float) -> geometry.Geometry:
    """The geometry with cells that fill a card of this width, up to 1.4 times (2 times for several panels) as large.

    A single panel leaves 270 pixels for the text beside it. `layout` has all its panels in one row.
    """
    gaps = 4 * (layout.heads // layout.group - 1)
    around = 40 + 10 + 46 + 8  # labels, gap, layer means and margin
    room = (width + 10) / layout.panels - 10 - around - gaps - (270 if layout.panels == 1 else 0)
    most = 1.4 if layout.panels == 1 else 2
    growth = min(max(room / (layout.heads * layout.cell_width), 1), most)
    return replace(layout, cell_width=int(growth * layout.cell_width), cell_height=int(growth * layout.cell_height))


@dataclass(frozen=True)
class Drawn:
    """The drawing of `grid` inside `root`, with `panels` panels in one row."""

    page: Page
    root: Locator
    grid: HeadGrid
    panels: int = 1

    @property
    def stage(self) -> Locator:
        return self.root.locator(".stage")

    @property
    def tooltip(self) -> Locator:
        return self.root.locator(".tooltip")

    @property
    def width(self) -> int:
        """Width of the card that holds the drawing."""
        return int(self.root.locator(".card").last.evaluate("card => card.clientWidth"))

    def place(self, layer: int, head: int, panel: int = 0) -> tuple[float, float]:
        """The centre of a cell relative to the stage's top left corner."""
        layout = enlarged(geometry.grid_geometry(self.grid.payload, self.panels), self.width)
        x, y = layout.origin(0)
        x += panel * (layout.panel_width + 10)
        across, down = (layout.cell_width - layout.gap) / 2, (layout.cell_height - layout.gap) / 2
        return x + layout.x(head) + across, y + layout.y(layer) + down

    def point(self, layer: int, head: int, panel: int = 0) -> tuple[float, float]:
        """The centre of a cell relative to the page."""
        self.stage.scroll_into_view_if_needed()
        box = self.stage.bounding_box()
        assert box is not None
        x, y = self.place(layer, head, panel)
        return box["x"] + x, box["y"] + y

    def hover(self, layer: int, head: int, panel: int = 0) -> None:
        self.page.mouse.move(*self.point(layer, head, panel))

    def click(self, layer: int, head: int, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.down(key)
        self.page.mouse.click(*self.point(layer, head))
        for key in keys:
            self.page.keyboard.up(key)

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        self.page.mouse.move(*self.point(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.point(*end), steps=3)
        self.page.mouse.up()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.stage.press(key)

    def button(self, name: str) -> None:
        self.root.get_by_role("button", name=name, exact=True).click()

    def selected(self) -> str:
        """The names of the selected heads as displayed."""
        names = self.root.locator(".selection .names")
        return names.inner_text() if names.is_visible() else ""

    def pixel(self, layer: int, head: int, panel: int = 0) -> Colour:
        """Red, green, blue and opacity of the drawing at the centre of a cell."""
        x, y = self.place(layer, head, panel)
        found = self.stage.locator("canvas").first.evaluate(
            "(canvas, [x, y]) => [...canvas.getContext('2d').getImageData(x, y, 1, 1).data]", [int(x), int(y)]
        )
        return tuple(found)

    def becomes(self, ink: Literal["dark", "light"]) -> bool:
        """Whether the mean colour of the layer numbers, left of the cells, becomes dark or light."""
        low, high = (0, 100) if ink == "dark" else (150, 255)
        try:
            self.page.wait_for_function(
                """([canvas, low, high]) => {
                  const { data } = canvas.getContext('2d').getImageData(0, 60, 36, canvas.height - 60);
                  const seen = [...data.keys()].filter(i => i % 4 === 3 && data[i] > 150);
                  const mean = seen.reduce((sum, i) => sum + data[i - 1], 0) / seen.length;
                  return low <= mean && mean <= high;
                }""",
                arg=[self.stage.locator("canvas").first.element_handle(), low, high],
            )
        except NotInTime:
            return False
        return True
