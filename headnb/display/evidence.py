"""How reliable a panel is: the fields of a payload, their titles in tables, and the line under a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, cast

from headnb.stats.reliability import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class EvidenceFields(TypedDict):
    """`headnb.stats.reliability.Evidence` in a payload: what is not known is null."""

    samples: int | None
    runs: int | None
    reliability: float | None
    samples_for_090: int | None
    runs_for_090: int | None


TITLES = {
    "samples": "samples",
    "runs": "runs",
    "reliability": "reliability",
    "samples_for_090": "samples for 0.90",
    "runs_for_090": "runs for 0.90",
}
COUNTS = [name for name in TITLES if name != "reliability"]


def evidence_fields(count: Callable[[str], int | None], reliability: float | None) -> EvidenceFields:
    """The fields; `count` gives a number that is 0 or above by its name."""
    return cast("EvidenceFields", {name: count(name) for name in COUNTS} | {"reliability": reliability})


def shown(panels: Sequence[EvidenceFields]) -> list[str]:
    """The fields that a table of these panels has columns for; runs only where some panel has several."""
    several = any((panel["runs"] or 1) > 1 for panel in panels)
    return [name for name in TITLES if several or "runs" not in name]


def cell(panel: EvidenceFields, name: str) -> str:
    """A field as text, or a dash."""
    found: float | None = panel[name]  # type: ignore[literal-required]
    return "–" if found is None else f"{found:.2f}" if name == "reliability" else f"{found:.0f}"


def reliability_line(panel: EvidenceFields) -> str:
    """The line under a grid, see `Evidence.sentence`; empty for numbers of which no count of samples is known."""
    if panel["samples"] is None:
        return ""
    given = {name: panel[name] for name in TITLES}  # type: ignore[literal-required]
    default = Evidence()._asdict()
    return Evidence(**{name: default[name] if value is None else value for name, value in given.items()}).sentence
