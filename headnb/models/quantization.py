"""Protection of 4-bit weights on a CPU: bitsandbytes converts them to an inference layout that gradients cannot pass.

The conversion happens in the first forward pass without gradients, on processors with bfloat16 instructions, and is
permanent. Later scores and training silently miss the gradient through these layers.
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
    """Import bitsandbytes if installed, as peft and accelerate do, but without its messages about missing kernels."""
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
    """Keep bitsandbytes from converting 4-bit weights to the inference layout inside the context.

    Raises:
        HeadnbError: the weights already have the inference layout, from which they cannot be restored exactly; or as
            for `check_quantized`.
    """
    check_quantized(model)
    layers: list[Any] = [module for module in model.modules() if vars(module).get(_CPU_KERNEL_FLAG)]
    if any(hasattr(getattr(layer.weight, "quant_state", None), "original_qshape") for layer in layers):
        raise HeadnbError(
            "bitsandbytes has converted this model's 4-bit weights to its inference layout for CPUs: gradients cannot "
            "pass them, and reading damages them; load the model again and use it with headnb before any other "
            "forward pass"
        )
    for layer in layers:
        setattr(layer, _CPU_KERNEL_FLAG, False)
    try:
        yield
    finally:
        for layer in layers:
            setattr(layer, _CPU_KERNEL_FLAG, True)


def check_quantized(model: nn.Module) -> None:
    """Refuse bitsandbytes layers whose weights were never quantized.

    Transformers creates such layers if config.json declares quantization, and fills them with the checkpoint's weights.

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
        states = [getattr(owner, "quant_state", None) for owner in (module, weight)]
        if weight is not None and weight.is_floating_point() and states == [None, None]:
            raise HeadnbError(
                f"the model's config.json declares weights quantized by bitsandbytes, but {name} is in "
                f"{str(weight.dtype).removeprefix('torch.')}; remove quantization_config from config.json"
            )
