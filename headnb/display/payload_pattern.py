"""The pattern that a display payload shows, as a labelled array."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from headnb.display.constants import VALUE
from headnb.display.grid_text import numbers, panel_matrix
from headnb.stats.reliability import Evidence
from headnb.stats.results import as_result

if TYPE_CHECKING:
    from headnb.display.payload_types import Panel, Payload

_TEXTS = ("model", "task", "method", "loss_reduction")


def payload_pattern(payload: Payload) -> xr.DataArray:
    """Pattern (layer, head) of a payload; several panels have a leading dim, by training step or by title.

    A payload has 4 significant digits of each value.
    """
    panels = payload["panels"]
    values = np.stack([panel_matrix(panel) for panel in panels])
    label = payload["quantity"].removeprefix("change in ")
    mixed = any("own" in panel for panel in panels)  # values of several units have none together
    dim, labels = _leading(payload)
    pattern = xr.DataArray(
        values,
        dims=(dim, "layer", "head"),
        coords={
            dim: labels,
            "layer": np.asarray(numbers(payload, "layer")),
            "head": np.asarray(numbers(payload, "head")),
        },
        name=VALUE if mixed else label.replace(" ", "_"),
    )
    plain = mixed or (payload["quantity"] == VALUE and not payload["units"])
    attrs: dict[str, Any] = {name: text for name in _TEXTS if (text := payload[name])}  # type: ignore[literal-required]
    attrs |= {"kv_heads": payload["kv_heads"], "kind": VALUE if plain else payload["kind"]}
    attrs["units"] = "" if mixed else payload["units"]
    if not plain:
        attrs["method_label"] = label
        attrs |= _least_reliable(panels)
    pattern = pattern.assign_attrs(attrs)
    pattern = pattern.isel({dim: 0}, drop=True) if len(panels) == 1 else pattern
    return pattern if plain else as_result(pattern)


def _leading(payload: Payload) -> tuple[str, list[Any]]:
    """Name and labels of the dim along which the panels differ."""
    steps = [panel.get("step") for panel in payload["panels"]]
    if None not in steps and len(set(steps)) == len(steps):
        return "step", steps
    known = payload["dimension"] if payload["dimension"] not in {"", "step", "layer", "head"} else "panel"
    return known, [panel["title"] for panel in payload["panels"]]


def _least_reliable(panels: list[Panel]) -> dict[str, Any]:
    """Evidence of the least reliable panel; unknown if that of a panel is unknown."""
    found = [
        Evidence(
            **{
                name: default if (value := panel.get(name)) is None else type(default)(value)
                for name, default in Evidence()._asdict().items()
            }
        )
        for panel in panels
    ]
    least = min(found, key=lambda one: -1.0 if math.isnan(one.reliability) else one.reliability)
    return least._asdict()
