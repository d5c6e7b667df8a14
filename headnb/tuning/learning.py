"""Sequential fine-tuning of the same weights, for curricula and continual learning."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from headnb.errors import optional_import
from headnb.models.locks import model_lock
from headnb.models.restore import restore_model
from headnb.tuning.finetuning import finetune

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.tasks.loading import Task
    from headnb.tuning.result import FineTuned


def finetune_and_merge(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task, *, full: bool, **how: Any
) -> FineTuned:
    """Fine-tune a model and merge the result into its weights, so that a next fine-tuning continues from it.

    Args:
        model: the model; its weights change.
        tokenizer: the model's tokenizer.
        task: the task to train on.
        full: train all weights; otherwise train LoRA adapters and merge them into the weights.
        **how: other arguments of `finetune`. Errors are those of `finetune`.
    """
    tuned = finetune(model, tokenizer, task, inplace=full, **how)
    if tuned.adapter is not None:
        _merge(model, tuned)
    return tuned


def _merge(model: PreTrainedModel, tuned: FineTuned) -> None:
    with optional_import("train"):
        from peft import PeftModel  # noqa: PLC0415

    with model_lock(model), restore_model(model, weights=False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged: Any = PeftModel.from_pretrained(model, str(tuned.adapter))
        merged.merge_and_unload()
