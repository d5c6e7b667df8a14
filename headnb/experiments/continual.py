"""Continual learning in a run folder: the files that the two notebooks 12 write and read.

continual/seed<k>/stage<i>/<task>.zarr   scores of a task after i tasks are learned
continual/seed<k>/result.json            order of the tasks and training settings; written last
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from headnb.analysis.forgetting import BEFORE, forgetting
from headnb.errors import HeadnbError, unknown_name
from headnb.experiments.folder import scores_at
from headnb.experiments.paths import complete_seeds
from headnb.storage.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headnb.analysis.forgetting import Forgetting
    from headnb.experiments.folder import Run

TRAINING = "12_continual_training"


def task_order(run: Run, order: Sequence[str]) -> list[str]:
    """Tasks in the order of training; an empty `order` gives the order of the run.

    Raises:
        HeadnbError: a task is not in the run, or is listed twice.
    """
    known = run.settings.tasks
    for position, task in enumerate(order):
        if task not in known:
            raise unknown_name("task of this run", task, known)
        if task in order[:position]:
            raise HeadnbError(f"the order lists {task} twice")
    return list(order or known)


def finish_continual(run: Run, seed: int, order: Sequence[str], how: dict[str, Any]) -> dict[str, Any]:
    """Write result.json, which marks this seed as complete; return its content. `how` has the training settings."""
    result = {"order": list(order), "seed": seed, "how": how}
    write_json(run.paths.continual(seed) / "result.json", result)
    return result


def continual_results(run: Run) -> dict[int, dict[str, Any]]:
    """Seed -> content of result.json, for the complete sequences; empty if there are none."""
    seeds = complete_seeds(run.paths.continual(0).parent)
    return {seed: read_json(run.paths.continual(seed) / "result.json", TRAINING) for seed in seeds}


def stages_of(run: Run, seed: int, order: Sequence[str]) -> list[dict[str, xr.Dataset]]:
    """Scores of every task (task -> scores) before the first and after each task of one sequence.

    Raises:
        HeadnbError: scores are missing or incomplete.
    """
    notebook_name = f"{TRAINING}, seed {seed}"
    later = [
        {task: scores_at(run.paths.stage(seed, stage, task), notebook_name) for task in order}
        for stage in range(1, len(order) + 1)
    ]
    return [{task: run.before(task) for task in order}, *later]


def losses_of(run: Run, seed: int, order: Sequence[str]) -> xr.DataArray:
    """Mean held-out loss (stage, task) of one sequence, over the samples that are scored at every stage."""
    stages = stages_of(run, seed, order)
    rows = [[float(s[task]["loss"].sel(sample=stages[-1][task]["sample"]).mean()) for task in order] for s in stages]
    labels = {"stage": [BEFORE, *(f"after {task}" for task in order)], "task": list(order)}
    return xr.DataArray(rows, labels, ("stage", "task"), attrs={"long_name": "held-out loss", "units": "nats"})


def describe_losses(losses: xr.DataArray) -> str:
    """Loss of each task before training, directly after learning it, and at the end; from `losses_of`."""
    tasks = losses["task"].to_numpy().tolist()
    texts = [
        f"{task} {float(losses[0, j]):.2f} / {float(losses[j + 1, j]):.2f} / **{float(losses[-1, j]):.2f}**"
        for j, task in enumerate(tasks)
    ]
    return f"Held-out loss in nats before training / after learning the task / at the end: {'; '.join(texts)}."


def forgetting_of(run: Run) -> Forgetting:
    """Forgetting of each task, over the complete seeds.

    Raises:
        HeadnbError: no seed is complete, or the seeds used different orders.
    """
    results = continual_results(run)
    if not results:
        raise HeadnbError(f"{run.folder} has no sequence of trained tasks; run notebook {TRAINING} first")
    orders = {tuple(result["order"]) for result in results.values()}
    if len(orders) > 1:
        texts = sorted(", ".join(order) for order in orders)
        raise HeadnbError(f"the seeds learned the tasks in different orders: {'; '.join(texts)}")
    (order,) = orders
    return forgetting(order, [stages_of(run, seed, order) for seed in results])
