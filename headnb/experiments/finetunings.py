"""Fine-tunings in a run folder: their seeds, and the result.json that marks each as complete."""

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
    """Training seed of run `seed` of a task; it differs between tasks.

    Shared training noise would look like a change that two tasks have in common.
    """
    return seed_of_task(seed, task) % (MAX_TRAINING_SEED + 1)


def finish_finetuning(run: Run, trained: str, seed: int, tuned: FineTuned) -> dict[str, Any]:
    """Write result.json of a fine-tuning: settings, losses on every task, accuracies; return its content."""
    losses = {task: _losses(run.before(task), run.after(trained, seed, task)) for task in run.settings.tasks}
    result = {"task": trained, "seed": seed, **_of_training(tuned), "loss": losses}
    for stage, answers in (("before", run.answers(trained)), ("after", run.answers(trained, seed))):
        if answers is not None:
            result |= {f"accuracy_{stage}": float(answers["accuracy"]), "answers": answers.sizes["sample"]}
    write_json(run.paths.finetuning(trained, seed) / "result.json", result)
    return result


def finish_shuffled(run: Run, task: str, seed: int, tuned: FineTuned) -> dict[str, Any]:
    """Write result.json of a fine-tuning on shuffled answers; return its content."""
    losses = _losses(run.before(task), run.after_shuffled(task, seed))
    result = {"task": task, "seed": seed, **_of_training(tuned), "loss": losses}
    write_json(run.paths.shuffled(task, seed) / "result.json", result)
    return result


def _of_training(tuned: FineTuned) -> dict[str, Any]:
    """Training settings and mean relative parameter distance."""
    known = ("kind_of_tuning", "steps", "batch_size", "learning_rate")
    settings = {name: tuned.study.attrs[name] for name in known}
    return {**settings, "movement": float(tuned.study["movement"].isel(step=-1).mean())}


def _losses(before: xr.Dataset, after: xr.Dataset) -> dict[str, float]:
    """Mean loss before and after fine-tuning, over the samples scored in both."""
    same = before["loss"].sel(sample=after["sample"])
    return {"before": float(same.mean()), "after": float(after["loss"].mean())}
