"""Losses at answer tokens only, in trainings on a CPU.

Where its Triton kernel does not run, TRL computes the log-probabilities of the whole vocabulary at every position and
then discards those of prompts and padding. The shapes of tensors thus stay the same, for devices that compile again for
each new shape. A CPU does not compile, and the discarded values take much of the time of a small model's update.
"""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

_in_training: ContextVar[bool] = ContextVar("in_training", default=False)


@contextlib.contextmanager
def answer_losses_only() -> Iterator[None]:
    """Compute the losses of TRL's trainer at answer tokens only, in this thread.

    TRL has no setting for it, so this replaces its private test for Triton devices by one that differs within this
    context only. A release of TRL without that test computes the same losses, more slowly.
    """
    from trl.trainer import utils  # noqa: PLC0415

    has_kernel = getattr(utils, "_use_triton", None)
    if has_kernel is not None and not getattr(has_kernel, "answers_only", False):

        def leaves_out_other_positions(device: torch.device) -> bool:
            return (device.type == "cpu" and _in_training.get()) or has_kernel(device)

        leaves_out_other_positions.answers_only = True  # type: ignore[attr-defined]
        utils._use_triton = leaves_out_other_positions  # type: ignore[attr-defined]  # noqa: SLF001
    token = _in_training.set(True)
    try:
        yield
    finally:
        _in_training.reset(token)
