"""Panels with a kind and scale of their own: methods of other units, and before, after and difference of a study."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headnb.display.colours import Kind
    from headnb.display.payload_types import Panel, Payload


def has_changes(payload: Payload) -> bool:
    """Whether the panels carry their differences from the first step."""
    return any("change" in panel for panel in payload["panels"])


def before_and_after(payload: Payload) -> list[Panel]:
    """For each course its first step, its last step and the difference; the first step alone if it is the only one."""
    courses: dict[str, list[Panel]] = {}
    for panel in payload["panels"]:
        courses.setdefault(panel.get("course", ""), []).append(panel)
    drawn = []
    for course, panels in courses.items():
        first, last = panels[0], panels[-1]
        drawn.append(_titled(first, course, "before" if len(panels) > 1 else ""))
        if len(panels) > 1:
            drawn += [_titled(last, course, "after"), _difference(payload, first, last, course)]
    return drawn


def panel_payload(payload: Payload, panel: Panel) -> Payload:
    """The payload with the kind, scale, quantity and units of this panel."""
    return cast("Payload", {**payload, **panel["own"]}) if "own" in panel else payload


def panels_by_kind(payload: Payload, panels: Sequence[Panel]) -> list[tuple[Payload, list[Panel]]]:
    """The panels in groups on one colour scale, each with the payload of its kind, scale, quantity and units."""
    groups: dict[tuple[Kind, str], list[Panel]] = {}
    for panel in panels:
        groups.setdefault(scale_key(panel_payload(payload, panel)), []).append(panel)
    return [(panel_payload(payload, members[0]), members) for members in groups.values()]


def scale_key(own: Payload) -> tuple[Kind, str]:
    """Kind and units: panels that are equal in both share a colour scale."""
    return own["kind"], own["units"]


def _titled(panel: Panel, course: str, name: str) -> Panel:
    step = f"step {panel.get('step', 0):g}"
    return {**panel, "title": _joined(course, f"{name} ({step})" if name else step)}


def _difference(payload: Payload, first: Panel, last: Panel, course: str) -> Panel:
    quantity = f"change in {payload['quantity'] or 'score'}"
    own = {"kind": "difference", "scale": payload["change_scale"], "quantity": quantity, "units": payload["units"]}
    name = f"difference (step {last.get('step', 0):g} − step {first.get('step', 0):g})"
    titled = {"title": _joined(course, name), "own": own, "statistics": {}, "notes": []}
    return cast("Panel", {**last["change"], **titled})


def _joined(course: str, name: str) -> str:
    return " · ".join(filter(None, (course, name)))
