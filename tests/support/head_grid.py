"""A head grid on a web page, operated like a reader would; the positions of its cells come from the Python geometry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from headnb.display import geometry
from playwright.sync_api import TimeoutError as NotInTime

if TYPE_CHECKING:
    from headnb.display.grid import HeadGrid
    from playwright.sync_api import Locator, Page

Colour = tuple[int, int, int, int]


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

    def place(self, layer: int, head: int, panel: int = 0) -> tuple[float, float]:
        """The centre of a cell relative to the stage's top left corner."""
        layout = geometry.grid_geometry(self.grid.payload, self.panels)
        x, y = layout.origin(panel)
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
