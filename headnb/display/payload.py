"""Display payload: the content of a head grid's picture as plain JSON.

A payload holds one or several panels (tasks, stages, steps) of the same layers x heads on one colour scale; panels of
methods whose values have another kind or unit have a scale of their own. The HTML,
SVG and text forms, JupyterLab's renderer and `*.heads.json` files all use it. `pattern.schema.json` in this folder
describes its format. A missing value (of a layer without softmax heads) is null, since JSON has no NaN. Readers ignore
unknown fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import xarray as xr

from headnb.display.colours import Kind, shared_scale
from headnb.display.compact import compress_values, scale_factor
from headnb.display.constants import KINDS, VALUE, VERSION
from headnb.display.footer import add_footer, evidence_fields
from headnb.display.panel_data import panels_of
from headnb.display.panel_statistics import rounded
from headnb.display.payload_types import Cells
from headnb.display.study_panels import study_curves
from headnb.display.text_notes import text_notes
from headnb.errors import HeadnbError
from headnb.stats.patterns import HEADS
from headnb.stats.rank_differences import RANK_DIFFERENCE, RANK_NOTE
from headnb.stats.results import method_label
from headnb.stats.scoring_revision import revision_note

if TYPE_CHECKING:
    from headnb.display.panel_data import PanelData
    from headnb.display.payload_types import Matrix, Own, Panel, Payload, Progress, Scale

MIME_TYPE = "application/vnd.headnb.pattern.v1+json"
COMPACT_ABOVE = 20_000  # total number of values above which they are stored as float16
_T = TypeVar("_T")


def payload(data: object, *, title: str = "", progress: Progress | None = None) -> Payload:
    """Create the display payload of `data`.

    `data` is a pattern (DataArray whose last dims are layer and head; leading dims such as task or step become
    panels), a comparison or scores (Dataset), a matrix of numpy, torch, pandas or lists, a mapping from panel titles to
    any of these, or a list of results. Arrays without headnb's attributes, and arrays computed from results (see
    `stats.results`), are drawn as plain values without units, reliability or statistics. Values keep 4 significant
    digits, intervals 3. Raises HeadnbError if `data` has another type, if a level is negative, or if the panels differ
    in shape, or in kind or units without being of different methods.
    """
    grids = list(panels_of(data))
    if not grids:
        raise HeadnbError("nothing to show: expected a pattern, a comparison or scores, or a mapping of them")
    looks = _looks(grids)
    first = looks[0]
    layers, heads = _require_equal("layers x heads", [grid.cells["values"].shape for grid in grids])
    numbers = [_require_equal(f"{dim}s", [grid.numbers[axis] for grid in grids]) for axis, dim in enumerate(HEADS)]
    chosen = {f"{dim}_numbers": list(of) for dim, of in zip(HEADS, numbers, strict=True) if of != (*range(len(of)),)}
    groups = {grid.count("kv_heads") or heads for grid in grids}
    # in a selection of heads it is not known which of them share a key/value head
    kv_heads = groups.pop() if len(groups) == 1 and "head_numbers" not in chosen else heads
    facts = ("model", "task", "method", "loss_reduction")
    models, tasks, method, loss = (_common_or_empty([grid.text(name) for grid in grids]) for name in facts)
    before = _common_or_empty([grid.text("model_before") for grid in grids])
    change = f"{before} → {models}" if before and models and before != models else models
    changes = [grid.change for grid in grids if grid.change is not None]
    tested = [*grids, *changes]
    alphas = [grid.number("alpha") for grid in tested if "significant" in grid.cells]
    levels = [grid.number("interval_level") or 0.95 for grid in tested if "low" in grid.cells]
    result: Payload = {
        "version": VERSION,
        "title": title or " · ".join(filter(None, (change, tasks))) or "attention heads",
        "model": models,
        "task": tasks,
        "method": method,
        "loss_reduction": loss,
        "kind": first.kind,
        "quantity": first.quantity,
        "units": first.units,
        "layers": layers,
        "heads": heads,
        "kv_heads": kv_heads if heads % kv_heads == 0 else heads,
        "dimension": grids[0].dimension,
        "scale": first.scale,
        "alpha": alphas[0] if len(set(alphas)) == 1 else None,
        "interval_level": _require_equal("interval level", levels) if levels else 0.95,
        "columns": [],
        "panels": [
            _panel(grid, look.factor, look.own if look != first else None)
            for grid, look in zip(grids, looks, strict=True)
        ],
    }
    result |= cast("Payload", chosen)
    if changes:
        _add_changes(result, grids)
    if isinstance(data, xr.Dataset) and "level" in data and (curves := study_curves(data)):
        result["curves"] = curves
    add_footer(result)
    if progress is not None:
        result["progress"] = progress
    return result


def _panel(grid: PanelData, factor: float | None, own: Own | None = None) -> Panel:
    """A panel with compact values scaled by `factor`, or with plain numbers if `factor` is None."""
    cells = grid.cells
    reliability = rounded(grid.number("reliability"), 4)
    panel: Panel = {
        **evidence_fields(grid.count, reliability),  # type: ignore[typeddict-item]  # add_footer adds the other fields
        "title": grid.title or grid.text("task") or "pattern",
        "values": _matrix(cells["values"], 4) if factor is None else compress_values(cells["values"], factor),
        "statistics": grid.statistics[0],
        "notes": _notes(grid),
    }
    if own is not None:
        panel["own"] = own
    if grid.statistics[1]:
        panel["withheld"] = grid.statistics[1]
    if grid.step is not None:
        panel |= {"step": grid.step, "course": grid.course}
    if "low" in cells and "high" in cells:
        panel["low"], panel["high"] = _matrix(cells["low"], 3), _matrix(cells["high"], 3)
    if "significant" in cells:
        panel["significant"] = cells["significant"].astype(int).tolist()
    if "q_value" in cells:
        panel["q"] = _matrix(cells["q_value"], 3)
    return panel


def _add_changes(result: Payload, grids: list[PanelData]) -> None:
    """Add the changes of the panels and their scale; compact changes have no intervals, which would be too large."""
    values = np.concatenate([grid.change.cells["values"].ravel() for grid in grids if grid.change is not None])
    low, high = shared_scale(values, "difference")
    result["change_scale"] = {"low": low, "high": high}
    factor = scale_factor(values) if values.size > COMPACT_ABOVE else None
    for panel, grid in zip(result["panels"], grids, strict=True):
        if grid.change is not None:
            change = _panel(grid.change, factor)
            dropped = set() if factor is None else {"low", "high", "q"}
            kept = Cells.__annotations__.keys() - dropped
            panel["change"] = cast("Cells", {name: value for name, value in change.items() if name in kept})


def _notes(grid: PanelData) -> list[str]:
    """Notes on how the values were computed, such as missing or truncated samples."""
    notes = []
    if grid.number("complete") == 0:
        if steps := grid.count("steps_total"):
            notes.append(f"Stopped early: {grid.count('steps_done')} of {steps} steps are done.")
        else:
            requested = grid.count("samples_requested")
            reason = grid.text("until") and f" ({grid.text('until')})"
            notes.append(f"Stopped early: {grid.count('samples')} of {requested} samples are scored{reason}.")
    if excluded := grid.count("left_out"):
        notes.append(f"Excluded: {excluded} sample(s) without an answer token after truncation.")
    if truncated := grid.count("truncated"):
        notes.append(f"Truncated: {truncated} sample(s).")
    if unpaired := grid.count("samples_unpaired"):
        notes.append(f"Not compared: {unpaired} sample(s) that occur in only one of the two results.")
    if note := revision_note(grid.facts):
        notes.append(note)
    if grid.number("computed"):
        notes.append(
            "Plain values computed from head scores: units, intervals and reliability are not available. "
            "Use headnb.compare(before, after) to compare two scores."
        )
    if grid.text("quantity") == RANK_DIFFERENCE:
        notes.append(RANK_NOTE)
    return [*notes, *text_notes(grid.count)]


def _matrix(values: np.ndarray, digits: int) -> Matrix:
    return [[rounded(value, digits) for value in row] for row in values.tolist()]


@dataclass(frozen=True)
class _Look:
    """What panels on one colour scale share."""

    kind: Kind
    scale: Scale
    quantity: str
    units: str
    factor: float | None
    """Of compact values; None for plain numbers."""

    @property
    def own(self) -> Own:
        """The fields of a panel whose look is not that of its payload."""
        return {"kind": self.kind, "scale": self.scale, "quantity": self.quantity, "units": self.units}


def _looks(grids: list[PanelData]) -> list[_Look]:
    """The look of each panel. Only panels of different methods may differ in kind and units.

    Raises:
        HeadnbError: panels of one method, or without a method, have different kinds or units; or an unknown kind.
    """
    methods: dict[str, list[PanelData]] = {}
    for grid in grids:
        methods.setdefault(grid.text("method"), []).append(grid)
    for members in [grids] if "" in methods else methods.values():
        _require_equal("kind", [grid.text("kind") for grid in members])
        _require_equal("units", [grid.text("units") for grid in members])
    groups: dict[tuple[str, str], list[PanelData]] = {}
    for grid in grids:
        groups.setdefault((grid.text("kind"), grid.text("units")), []).append(grid)
    compact = sum(grid.cells["values"].size for grid in grids) > COMPACT_ABOVE
    looks = {key: _look(members, compact=compact) for key, members in groups.items()}
    return [looks[grid.text("kind"), grid.text("units")] for grid in grids]


def _look(grids: list[PanelData], *, compact: bool) -> _Look:
    """The look of panels with one kind and unit."""
    kind, plain = _kind_of(grids)
    values = np.concatenate([grid.cells["values"].ravel() for grid in grids])
    low, high = shared_scale(values, kind)
    quantity = VALUE if plain else _quantity(grids, kind)
    return _Look(
        kind, {"low": low, "high": high}, quantity, grids[0].text("units"), scale_factor(values) if compact else None
    )


def _kind_of(grids: list[PanelData]) -> tuple[Kind, bool]:
    """The kind of all panels, and whether their values are plain numbers without known meaning.

    Raises:
        HeadnbError: the panels have different kinds, or an unknown kind.
    """
    kind = _require_equal("kind", [grid.text("kind") for grid in grids])
    if kind == VALUE:
        return "signed" if any((grid.cells["values"] < 0).any() for grid in grids) else "level", True
    if kind not in KINDS:
        raise HeadnbError(
            f"a pattern's attribute kind must be one of {', '.join((*KINDS, VALUE))}; got {kind or 'none'!r}"
        )
    return cast("Kind", kind), False


def _quantity(grids: list[PanelData], kind: Kind) -> str:
    named = [grid.text("method") and method_label(grid.facts) for grid in grids]
    name = _common_or_empty(
        [grid.text("quantity").replace("_", " ") or label for grid, label in zip(grids, named, strict=True)]
    )
    if kind == "difference":
        return "difference of ranks" if name == RANK_DIFFERENCE.replace("_", " ") else f"change in {name or 'score'}"
    return name or "score"


def _require_equal(what: str, values: list[_T]) -> _T:
    if len(set(values)) > 1:
        raise HeadnbError(f"panels on one scale need the same {what}, got {' and '.join(map(str, set(values)))}")
    return values[0]


def _common_or_empty(names: list[str]) -> str:
    return names[0] if len(set(names)) == 1 else ""
