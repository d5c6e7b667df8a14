"""Panels of a head grid, from any data that can be shown: scores, comparisons, studies, arrays, mappings of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr

from headnb.display.array_input import is_list_of_results, is_matrix_like, labelled, to_labelled_array
from headnb.display.constants import MAX_SIDE, VALUE
from headnb.display.panel_statistics import Statistics, pattern_statistics, score_statistics, stored_statistics
from headnb.display.study_panels import of_one_task, study_changes, study_levels
from headnb.errors import HeadnbError
from headnb.stats.patterns import pattern
from headnb.stats.results import SAMPLE_ATTRS, is_computed, is_result, trusted_attrs
from headnb.stats.score_statistics import head_intervals

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class PanelData:
    """One panel before rounding: `cells` has `values` and optionally `low`, `high`, `significant` and `q_value`.

    `facts` are its attributes, and the coordinates that differ between panels. `numbers` are the model's numbers of its
    layers and of its heads.
    """

    title: str
    cells: dict[str, np.ndarray]
    facts: dict[str, Any]
    numbers: tuple[tuple[int, ...], tuple[int, ...]]
    statistics: Statistics = ({}, {})
    dimension: str = ""
    step: float | None = None
    course: str = ""
    change: PanelData | None = None

    def text(self, name: str) -> str:
        """A fact as text; empty if it is not known."""
        value = self.facts.get(name)
        return "" if value is None else str(value)

    def number(self, name: str) -> float | None:
        """A fact as a finite number; None if it is not one."""
        value = self.facts.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            return None
        return float(value) if math.isfinite(value) else None

    def count(self, name: str) -> int | None:
        """A fact as a whole number of 0 or more; None if it is not one."""
        number = self.number(name)
        return int(number) if number is not None and number >= 0 else None


def panels_of(data: object, title: str = "") -> Iterator[PanelData]:
    """The panels of `data` in order; see `payload.payload` for the types. `title` precedes each panel's own title.

    Raises:
        HeadnbError: `data` has another type, or a level is negative.
    """
    if isinstance(data, xr.DataArray) and "sample" in data.dims:
        if is_result(data) and {"reduction", "method"} & data.attrs.keys():
            yield from panels_of(data.to_dataset(name="score").assign_attrs(data.attrs), title)
        else:
            cells = data.compute().mean("sample").to_dataset(name="values").assign_attrs(_attrs_without_units(data))
            yield from _slices(cells, title, None)
    elif isinstance(data, xr.DataArray) or is_matrix_like(data):
        yield from _slices(_cells(to_labelled_array(data)), title, None)
    elif isinstance(data, xr.Dataset) and "score" in data:
        yield from _slices(*_summary(data, title))
    elif isinstance(data, xr.Dataset) and "level" in data:
        yield from _study(of_one_task(data), title)
    elif isinstance(data, xr.Dataset) and "difference" in data:
        names = [name for name in ("low", "high", "significant", "q_value") if name in data and is_result(data)]
        cells = data[["difference", *names]].rename(difference="values").compute()
        cells.attrs = {"kind": "difference", **trusted_attrs(data)} if is_result(data) else _attrs_without_units(data)
        yield from _slices(cells, title, None)
    elif isinstance(data, Mapping) and not isinstance(data, xr.Dataset):
        for name, value in data.items():
            yield from panels_of(value, " · ".join(filter(None, (title, str(name)))))
    elif is_list_of_results(data):
        yield from panels_of(labelled(cast("list[Any]", data)), title)
    else:
        raise HeadnbError(
            "cannot show this as a head grid: expected a pattern (DataArray), a comparison or scores (Dataset), a "
            f"matrix of layers x heads, or a mapping or list of them, got {type(data).__name__}"
        )


def _study(study: xr.Dataset, title: str) -> Iterator[PanelData]:
    """The panels of a study along training, or of several tasks: its levels, and their changes if it has them."""
    bounds = [end for end in ("low", "high") if end in study and is_result(study["level"])]
    cells = _cells(study_levels(study)).assign(study[bounds].compute())
    levels, changes = _slices(cells, title, None), study_changes(study)
    if changes is None:
        yield from levels
        return
    for level, change in zip(levels, _slices(changes, title, None), strict=True):
        yield replace(level, change=change)


def _cells(pattern: xr.DataArray) -> xr.Dataset:
    """A pattern as a Dataset of panel variables, with the attributes that describe its values."""
    cells = pattern.compute().to_dataset(name="values")
    name = "" if "method" in pattern.dims else str(pattern.name or "")  # xr.concat keeps the name of the first array
    facts = {"quantity": name, **trusted_attrs(pattern)} if is_result(pattern) else _attrs_without_units(pattern)
    cells.attrs = {"kind": VALUE, **facts}
    return cells


def _attrs_without_units(data: xr.DataArray | xr.Dataset) -> dict[str, Any]:
    """Attributes of numbers that are not a result of headnb."""
    return {**trusted_attrs(data), "kind": VALUE, "computed": int(is_computed(data))}


def _summary(scores: xr.Dataset, title: str) -> tuple[xr.Dataset, str, Statistics | None]:
    """The pattern of scores with its intervals, which need the scores of the samples.

    Scores with leading dims and methods without samples give a pattern without intervals.
    """
    levels = pattern(scores)
    cells = levels.to_dataset(name="values")
    if not is_result(scores):
        cells.attrs = _attrs_without_units(scores)
        return cells, title, None
    cells.attrs = {"quantity": str(levels.name or ""), **trusted_attrs(scores), **levels.attrs}
    if set(scores["score"].dims) != {"sample", "layer", "head"}:
        return cells, title, None
    bounds = head_intervals(scores)
    cells = cells.assign(low=bounds["low"], high=bounds["high"])
    return cells, title, score_statistics(scores) if cells.attrs.get("kind") == "level" else None


def _slices(cells: xr.Dataset, title: str, statistics: Statistics | None) -> Iterator[PanelData]:
    values = cells["values"]
    if set(values.dims[-2:]) != {"layer", "head"}:
        raise HeadnbError(f"a head grid needs the dims layer and head last, got {values.dims}")
    if cells.attrs.get("kind") == "level" and (values < 0).any():
        raise HeadnbError(
            "activation levels are never negative, but these values contain negative ones: remove the attribute kind, "
            "or compute differences with headnb.compare"
        )
    cells = cells.transpose(..., "layer", "head")
    leading = [str(dim) for dim in cells["values"].dims[:-2]]
    numbers = (_numbers(cells, "layer"), _numbers(cells, "head"))
    steps = _steps(cells, leading)
    dimension = leading[0] if len(leading) == 1 else "step" if steps else ""
    own = [statistics] if statistics is not None else stored_statistics(cells) or pattern_statistics(cells)
    labels = {dim: _labels(cells, dim) for dim in leading}
    columns = {str(name): cells[name].transpose(*leading, "layer", "head").values for name in cells.data_vars}
    facts = [
        (str(name), (coord.dims, coord.values.astype(object)))
        for name, coord in cells.coords.items()
        if set(coord.dims) <= set(leading) and not (cells.attrs.get("computed") and name in SAMPLE_ATTRS)
    ]
    for index, panel_statistics in zip(np.ndindex(*(cells.sizes[dim] for dim in leading)), own, strict=True):
        position = dict(zip(leading, index, strict=True))
        names = {dim: labels[dim][at] for dim, at in position.items()}
        course = [title, *(name for dim, name in names.items() if dim != "step" or not steps)]
        yield PanelData(
            " · ".join(filter(None, (title, *names.values()))),
            {name: column[index] for name, column in columns.items()},
            {**cells.attrs, **{name: column[tuple(position[dim] for dim in dims)] for name, (dims, column) in facts}},
            numbers,
            panel_statistics,
            dimension,
            steps[position["step"]] if steps else None,
            " · ".join(filter(None, course)),
        )


def _numbers(cells: xr.Dataset, dim: str) -> tuple[int, ...]:
    """The model's numbers of the layers or heads, which differ from the array's indices in a selection."""
    if dim not in cells.coords or cells.coords[dim].dtype.kind not in "iu":
        return (*range(cells.sizes[dim]),)
    numbers = tuple(cells.coords[dim].values.tolist())
    if len(set(numbers)) < len(numbers) or not all(0 <= number < MAX_SIDE for number in numbers):
        raise HeadnbError(f"a head grid needs unique {dim} numbers from 0 to {MAX_SIDE - 1}")
    return numbers


def _steps(cells: xr.Dataset, leading: list[str]) -> list[float]:
    """The training steps along the dim step, if they are numbers."""
    if "step" not in leading or "step" not in cells.coords or cells.coords["step"].dtype.kind not in "iuf":
        return []
    return list(cells.coords["step"].values.tolist())


def _labels(cells: xr.Dataset, dim: str) -> list[str]:
    """The name of each slice along a dim: `gsm8k` for a text, `step 20` for a number."""
    values = cells.coords[dim].values.tolist() if dim in cells.coords else range(cells.sizes[dim])
    return [value if isinstance(value, str) else f"{dim} {value}" for value in values]
