"""torch's default settings while headnb runs a model, whatever the user has set."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def default_torch_settings() -> Iterator[None]:
    """Disable autocast and inference mode, and create float32 tensors on the CPU; the user's settings return on exit.

    Each of these settings would change results silently: autocast, for instance, runs a float32 model in bfloat16.
    """
    kinds = {"cpu", torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"}  # type: ignore[union-attr]
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        for kind in kinds:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(mode=False))
        # Not `get_default_device`, which fails in torch 2.8 after `set_default_device(None)`.
        if torch.empty(0).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield
