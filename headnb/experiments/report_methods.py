"""Agreement of scoring methods and ablation of the top heads: arrays of notebook 10 and its report section.

The run folder stores the arrays of all tasks together, so that the report needs no model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
import xarray as xr

from headnb.display.charts import plots
from headnb.display.charts.chart import Chart, chart_row
from headnb.display.report import FOUND, NOT_FOUND, UNDECIDED, Finding, Number, Section
from headnb.experiments.verdicts import LOSS, Answer, Effect, answer_of_cases
from headnb.stats.rounding import fixed, interval_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headnb.analysis.agreement import Agreement
    from headnb.analysis.deletion import DeletionCurve
    from headnb.experiments.folder import Run

_INTERVAL_FIELDS = ("value", "low", "high")
PARTS = ("correlation", "rise", "difference")


def agreement_arrays(agreements: Mapping[str, Agreement], curves: Mapping[str, DeletionCurve]) -> xr.Dataset:
    """Estimates for all tasks (task, ...): `correlation`, `rise` and `difference`, each with `_low` and `_high`.

    Args:
        agreements: task -> result of `compare_methods`.
        curves: task -> result of `deletion_curve`, all with the same scoring method.
    """
    tasks = pd.Index(agreements, name="task")
    parts = {"correlation": [of_task.correlation for of_task in agreements.values()]}
    parts["rise"] = [curves[task].rise for task in tasks]
    parts["difference"] = [curves[task].difference.rename(choice="less_random") for task in tasks]
    joined = {
        name: xr.concat([of_task[list(_INTERVAL_FIELDS)] for of_task in of_tasks], tasks)
        for name, of_tasks in parts.items()
    }
    return xr.merge(
        [
            joined_estimates.rename({end: name if end == "value" else f"{name}_{end}" for end in _INTERVAL_FIELDS})
            for name, joined_estimates in joined.items()
        ],
        combine_attrs="drop",
    )


def estimates(arrays: xr.Dataset, name: str) -> xr.Dataset:
    """One of `PARTS` of `agreement_arrays`: `value`, `low` and `high` (task, ...)."""
    return arrays[[name, f"{name}_low", f"{name}_high"]].rename(
        {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
    )


def correlation_chart(arrays: xr.Dataset) -> Chart:
    """Rank correlations of methods, one matrix per task."""
    return plots.correlation_matrix(estimates(arrays, "correlation"), title="Rank correlation of methods")


def deletion_charts(arrays: xr.Dataset) -> list[Chart]:
    """Rise of the loss against the number of ablated heads: one chart per task, one plot per replacement."""
    rise = estimates(arrays, "rise").rename(k="heads_removed")
    charts = []
    for task in map(str, arrays["task"].to_numpy()):
        parts = [
            plots.trajectory(
                rise.sel(task=task, replacement=replacement, drop=True),
                along="heads_removed",
                log=True,
                title=f"{replacement.capitalize()} ablation",
            )
            for replacement in arrays["replacement"].to_numpy()
        ]
        charts.append(chart_row(*parts, title=f"Rise of the loss on {task} (nats)"))
    return charts


def deletion_finding(arrays: xr.Dataset) -> Finding:
    """Whether ablating the top heads raises the loss more than ablating random heads of the same layers."""
    answer = deletion_answer(arrays)
    headline = {
        FOUND: "Ablating the top heads raises the loss more than ablating random heads of the same layers",
        NOT_FOUND: "Ablating the top heads does not raise the loss more than ablating random heads of the same layers",
        UNDECIDED: "It is undecided whether ablating the top heads raises the loss more than ablating random heads",
    }[answer.verdict]
    means = estimates(arrays, "difference").sel(less_random="top")["value"].mean(["task", "k"])
    numbers = tuple(
        Number(f"mean difference, {replacement} ablation", float(means.sel(replacement=replacement)))
        for replacement in means["replacement"].to_numpy()
    )
    sentence = f"{headline}: the largest difference is {largest_difference(arrays)}."
    return Finding(answer.verdict, sentence, answer.reason, numbers)


def deletion_answer(arrays: xr.Dataset) -> Answer:
    """The verdict on most combinations of task, replacement and number of heads."""
    top = estimates(arrays, "difference").sel(less_random="top", drop=True)
    ends = zip(top["low"].to_numpy().ravel(), top["high"].to_numpy().ravel(), strict=True)
    cases = "cases (tasks, replacements, numbers of heads)"
    return answer_of_cases([Effect(float(low), float(high)) for low, high in ends], LOSS, cases)


def largest_difference(arrays: xr.Dataset) -> str:
    """The case in which ablating the top heads raises the loss most, compared with random heads."""
    top = estimates(arrays, "difference").sel(less_random="top", drop=True)
    values = top["value"].to_numpy()
    largest = np.unravel_index(int(np.nanargmax(values)), values.shape)
    most = top.isel(dict(zip(top["value"].dims, map(int, largest), strict=True)))
    task, replacement, k = (most[dim].item() for dim in ("task", "replacement", "k"))
    value, low, high = (float(most[end]) for end in _INTERVAL_FIELDS)
    return f"{interval_text(value, low, high, '+')} nats ({task}, top {k} heads, {replacement} ablation)"


def agreement_verdict(arrays: xr.Dataset, measure: str) -> str:
    """Methods with the highest and lowest rank correlation with `measure`, mean over tasks."""
    rows = estimates(arrays, "correlation").sel(measure=measure, drop=True).mean("task")
    others = rows.sel(other_measure=[name for name in rows["other_measure"].to_numpy() if name != measure])
    others = others.sel(other_measure=others["value"].notnull())  # noqa: PD004  of xarray
    if not others.sizes["other_measure"]:
        return "Rank correlations of the methods are not available: too few samples."
    names, values = others["other_measure"].to_numpy().tolist(), others["value"].to_numpy()
    highest, lowest = (f"{names[index]} ({fixed(values[index])})" for index in (values.argmax(), values.argmin()))
    negative = [name for name, value in zip(names, values, strict=True) if value < 0]
    end = f" Negative correlation: {', '.join(negative)}." if negative else ""
    extremes = highest if len(names) == 1 else f"highest for {highest}, lowest for {lowest}"
    return f"Noise-corrected rank correlation with {measure}, mean over tasks: {extremes}.{end}"


def agreement_numbers(agreements: Mapping[str, Agreement], curves: Mapping[str, DeletionCurve]) -> dict[str, Any]:
    """All results as plain JSON values."""
    return {
        "agreement": {task: of_task.to_dict() for task, of_task in agreements.items()},
        "deletion": {task: of_task.to_dict() for task, of_task in curves.items()},
    }


def method_sections(run: Run) -> list[Section]:
    """Report section on scoring methods, if notebook 10 has run."""
    if not run.findings.has_arrays("methods_agree"):
        return []
    arrays, numbers = run.findings.arrays("methods_agree"), run.findings.numbers("methods_agree")
    verdicts = [
        f"{task}. {result['verdict']}" for part in ("agreement", "deletion") for task, result in numbers[part].items()
    ]
    charts = deletion_charts(arrays)
    return [
        Section(
            "Methods",
            "Do scoring methods agree, and does ablating the top heads raise the loss?",
            deletion_finding(arrays),
            picture=charts[0],
            sentences=(agreement_verdict(arrays, str(arrays["measure"].to_numpy()[0])), *verdicts),
            charts=(*charts[1:], correlation_chart(arrays)),
        )
    ]
