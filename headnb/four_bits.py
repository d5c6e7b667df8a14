"""Weights in four bits on a CPU: bitsandbytes lays them out for inference, and then no gradient passes them any more.

It does so in the first forward pass without gradients, for good, on processors with bfloat16 instructions. Scores and
training after that miss what comes through those layers, without a sign of it.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

_MAY = "support_avx512bf16_for_cpu"  # a layer's attribute


def import_quietly() -> None:
    """Import bitsandbytes, where it is, as peft and accelerate do, but without a word on kernels that it would like."""
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.suppress(ImportError, OSError, RuntimeError):  # it may be broken
            import bitsandbytes  # noqa: F401, PLC0415
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def four_bits_kept(model: nn.Module) -> Iterator[None]:
    """Passes inside leave weights in four bits as they are.

    Raises:
        HeadnbError: they are laid out for inference already, or were: the way back is not exact.
    """
    layers: list[Any] = [module for module in model.modules() if vars(module).get(_MAY)]
    if any(hasattr(getattr(layer.weight, "quant_state", None), "original_qshape") for layer in layers):
        raise HeadnbError(
            "bitsandbytes has laid out this model's four-bit weights for inference on a CPU: gradients are lost there, "
            "and to read the weights damages them; load it anew, and let headnb have it before anything else runs it"
        )
    for layer in layers:
        setattr(layer, _MAY, False)
    try:
        yield
    finally:
        for layer in layers:
            setattr(layer, _MAY, True)
