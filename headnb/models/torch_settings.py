"""torch's settings while headnb runs a model: the usual ones, whatever the user has set around the call."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def default_torch_settings() -> Iterator[None]:
    """No autocast and no inference mode; new tensors are float32 on the CPU. The user's settings come back on exit.

    Each of them changes numbers without a sign of it in a result: autocast computes a float32 model in bfloat16.
    """
    kinds = {"cpu", torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"}  # type: ignore[union-attr]
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        for kind in kinds:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(mode=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield
