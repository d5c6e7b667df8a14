"""Speed of half precision on processors without bfloat16 or float16 instructions.

Without them torch multiplies half-precision matrices with scalar code, in backward passes in a single thread, and
scores take 20 to 30 times as long as in float32. Here the factors are converted to float32 and each product is rounded
once. The instructions do the same, except that torch also rounds attention weights before it multiplies them by V.
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
_MATRIX_PRODUCTS = {_ATEN.mm.default, _ATEN.addmm.default, _ATEN.bmm.default, _ATEN.baddbmm.default}
# Attention, and how many of its results have the dtype of the arguments; the log-sum-exp is float32.
_ATTENTION: dict[Any, int] = {
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default: 1,  # noqa: SLF001  no public name
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward.default: 3,  # noqa: SLF001
}
# Converting a matrix takes as long as torch's own product of it with about 16 rows, so the products of single generated
# tokens are left to torch.
_LEAST_SIZE = 16
_HALF = {torch.bfloat16, torch.float16}


@contextlib.contextmanager
def float32_products(model: torch.nn.Module) -> Iterator[None]:
    """Multiply half-precision matrices in float32 if the model has such weights on a CPU without instructions for them.

    Applies to this thread. Results are rounded to the dtype that they have without this context.
    """
    dtypes = _HALF & {weight.dtype for weight in model.parameters() if weight.device.type == "cpu"}
    slow = frozenset(dtype for dtype in dtypes if not _has_fast_products(dtype))
    with _Float32Products(slow) if slow else contextlib.nullcontext():
        yield


def _has_fast_products(dtype: torch.dtype) -> bool:
    """Whether torch has vectorized matrix products of this half-precision dtype for this processor."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    checks = torch.ops.mkldnn
    supported = {torch.bfloat16: checks._is_mkldnn_bf16_supported, torch.float16: checks._is_mkldnn_fp16_supported}  # noqa: SLF001
    return bool(supported[dtype]())


class _Float32Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Computes products of CPU tensors of the given dtypes in float32, also in backward passes."""

    def __init__(self, dtypes: frozenset[torch.dtype]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtypes = dtypes

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # A quantized weight is a subclass, listed in `types`, with its own product.
        if types or not self._is_slow(func, args):
            return func(*args, **kwargs)
        dtype = args[0].dtype
        result = func(*map(self._widen, args), **{name: self._widen(value) for name, value in kwargs.items()})
        if isinstance(result, Tensor):
            return result.to(dtype)
        rounded = _ATTENTION[func]
        return (*(part.to(dtype) for part in result[:rounded]), *result[rounded:])

    def _is_slow(self, func: Any, args: Sequence[Any]) -> bool:
        """Whether torch would compute this product with scalar code, and the conversion takes less time."""
        if func in _MATRIX_PRODUCTS:
            factors = [value for value in args if isinstance(value, Tensor)]
            # torch refuses vectors, and sparse matrices where it has no product of them.
            if any(factor.dim() < 2 or factor.layout != torch.strided for factor in factors[-2:]):
                return False
            large = min(factors[-2].shape[-2], *factors[-1].shape[-2:]) >= _LEAST_SIZE
        elif func in _ATTENTION:
            factors, large = list(args[:3]), True
        else:
            return False
        dtype = factors[0].dtype
        slow = dtype in self.dtypes and factors[0].device.type == "cpu"
        return large and slow and all(factor.dtype == dtype for factor in factors)  # torch refuses other dtypes

    def _widen(self, value: Any) -> Any:
        return value.float() if isinstance(value, Tensor) and value.dtype in self.dtypes else value
