"""Figures of a registered study, from its compact results: one for each question of docs/experiment.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from headnb.display.charts.fits import weights
from headnb.display.charts.plots import trajectory
from headnb.experiments.fair.descriptive import concentration_changes
from headnb.experiments.fair.results import read_long

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from headnb.display.charts.chart import Chart
    from headnb.experiments.fair.decision import Decision
    from headnb.experiments.fair.design import Design
    from headnb.experiments.fair.results import FairResults


def write_figures(folder: Path, results: FairResults, design: Design, decisions: Sequence[Decision]) -> dict[str, Path]:
    """Write the figures whose numbers are known, as SVG.

    Returns:
        Question -> path: composition, half-times, concentration.
    """
    primary = design.families[0]
    charts = {
        "composition": composition_chart(decisions[0]),
        "half-times": half_time_chart(results, primary.target, design.prefixes),
        "concentration": concentration_chart(results, primary.tasks),
    }
    paths = {name: folder / f"{design.name}_{name}.svg" for name, chart in charts.items() if chart is not None}
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in paths.items():
        charts[name].save(path)  # type: ignore[union-attr]
    return paths


def composition_chart(decision: Decision) -> Chart | None:
    """The shares that the rule compares with zero, with their one-sided limits."""
    shares = decision.shares
    if not shares:
        return None
    limits = np.array([[share[key] for key in ("value", "low", "high")] for share in shares.values()], dtype=float)
    values = xr.Dataset(
        {name: ("share", limits[:, column]) for column, name in enumerate(("value", "low", "high"))},
        {"share": list(shares)},
        {"quantity": f"share of e(Z), with one-sided {decision.level:.1%} limits"},
    )
    return weights(values, title="Composition: shares of the change beyond Z")


def half_time_chart(results: FairResults, target: str, lengths: Sequence[int]) -> Chart | None:
    """Half-times of the pattern and of the loss for every prefix of every long training."""
    trainings = {seed: read_long(results, target, seed) for seed in results.seeds("long", target)}
    if not trainings:
        return None
    of_length = [{row["length"]: row for row in rows} for rows in trainings.values()]
    halves = [
        [[rows[length][name] if length in rows else np.nan for length in lengths] for rows in of_length]
        for name in ("pattern", "loss")
    ]
    values = xr.DataArray(
        halves,
        {"of": ["pattern", "loss"], "seed": list(trainings), "length": list(lengths)},
        ("of", "seed", "length"),
        attrs={"quantity": "steps to half of the change"},
    )
    return trajectory(values, along="length", log=True, title="Half-time and length of the training, in steps")


def concentration_chart(results: FairResults, tasks: Sequence[str]) -> Chart | None:
    """Change of the Gini coefficient by training on own answers minus that by training on shuffled answers."""
    changes = concentration_changes(results, tasks)
    if not changes:
        return None
    difference = xr.concat(
        [one.difference for one in changes.values()], xr.DataArray(list(changes), dims="task", name="task")
    )
    gini = difference.sel(statistic="gini", drop=True)
    gini.attrs["quantity"] = "change of the Gini coefficient"
    return weights(gini, title="Own minus shuffled answers, 95 % t interval over seeds")
