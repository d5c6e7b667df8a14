"""What results say of the method that made them: its label and its unit, in attributes that scoring writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

METHOD_ATTRIBUTES = ("method", "method_label", "units", "reduction")
# Label and unit of the methods of which earlier versions wrote neither; they wrote the units of all others.
_WRITTEN_BEFORE = {
    "activation": ("activation level", "nats"),
    **{name: (name, "nats") for name in ("taylor-token", "ablate-zero", "ablate-mean")},
}


def method_label(attrs: Mapping[Any, Any]) -> str:
    """What a value is called: "activation level", or the method's name; empty without a method."""
    method = str(attrs.get("method", ""))
    return str(attrs.get("method_label") or _WRITTEN_BEFORE.get(method, (method, ""))[0])


def method_units(attrs: Mapping[Any, Any]) -> str:
    """The unit of a value: "nats" of a share of a loss; empty if it is not known."""
    method = str(attrs.get("method", ""))
    return str(attrs.get("units") or _WRITTEN_BEFORE.get(method, (method, ""))[1])
