"""Wrappers around a model's attention functions while a context is open.

Every attention layer of transformers gets its function from `AttentionInterface.get_interface`. A wrapped interface
returns the same function, which then also calls what is registered for the layer's module: a substitute, a listener,
transforms. Registrations act only on forward passes of the thread that made them. The model's configuration, masks,
kernels and modules stay unchanged, so nothing in the model needs restoring.
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
    """A callable registered for an attention module."""

    call: _Called
    is_own_pass: Callable[[], bool]
    """Whether the current forward pass belongs to the thread that registered the callable."""


@dataclass(frozen=True)
class AttentionCall:
    """Inputs and outputs of one layer's attention function: enough to recompute any of its heads."""

    module: nn.Module
    attend: Callable[..., Any]
    """The attention function that ran."""
    eager: Callable[..., Any]
    """The architecture's eager attention function, which returns attention weights, whichever kernel ran."""
    query: Tensor
    """(B, H, T, Dk)"""
    key: Tensor
    """(B, kv_heads, T, Dk)"""
    value: Tensor
    """(B, kv_heads, T, D)"""
    mask: Any
    """In the kernel's form: None, a bool or additive tensor (B, 1 or H, T, T), a padding mask (B, T), a BlockMask."""
    options: dict[str, Any]
    """Keyword arguments of the attention function: scaling, sliding_window, softcap, ..."""
    outputs: Tensor
    """(B, T, H, D), before any transform."""


_lock = threading.RLock()
_transforms: WeakKeyDictionary[nn.Module, tuple[_Registration[Callable[[Tensor], Tensor]], ...]] = WeakKeyDictionary()
_substitutes: WeakKeyDictionary[nn.Module, _Registration[Callable[..., Any]]] = WeakKeyDictionary()
_listeners: WeakKeyDictionary[nn.Module, _Registration[Callable[[AttentionCall], None]]] = WeakKeyDictionary()
_wrap_counts: Counter[int] = Counter()  # number of open contexts that wrap an interface, by the interface's id
_replaced: dict[int, Callable[..., Any]] = {}  # what another tool had set as an interface's method, by the same id


@torch.compiler.disable  # type: ignore[untyped-decorator]  # in a compiled graph, a gradient taken in a transform would be silently wrong
def _attend(
    function: Callable[..., Any], eager: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any
) -> tuple[Tensor, Any]:
    """Run the attention function or its substitute, then the listener and the transforms of this thread."""
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


def is_transformed(model: nn.Module) -> bool:
    """Whether anything is registered for one of the model's attention modules now."""
    return any(module in registered for module in model.modules() for registered in (_transforms, _substitutes))


def _interfaces(model: nn.Module) -> list[AttentionInterface]:
    """The attention interfaces that the model's modules use; nearly always that of transformers."""
    sources = {type(module).__module__ for module in model.modules()}
    candidates = (getattr(sys.modules.get(source), "ALL_ATTENTION_FUNCTIONS", None) for source in sources)
    return list({id(interface): interface for interface in candidates if interface is not None}.values())


def _wrap_interface(interface: AttentionInterface) -> None:
    _wrap_counts[id(interface)] += 1
    if _wrap_counts[id(interface)] == 1:
        original = interface.get_interface
        if "get_interface" in vars(interface):
            _replaced[id(interface)] = original
        # Set on the instance, so that deleting the attribute restores the class's method.
        interface.get_interface = lambda name, eager: partial(_attend, original(name, eager), eager)  # type: ignore[method-assign,assignment]


def _unwrap_interface(interface: AttentionInterface) -> None:
    _wrap_counts[id(interface)] -= 1
    if not _wrap_counts[id(interface)]:
        del _wrap_counts[id(interface)], interface.get_interface
        if (original := _replaced.pop(id(interface), None)) is not None:
            interface.get_interface = original  # type: ignore[method-assign]


@contextmanager
def transform_attention_outputs(
    model: nn.Module, transforms: Mapping[nn.Module, Callable[[Tensor], Tensor]]
) -> Iterator[None]:
    """Apply transforms to the outputs of attention modules. In nested contexts the outer transform runs first."""
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
    """Call `attend` in place of every layer's attention function, with that function as its first argument."""
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
    """Call each listener with the inputs and outputs of its module's attention function in every forward pass.

    Raises:
        HeadnbError: on exit, as for `check_hooks_ran`.
    """
    with check_hooks_ran(model, list(listeners)) as reached, transform_attention_outputs(model, {}):
        ours = this_thread_check()

        def notify(listener: Callable[[AttentionCall], None], call: AttentionCall) -> None:
            reached(call.module)
            listener(call)

        _listeners.update(
            {module: _Registration(partial(notify, listener), ours) for module, listener in listeners.items()}
        )
        try:
            yield
        finally:
            for module in listeners:
                del _listeners[module]
