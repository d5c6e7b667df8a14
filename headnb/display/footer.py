"""Text below a head grid: its statistics and its reliability.

The payload carries the finished text; HTML, terminals and the front end show it unchanged. The statistics are the
entries of `stats.score_statistics.CONCENTRATION`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np

from headnb.display.constants import MAX_TEXT_LENGTH
from headnb.display.grid_text import format_with_interval, head_name, panel_matrix
from headnb.stats.reliability import Evidence
from headnb.stats.score_statistics import CONCENTRATION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headnb.display.payload_types import Cells, Column, EvidenceFields, Panel, Payload

UNKNOWN = "–"

_TOP_HEAD: Column = {"label": "top head", "help": "Head with the largest absolute value or change"}
_EVIDENCE: dict[str, Column] = {
    "samples": {"label": "samples", "help": "Number of samples"},
    "runs": {"label": "runs", "help": "Number of training runs"},
    "reliability": {
        "label": "reliability",
        "help": "Expected correlation over heads with the pattern of an independent replication",
    },
    "samples_for_090": {
        "label": "samples for 0.90",
        "help": "Number of samples that gives reliability 0.90 with the same number of training runs",
    },
    "runs_for_090": {
        "label": "runs for 0.90",
        "help": "Smallest number of training runs at which enough samples give reliability 0.90",
    },
}


def evidence_fields(count: Callable[[str], int | None], reliability: float | None) -> EvidenceFields:
    """The evidence fields of a panel; `count` returns the non-negative number of a given name, or None."""
    counts = {name: count(name) for name in _EVIDENCE if name != "reliability"}
    return cast("EvidenceFields", counts | {"reliability": reliability})


def add_footer(payload: Payload) -> None:
    """Add the text lines of each panel and the table that compares panels to a payload, in place."""
    panels = payload["panels"]
    statistics, evidence = _statistics_of(panels), _evidence_of(panels)
    labels = [_column(name) for name in statistics]
    payload["columns"] = [*labels, _TOP_HEAD, *(_EVIDENCE[name] for name in evidence)]
    for change in (panel["change"] for panel in panels if "change" in panel):
        change["cells"] = [
            *(UNKNOWN for _ in statistics),
            _top_head(payload, change),
            *(_evidence_text(change, name) for name in evidence),
        ]
        change["statistics_line"] = ""
        change["reliability_line"] = _reliability_line(change)
    for panel in panels:
        panel["cells"] = [
            *(_statistic_text(panel, name) for name in statistics),
            _top_head(payload, panel),
            *(_evidence_text(panel, name) for name in evidence),
        ]
        named = (f"{_column(name)['label']} {_statistic_text(panel, name)}" for name in _statistics_of([panel]))
        panel["statistics_line"] = " · ".join(named)[:MAX_TEXT_LENGTH]
        panel["reliability_line"] = _reliability_line(panel)


def _top_head(payload: Payload, panel: Cells) -> str:
    sizes = np.nan_to_num(np.abs(panel_matrix(panel)), nan=-1)
    layer, head = np.unravel_index(sizes.argmax(), sizes.shape)
    return head_name(payload, (int(layer), int(head))) if sizes[layer, head] >= 0 else UNKNOWN


def _column(name: str) -> Column:
    known = CONCENTRATION.get(name)
    return {"label": known.label, "help": known.help} if known else {"label": name, "help": ""}


def _statistics_of(panels: Sequence[Panel]) -> list[str]:
    """Names of the statistics that any panel has or withholds; known names first, in the order of CONCENTRATION."""
    names = dict.fromkeys(name for panel in panels for name in (*panel["statistics"], *panel.get("withheld", {})))
    return [*(name for name in CONCENTRATION if name in names), *(name for name in names if name not in CONCENTRATION)]


def _statistic_text(panel: Panel, name: str) -> str:
    """A statistic with its interval, or the reason why it is withheld."""
    statistic = panel["statistics"].get(name)
    if statistic is None:
        return panel.get("withheld", {}).get(name, UNKNOWN)
    return format_with_interval(statistic["value"], statistic.get("low", math.nan), statistic.get("high", math.nan))


def _evidence_of(panels: Sequence[EvidenceFields]) -> list[str]:
    """Names of the fields that the table shows: none without samples; of runs only if some panel has several runs."""
    if not any(panel["samples"] for panel in panels):
        return []
    several = any((panel["runs"] or 1) > 1 for panel in panels)
    return [name for name in _EVIDENCE if several or "runs" not in name]


def _evidence_text(panel: EvidenceFields, name: str) -> str:
    value: float | None = panel[name]  # type: ignore[literal-required]
    if value is None:
        return UNKNOWN
    return f"{value:.2f}".replace("-", "−") if name == "reliability" else f"{value:.0f}"


def _reliability_line(panel: EvidenceFields) -> str:
    """The text of `Evidence.sentence`; empty if the number of samples is not available."""
    if panel["samples"] is None:
        return ""
    given = {name: panel[name] for name in _EVIDENCE}  # type: ignore[literal-required]
    default = Evidence()._asdict()
    return Evidence(**{name: default[name] if value is None else value for name, value in given.items()}).sentence
