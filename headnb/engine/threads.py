"""Forward passes of this thread, told apart from those that other threads make with the same model.

Hooks and transforms are set on a model that other threads may be running: an explorer, a server, a text streamer. They
act on the passes of the thread that set them and leave all others alone. Under gradient checkpointing on an accelerator
layers are computed again in a thread of autograd's own; those passes count as this thread's.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def this_thread_check() -> Callable[[], bool]:
    """A function that tells whether the forward pass that calls it was started by the thread that is running now."""
    owner = threading.get_ident()

    def ours() -> bool:
        return torch.compiler.is_compiling() or threading.get_ident() == owner or _in_autograd_thread()

    return ours


def this_thread_only(hook: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result | None]:
    """A module's hook that acts on passes of this thread; on others it does nothing."""
    ours = this_thread_check()

    @functools.wraps(hook)
    def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result | None:
        return hook(*args, **kwargs) if ours() else None

    return call


def _in_autograd_thread() -> bool:
    """Whether a backward pass runs this in a thread that Python did not start."""
    in_backward = torch._C._current_graph_task_id() != -1  # noqa: SLF001  there is no public name
    return in_backward and isinstance(threading.current_thread(), threading._DummyThread)  # noqa: SLF001
