"""How far methods agree, and what removing the first heads does: what notebook 10 keeps, and its part of the report.

The model is needed to find this out and not to show it: arrays of all tasks together are kept in the run folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
import xarray as xr

from headnb.display.charts import plots
from headnb.display.charts.chart import Chart, chart_row
from headnb.display.report import Finding, Number, Section
from headnb.stats.rounding import interval_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headnb.analysis.agreement import Agreement
    from headnb.analysis.deletion import DeletionCurve
    from headnb.experiments.folder import Run

_INTERVAL_FIELDS = ("value", "low", "high")
PARTS = ("correlation", "rise", "difference")


def agreement_arrays(agreements: Mapping[str, Agreement], curves: Mapping[str, DeletionCurve]) -> xr.Dataset:
    """The estimates of every task (task, ...): `correlation`, `rise` and `difference`, each with `_low` and `_high`.

    Args:
        agreements: task -> what `compare_methods` gave.
        curves: task -> what `deletion_curve` gave, all of one method.
    """
    tasks = pd.Index(agreements, name="task")
    parts = {"correlation": [one.correlation for one in agreements.values()]}
    parts["rise"] = [curves[task].rise for task in tasks]
    parts["difference"] = [curves[task].difference.rename(choice="less_random") for task in tasks]
    joined = {
        name: xr.concat([one[list(_INTERVAL_FIELDS)] for one in of_task], tasks) for name, of_task in parts.items()
    }
    return xr.merge(
        [
            found.rename({end: name if end == "value" else f"{name}_{end}" for end in _INTERVAL_FIELDS})
            for name, found in joined.items()
        ],
        combine_attrs="drop",
    )


def estimates(arrays: xr.Dataset, name: str) -> xr.Dataset:
    """One of `PARTS` of `agreement_arrays`: `value`, `low` and `high` (task, ...)."""
    return arrays[[name, f"{name}_low", f"{name}_high"]].rename(
        {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
    )


def correlation_chart(arrays: xr.Dataset) -> Chart:
    """The rank correlations of methods, a table for each task."""
    return plots.correlation_matrix(estimates(arrays, "correlation"), title="rank correlation of methods")


def deletion_charts(arrays: xr.Dataset) -> list[Chart]:
    """For each task the rise of the loss against the number of heads removed, one plot for each replacement."""
    rise = estimates(arrays, "rise").rename(k="heads_removed")
    charts = []
    for task in map(str, arrays["task"].to_numpy()):
        parts = [
            plots.trajectory(
                rise.sel(task=task, replacement=how, drop=True),
                along="heads_removed",
                log=True,
                title=f"replaced by {how}",
            )
            for how in arrays["replacement"].to_numpy()
        ]
        charts.append(chart_row(*parts, title=f"{task}: rise of the loss (nats)"))
    return charts


def deletion_verdict(arrays: xr.Dataset) -> tuple[bool | None, str]:
    """Whether removing the first heads hurts more than removing random ones of their layers, and that in words."""
    top = estimates(arrays, "difference").sel(less_random="top", drop=True)
    more, less, of = int((top["low"] > 0).sum()), int((top["high"] < 0).sum()), top["value"].size
    holds = True if more > of / 2 else False if less > of / 2 else None
    said = {True: "hurts more than", False: "hurts less than", None: "is not shown to hurt more than"}[holds]
    values = top["value"].to_numpy()
    largest = np.unravel_index(int(np.nanargmax(values)), values.shape)
    most = top.isel(dict(zip(top["value"].dims, map(int, largest), strict=True)))
    task, how, k = (most[dim].item() for dim in ("task", "replacement", "k"))
    value, low, high = (float(most[end]) for end in _INTERVAL_FIELDS)
    return holds, (
        f"Removing the heads with the highest scores {said} removing random heads of the same layers: more in {more} "
        f"of {of} cases (tasks, replacements, numbers of heads), less in {less}, beyond the intervals. The difference "
        f"is largest on {task} without the first {k}, replaced by {how}: "
        f"{interval_text(value, low, high, '+')} nats."
    )


def agreement_verdict(arrays: xr.Dataset, measure: str) -> str:
    """Which methods rank heads most and least as `measure` does, mean over tasks."""
    rows = estimates(arrays, "correlation").sel(measure=measure, drop=True).mean("task")
    others = rows.sel(other_measure=[name for name in rows["other_measure"].to_numpy() if name != measure])
    others = others.sel(other_measure=others["value"].notnull())  # noqa: PD004  of xarray
    if not others.sizes["other_measure"]:
        return "How far the methods rank heads alike is not known from these samples."
    names, values = others["other_measure"].to_numpy().tolist(), others["value"].to_numpy()
    most, least = (f"{names[place]} ({values[place]:.2f})" for place in (values.argmax(), values.argmin()))
    against = [name for name, value in zip(names, values, strict=True) if value < 0]
    turned = f" Ranked the other way round by {', '.join(against)}." if against else ""
    most_alike = (
        f"{most} is most like {measure}" if len(names) == 1 else f"{most} is most like {measure} and {least} least"
    )
    return f"By rank correlation, freed of noise and mean over tasks, {most_alike}.{turned}"


def agreement_numbers(agreements: Mapping[str, Agreement], curves: Mapping[str, DeletionCurve]) -> dict[str, Any]:
    """Everything as plain JSON values."""
    return {
        "agreement": {task: one.to_dict() for task, one in agreements.items()},
        "deletion": {task: one.to_dict() for task, one in curves.items()},
    }


def method_sections(run: Run) -> list[Section]:
    """The report's part on methods, where notebook 10 has run."""
    if not run.findings.has_arrays("methods_agree"):
        return []
    arrays, numbers = run.findings.arrays("methods_agree"), run.findings.numbers("methods_agree")
    holds, sentence = deletion_verdict(arrays)
    said = [f"{task}. {one['verdict']}" for part in ("agreement", "deletion") for task, one in numbers[part].items()]
    top = estimates(arrays, "difference").sel(less_random="top")
    means = (
        Number(f"mean difference, replaced by {how}", float(top["value"].sel(replacement=how).mean()))
        for how in top["replacement"].to_numpy()
    )
    return [
        Section(
            "Methods",
            "Do other ways to score heads agree, and does the model need the heads that come first?",
            Finding(holds, sentence, tuple(means)),
            sentences=(agreement_verdict(arrays, str(arrays["measure"].to_numpy()[0])), *said),
            charts=(correlation_chart(arrays), *deletion_charts(arrays)),
        )
    ]
