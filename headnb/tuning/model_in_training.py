"""The model of a running Trainer: scoring it between two updates, and whether its weights are sharded."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor

from headnb.engine.model_contexts import frozen
from headnb.models.restore import restore_random_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


@contextmanager
def scoring_mode(model: Any) -> Iterator[None]:
    """Context for scoring: evaluation mode, no parameter gradients, no trainer autocast; restores the random state."""
    wrapped = vars(model).get("forward")
    try:
        if "_original_forward" in vars(model):  # set by accelerate in mixed precision
            model.forward = vars(model)["_original_forward"]
        with restore_random_state(), frozen(model):
            yield
    finally:
        if wrapped is not None:
            model.forward = wrapped


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP distributes each weight over the processes."""
    return any(isinstance(module, FullyShardedDataParallel) for module in model.modules()) or any(
        isinstance(weight, DTensor) for weight in model.parameters()
    )
