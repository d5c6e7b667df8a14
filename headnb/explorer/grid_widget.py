"""Live head grid: an anywidget whose selection is shared by Python and the browser.

    grid = headnb.grid(scores, live=True)
    grid.selected = ["L3H5"]                 # shown in the browser
    grid.on_select(print)                    # called with the names after every change

Traits: `payload`, the drawn data (assign anything that `HeadGrid.of` accepts); `selected`, names of heads; `problem`,
an error to show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from headnb.call_checks import check_arguments
from headnb.display.frontend import bundle
from headnb.display.grid import HeadGrid, mime_bundle
from headnb.explorer.selection import SelectionWidget, selected_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headnb.display.payload_types import Payload


class StaticFallbackWidget(anywidget.AnyWidget):
    """Widget whose output also has a static picture, for front ends that cannot show the live view.

    The picture shows the state at the time of display. Front ends without a kernel in untrusted notebooks, exported
    pages and terminals show it; all others show the live view.
    """

    payload: Any
    selected: Any

    def _repr_mimebundle_(self, **chosen: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        view = super()._repr_mimebundle_(**chosen)
        if view is None:
            return None
        data, metadata = view
        still: Payload = {name: part for name, part in self.payload.items() if name != "progress"}  # type: ignore[assignment]
        return {**data, **mime_bundle(still, selected_cells(self.selected, still))}, metadata


class HeadGridWidget(StaticFallbackWidget, SelectionWidget):
    """Head grid with a two-way selection; created by `headnb.grid(x, live=True)`.

    Attributes:
        selected: names of the selected heads, such as `["L3H5"]`, in the grid's order; assign to select.
        error: the exception behind the last error message.

    Raises:
        HeadnbError: the data cannot be drawn, or a selected head does not exist; also on assignment.
    """

    browser_traits = ("selected",)
    problem = traitlets.Unicode().tag(sync=True)

    @check_arguments
    def __init__(self, data: object, *, title: str = "", selected: Sequence[str] = ()) -> None:
        super().__init__(
            _esm=bundle("widget.js").read_text(encoding="utf-8"), payload=HeadGrid.of(data, title=title).payload
        )
        self.selected = list(selected)

    @traitlets.validate("payload")
    def _validate_payload(self, proposal: dict[str, Any]) -> Payload:
        return HeadGrid.of(proposal["value"]).payload

    @traitlets.observe("selected")
    def _forget_problem(self, _: object) -> None:
        self.problem = ""

    def _show_error(self, text: str) -> None:
        self.problem = text
