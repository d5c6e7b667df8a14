"""Selection of heads as a value in Python: validated, observed by callbacks, and shared between widgets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

import traitlets

from headnb.call_checks import check_arguments
from headnb.display.grid_text import head_name
from headnb.errors import HeadnbError, unknown_name
from headnb.explorer.checked_widget import CheckedWidget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headnb.display.payload_types import Payload


_LONGEST_NAME = 20  # characters of an unknown name in an error; a page may send any text


class InvalidTraitError(HeadnbError, traitlets.TraitError):
    """Invalid value of a trait; also a TraitError, so that traitlets rejects a change sent by a browser."""


class HeadNames(traitlets.List[str]):
    """Trait of head names; `"L3H5,L7H1"` and other iterables of names, such as an index of a table, become a list."""

    def __init__(self) -> None:
        super().__init__(traitlets.Unicode())

    def set(self, obj: Any, value: Any) -> None:
        """Set the trait from any of these forms; other values are refused by the list trait."""
        if isinstance(value, str):
            value = value.replace(",", " ").split()
        elif isinstance(value, Iterable) and not isinstance(value, (bytes, Mapping)):
            value = list(value)
        super().set(obj, value)


class SelectionWidget(CheckedWidget):
    """Widget with a selection of heads that Python and the browser share.

    Attributes:
        payload: the drawn data.
        selected: names of the selected heads, in the grid's order. Assign to select; the list itself is not watched.
    """

    payload = traitlets.Any().tag(sync=True)
    selected = HeadNames().tag(sync=True)

    def on_select(self, callback: Callable[[list[str]], object]) -> Callable[[], None]:
        """Call a function with the names of the selected heads after each change of the selection.

        An exception in the callback is shown in the widget as one line and kept in `error`; the widget keeps working.

        Args:
            callback: called with a list such as `["L3H5", "L7H1"]`.

        Returns:
            A function that removes the callback.

        Raises:
            HeadnbError: the callback is not a function.
        """
        if not callable(callback):
            raise HeadnbError(f"on_select needs a function of the selected heads, not a {type(callback).__name__}")

        where = f"on_select({getattr(callback, '__name__', type(callback).__name__)})"

        def call(_: object) -> None:
            with self._report_errors(where):
                callback(list(self.selected))

        self.observe(call, "selected")

        def remove() -> None:
            if self.has_trait("selected") and call in self._trait_notifiers.get("selected", {}).get("change", []):
                self.unobserve(call, "selected")

        return remove

    def link(self, other: SelectionWidget) -> traitlets.link:
        """Share the selection with another grid, which adopts this one's; see `headnb.link`."""
        return link(self, other)

    @traitlets.validate("selected")
    def _validate_selected(self, proposal: dict[str, Any]) -> list[str]:
        return validate_heads(proposal["value"], self.payload)

    @traitlets.observe("payload")
    def _drop_heads(self, _: object) -> None:
        self.selected = existing_heads(self.selected, self.payload)


@check_arguments
def link(first: SelectionWidget, second: SelectionWidget) -> traitlets.link:
    """Share the selection of two grids: what is selected in one is selected in the other.

    Args:
        first: a grid of `headnb.grid(x, live=True)` or an explorer. Its selection is the initial one.
        second: another one with the same layers and heads.

    Returns:
        The link; its method `unlink()` ends it.

    Raises:
        HeadnbError: an argument is not a live grid, both are the same, or their layers or heads differ.
    """
    for grid in (first, second):
        if not isinstance(grid, SelectionWidget):
            raise HeadnbError(
                f"only live grids share a selection (headnb.grid(x, live=True), .heads.explore()), not a "
                f"{type(grid).__name__}"
            )
    if first is second:
        raise HeadnbError("a grid cannot be linked with itself")
    if _heads(first.payload) != _heads(second.payload):
        sizes = " and ".join(f"{grid.payload['layers']} x {grid.payload['heads']}" for grid in (first, second))
        raise HeadnbError(f"these grids cannot share a selection: their layers or heads differ ({sizes})")
    return traitlets.link((first, "selected"), (second, "selected"))


def validate_heads(names: Sequence[str], payload: Payload) -> list[str]:
    """Unique head names in the order of a payload's grid.

    Raises:
        InvalidTraitError: the grid does not have one of the heads.
    """
    known = _heads(payload)
    for name in names:
        if name not in known:
            raise InvalidTraitError(str(unknown_name("head", name[:_LONGEST_NAME], known)))
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
