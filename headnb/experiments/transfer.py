"""Early prediction of transfer in a run folder: gains of every trained task on every other, and early measurements.

transfer/<task>.<n>.nc   projected gradients of n training samples in the base model
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from headnb.analysis.selection.tfidf import TfIdf
from headnb.analysis.selection.views import sample_text
from headnb.analysis.transfer import DIMS, TransferPrediction, predict_transfer
from headnb.display.charts import plots
from headnb.display.report import FOUND, UNDECIDED, Finding, Number, Section, Table
from headnb.errors import HeadnbError
from headnb.stats.patterns import HEADS, scale_free
from headnb.storage.files import safe_file_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.experiments.folder import Run
    from headnb.stats.descriptive import Array
    from headnb.tasks.loading import Task

PREDICTORS = ("change of the pattern", "pattern", "gradients")


def transfer_measures(
    run: Run, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, early_steps: int = 10, samples: int = 16
) -> xr.Dataset:
    """Gains and early measurements of every pair of fine-tuned tasks, means over seeds.

    Args:
        run: run folder with fine-tunings on several tasks.
        model: the base model, for the gradients.
        tokenizer: its tokenizer.
        early_steps: the patterns and losses of the last tracked step up to this one are used.
        samples: training samples of each task for its gradient.

    Returns:
        Dataset of (trained, evaluated):
        `gain`: fall of the loss by training on another task, divided by its fall by training on the task itself.
        `change of the pattern`: correlation over heads of the changes of both tasks' patterns, each by early training
        on the task itself. `pattern`: the same of the patterns. All patterns are relative to their mean.
        `gradients`: cosine of the tasks' mean gradients in LoRA weights of the base model.
        `text`: cosine of the mean TF-IDF vectors.
        `loss before` (evaluated), and `early fall of the loss` (trained): of the trained task itself.
        Tasks whose own training does not lower their loss are left out.

    Raises:
        HeadnbError: fewer than two tasks remain, or no step up to `early_steps` was tracked.
    """
    falls = {task: _falls(run, task) for task in run.trained}
    tasks = [task for task in falls if falls[task][task] > 0]
    if len(tasks) < 2:
        raise HeadnbError(f"{run.folder} has fewer than two tasks with a lower loss after training on them")
    early = {task: _early(run, task, early_steps) for task in tasks}
    texts = {task: run.samples.training(task, run.settings.seed, samples) for task in tasks}
    gradients = [_mean_gradient(run, model, tokenizer, *named) for named in texts.items()]
    words = {task: [sample_text(sample) for sample in of_task.samples] for task, of_task in texts.items()}
    weights = TfIdf.of(text for of_task in words.values() for text in of_task)
    bags = [np.asarray(weights.vectors(of_task).mean(axis=0)).ravel() for of_task in words.values()]
    patterns = xr.concat([early[task][0] for task in tasks], "task")
    return xr.Dataset(
        {
            "gain": (DIMS, [[falls[one][other] / falls[other][other] for other in tasks] for one in tasks]),
            "change of the pattern": (DIMS, _correlations(patterns.sel(stage="change"))),
            "pattern": (DIMS, _correlations(patterns.sel(stage="early"))),
            "gradients": (DIMS, _cosines(np.array(gradients))),
            "text": (DIMS, _cosines(np.array(bags))),
            "loss before": ("evaluated", [float(run.before(task)["loss"].mean()) for task in tasks]),
            "early fall of the loss": ("trained", [early[task][1] for task in tasks]),
        },
        {"trained": tasks, "evaluated": tasks},
        {"early_steps": early_steps, "samples": samples},
    )


def transfer_of(measures: xr.Dataset, *, permutations: int = 999) -> TransferPrediction:
    """Test of `PREDICTORS` against losses and text: see `predict_transfer`. Below five tasks nothing is tested."""
    baselines = [str(name) for name in measures if name not in {"gain", *PREDICTORS}]
    parts: list[Mapping[str, xr.DataArray]] = [
        {name: measures[name] for name in names} for names in (PREDICTORS, baselines)
    ]
    return predict_transfer(measures["gain"], *parts, permutations=permutations)


def transfer_section(measures: xr.Dataset) -> Section:
    """Section of the report on `transfer_measures`."""
    result = transfer_of(measures)
    working = [name for name in PREDICTORS[:2] if result.predictors["works"][name]]
    verb = "predicts" if len(working) == 1 else "predict" if working else "are not shown to predict"
    headline = f"{' and '.join(working) or 'Patterns'} {verb} transfer"
    reason = f"p-values are adjusted for {len(PREDICTORS)} predictors; tasks are the unit of the test."
    numbers = tuple(Number(f"skill, {name}", float(result.predictors["skill"][name])) for name in PREDICTORS)
    table = result.table.reset_index().drop(columns="works")
    return Section(
        "Early prediction of transfer",
        f"Do patterns after {measures.attrs['early_steps']} steps tell how much training on one task helps another?",
        Finding(FOUND if working else UNDECIDED, f"{headline} beyond losses and text similarity.", reason, numbers),
        picture=plots.train_eval(
            measures["gain"], title="Gain, as a fraction of the gain by training on the task itself"
        ),
        sentences=(result.verdict,),
        tables=(Table(tuple(map(str, table)), tuple(map(tuple, table.to_numpy())), "For tasks left out of the fit"),),
    )


def _falls(run: Run, trained: str) -> dict[str, float]:
    """Task -> fall of its loss by training on `trained`, the mean over seeds."""
    losses = [run.result(trained, seed)["loss"] for seed in run.seeds(trained)]
    return {task: float(np.mean([of[task]["before"] - of[task]["after"] for of in losses])) for task in losses[0]}


def _early(run: Run, task: str, steps: int) -> tuple[xr.DataArray, float]:
    """Pattern (stage, layer, head) early in the training on a task and its change so far, and the fall of the loss."""
    found, falls = [], []
    for seed in run.seeds(task):
        study = run.study(task, seed).sel(task=task)
        tracked = study.sel(step=study["step"] <= steps)
        if tracked.sizes["step"] < 2:
            raise HeadnbError(f"training on {task}, seed {seed}, tracked no step from 1 to {steps}; see track_steps")
        shape = scale_free(tracked["level"].isel(step=[0, -1]))
        found.append(xr.concat([shape.isel(step=1, drop=True), shape.diff("step").isel(step=0, drop=True)], "stage"))
        falls.append(float(tracked["eval_loss"][0] - tracked["eval_loss"][-1]))
    pattern = xr.concat(found, "seed").mean("seed").assign_coords(stage=["early", "change"])
    return pattern.drop_vars("task", errors="ignore"), float(np.mean(falls))


def _mean_gradient(
    run: Run, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, task: Task
) -> Array:
    from headnb.analysis.selection.features import sample_features  # noqa: PLC0415  the report does not need torch

    out = run.folder / "transfer" / f"{safe_file_name(name)}.{len(task)}.nc"
    how: dict[str, Any] = {"max_length": run.settings.max_length, "seed": run.settings.seed, "out": out}
    features = sample_features(model, tokenizer, task, "gradient", **how)
    return np.asarray(features["feature"].mean("sample"), np.float64)


def _correlations(patterns: xr.DataArray) -> Array:
    """(T, T): correlation over heads of patterns (task, layer, head)."""
    flat = patterns.transpose("task", *HEADS).to_numpy().reshape(patterns.sizes["task"], -1)
    return np.asarray(np.corrcoef(flat[:, np.isfinite(flat).all(axis=0)]))


def _cosines(vectors: Array) -> Array:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(unit @ unit.T)
