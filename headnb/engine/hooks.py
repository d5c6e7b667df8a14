"""Hooks that read, scale or replace the outputs of attention heads.

The output of a head is O = A V, its attention weights times the values, before the output projection mixes the heads;
all heads have shape (B, T, H, D). While a context is open, the caller's transform runs after each attention function
(see `attention_functions`). So every implementation (eager, sdpa, flash, flex, custom) works unchanged.

A few older architectures compute attention in their own code. There the transform runs before the output projection,
whose input holds the concatenated heads.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from headnb.call_checks import check_arguments
from headnb.engine.attention_functions import transform_attention_outputs
from headnb.engine.decoders import layer_numbers
from headnb.engine.hook_checks import check_hooks_ran
from headnb.engine.layout import HeadLayout, parent_of, watched_projections
from headnb.engine.model_contexts import frozen
from headnb.engine.threads import this_thread_only
from headnb.errors import HeadnbError, first_line
from headnb.head_names import parse_heads

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence

    from transformers import PretrainedConfig, PreTrainedModel


class Transform(Protocol):
    """Maps one layer's head outputs (B, T, H, D) to the tensor that the model continues with."""

    def __call__(self, layer: int, outputs: Tensor, /) -> Tensor: ...


def find_heads(model: PreTrainedModel) -> HeadLayout:
    """Find the attention heads by running the model once on four tokens and recording where attention runs.

    Raises:
        HeadnbError: no softmax attention is found, an attention module runs more than once in one forward pass,
            or its layer cannot be determined.
    """
    with torch.no_grad(), frozen(model), record_heads(model) as layout:
        model_logits(model, probe_tokens(model, [[0, 1, 2, 3]]))
    return layout()


def model_logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """A model's logits (B, T, V) for token ids (B, T).

    Raises:
        HeadnbError: the model needs other inputs than token ids.
    """
    try:
        logits: Tensor = model(input_ids=tokens, use_cache=False, return_dict=True).logits
    except (AttributeError, TypeError, ValueError) as error:
        raise HeadnbError(f"{type(model).__name__} does not run on token ids alone: {first_line(error)}") from error
    return logits


@contextmanager
def record_heads(model: PreTrainedModel) -> Iterator[Callable[[], HeadLayout]]:
    """Record where attention runs in the one forward pass inside.

    Yields:
        A function that returns the layout after the pass.

    Raises:
        HeadnbError: as for `find_heads`, during the pass or when the yielded function is called.
    """
    seen: dict[nn.Module, int] = {}  # attention module -> query heads, in the order of the forward pass
    projected: set[nn.Module] = set()

    def check_first_call(module: nn.Module, called: Container[nn.Module]) -> None:
        if module in called:
            raise HeadnbError(
                f"{type(module).__name__} runs more than once in a forward pass, so its heads have no single score"
            )

    def note(module: nn.Module, outputs: Tensor) -> Tensor:
        check_first_call(module, seen)
        seen[module] = outputs.shape[2]
        return outputs

    def note_projection(module: nn.Module, _: Any) -> None:
        check_first_call(module, projected)
        projected.add(module)

    with ExitStack() as stack:
        for _, projection in watched_projections(model):
            stack.callback(projection.register_forward_pre_hook(this_thread_only(note_projection)).remove)
        stack.enter_context(
            transform_attention_outputs(model, {module: partial(note, module) for module in model.modules()})
        )
        yield partial(_layout, model, seen)


def layout_of(model: PreTrainedModel, heads: Mapping[str, int]) -> HeadLayout:
    """The layout from the names and query heads of the attention modules that a forward pass runs, in its order."""
    return _layout(model, {model.get_submodule(name): number for name, number in heads.items()})


