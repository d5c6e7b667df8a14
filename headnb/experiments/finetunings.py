"""Fine-tunings in a run folder: their seeds, and the result.json that says that one is complete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headnb.call_checks import MAX_TRAINING_SEED
from headnb.stats.seeds import seed_of_task
from headnb.storage.files import write_json

if TYPE_CHECKING:
    import xarray as xr

    from headnb.experiments.folder import Run
    from headnb.tuning.result import FineTuned


def training_seed(task: str, seed: int) -> int:
    """The seed that a task's training number `seed` takes: another one for each task.

    The same noise in the runs of two tasks would look like something that their changes have in common.
    """
    return seed_of_task(seed, task) % (MAX_TRAINING_SEED + 1)


def finish_finetuning(run: Run, trained: str, seed: int, tuned: FineTuned) -> dict[str, Any]:
    """Write result.json from a fine-tuning, its scores on every task and its answers; returns what it holds."""
    losses = {task: _losses(run.before(task), run.after(trained, seed, task)) for task in run.settings.tasks}
    result = {"task": trained, "seed": seed, **_of_training(tuned), "loss": losses}
    for stage, answers in (("before", run.answers(trained)), ("after", run.answers(trained, seed))):
        if answers is not None:
            result |= {f"accuracy_{stage}": float(answers["accuracy"]), "answers": answers.sizes["sample"]}
    write_json(run.paths.finetuning(trained, seed) / "result.json", result)
    return result


def finish_shuffled(run: Run, task: str, seed: int, tuned: FineTuned) -> dict[str, Any]:
    """Write result.json of a fine-tuning on shuffled answers; returns what it holds."""
    losses = _losses(run.before(task), run.after_shuffled(task, seed))
    result = {"task": task, "seed": seed, **_of_training(tuned), "loss": losses}
    write_json(run.paths.shuffled(task, seed) / "result.json", result)
    return result


def _of_training(tuned: FineTuned) -> dict[str, Any]:
    """How a model was tuned, and how far its parameters moved."""
    known = ("kind_of_tuning", "steps", "batch_size", "learning_rate")
    settings = {name: tuned.study.attrs[name] for name in known}
    return {**settings, "movement": float(tuned.study["movement"].isel(step=-1).mean())}


def _losses(before: xr.Dataset, after: xr.Dataset) -> dict[str, float]:
    """Mean loss before and after, of the samples that were scored both times."""
    same = before["loss"].sel(sample=after["sample"])
    return {"before": float(same.mean()), "after": float(after["loss"].mean())}
