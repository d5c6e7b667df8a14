"""The heap of this process: glibc keeps what is free in it, and between tensors that stay that can be half of all.

A freed block leaves a hole of its own size, and a tensor of the same size does not fit into it, since glibc looks for
room to align it. So the holes between what a pass keeps grow from layer to layer, unless they are given back.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.modeling_layers import GradientCheckpointingLayer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


@contextmanager
def without_holes(model: nn.Module) -> Iterator[None]:
    """Passes inside give free memory back to the system: in the forward pass behind each third of the layers, and in
    the backward pass behind the first half. Half of what they would hold at the peak.

    What was given back is cleared when it is used again, which takes some time. For the CPU, and for what cannot be
    done in smaller batches.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    thirds = {len(layers) * third // 3 for third in (1, 2, 3)} - {0}
    with ExitStack() as hooks:
        for layer in thirds:
            hooks.callback(layers[layer - 1].register_forward_hook(lambda *_: _close_holes()).remove)
        if layers:
            hooks.callback(layers[len(layers) // 2].register_forward_pre_hook(_close_holes_on_return).remove)
        yield


def _close_holes_on_return(_: nn.Module, given: tuple[Any, ...]) -> None:
    """Of a layer whose input is `given`: when the backward pass has left it."""
    if given and given[0].requires_grad:
        given[0].register_hook(lambda _: _close_holes())


def _close_holes() -> None:
    return_free_memory()
    use_large_pages()


def return_free_memory() -> None:
    """Give freed memory back to the system. glibc keeps the holes between a layer's temporaries: gigabytes in all."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def use_large_pages() -> None:
    """Ask Linux for 2 MB of memory at a time where the heap gets new, not 4 kB: a tenth of the time of a long sample.

    Where the system has no large pages, nothing changes.
    """
    if sys.platform != "linux":
        return
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for mapping in Path("/proc/self/maps").read_text().splitlines():
        if mapping.endswith("[heap]"):
            start, end = (int(place, 16) for place in mapping.split()[0].split("-"))
            advise(start, end - start, mmap.MADV_HUGEPAGE)