def _layout(model: PreTrainedModel, seen: Mapping[nn.Module, int]) -> HeadLayout:
    """Build the layout from the query heads of each attention module, in the order of a forward pass."""
    config = model.config.get_text_config()
    attention = tuple(zip(layer_numbers(model, list(seen)), seen, strict=True))
    # Later releases of transformers move classes of OWN_CODE to the attention functions, which must not count twice.
    projections = tuple((layer, one) for layer, one in watched_projections(model) if parent_of(model, one) not in seen)
    heads = dict.fromkeys(range(getattr(config, "decoder_layers", config.num_hidden_layers)), 0)
    heads |= {layer: seen[module] for layer, module in attention}
    heads |= {layer: config.num_attention_heads for layer, _ in projections}
    if not any(heads.values()):
        raise HeadnbError(f"{type(model).__name__} has no softmax attention heads that headnb can find")
    groups = max((getattr(module, "num_key_value_groups", 1) for module in seen), default=1)
    kv_heads = max(heads.values()) // groups if seen else _configured_kv_heads(config)
    return HeadLayout(tuple(heads[layer] for layer in sorted(heads)), kv_heads, attention, projections)


def input_device(model: nn.Module) -> torch.device:
    """The device of the model's token ids: that of the input embedding, or the CPU if it is offloaded."""
    # Under FSDP1 the embedding has no parameter of its own: its weight is part of the model's flat parameter.
    embedding = next(chain(model.get_input_embeddings().parameters(), model.parameters()))  # type: ignore[operator]
    return embedding.device if embedding.device.type != "meta" else torch.device("cpu")


def probe_tokens(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Tensor:
    """Token ids (B, T) of a short trial pass, on the model's input device and within its vocabulary."""
    tokens: Tensor = torch.tensor(rows, device=input_device(model)) % model.config.get_text_config().vocab_size
    return tokens


def _configured_kv_heads(config: PretrainedConfig) -> int:
    if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False):  # falcon
        return 1
    for name in ("num_key_value_heads", "num_kv_heads", "num_attention_heads"):
        if (count := getattr(config, name, None)) is not None:
            return int(count)
    return 1


@check_arguments
@contextmanager
def head_outputs(
    model: PreTrainedModel,
    transform: Transform,
    layout: HeadLayout | None = None,
    layers: Collection[int] | None = None,
) -> Iterator[HeadLayout]:
    """Read, scale or replace the outputs of every attention head while the context is open.

    Only forward passes in the thread that opened the context are affected, not passes of the same model in other
    threads.

    Args:
        model: a decoder from transformers, plain, compiled, quantized or wrapped by peft.
        transform: called as `transform(layer, O)` with O (B, T, H, D) in every forward pass. It returns the tensor that
            the model continues with: O itself, if O is only read. It must not change O in place.
        layout: the result of `find_heads(model)`, if already known.
        layers: the layers that every pass inside must reach; None: all layers that have heads.

    Yields:
        The layout of the model's heads.

    Raises:
        HeadnbError: on exit: a pass inside did not reach one of the layers, or passes ran only in other threads.
    """
    layout = layout or find_heads(model)
    wanted = [layer for layer, heads in enumerate(layout.heads) if heads] if layers is None else layers
    with ExitStack() as stack:
        reached = stack.enter_context(check_hooks_ran(model, wanted))

        def checked_transform(layer: int, outputs: Tensor) -> Tensor:
            reached(layer)
            return transform(layer, outputs)

        for layer, projection in layout.projections:
            heads = layout.heads[layer]

            def before(
                _: nn.Module, args: tuple[Tensor, ...], layer: int = layer, heads: int = heads
            ) -> tuple[Tensor, ...]:
                merged = args[0]  # (B, T, H * D)
                outputs = checked_transform(layer, merged.view(*merged.shape[:-1], heads, -1))
                return (outputs.flatten(-2), *args[1:])

            stack.callback(projection.register_forward_pre_hook(this_thread_only(before)).remove)
        transforms = {module: partial(checked_transform, layer) for layer, module in layout.attention}
        stack.enter_context(transform_attention_outputs(model, transforms))
        yield layout


def find_head(name: str, layout: HeadLayout) -> tuple[int, int]:
    """Layer and head number of a head name, checked against the model's layout.

    Raises:
        HeadnbError: the text does not name exactly one head, or the model has no such head.
    """
    named = parse_heads(name)
    if len(named) > 1:
        raise HeadnbError(f"expected one head, but {name!r} names {len(named)}")
    ((layer, head),) = named
    layers, _ = layout.shape
    if layer >= layers:
        raise HeadnbError(f"there is no {name}: the model has layers L0 to L{layers - 1}")
    if head >= layout.heads[layer]:
        raise HeadnbError(f"there is no {name}: layer {layer} has {layout.heads[layer]} heads, counted from H0")
    return layer, head
