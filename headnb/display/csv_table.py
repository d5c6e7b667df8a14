"""Values of a head grid as CSV, one row per head and panel."""

from __future__ import annotations

import csv
import io
import math
from itertools import product
from typing import TYPE_CHECKING

from headnb.display import grid_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headnb.display.payload_types import Panel, Payload

_MATRICES = ("value", "low", "high", "significant")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_table(payload: Payload) -> str:
    """A table with the columns name, layer, head, value, and where the grid has them low, high, significant and units.

    Several panels have their title in the first column. A value that is missing is empty.
    """
    several = len(payload["panels"]) > 1
    matrices = [name for name in _MATRICES if any(_key(name) in panel for panel in payload["panels"])]
    units = ["units"] if payload["units"] else []
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow([*(["panel"] if several else []), "name", "layer", "head", *matrices, *units])
    for panel in payload["panels"]:
        title = [_as_text(panel["title"])] if several else []
        for row in _rows(payload, panel, matrices):
            table.writerow([*title, *row, *([_as_text(payload["units"])] if units else [])])
    return file.getvalue()


def _rows(payload: Payload, panel: Panel, matrices: list[str]) -> Iterator[list[object]]:
    layers, heads = grid_text.numbers(payload, "layer"), grid_text.numbers(payload, "head")
    columns = [grid_text.panel_matrix(panel, _key(name)) if _key(name) in panel else None for name in matrices]
    for layer, head in product(range(payload["layers"]), range(payload["heads"])):
        values = [math.nan if column is None else column[layer, head] for column in columns]
        numbers = ["" if math.isnan(value) else f"{value:.7g}" for value in values]
        yield [grid_text.head_name(payload, (layer, head)), layers[layer], heads[head], *numbers]


def _key(name: str) -> str:
    return "values" if name == "value" else name


def _as_text(words: str) -> str:
    """A text that no spreadsheet reads as a formula."""
    return f"'{words}" if words.startswith(_FORMULA_STARTS) else words
