"""Weights in four bits on a CPU: bitsandbytes lays them out for inference, and then no gradient passes them any more.

It does so in the first forward pass without gradients, for good, on processors with bfloat16 instructions. Scores and
training after that miss what comes through those layers, without a sign of it.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

_CPU_KERNEL_FLAG = "support_avx512bf16_for_cpu"  # a layer's attribute


def import_bitsandbytes_quietly() -> None:
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
def keep_four_bit_layout(model: nn.Module) -> Iterator[None]:
    """Passes inside leave weights in four bits as they are.

    Raises:
        HeadnbError: they are laid out for inference already, or were: the way back is not exact; or as for
            `check_quantized`.
    """
    check_quantized(model)
    layers: list[Any] = [module for module in model.modules() if vars(module).get(_CPU_KERNEL_FLAG)]
    if any(hasattr(getattr(layer.weight, "quant_state", None), "original_qshape") for layer in layers):
        raise HeadnbError(
            "bitsandbytes has laid out this model's four-bit weights for inference on a CPU: gradients are lost there, "
            "and to read the weights damages them; load it anew, and let headnb have it before anything else runs it"
        )
    for layer in layers:
        setattr(layer, _CPU_KERNEL_FLAG, False)
    try:
        yield
    finally:
        for layer in layers:
            setattr(layer, _CPU_KERNEL_FLAG, True)


def check_quantized(model: nn.Module) -> None:
    """Refuse layers of bitsandbytes whose weights were never quantized.

    Transformers makes them from what config.json says of a checkpoint, and fills them with whatever the checkpoint has.

    Raises:
        HeadnbError: there are such layers.
    """
    if "bitsandbytes" not in sys.modules:
        return
    for name, module in model.named_modules():
        kind = type(module)
        if not (kind.__module__.startswith("bitsandbytes.nn") and "Linear" in kind.__name__):
            continue
        weight: Any = getattr(module, "weight", None)
        states = [getattr(each, "quant_state", None) for each in (module, weight)]
        if weight is not None and weight.is_floating_point() and states == [None, None]:
            raise HeadnbError(
                f"the model's config.json says that bitsandbytes quantized the weights, but {name} is in "
                f"{str(weight.dtype).removeprefix('torch.')}; remove quantization_config from config.json"
            )
