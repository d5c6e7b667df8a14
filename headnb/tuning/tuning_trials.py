"""Fine-tunings that are compared by the losses they leave: one model, tuned in many ways and put back after each.

Each trial keeps its losses in a file, so that a comparison of many that was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from headnb.models.checks import model_name
from headnb.models.restore import restore_weights
from headnb.storage.files import load_dataset, write_dataset
from headnb.tuning.evaluation import evaluate
from headnb.tuning.finetuning import finetune

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.tasks.loading import Task


def losses_after(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    samples: Task,
    tested: Mapping[str, Task],
    keep: Path,
    *,
    max_length: int | None = None,
    **how: Any,
) -> xr.Dataset:
    """The losses of test samples after fine-tuning; the model is afterwards as it was.

    Args:
        model: as for `finetune`.
        tokenizer: its tokenizer.
        samples: what is trained on.
        tested: task -> samples that are not trained on.
        keep: a netCDF file for the result. One that is there and was made by the same is the result, without training.
        max_length: longer samples are cut to so many tokens, in training and in testing.
        **how: as `finetune` takes it.

    Returns:
        `loss` (evaluated, sample) as `losses_of` gives it; attribute `trained_parameters`: how many numbers.
    """
    settings = json.dumps(
        {
            "model": model_name(model),
            "samples": samples.fingerprint(),
            "tested": {name: task.fingerprint() for name, task in tested.items()},
            "max_length": max_length,
            **how,
        },
        sort_keys=True,
    )
    if keep.exists() and (kept := load_dataset(keep, "")).attrs.get("settings") == settings:
        return kept
    with restore_weights(model) if how.get("inplace") else contextlib.nullcontext():
        tuned = finetune(model, tokenizer, samples, track=[], max_length=max_length, **how)
        with tuned.applied(model) as tuned_model:
            losses = losses_of(tuned_model, tokenizer, tested, max_length=max_length)
    attrs = {"settings": settings, "trained_parameters": tuned.trained_parameters}
    found = xr.Dataset({"loss": losses}, attrs=attrs)
    write_dataset(keep, found)
    return found


def losses_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tested: Mapping[str, Task],
    *,
    max_length: int | None = None,
) -> xr.DataArray:
    """Losses in nats (evaluated, sample) of each task's samples in their order, NaN behind the last of them."""
    columns = [
        evaluate(model, tokenizer, task, answer="none", max_length=max_length)["loss"].to_numpy()
        for task in tested.values()
    ]
    losses = np.full((len(columns), max(map(len, columns))), np.nan)
    for row, column in zip(losses, columns, strict=True):
        row[: len(column)] = column
    return xr.DataArray(losses, {"evaluated": list(tested)}, ("evaluated", "sample"), "loss", {"units": "nats"})
