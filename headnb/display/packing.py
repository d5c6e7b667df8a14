"""Payloads as a notebook stores them: with compact matrices, since it writes every JSON number on a line of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headnb.display.compact import compress_values, scale_factor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headnb.display.compact import NumberType
    from headnb.display.payload_types import Payload

PLAIN_CELLS = 64  # total of all panels up to which a notebook stores lists
FLOAT32_CELLS = 4096  # total of all panels up to which a notebook stores seven digits instead of three


def pack(payload: Payload) -> Payload:
    """The payload with compact matrices; a payload of a few cells is returned unchanged."""
    cells = payload["layers"] * payload["heads"] * len(payload["panels"])
    if cells <= PLAIN_CELLS:
        return payload
    kind: NumberType = "float32" if cells <= FLOAT32_CELLS else "float16"
    panels = [_packed(panel, kind) for panel in payload["panels"]]
    return cast("Payload", {**payload, "panels": panels})


def _packed(panel: Mapping[str, Any], kind: NumberType) -> dict[str, Any]:
    """A panel, or its change, with compact matrices."""
    matrices: dict[str, object] = {}
    for name in ("values", "low", "high"):
        rows = panel.get(name)
        if isinstance(rows, list):
            values = np.array(rows, dtype=float)
            matrices[name] = compress_values(values, scale_factor(values), kind)
    if isinstance(marks := panel.get("significant"), list):
        matrices["significant"] = compress_values(np.array(marks), 1, "uint8")
    if "change" in panel:
        matrices["change"] = _packed(panel["change"], kind)
    return {**panel, **matrices}
