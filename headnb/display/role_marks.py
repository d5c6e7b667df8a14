"""Roles of heads in a payload: the heads above each role's threshold, which a grid marks.

Cells are indices into the grid, `row * heads + column`, so that a role with few heads takes few bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import xarray as xr

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from headnb.display.payload_types import Payload, Role


def with_roles(payload: Payload, roles: xr.Dataset) -> Payload:
    """A copy of the payload with the roles of its heads.

    Args:
        payload: of any quantity of the same model's heads.
        roles: as returned by `headnb.head_roles`; the coordinate `threshold` (role) decides which heads are marked.

    Raises:
        HeadnbError: `roles` are not head roles, or not of all heads of the grid.
    """
    if not is_roles(roles):
        raise HeadnbError("roles= expects the result of headnb.head_roles(model, tokenizer)")
    score = roles["score"].transpose("role", "layer", "head")
    rows = payload.get("layer_numbers") or range(payload["layers"])
    columns = payload.get("head_numbers") or range(payload["heads"])
    selected = "layer_numbers" in payload or "head_numbers" in payload
    known = all(set(numbers) <= set(score.indexes[dim]) for dim, numbers in (("layer", rows), ("head", columns)))
    if not known or not (selected or score.shape[1:] == (payload["layers"], payload["heads"])):
        raise HeadnbError(
            f"the roles are for {score.sizes['layer']} layers of {score.sizes['head']} heads, but the grid has "
            f"{payload['layers']} layers of {payload['heads']} heads; measure the roles of the same model"
        )
    values = score.sel(layer=list(rows), head=list(columns)).values.reshape(score.sizes["role"], -1)
    found = [
        _role(str(name), float(threshold), of)
        for name, threshold, of in zip(roles["role"].values, roles["threshold"].values, values, strict=True)
    ]
    note = _model_note(payload["model"], str(roles.attrs.get("model", "")))
    panels = [{**panel, "notes": [*panel["notes"], *note]} for panel in payload["panels"]]
    return cast("Payload", {**payload, "panels": panels, "roles": found})


def is_roles(value: object) -> bool:
    """Whether a value has the form of head roles."""
    if not isinstance(value, xr.Dataset) or "score" not in value or "threshold" not in value.coords:
        return False
    return set(value["score"].dims) == {"role", "layer", "head"} and value["threshold"].dims == ("role",)


def _role(name: str, threshold: float, scores: np.ndarray) -> Role:
    cells = np.flatnonzero(scores > threshold)  # False for NaN
    return {
        "name": name,
        "threshold": threshold,
        "cells": cells.tolist(),
        "scores": [round(float(score), 2) for score in scores[cells]],
    }


def _model_note(drawn: str, measured: str) -> list[str]:
    if not drawn or not measured or drawn == measured:
        return []
    return [f"The head roles were measured on {measured}."]


def roles_line(payload: Payload) -> str:
    """`Head roles: induction (8 above 0.4), sink (217 above 0.3).`; empty without roles."""
    parts = [f"{role['name']} ({len(role['cells'])} above {role['threshold']:g})" for role in payload.get("roles", [])]
    return f"Head roles: {', '.join(parts)}." if parts else ""
