"""Live head grid: an anywidget whose selection is shared by Python and the browser.

    grid = HeadGridWidget(scores)
    grid.selected = ["L3H5"]                 # shown in the browser
    grid.observe(print, "selected")          # called after every click

Traits: `payload`, the drawn data (assign anything that `HeadGrid.of` accepts); `selected`, names of heads.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from headnb.call_checks import check_arguments
from headnb.display.frontend import bundle
from headnb.display.grid import HeadGrid, mime_bundle
from headnb.display.grid_text import head_name
from headnb.errors import HeadnbError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headnb.display.payload_types import Payload


class InvalidTraitError(HeadnbError, traitlets.TraitError):
    """Invalid value of a trait; also a TraitError, so that traitlets rejects a change sent by a browser."""


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


class HeadGridWidget(StaticFallbackWidget):
    """Head grid with a two-way selection.

    Raises:
        HeadnbError: the data cannot be drawn, or a selected head does not exist; also on assignment.
    """

    payload = traitlets.Any().tag(sync=True)
    selected = traitlets.List(traitlets.Unicode()).tag(sync=True)

    @check_arguments
    def __init__(self, data: object, *, title: str = "", selected: Sequence[str] = ()) -> None:
        super().__init__(
            _esm=bundle("widget.js").read_text(encoding="utf-8"), payload=HeadGrid.of(data, title=title).payload
        )
        self.selected = list(selected)

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Apply a selection of the browser; an invalid one is taken back. Other traits change only in Python."""
        chosen = sync_data.get("selected") if isinstance(sync_data, dict) else None
        if chosen is None:
            return
        try:
            super().set_state({"selected": chosen})
        except traitlets.TraitError:
            self.send_state("selected")

    @traitlets.validate("payload")
    def _validate_payload(self, proposal: dict[str, Any]) -> Payload:
        return HeadGrid.of(proposal["value"]).payload

    @traitlets.validate("selected")
    def _validate_selected(self, proposal: dict[str, Any]) -> list[str]:
        return validate_heads(proposal["value"], self.payload)

    @traitlets.observe("payload")
    def _drop_heads(self, _: object) -> None:
        self.selected = existing_heads(self.selected, self.payload)


def validate_heads(names: Sequence[str], payload: Payload) -> list[str]:
    """Unique head names in the order of a payload's grid.

    Raises:
        InvalidTraitError: the grid does not have one of the heads.
    """
    known = _heads(payload)
    for name in names:
        if name not in known:
            raise InvalidTraitError(str(unknown_name("head", name, known)))
    chosen = set(names)
    return [name for name in known if name in chosen]


def existing_heads(names: Sequence[str], payload: Payload) -> list[str]:
    """Names of those heads that a payload's grid has."""
    known = _heads(payload)
    return [name for name in names if name in known]


def selected_cells(names: Sequence[str], payload: Payload) -> list[tuple[int, int]]:
    """The (row, column) of named heads in a payload's grid."""
    known = _heads(payload)
    return [known[name] for name in names]


def _heads(payload: Payload) -> dict[str, tuple[int, int]]:
    """Names of a payload's heads, in the grid's order, with their (row, column)."""
    cells = product(range(payload["layers"]), range(payload["heads"]))
    return {head_name(payload, cell): cell for cell in cells}
