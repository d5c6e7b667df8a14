"""Values of a head grid as CSV, one row per head and panel."""

from __future__ import annotations

import csv
import io
import math
from itertools import product
from typing import TYPE_CHECKING

from headnb.display import grid_text
from headnb.display.before_after import panel_payload

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from headnb.display.payload_types import Panel, Payload

_MATRICES = {"value": "values", "low": "low", "high": "high", "significant": "significant", "q": "q"}
"""Column -> key of a panel."""
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_table(payload: Payload) -> str:
    """A table with the columns name, layer, head and value, and if the grid has them low, high, significant, q, units.

    The steps of a training also have the change since the first step, in columns that begin with `change`. Several
    panels have their title in the first column. A value that is missing is empty.
    """
    several = len(payload["panels"]) > 1
    panels = [_matrices(panel) for panel in payload["panels"]]
    matrices = list(dict.fromkeys(name for panel in panels for name in panel))
    units_of = [panel_payload(payload, panel)["units"] for panel in payload["panels"]]
    units = ["units"] if any(units_of) else []
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow([*(["panel"] if several else []), "name", "layer", "head", *matrices, *units])
    for panel, found, unit in zip(payload["panels"], panels, units_of, strict=True):
        title = [_as_text(panel["title"])] if several else []
        for row in _rows(payload, found, matrices):
            table.writerow([*title, *row, *([_as_text(unit)] if units else [])])
    return file.getvalue()


def _matrices(panel: Panel) -> dict[str, np.ndarray]:
    """The matrices of a panel and of its change, by column."""
    found = {name: grid_text.panel_matrix(panel, key) for name, key in _MATRICES.items() if key in panel}
    if "change" in panel:
        change = panel["change"]
        found |= {
            "change" if name == "value" else f"change_{name}": grid_text.panel_matrix(change, key)
            for name, key in _MATRICES.items()
            if key in change
        }
    return found


def _rows(payload: Payload, found: dict[str, np.ndarray], matrices: list[str]) -> Iterator[list[object]]:
    layers, heads = grid_text.numbers(payload, "layer"), grid_text.numbers(payload, "head")
    for layer, head in product(range(payload["layers"]), range(payload["heads"])):
        values = [found[name][layer, head] if name in found else math.nan for name in matrices]
        numbers = ["" if math.isnan(value) else f"{value:.7g}" for value in values]
        yield [grid_text.head_name(payload, (layer, head)), layers[layer], heads[head], *numbers]


def _as_text(words: str) -> str:
    """A text that no spreadsheet reads as a formula."""
    return f"'{words}" if words.startswith(_FORMULA_STARTS) else words
