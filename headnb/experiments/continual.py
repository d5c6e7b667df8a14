"""Tasks learned one after another in a run folder: what the notebooks on continual learning read and write.

continual/seed<k>/stage<i>/<task>.zarr   scores of a task after i tasks are learned
continual/seed<k>/result.json            the order, and how it was trained; written last
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
    """The tasks in the order in which they are learned; by default the run's.

    Raises:
        HeadnbError: a task that the run does not have, or one twice.
    """
    known = run.settings.tasks
    for place, task in enumerate(order):
        if task not in known:
            raise unknown_name("task of this run", task, known)
        if task in order[:place]:
            raise HeadnbError(f"the order has {task} twice")
    return list(order or known)


def finish_continual(run: Run, seed: int, order: Sequence[str], how: dict[str, Any]) -> dict[str, Any]:
    """Write result.json, which says that this seed is complete; returns what it holds."""
    result = {"order": list(order), "seed": seed, "how": how}
    write_json(run.paths.continual(seed) / "result.json", result)
    return result


def continual_results(run: Run) -> dict[int, dict[str, Any]]:
    """Seed -> result.json of the sequences that are complete; empty if none is."""
    seeds = complete_seeds(run.paths.continual(0).parent)
    return {seed: read_json(run.paths.continual(seed) / "result.json", TRAINING) for seed in seeds}


def stages_of(run: Run, seed: int, order: Sequence[str]) -> list[dict[str, xr.Dataset]]:
    """Task -> scores, before and after each task of one sequence.

    Raises:
        HeadnbError: scores that are not there or not complete.
    """
    notebook_name = f"{TRAINING}, seed {seed}"
    later = [
        {task: scores_at(run.paths.stage(seed, stage, task), notebook_name) for task in order}
        for stage in range(1, len(order) + 1)
    ]
    return [{task: run.before(task) for task in order}, *later]


def losses_of(run: Run, seed: int, order: Sequence[str]) -> xr.DataArray:
    """Mean held-out loss (stage, task) of one sequence, of the samples that were scored at every stage."""
    stages = stages_of(run, seed, order)
    rows = [[float(s[task]["loss"].sel(sample=stages[-1][task]["sample"]).mean()) for task in order] for s in stages]
    labels = {"stage": [BEFORE, *(f"after {task}" for task in order)], "task": list(order)}
    return xr.DataArray(rows, labels, ("stage", "task"), attrs={"long_name": "held-out loss", "units": "nats"})


def describe_losses(losses: xr.DataArray) -> str:
    """What one sequence did to the mean losses of `losses_of`."""
    tasks = losses["task"].to_numpy().tolist()
    texts = [
        f"{task} {float(losses[0, j]):.2f}, when learned {float(losses[j + 1, j]):.2f}, at the end "
        f"**{float(losses[-1, j]):.2f}**"
        for j, task in enumerate(tasks)
    ]
    return f"Held-out loss before, in nats: {'; '.join(texts)}."


def forgetting_of(run: Run) -> Forgetting:
    """What became of each task, over the seeds that are complete.

    Raises:
        HeadnbError: there are none, or they were trained in different orders.
    """
    results = continual_results(run)
    if not results:
        raise HeadnbError(f"{run.folder} has no tasks learned one after another; notebook {TRAINING} makes them")
    orders = {tuple(result["order"]) for result in results.values()}
    if len(orders) > 1:
        texts = sorted(", ".join(order) for order in orders)
        raise HeadnbError(f"the seeds learned the tasks in different orders: {'; '.join(texts)}")
    (order,) = orders
    return forgetting(order, [stages_of(run, seed, order) for seed in results])
