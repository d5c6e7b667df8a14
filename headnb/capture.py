"""The only place that touches a model's inside: see, scale or replace the outputs of attention heads.

The output of a head is what its attention weights make of the values, O = A V, with shape (B, T, H, D), before the
output projection mixes the heads. Transformers hands every attention layer its attention function through
`AttentionInterface.get_interface`; while a model is captured that call is answered with the same function, followed
by the caller's transform. No configuration, mask, kernel choice or module is changed, so nothing has to be put back,
and every implementation (eager, sdpa, flash, flex, the model's own) works as it is.

A few older architectures compute attention in their own code. There the transform sits in front of the output
projection, which receives the heads side by side.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from transformers.modeling_layers import GradientCheckpointingLayer

from headnb.errors import HeadnbError, known_keywords
from headnb.four_bits import four_bits_kept
from headnb.heap import return_free_memory
from headnb.model_checks import is_offloaded
from headnb.patterns import parse_heads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from transformers import PretrainedConfig, PreTrainedModel
    from transformers.modeling_utils import AttentionInterface

# Attention classes outside the attention interface, and the name of their output projection, which takes (B, T, H * D).
OUTPUT_PROJECTIONS = {
    "BloomAttention": "dense",
    "CodeGenAttention": "out_proj",
    "FalconAttention": "dense",
    "GPTJAttention": "out_proj",
    "GPTNeoSelfAttention": "out_proj",
    "GPTNeoXJapaneseAttention": "dense",
    "MptAttention": "out_proj",
    "XGLMAttention": "out_proj",
}


class Transform(Protocol):
    """What to do with one layer's head outputs (B, T, H, D); the returned tensor flows on through the model."""

    def __call__(self, layer: int, outputs: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class HeadLayout:
    """Where a model's softmax attention heads are."""

    heads: tuple[int, ...]
    """Query heads of each layer; 0 where a layer has no softmax attention (linear attention, Mamba, ...)."""
    kv_heads: int
    """Key/value heads that a layer's query heads share; equal to their number without grouping."""
    attention: tuple[tuple[int, nn.Module], ...]
    """(layer, attention module) for layers that are reached through the attention interface."""
    projections: tuple[tuple[int, nn.Module], ...]
    """(layer, output projection) for layers of older architectures."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the layer x head grid; the widest layer counts."""
        return len(self.heads), max(self.heads)


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
_transforms: WeakKeyDictionary[nn.Module, tuple[Callable[[Tensor], Tensor], ...]] = WeakKeyDictionary()
_substitutes: WeakKeyDictionary[nn.Module, Callable[..., Any]] = WeakKeyDictionary()
_listeners: WeakKeyDictionary[nn.Module, Callable[[AttentionCall], None]] = WeakKeyDictionary()
_captures: Counter[int] = Counter()  # how many captures look through an interface, by the interface's id


@torch.compiler.disable  # type: ignore[untyped-decorator]  # traced into a compiled graph, a gradient taken in a transform would be silently wrong
def _attend(
    function: Callable[..., Any], eager: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any
) -> tuple[Tensor, Any]:
    """The model's own attention function, followed by the transforms that are set on this module."""
    if (substitute := _substitutes.get(module)) is not None:
        function = partial(substitute, function)
    outputs, weights = function(module, *args, **kwargs)
    if (listener := _listeners.get(module)) is not None:
        named = dict(zip(("query", "key", "value", "attention_mask"), args, strict=False)) | kwargs
        query, key, value, mask = (named.pop(name) for name in ("query", "key", "value", "attention_mask"))
        listener(AttentionCall(module, function, eager, query, key, value, mask, named, outputs))
    for transform in _transforms.get(module, ()):
        outputs = transform(outputs)
    return outputs, weights


def _interfaces(model: nn.Module) -> list[AttentionInterface]:
    """The interfaces that the model's code looks attention functions up in; nearly always the one of transformers."""
    sources = {type(module).__module__ for module in model.modules()}
    found = (getattr(sys.modules.get(source), "ALL_ATTENTION_FUNCTIONS", None) for source in sources)
    return list({id(interface): interface for interface in found if interface is not None}.values())


def _watch(interface: AttentionInterface) -> None:
    _captures[id(interface)] += 1
    if _captures[id(interface)] == 1:
        original = interface.get_interface
        # On the instance, so that deleting the attribute brings the class's own method back.
        interface.get_interface = lambda name, eager: partial(_attend, original(name, eager), eager)  # type: ignore[method-assign,assignment]


def _unwatch(interface: AttentionInterface) -> None:
    _captures[id(interface)] -= 1
    if not _captures[id(interface)]:
        del _captures[id(interface)], interface.get_interface


@contextmanager
def _transformed(model: nn.Module, transforms: Mapping[nn.Module, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Set transforms on attention modules of `model`. Captures may nest: the outer one's transform comes first."""
    interfaces = _interfaces(model)
    with _lock:
        for interface in interfaces:
            _watch(interface)
        for module, transform in transforms.items():
            _transforms[module] = (*_transforms.get(module, ()), transform)
    try:
        yield
    finally:
        with _lock:
            for module, transform in transforms.items():
                _transforms[module] = tuple(other for other in _transforms[module] if other is not transform)
                if not _transforms[module]:
                    del _transforms[module]
            for interface in interfaces:
                _unwatch(interface)


@contextmanager
def attention_by(model: nn.Module, layout: HeadLayout, attend: Callable[..., Any]) -> Iterator[None]:
    """Have `attend` called in place of every layer's attention function, with that function before its arguments."""
    with _transformed(model, {}):
        _substitutes.update({module: attend for _, module in layout.attention})
        try:
            yield
        finally:
            for _, module in layout.attention:
                del _substitutes[module]


@contextmanager
def attention_calls(model: nn.Module, listeners: Mapping[nn.Module, Callable[[AttentionCall], None]]) -> Iterator[None]:
    """Call each listener with what the attention function of its module is given and gives in every forward pass."""
    with _transformed(model, {}):
        _listeners.update(listeners)
        try:
            yield
        finally:
            for module in listeners:
                del _listeners[module]


def find_heads(model: PreTrainedModel) -> HeadLayout:
    """Find the attention heads by running the model once on four tokens and looking where attention happens.

    Raises:
        HeadnbError: no softmax attention is found, or a module attends more than once in one forward pass.
    """
    with torch.no_grad(), frozen(model), noted_heads(model) as found:
        tokens = torch.arange(4, device=input_device(model))[None]
        model(input_ids=tokens, use_cache=False, return_dict=True)
    return found()


@contextmanager
def noted_heads(model: PreTrainedModel) -> Iterator[Callable[[], HeadLayout]]:
    """See where attention happens in the one forward pass inside; what is yielded tells it afterwards.

    Raises:
        HeadnbError: as for `find_heads`; when it is asked, or inside.
    """
    seen: dict[nn.Module, int] = {}  # attention module -> query heads, in the order of the forward pass

    def note(module: nn.Module, outputs: Tensor) -> Tensor:
        if module in seen:
            raise HeadnbError(
                f"{type(module).__name__} attends more than once in a forward pass; its heads have no single score"
            )
        seen[module] = outputs.shape[2]
        return outputs

    with _transformed(model, {module: partial(note, module) for module in model.modules()}):
        yield partial(_layout, model, seen)


def _layout(model: PreTrainedModel, seen: Mapping[nn.Module, int]) -> HeadLayout:
    """What `find_heads` returns, from the query heads of attention modules in the order of a forward pass."""
    config = model.config.get_text_config()
    attention = tuple((_layer(module, order), module) for order, module in enumerate(seen))
    projections = tuple(_output_projections(model))
    heads = dict.fromkeys(range(getattr(config, "decoder_layers", config.num_hidden_layers)), 0)
    heads |= {layer: seen[module] for layer, module in attention}
    heads |= {layer: config.num_attention_heads for layer, _ in projections}
    if not any(heads.values()):
        raise HeadnbError(f"{type(model).__name__} has no softmax attention heads that headnb can see")
    groups = max((getattr(module, "num_key_value_groups", 1) for module in seen), default=1)
    kv_heads = max(heads.values()) // groups if seen else _configured_kv_heads(config)
    return HeadLayout(tuple(heads[layer] for layer in sorted(heads)), kv_heads, attention, projections)


def input_device(model: nn.Module) -> torch.device:
    """The device that takes the model's token ids: where its first parameter lies."""
    # Sharded by FSDP in its first form, the embedding's weight is a part of the whole model's one flat parameter.
    embedding = next(chain(model.get_input_embeddings().parameters(), model.parameters()))  # type: ignore[operator]
    return embedding.device if embedding.device.type != "meta" else torch.device("cpu")


def _layer(module: nn.Module, order: int) -> int:
    return order if (index := getattr(module, "layer_idx", None)) is None else int(index)


def _output_projections(model: nn.Module) -> Iterator[tuple[int, nn.Module]]:
    """Output projections of attention modules that compute attention in their own code, in layer order."""
    layer = 0
    for module in model.modules():
        names = (OUTPUT_PROJECTIONS.get(base.__name__) for base in type(module).__mro__)
        if name := next(filter(None, names), None):
            yield layer, getattr(module, name)
            layer += 1


def _configured_kv_heads(config: PretrainedConfig) -> int:
    if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False):  # falcon
        return 1
    for name in ("num_key_value_heads", "num_kv_heads", "num_attention_heads"):
        if (count := getattr(config, name, None)) is not None:
            return int(count)
    return 1


@known_keywords
@contextmanager
def head_outputs(
    model: PreTrainedModel, transform: Transform, layout: HeadLayout | None = None
) -> Iterator[HeadLayout]:
    """See, scale or replace the outputs of every attention head while the context is open.

    Parameters
    ----------
    model
        A decoder from transformers, bare, compiled, quantized or wrapped by peft.
    transform
        Called as ``transform(layer, O)`` with O (B, T, H, D) in every forward pass; returns what flows on (O itself, to
        look only). It must not change O in place.
    layout
        What `find_heads(model)` gave, if it is at hand already.

    Yields
    ------
    HeadLayout
        Where the model's heads are.
    """
    layout = layout or find_heads(model)
    with ExitStack() as stack:
        for layer, projection in layout.projections:
            heads = layout.heads[layer]

            def before(
                _: nn.Module, args: tuple[Tensor, ...], layer: int = layer, heads: int = heads
            ) -> tuple[Tensor, ...]:
                merged = args[0]  # (B, T, H * D)
                outputs = transform(layer, merged.view(*merged.shape[:-1], heads, -1))
                return (outputs.flatten(-2), *args[1:])

            stack.callback(projection.register_forward_pre_hook(before).remove)
        stack.enter_context(
            _transformed(model, {module: partial(transform, layer) for layer, module in layout.attention})
        )
        yield layout


@known_keywords
@contextmanager
def scale_heads(model: PreTrainedModel, factors: Mapping[str, float]) -> Iterator[None]:
    """Multiply the outputs of some heads while the context is open: 0.0 ablates a head, 1.0 leaves it as it is.

    Args:
        model: as for `head_outputs`.
        factors: head name to factor, as {"L3H5": 0.0, "L7H1": 2.0}.

    Raises:
        HeadnbError: a name is not of the form L3H5, or the model has no such head.
    """
    layout = find_heads(model)
    scales: dict[int, Tensor] = {}  # layer -> (H, 1)
    for name, factor in factors.items():
        layer, head = find_head(name, layout)
        scales.setdefault(layer, torch.ones(layout.heads[layer], 1, dtype=torch.float64))[head] = factor

    def transform(layer: int, outputs: Tensor) -> Tensor:
        return outputs * scales[layer].to(outputs) if layer in scales else outputs

    with head_outputs(model, transform, layout):
        yield


def find_head(name: str, layout: HeadLayout) -> tuple[int, int]:
    """Layer and head of one name, checked against the model's layout.

    Raises:
        HeadnbError: it is not one head's name, or the model has no such head.
    """
    named = parse_heads(name)
    if len(named) > 1:
        raise HeadnbError(f"one head is wanted here, and {name!r} names {len(named)}")
    ((layer, head),) = named
    layers, _ = layout.shape
    if layer >= layers:
        raise HeadnbError(f"there is no {name}: the model has layers L0 to L{layers - 1}")
    if head >= layout.heads[layer]:
        raise HeadnbError(f"there is no {name}: layer {layer} has {layout.heads[layer]} heads, counted from H0")
    return layer, head


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and no parameter asks for a gradient; every module and parameter is put back as it was.

    Raises:
        HeadnbError: as for `four_bits_kept`.
    """
    training = [module for module in model.modules() if module.training]
    # By name, since accelerate exchanges the parameters of an offloaded model in each forward pass.
    trainable = [name for name, weight in model.named_parameters(remove_duplicate=False) if weight.requires_grad]
    try:
        for module in training:
            module.training = False
        for name in trainable:
            model.get_parameter(name).requires_grad_(False)
        with four_bits_kept(model):
            yield
    finally:
        for module in training:
            module.training = True
        for name in trainable:
            model.get_parameter(name).requires_grad_(True)


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[None]:
    """Recompute each layer in the backward pass, so that memory holds one layer's activations at a time.

    Transformers checkpoints layers only in training mode. The flag is set on the layers alone, and each layer runs
    with it off, so that no dropout wakes up.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    offloaded = is_offloaded(model)
    names = ("gradient_checkpointing", "training", "_gradient_checkpointing_func")
    before = [{name: layer.__dict__[name] for name in names if name in layer.__dict__} for layer in layers]

    def recompute(layer: nn.Module, forward: Callable[..., Any], *args: Any) -> Any:
        def evaluate(*inputs: Any) -> Any:
            layer.training = False
            try:
                return forward(*inputs)
            finally:
                layer.training = True
                return_free_memory()

        with set_checkpoint_early_stop(not offloaded):  # the last hook takes the last weights away again
            return checkpoint(evaluate, *args, use_reentrant=False)

    try:
        for layer in layers:
            layer.gradient_checkpointing = True
            layer.training = True
            layer.__dict__["_gradient_checkpointing_func"] = partial(recompute, layer)
        yield
    finally:
        for layer, state in zip(layers, before, strict=True):
            for name in names:
                layer.__dict__.pop(name, None)
            layer.__dict__.update(state)
