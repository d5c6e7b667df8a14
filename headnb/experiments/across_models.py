"""Samples to half-change across models, from the run folders of several models (finding 3 of arXiv 2409.15820).

The paper says that stronger models need fewer samples. Here a model's number is the geometric mean over tasks and seeds
of the training samples that were seen when half of a pattern's change was completed. Models are compared on the tasks
that all of them have; the interval is Student's t over these tasks, of means over seeds, on a log scale. Below three
tasks it would say nothing and is NaN.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
import xarray as xr

from headnb.errors import HeadnbError
from headnb.experiments.findings import trajectories_of
from headnb.experiments.folder import Run
from headnb.hub import offline_unless_reachable
from headnb.models.configs import read_config
from headnb.models.loading import weights_folder
from headnb.stats.rounding import interval_text
from headnb.stats.significance import HeadIntervals, t_intervals

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from headnb.stats.descriptive import Array

MIN_TASKS = 3  # of an interval over tasks


def half_changes(folders: Iterable[str | Path], *, scale_free: bool = True) -> pd.DataFrame:
    """One row per model, task and seed: `samples` at half of the pattern's change, with `low` and `high`.

    Args:
        folders: run folders, one per model, or several of one model at different checkpoints (in folders of their own).
        scale_free: divide each pattern by its mean first.

    Returns:
        Also `family` (architecture) and `parameters` of each model. `samples` is NaN where the first and the last
        pattern do not differ beyond noise. `low` and `high` are tracked steps' samples (95 %, over samples).

    Raises:
        HeadnbError: no folders, two runs of one model, or a run without fine-tunings.
    """
    rows: list[dict[str, Any]] = []
    for folder in folders:
        run = Run(folder)
        model = run.settings.model
        if model in {row["model"] for row in rows}:
            raise HeadnbError(f"two run folders have the model {model}; give one per model")
        family, parameters = _size_of(model)
        for (task, seed), of_run in trajectories_of(run, scale_free=scale_free).items():
            ends = {name: of_run.seen(getattr(of_run.half, name)) for name in ("value", "low", "high")}
            about = {"model": model, "family": family, "parameters": parameters, "task": task, "seed": seed}
            rows.append(about | {"samples": ends["value"], "low": ends["low"], "high": ends["high"]})
    if not rows:
        raise HeadnbError("no run folders given")
    return pd.DataFrame(rows)


def compare_models(changes: pd.DataFrame) -> xr.Dataset:
    """Samples to half-change of each model, smallest first, on the tasks that all models have.

    Args:
        changes: the result of `half_changes`.

    Returns:
        Dataset (model): `family`, `parameters`; `value`, `low`, `high`: geometric mean of samples with its 95 %
        interval over tasks; `ratio`, `ratio_low`, `ratio_high`: the same divided by the smallest model's, paired by
        task. Attributes: `tasks`, number of tasks; `left_out`, number of training runs without a half-change.

    Raises:
        HeadnbError: no task has a half-change in every model.
    """
    logs = changes.assign(log=np.log(changes["samples"].where(changes["samples"] > 0)))
    means = logs.pivot_table("log", "model", "task", dropna=False).dropna(axis=1)
    if means.empty:
        raise HeadnbError("no task has a measured half-change in every model")
    about = changes.groupby("model")[["family", "parameters"]].first().sort_values("parameters", kind="stable")
    values = means.loc[about.index].to_numpy()  # (models, tasks)
    columns = _intervals(values) | dict(
        zip(("ratio", "ratio_low", "ratio_high"), _intervals(values - values[0]).values(), strict=True)
    )
    return xr.Dataset(
        {name: ("model", about[name].to_numpy()) for name in about} | {k: ("model", v) for k, v in columns.items()},
        {"model": about.index.to_numpy().astype(str)},
        {"tasks": means.shape[1], "left_out": int(logs["log"].isna().sum()), "quantity": "samples to half-change"},
    )


def across_models_summary(compared: xr.Dataset) -> str:
    """Whether each larger model needs fewer samples than the smallest one, in sentences."""
    models, tasks = compared.sizes["model"], compared.attrs["tasks"]
    parts = [f"Number of models: {models}; number of tasks common to all: {tasks}."]
    if left_out := compared.attrs["left_out"]:
        parts.append(f"{left_out} training runs without a measured half-change are left out.")
    first = str(compared["model"][0].item())
    for row in range(1, models):
        one = compared.isel(model=row)
        low, high = float(one["ratio_low"]), float(one["ratio_high"])
        known = np.isfinite([low, high]).all()
        finding = "fewer" if known and high < 1 else "more" if known and low > 1 else "not shown to be more or fewer"
        ratio = interval_text(float(one["ratio"]), low, high)
        parts.append(f"{one['model'].item()} needs {ratio} times the samples of {first}: {finding}.")
    parameters = compared["parameters"].to_numpy()
    if np.isfinite(parameters).all() and models > 2:
        falls = sum(bool(later < earlier) for earlier, later in pairwise(compared["value"].to_numpy()))
        parts.append(f"The number falls in {falls} of {models - 1} steps to the next larger model.")
    return " ".join(parts)


def _intervals(logs: Array) -> dict[str, Array]:
    """Means over tasks of (models, tasks), back from the log scale."""
    ends = t_intervals(logs.T)
    if logs.shape[1] < MIN_TASKS:
        ends = HeadIntervals(ends.mean, *np.full((2, len(logs)), np.nan))
    return {name: np.exp(end) for name, end in zip(("value", "low", "high"), ends, strict=True)}


def _size_of(model: str) -> tuple[str, float]:
    """Architecture and number of parameters, from the config alone; unknown if it cannot be read."""
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    with offline_unless_reachable() as online, torch.device("meta"):
        try:
            config = read_config(str(weights_folder(model) or model), {"trust_remote_code": False}, online=online)
            make: Any = AutoModelForCausalLM.from_config  # untyped in transformers
            described = make(config, trust_remote_code=False)
        except (HeadnbError, OSError, ValueError):
            return "unknown", np.nan
        return str(config.model_type), float(described.num_parameters())
