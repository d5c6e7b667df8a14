"""The heap of this process: glibc keeps blocks that were freed, and between tensors that stay they can be half of it.

A freed block leaves a hole of its own size, and a tensor of the same size does not fit into it, since glibc looks for
room to align it. So the holes between what a pass keeps grow from layer to layer, unless they are given back.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Self

_LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MADV_HUGEPAGE, _MADV_NOHUGEPAGE = 14, 15  # Linux has the same numbers on every machine


class HolesGivenBack:
    """Inside, a pass over a model gives free memory back to the system: three tenths less at the peak.

    That is done four times, in the forward pass at each third of the layers and in the backward pass at half of them.
    What was given back is cleared when it is used again, which takes some time: in pages of 2 MB instead of 4 kB, where
    the system gives them to who asks, a tenth less of a whole pass. For the CPU, and for what cannot be done in
    smaller batches.

    Args:
        layers: how many the pass tells of by `next_layer`, forward and then again backward.
    """

    def __init__(self, layers: int) -> None:
        self._turns = 0
        self._at = {layers * third // 3 for third in (1, 2, 3)} | {layers + (layers + 1) // 2}

    def __enter__(self) -> Self:
        _advise_heap(_MADV_HUGEPAGE)
        return self

    def __exit__(self, *_: object) -> None:
        _advise_heap(_MADV_NOHUGEPAGE)

    def next_layer(self) -> None:
        """The pass has come to the next layer."""
        self._turns += 1
        if self._turns in self._at:
            return_free_memory()
            _advise_heap(_MADV_HUGEPAGE)


def return_free_memory() -> None:
    """Give freed memory back to the system, where glibc keeps it."""
    if (trim := _of_glibc("malloc_trim")) is not None:
        trim(0)


def _advise_heap(advice: int) -> None:
    """Say in which pages memory should come back into the main thread's heap, as large as it is now.

    Only where large pages are for who asks: elsewhere all get them, or nobody does.
    """
    if (advise := _of_glibc("madvise")) is None:
        return
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    with contextlib.suppress(OSError):  # a system may hide these files
        if "[madvise]" not in _LARGE_PAGES.read_text():
            return
        for mapping in Path("/proc/self/maps").read_bytes().splitlines():
            if mapping.endswith(b"[heap]"):
                start, end = (int(place, 16) for place in mapping.split()[0].split(b"-"))
                advise(start, end - start, advice)


def _of_glibc(name: str) -> Any:
    """A function of the C library; None where that is not glibc."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return getattr(library, name, None) if hasattr(library, "malloc_trim") else None
