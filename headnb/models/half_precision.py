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
_MATRIX_PRODUCTS = {_ATEN.mm.default, _ATEN.addmm.default, _ATEN.bmm.default, _ATEN.baddbmm.default}
# Attention, and how many of its results have the dtype of the arguments; the log-sum-exp is float32.
_ATTENTION: dict[Any, int] = {
    _ATEN._scaled_dot_product_flash_attention_for_cpu.default: 1,  # noqa: SLF001  no public name
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward.default: 3,  # noqa: SLF001
}
# To convert a matrix takes as long as torch's product of it with about 16 rows, so generated tokens are not worth it.
_LEAST_SIZE = 16


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


def _is_sparse(tensor: Tensor) -> bool:
    return tensor.layout != torch.strided


class _Float32Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Replaces products of CPU tensors with one of the given dtypes, also in backward passes."""

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
        if func in _MATRIX_PRODUCTS:
            factors = [value for value in args if isinstance(value, Tensor)]
            # torch refuses vectors, and sparse matrices where it has no product of them.
            if any(factor.dim() < 2 for factor in factors[-2:]) or any(map(_is_sparse, factors)):
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
