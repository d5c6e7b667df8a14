"""The live head grid: one anywidget whose selection Python and the browser share.

    grid = HeadGridWidget(scores)
    grid.selected = ["L3H5"]                 # seen in the browser
    grid.observe(print, "selected")          # told of every click

Attributes (traits): `payload`, what is drawn (assign anything that `HeadGrid.of` accepts); `selected`, names of heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from headnb.call_checks import check_arguments
from headnb.display.frontend import bundle
from headnb.display.grid import HeadGrid
from headnb.display.grid_text import head_name
from headnb.errors import HeadnbError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headnb.display.payload_types import Payload


class InvalidTraitError(HeadnbError, traitlets.TraitError):
    """A value that a trait refuses; a TraitError too, so that traitlets takes back what a browser has sent."""


class StaticFallbackWidget(anywidget.AnyWidget):
    """A widget whose saved output shows its picture where the live view cannot be shown.

    The picture is that of the moment when the widget is displayed: front ends without a kernel that do not trust the
    notebook, pages made of it and terminals show it. A live view comes before it wherever there can be one.
    """

    payload: Any

    def _repr_mimebundle_(self, **chosen: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        view = super()._repr_mimebundle_(**chosen)
        if view is None:
            return None
        data, metadata = view
        still = HeadGrid({name: part for name, part in self.payload.items() if name != "progress"})  # type: ignore[arg-type]
        return {**data, **still._repr_mimebundle_(exclude=["image/svg+xml"])}, metadata


class HeadGridWidget(StaticFallbackWidget):
    """A head grid with a two-way selection. Raises HeadnbError for what cannot be shown or selected."""

    payload = traitlets.Any().tag(sync=True)
    selected = traitlets.List(traitlets.Unicode()).tag(sync=True)

    @check_arguments
    def __init__(self, data: object, *, title: str = "", selected: Sequence[str] = ()) -> None:
        super().__init__(
            _esm=bundle("widget.js").read_text(encoding="utf-8"), payload=HeadGrid.of(data, title=title).payload
        )
        self.selected = list(selected)

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
    """The named heads in the order of a payload's grid, each once. Raises HeadnbError for one that it does not have."""
    known = _heads(payload)
    for name in names:
        if name not in known:
            raise InvalidTraitError(str(unknown_name("head", name, known)))
    chosen = set(names)
    return [name for name in known if name in chosen]


def existing_heads(names: Sequence[str], payload: Payload) -> list[str]:
    """Those of the named heads that a payload's grid has."""
    known = _heads(payload)
    return [name for name in names if name in known]


def _heads(payload: Payload) -> dict[str, None]:
    """The names of a payload's heads, in the grid's order."""
    rows, columns = range(payload["layers"]), range(payload["heads"])
    return dict.fromkeys(head_name(payload, (layer, head)) for layer in rows for head in columns)
