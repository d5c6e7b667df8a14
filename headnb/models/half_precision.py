"""Speed of half precision on processors without bfloat16 or float16 instructions.

There torch multiplies half-precision matrices, in backward passes in one thread, with scalar code: scores take 20 to 30
times as long as in float32. Here the factors are converted to float32 and the product is rounded once, which is also
what such instructions compute.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_ATEN = torch.ops.aten
# Products, and which of their results have the dtype of the arguments: the other results are float32 or not numbers.
_PRODUCTS: dict[Any, slice] = {
    _ATEN.mm.default: slice(1),
    _ATEN.addmm.default: slice(1),
    _ATEN.bmm.default: slice(1),
    _ATEN.baddbmm.default: slice(1),
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default: slice(1),  # noqa: SLF001  no public name
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward.default: slice(3),  # noqa: SLF001
}


@contextlib.contextmanager
def float32_products(model: torch.nn.Module) -> Iterator[None]:
    """Multiply half-precision matrices in float32 if the model has such weights on a CPU without instructions for them.

    Applies to this thread. Results are rounded to the dtype that they have without this context.
    """
    dtypes = {
        weight.dtype for weight in model.parameters() if weight.device.type == "cpu" and weight.dtype.itemsize == 2
    }
    slow = frozenset(dtype for dtype in dtypes if not _has_fast_products(dtype))
    with _Float32Products(slow) if slow else contextlib.nullcontext():
        yield


def _has_fast_products(dtype: torch.dtype) -> bool:
    """Whether torch has vectorized matrix products of this dtype for this processor."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    checks = torch.ops.mkldnn
    supported = {torch.bfloat16: checks._is_mkldnn_bf16_supported, torch.float16: checks._is_mkldnn_fp16_supported}  # noqa: SLF001
    return dtype not in supported or bool(supported[dtype]())


class _Float32Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Replaces products of CPU tensors with one of the given dtypes, also in backward passes."""

    def __init__(self, dtypes: frozenset[torch.dtype]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtypes = dtypes

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        rounded = _PRODUCTS.get(func)
        # A quantized weight is a subclass with its own product.
        if rounded is None or types or args[0].dtype not in self.dtypes or args[0].device.type != "cpu":
            return func(*args, **kwargs)
        dtype = args[0].dtype
        wide = {name: self._widen(value) for name, value in kwargs.items()}
        result = func(*map(self._widen, args), **wide)
        if isinstance(result, Tensor):
            return result.to(dtype)
        return (*(part.to(dtype) for part in result[rounded]), *result[rounded.stop :])

    def _widen(self, value: Any) -> Any:
        return value.float() if isinstance(value, Tensor) and value.dtype in self.dtypes else value
