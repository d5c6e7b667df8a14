"""Restriction of hooks to forward passes of one thread.

Other threads may run a model while it has hooks: an explorer, a server, a text streamer. Hooks and transforms act only
on forward passes of the thread that registered them. With gradient checkpointing on an accelerator, autograd recomputes
layers in its own thread; these passes count as passes of the registering thread.
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
    """A function that tells whether the forward pass that calls it belongs to the thread that created the function."""
    owner = threading.get_ident()

    def ours() -> bool:
        return torch.compiler.is_compiling() or threading.get_ident() == owner or _in_autograd_thread()

    return ours


def this_thread_only(hook: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result | None]:
    """Restrict a module's hook to forward passes of this thread; in other passes it does nothing."""
    ours = this_thread_check()

    @functools.wraps(hook)
    def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result | None:
        return hook(*args, **kwargs) if ours() else None

    return call


def _in_autograd_thread() -> bool:
    """Whether this runs in a backward pass, in a thread that Python did not start."""
    in_backward = torch._C._current_graph_task_id() != -1  # noqa: SLF001  no public name
    return in_backward and isinstance(threading.current_thread(), threading._DummyThread)  # noqa: SLF001
