"""Short trainings of tiny models, and their state to compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import headnb
import torch

from tiny import tiny_tokenizer
from trainers import PAIRS

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def state_of(model: PreTrainedModel) -> Any:
    """The parts of a model that a user could find changed: weights, modules, flags, hooks, methods, configuration."""
    modules = [
        (
            name,
            type(module),
            module.training,
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            set(vars(module)),
        )
        for name, module in model.named_modules()
    ]
    weights = [(name, w.requires_grad, w.grad is None, w.data_ptr()) for name, w in model.named_parameters()]
    return modules, weights, model.config.to_dict(), model.generation_config.to_dict()


def values_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same_values(values: dict[str, torch.Tensor], model: PreTrainedModel) -> bool:
    return all(torch.equal(values[name], value) for name, value in model.state_dict().items())


def short_finetuning(model: PreTrainedModel, task: Any = PAIRS, **options: Any) -> headnb.FineTuned:
    return headnb.finetune(model, tiny_tokenizer(), task, **{"steps": 4, "every": 2, "learning_rate": 3e-3} | options)
