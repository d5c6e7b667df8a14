"""Content of a study's grid: the evidence of its levels, their changes since the first step, and the loss curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from headnb.display.panel_statistics import rounded
from headnb.stats.results import is_result, method_label, trusted_attrs

if TYPE_CHECKING:
    from headnb.display.payload_types import Curve

MAX_POINTS = 400
"""Largest number of points of a loss curve; with more updates, each point is the mean of several."""


def of_one_task(study: xr.Dataset) -> xr.Dataset:
    """The study without the dim `task` if it has a single task."""
    return study.isel(task=0) if study.sizes.get("task") == 1 else study


def study_levels(study: xr.Dataset) -> xr.DataArray:
    """The levels with the attributes of the study, and with the fields of their evidence as coordinates."""
    attrs = {**study.attrs, **study["level"].attrs}
    levels = study["level"].rename(method_label(attrs).replace(" ", "_")).assign_attrs(attrs)
    return levels.assign_coords(_evidence(study, "level_evidence"))


def study_changes(study: xr.Dataset) -> xr.Dataset | None:
    """The changes since the first step as panel variables; None without tests, or if they were recomputed."""
    if "change_q_value" not in study or not is_result(study["change"]) or study["change_q_value"].isnull().all():
        return None
    change = study["change"]
    attrs = {**study.attrs, **trusted_attrs(change)}
    cells = xr.Dataset({"values": change, "low": study["change_low"], "high": study["change_high"]})
    q_value = study["change_q_value"]
    cells = cells.assign(q_value=q_value, significant=q_value < attrs["alpha"])
    return cells.assign_coords(_evidence(study, "change_evidence")).assign_attrs(attrs)


def study_curves(study: xr.Dataset) -> list[Curve]:
    """The training loss over the updates, and the loss and any exact match of each tracked task over the steps."""
    curves = []
    if "train_loss" in study:
        curves.append(_curve("training loss", study["train_loss"], "update", "nats"))
    for name, words, units in (("eval_loss", "loss", "nats"), ("exact_match", "exact match", "")):
        if name in study:
            of_tasks = study[name] if "task" in study[name].dims else study[name].expand_dims("task")
            curves += [
                _curve(f"{words} on {task.item()}", of_tasks.sel(task=task), "step", units) for task in of_tasks["task"]
            ]
    return [curve for curve in curves if curve["steps"]]


def _evidence(study: xr.Dataset, name: str) -> dict[str, xr.DataArray]:
    if name not in study:
        return {}
    return {field: study[name].sel(evidence=field, drop=True) for field in study["evidence"].values.tolist()}


def _curve(label: str, course: xr.DataArray, dim: str, units: str) -> Curve:
    course = course.dropna(dim)
    groups = np.array_split(np.arange(course.size), min(course.size, MAX_POINTS)) if course.size else []
    return {
        "label": label,
        "units": units,
        "steps": [float(course[dim].values[group].mean()) for group in groups],
        "values": [rounded(float(course.values[group].mean()), 4) or 0.0 for group in groups],
    }
