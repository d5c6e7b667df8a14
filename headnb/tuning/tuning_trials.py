"""Fine-tuning trials that are compared by their test losses. The model is restored after each trial.

Each trial stores its losses in a file, so that an interrupted comparison of many trials can resume.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from headnb.models.fingerprint import weights_fingerprint
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
    max_new_tokens: int = 0,
    **how: Any,
) -> xr.Dataset:
    """Losses of test samples after fine-tuning. The model is restored afterwards.

    Args:
        model: as for `finetune`.
        tokenizer: the model's tokenizer.
        samples: training samples.
        tested: task -> test samples.
        keep: netCDF file for the result. If it exists and the model's weights and all settings are the same, it is
            read and nothing is trained.
        max_length: truncate longer samples to this many tokens, in training and in testing.
        max_new_tokens: as for `evaluations_of`.
        **how: other arguments of `finetune`.

    Returns:
        The Dataset of `evaluations_of`, with the attribute `trained_parameters`: number of trained parameters.
    """
    settings = json.dumps(
        {
            "model_fingerprint": weights_fingerprint(model),
            "samples": samples.fingerprint(),
            "tested": {name: task.fingerprint() for name, task in tested.items()},
            "max_length": max_length,
            **({"max_new_tokens": max_new_tokens} if max_new_tokens else {}),
            **how,
        },
        sort_keys=True,
    )
    if keep.exists() and (stored := load_dataset(keep, "")).attrs.get("settings") == settings:
        return stored
    with restore_weights(model) if how.get("inplace") else contextlib.nullcontext():
        tuned = finetune(model, tokenizer, samples, track=[], max_length=max_length, **how)
        with tuned.applied(model) as tuned_model:
            result = evaluations_of(
                tuned_model, tokenizer, tested, max_length=max_length, max_new_tokens=max_new_tokens
            )
    result = result.assign_attrs(settings=settings, trained_parameters=tuned.trained_parameters)
    write_dataset(keep, result)
    return result


def losses_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tested: Mapping[str, Task],
    *,
    max_length: int | None = None,
) -> xr.DataArray:
    """Losses of each task's samples in nats, (evaluated, sample). Shorter tasks are padded with NaN."""
    return evaluations_of(model, tokenizer, tested, max_length=max_length)["loss"]


def evaluations_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tested: Mapping[str, Task],
    *,
    max_length: int | None = None,
    max_new_tokens: int = 0,
) -> xr.Dataset:
    """`loss` in nats and, with `max_new_tokens`, `exact_match` of generated answers: (evaluated, sample).

    Shorter tasks are padded with NaN. `exact_match` is NaN for samples without an answer to compare.
    """
    answers: dict[str, Any] = {"max_new_tokens": max_new_tokens} if max_new_tokens else {"answer": "none"}
    found = [evaluate(model, tokenizer, task, max_length=max_length, **answers) for task in tested.values()]
    values = {}
    for name, units in {"loss": "nats", **({"exact_match": "1"} if max_new_tokens else {})}.items():
        padded = np.full((len(found), max(result.sizes["sample"] for result in found)), np.nan)
        for row, result in zip(padded, found, strict=True):
            row[: result.sizes["sample"]] = result[name]
        values[name] = (("evaluated", "sample"), padded, {"units": units})
    return xr.Dataset(values, {"evaluated": list(tested)})
