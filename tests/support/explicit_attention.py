"""Textbook attention for models that use transformers' attention interface; its matrices can be read and replaced.

It is independent of headnb, so that scores can be compared with definitions written with it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from transformers import PreTrainedModel


class Matrices(NamedTuple):
    """Matrices of every query head, for one layer and one sample."""

    A: Tensor  # (H, T, T): the attention weights that multiply V
    V: Tensor  # (H, T, D)
    O: Tensor  # (H, T, D): A V


_recorded: dict[int, Matrices] = {}
_replacements: dict[int, Tensor] = {}


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    logits = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if attention_mask is not None:
        logits = logits + attention_mask
    if s_aux is not None:  # a sink: an extra column of weights without a value
        logits = torch.cat([logits, s_aux.view(1, -1, 1, 1).expand(*logits.shape[:3], 1)], -1)
    weights = torch.softmax(logits, -1)[..., : key.shape[2]]
    weights = _replacements.get(module.layer_idx, weights)
    outputs = weights @ value
    _recorded[module.layer_idx] = Matrices(*(part[0].detach() for part in (weights, value, outputs)))
    return outputs.transpose(1, 2), weights


AttentionInterface.register("explicit", _attention)
AttentionMaskInterface.register("explicit", eager_mask)


def with_explicit_attention(model: PreTrainedModel) -> PreTrainedModel:
    """Set the attention of a model to this one; returns the same model."""
    model.set_attn_implementation("explicit")
    return model


def matrices(model: PreTrainedModel, input_ids: Any) -> dict[int, Matrices]:
    """Layer -> matrices of its attention for one sample."""
    _recorded.clear()
    with torch.no_grad():
        model(input_ids=torch.as_tensor(input_ids)[None], use_cache=False)
    return dict(_recorded)


@contextmanager
def attention_weights(given: Mapping[int, Tensor]) -> Iterator[None]:
    """Use these weights (H, T, T) of some layers in place of the model's own weights."""
    _replacements.update({layer: weights[None] for layer, weights in given.items()})
    try:
        yield
    finally:
        _replacements.clear()
