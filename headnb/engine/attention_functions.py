"""Attention functions of a model, wrapped while a context is open.

Transformers hands every attention layer its attention function through `AttentionInterface.get_interface`. Here that
call is answered with the same function, and with what has been set on the layer's module: a substitute, a listener,
transforms. They act on forward passes of the thread that set them. No configuration, mask, kernel choice or module is
changed, so nothing has to be put back.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from headnb.engine.hook_checks import check_hooks_ran
from headnb.engine.threads import this_thread_check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from transformers import PreTrainedModel
    from transformers.modeling_utils import AttentionInterface

    from headnb.engine.layout import HeadLayout

_Called = TypeVar("_Called")


class _Registration(NamedTuple, Generic[_Called]):
    """What a capture sets on an attention module."""

    call: _Called
    is_own_pass: Callable[[], bool]
    """Whether a forward pass is one of the thread that set it."""


@dataclass(frozen=True)
class AttentionCall:
    """What one layer's attention function was given and gave: enough to compute any of its heads again."""

    module: nn.Module
    attend: Callable[..., Any]
    """The function itself."""
    eager: Callable[..., Any]
    """The architecture's own function that makes attention matrices, whichever kernel ran."""
    query: Tensor
    """(B, H, T, Dk)"""
    key: Tensor
    """(B, kv_heads, T, Dk)"""
    value: Tensor
    """(B, kv_heads, T, D)"""
    mask: Any
    """In the form that the kernel wants: None, a tensor of bool or of addends (B, 1 or H, T, T), a BlockMask."""
    options: dict[str, Any]
    """Its keyword arguments: scaling, sliding_window, softcap, ..."""
    outputs: Tensor
    """(B, T, H, D), before any transform."""


_lock = threading.RLock()
# Each with a function that tells whether the pass that asks is one of the thread that set it.
_transforms: WeakKeyDictionary[nn.Module, tuple[_Registration[Callable[[Tensor], Tensor]], ...]] = WeakKeyDictionary()
_substitutes: WeakKeyDictionary[nn.Module, _Registration[Callable[..., Any]]] = WeakKeyDictionary()
_listeners: WeakKeyDictionary[nn.Module, _Registration[Callable[[AttentionCall], None]]] = WeakKeyDictionary()
_wrap_counts: Counter[int] = Counter()  # how many captures look through an interface, by the interface's id


@torch.compiler.disable  # type: ignore[untyped-decorator]  # traced into a compiled graph, a gradient taken in a transform would be silently wrong
def _attend(
    function: Callable[..., Any], eager: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any
) -> tuple[Tensor, Any]:
    """The model's own attention function, followed by the transforms that this thread has set on this module."""
    if (substitute := _substitutes.get(module)) is not None and substitute.is_own_pass():
        function = partial(substitute.call, function)
    outputs, weights = function(module, *args, **kwargs)
    if (listener := _listeners.get(module)) is not None and listener.is_own_pass():
        named = dict(zip(("query", "key", "value", "attention_mask"), args, strict=False)) | kwargs
        query, key, value, mask = (named.pop(name) for name in ("query", "key", "value", "attention_mask"))
        listener.call(AttentionCall(module, function, eager, query, key, value, mask, named, outputs))
    for transform in _transforms.get(module, ()):
        if transform.is_own_pass():
            outputs = transform.call(outputs)
    return outputs, weights


def _interfaces(model: nn.Module) -> list[AttentionInterface]:
    """The interfaces that the model's code looks attention functions up in; nearly always the one of transformers."""
    sources = {type(module).__module__ for module in model.modules()}
    found = (getattr(sys.modules.get(source), "ALL_ATTENTION_FUNCTIONS", None) for source in sources)
    return list({id(interface): interface for interface in found if interface is not None}.values())


def _wrap_interface(interface: AttentionInterface) -> None:
    _wrap_counts[id(interface)] += 1
    if _wrap_counts[id(interface)] == 1:
        original = interface.get_interface
        # On the instance, so that deleting the attribute brings the class's own method back.
        interface.get_interface = lambda name, eager: partial(_attend, original(name, eager), eager)  # type: ignore[method-assign,assignment]


def _unwrap_interface(interface: AttentionInterface) -> None:
    _wrap_counts[id(interface)] -= 1
    if not _wrap_counts[id(interface)]:
        del _wrap_counts[id(interface)], interface.get_interface


@contextmanager
def transform_attention_outputs(
    model: nn.Module, transforms: Mapping[nn.Module, Callable[[Tensor], Tensor]]
) -> Iterator[None]:
    """Set transforms on attention modules of `model`. Captures may nest: the outer one's transform comes first."""
    interfaces, ours = _interfaces(model), this_thread_check()
    given = {module: _Registration(transform, ours) for module, transform in transforms.items()}
    with _lock:
        for interface in interfaces:
            _wrap_interface(interface)
        for module, transform in given.items():
            _transforms[module] = (*_transforms.get(module, ()), transform)
    try:
        yield
    finally:
        with _lock:
            for module, transform in given.items():
                _transforms[module] = tuple(other for other in _transforms[module] if other is not transform)
                if not _transforms[module]:
                    del _transforms[module]
            for interface in interfaces:
                _unwrap_interface(interface)


@contextmanager
def replace_attention(model: nn.Module, layout: HeadLayout, attend: Callable[..., Any]) -> Iterator[None]:
    """Have `attend` called in place of every layer's attention function, with that function before its arguments."""
    with transform_attention_outputs(model, {}):
        ours = this_thread_check()
        _substitutes.update({module: _Registration(attend, ours) for _, module in layout.attention})
        try:
            yield
        finally:
            for _, module in layout.attention:
                del _substitutes[module]


@contextmanager
def observe_attention_calls(
    model: PreTrainedModel, listeners: Mapping[nn.Module, Callable[[AttentionCall], None]]
) -> Iterator[None]:
    """Call each listener with what the attention function of its module is given and gives in every forward pass.

    Raises:
        HeadnbError: as for `check_hooks_ran`, on exit.
    """
    with check_hooks_ran(model, list(listeners)) as reached, transform_attention_outputs(model, {}):
        ours = this_thread_check()

        def hear(listener: Callable[[AttentionCall], None], call: AttentionCall) -> None:
            reached(call.module)
            listener(call)

        _listeners.update(
            {module: _Registration(partial(hear, listener), ours) for module, listener in listeners.items()}
        )
        try:
            yield
        finally:
            for module in listeners:
                del _listeners[module]
