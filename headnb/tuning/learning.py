"""Fine-tunings one after the other on the same weights, and the weights put back: curricula and continual learning."""

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
    """Fine-tune, and make what was learnt a part of the model's own weights, so that it can go on from there.

    Args:
        model: the model; its weights change.
        tokenizer: its tokenizer.
        task: what is trained on.
        full: tune all weights; else LoRA, whose adapters are merged into the weights.
        **how: as for `finetune`, which says what it raises.
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
