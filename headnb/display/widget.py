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

from headnb.display.frontend import bundle
from headnb.display.grid import HeadGrid
from headnb.errors import unknown_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headnb.display.payload import Payload


class HeadGridWidget(anywidget.AnyWidget):
    """A head grid with a two-way selection. Raises HeadnbError for what cannot be shown or selected."""

    payload = traitlets.Any().tag(sync=True)
    selected = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(self, data: object, *, title: str = "", selected: Sequence[str] = ()) -> None:
        super().__init__(
            _esm=bundle("widget.js").read_text(encoding="utf-8"), payload=HeadGrid.of(data, title=title).payload
        )
        self.selected = list(selected)

    @traitlets.validate("payload")
    def _drawable(self, proposal: dict[str, Any]) -> Payload:
        return HeadGrid.of(proposal["value"]).payload

    @traitlets.validate("selected")
    def _existing(self, proposal: dict[str, Any]) -> list[str]:
        return head_names(proposal["value"], self.payload["layers"], self.payload["heads"])


def head_names(names: Sequence[str], layers: int, heads: int) -> list[str]:
    """The named heads in the order of a grid of layers x heads, each once."""
    known = {f"L{layer}H{head}" for layer in range(layers) for head in range(heads)}
    for name in names:
        if name not in known:
            raise unknown_name("head", name, known)
    return sorted(set(names), key=_place)


def _place(name: str) -> tuple[int, int]:
    layer, head = name[1:].split("H")
    return int(layer), int(head)
