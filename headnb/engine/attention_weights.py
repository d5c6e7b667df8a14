"""Attention weights A recomputed from the inputs of a layer's attention function, whichever kernel ran.

The architecture's eager function computes A from query, key and mask: either all heads for a block of queries, which
bounds the memory, or the whole matrix of one head. The result is checked: A V must equal the kernel's output.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from headnb.engine.attention_functions import observe_attention_calls
from headnb.engine.layout import parent_of
from headnb.engine.threads import this_thread_only
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

    from headnb.engine.attention_functions import AttentionCall
    from headnb.engine.layout import HeadLayout

# Maximum number of attention weights in memory at one time: 16 MB in float32.
MAX_WEIGHT_ELEMENTS = 4_000_000


@torch.no_grad()
def attention_of_head(call: AttentionCall, head: int) -> tuple[Tensor, Tensor]:
    """A (T, T) and V (T, D) of one head of the first sample, in float32 or better.

    Raises:
        HeadnbError: A V differs from the output of the model's kernel.
    """
    first = replace(call, **{name: getattr(call, name)[:1] for name in ("query", "key", "value", "outputs")})
    if isinstance(call.mask, Tensor):
        first = replace(first, mask=call.mask[:1])
    weights = _weights(first, slice(None), head)
    shared = _kv_head(call, head)
    return weights[0, 0], call.value[0, shared].to(weights.dtype)


@torch.no_grad()
def attention_rows(call: AttentionCall, token_mask: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
    """A of all heads by blocks of queries: each block's slice of queries, and A (B, H, R, T) in float32 or better.

    Args:
        call: the call of one attention layer.
        token_mask: (B, T), false on padding, whose weights have no meaning; None: no padding.

    Raises:
        HeadnbError: A V differs from the output of the model's kernel.
    """
    batch, heads, length, _ = call.query.shape
    step = max(1, MAX_WEIGHT_ELEMENTS // (batch * heads * length))
    for start in range(0, length, step):
        rows = slice(start, min(start + step, length))
        yield rows, _weights(call, rows, None, token_mask)


class RowListener(Protocol):
    """Receives the attention weights of one layer for a block of queries."""

    def __call__(self, layer: int, rows: slice, weights: Tensor, visible: Tensor, /) -> None:
        """`weights` (B, H, R, T); `visible` (B or 1, H or 1, R, T), whether the mask and the window allow the key."""


@contextmanager
def observe_attention_rows(
    model: PreTrainedModel, layout: HeadLayout, listener: RowListener, token_mask: Tensor | None = None
) -> Iterator[None]:
    """Call the listener with the attention weights of every layer in each forward pass, by blocks of queries.

    Architectures with their own attention code return whole matrices (B, H, T, T) of one layer at a time.

    Raises:
        HeadnbError: as for `attention_rows`; or an architecture's own attention code does not return the weights.
    """

    def on_call(layer: int, call: AttentionCall) -> None:
        for rows, weights in attention_rows(call, token_mask):
            listener(layer, rows, weights, visible_keys(call, rows))

    def on_returned(layer: int, module: nn.Module, _: Any, returned: tuple[Any, ...]) -> None:
        weights = returned_weights(module, returned, layout.heads[layer])
        length = weights.shape[-1]
        causal = torch.ones(1, 1, length, length, dtype=torch.bool, device=weights.device).tril()
        listener(layer, slice(0, length), weights, causal)

    with ExitStack() as stack:
        for layer, projection in layout.projections:
            hook = this_thread_only(partial(on_returned, layer))
            stack.callback(parent_of(model, projection).register_forward_hook(hook).remove)
        listeners = {module: partial(on_call, layer) for layer, module in layout.attention}
        stack.enter_context(observe_attention_calls(model, listeners))
        yield


def returned_weights(module: nn.Module, returned: tuple[Any, ...], heads: int) -> Tensor:
    """The attention weights (B, H, T, T) among what an attention module with its own attention code returns.

    Raises:
        HeadnbError: with this kernel it returns none.
    """
    weights = returned[1]
    if not isinstance(weights, Tensor) or weights.ndim != 4 or weights.shape[1] != heads:
        raise HeadnbError(
            f"{type(module).__name__} returns no attention matrix with this kernel; "
            "load the model with attn_implementation='eager'"
        )
    return weights


def visible_keys(call: AttentionCall, rows: slice) -> Tensor:
    """Which keys the mask and the window allow for a block of queries: bool (B or 1, H or 1, R, T)."""
    mask = _additive_mask(call, slice(None), rows, torch.float32)
    # A masked key has the lowest number of the dtype that the model made the mask in, limited to that of float32.
    made_in = call.mask.dtype if isinstance(call.mask, Tensor) and call.mask.is_floating_point() else mask.dtype
    return mask > max(torch.finfo(made_in).min, torch.finfo(mask.dtype).min) / 2


def split_samples(call: AttentionCall, lengths: tuple[int, ...]) -> Iterator[AttentionCall]:
    """Split the call of a packed row into one call (1, ...) per sample; each sample attends only to itself."""
    for end, length in zip(accumulate(lengths), lengths, strict=True):
        part = slice(end - length, end)
        mask = call.mask[..., part, part] if isinstance(call.mask, Tensor) and call.mask.ndim == 4 else None
        query, key, value = (tensor[:, :, part] for tensor in (call.query, call.key, call.value))
        yield replace(call, query=query, key=key, value=value, mask=mask, outputs=call.outputs[:, part])


def repeat_for_query_heads(tensor: Tensor, heads: int) -> Tensor:
    """Repeat (B, kv_heads, ...) to (B, H, ...): each key/value head once for every query head of its group."""
    return tensor.repeat_interleave(heads // tensor.shape[1], 1)


class _OneHead:
    """A view of an attention module with a single query head, for its eager function."""

    def __init__(self, module: nn.Module, head: int) -> None:
        self._module = module
        self.num_key_value_groups = 1
        if (sinks := getattr(module, "sinks", None)) is not None:  # (H,): an extra softmax logit without a value
            self.sinks = sinks[head : head + 1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _weights(call: AttentionCall, rows: slice, head: int | None, token_mask: Tensor | None = None) -> Tensor:
    """A of a block of queries: (B, H, R, T) of all heads, or (B, 1, R, T) of one head."""
    wide = torch.promote_types(call.query.dtype, torch.float32)
    module: Any = call.module if head is None else _OneHead(call.module, head)
    heads, shared = slice(None), slice(None)
    if head is not None:
        heads, shared = slice(head, head + 1), slice(kv := _kv_head(call, head), kv + 1)
    query = call.query[:, heads, rows].to(wide)
    key, value = (tensor[:, shared].to(wide) for tensor in (call.key, call.value))
    mask = _additive_mask(call, heads, rows, wide)
    options = {name: _slice_matrix(call, option, heads, rows) for name, option in call.options.items()}
    outputs, weights = call.eager(module, query, key, value, mask, **options)  # (B, R, H, D), (B, H, R, T)
    expected = call.outputs[:, rows, heads].to(wide)
    tolerance = max(1e-3, 8 * torch.finfo(call.outputs.dtype).eps) * call.outputs.abs().max()
    difference = (outputs - expected).abs().amax((2, 3))  # (B, R)
    if token_mask is not None:
        difference = difference.masked_fill(~token_mask[:, rows], 0)
    if weights is None or not difference.max() <= tolerance:
        raise HeadnbError(
            f"the attention weights of {type(call.module).__name__} cannot be recomputed exactly: they do not "
            "reproduce the head outputs; load the model with attn_implementation='eager'"
        )
    return torch.as_tensor(weights)


def _kv_head(call: AttentionCall, head: int) -> int:
    return head // (call.query.shape[1] // call.key.shape[1])


def _additive_mask(call: AttentionCall, heads: slice, rows: slice, dtype: torch.dtype) -> Tensor:
    """The additive mask (B or 1, H or 1, R, T) of eager attention: 0 on visible keys, else the lowest number."""
    mask, (batch, _, length, _) = call.mask, call.query.shape
    allowed: Tensor
    lowest = torch.finfo(dtype).min
    if mask is None or (isinstance(mask, Tensor) and mask.ndim == 2):  # (B, T): the kernel takes a padding mask only
        allowed = _causal(call, rows)
        if mask is not None:
            allowed = allowed & mask[:, None, None].bool()
    elif isinstance(mask, Tensor):
        allowed = mask
    else:
        from torch.nn.attention.flex_attention import create_mask  # noqa: PLC0415

        allowed = create_mask(mask.mask_mod, batch, 1, length, length, device=call.query.device)
    allowed = _slice_matrix(call, allowed, heads, rows)
    if allowed.dtype != torch.bool:
        return allowed.to(dtype).clamp(min=lowest)
    return torch.zeros(allowed.shape, dtype=dtype, device=call.query.device).masked_fill(~allowed, lowest)


def _causal(call: AttentionCall, rows: slice) -> Tensor:
    """Visible keys (1, 1, R, T), where the kernel's options instead of a mask define them."""
    position = torch.arange(call.query.shape[2], device=call.query.device)
    distance = position[rows, None] - position  # query - key
    allowed = torch.ones_like(distance, dtype=torch.bool)
    if call.options.get("is_causal", getattr(call.module, "is_causal", True)):
        allowed &= distance >= 0
    if (window := call.options.get("sliding_window")) is not None:
        allowed &= distance < window
    return allowed[None, None]


def _slice_matrix(call: AttentionCall, given: Any, heads: slice, rows: slice) -> Any:
    """Select heads and queries of a tensor (B, H or 1, T, T); anything else is returned unchanged."""
    _, count, length, _ = call.query.shape
    if not isinstance(given, Tensor) or given.ndim != 4:
        return given
    if given.shape[1] == count:
        given = given[:, heads]
    return given[:, :, rows] if given.shape[2] == length else given
