"""Activity scores of attention heads, from one forward pass without gradients.

With A (T, T) the attention weights of a head, V (T, D) its values, O = A V, and all T tokens of sample x:

    output-norm            mean over q of |O[q]|                 value-norm             mean over k of |V[k]|
    output-norm-last       |O[T - 1]|                            value-norm-first       |V[0]|
    first-token            mean over q of A[q, 0]
    entropy                mean over q of -sum_k A[q, k] log A[q, k]

    ...-ln    the same, divided by its mean over the heads of the layer (output-norm-last-ln: by that of output-norm)
    output-norm-last-hn    output-norm-last divided by output-norm of the same head

These are the 13 scores of arXiv 2504.03889 as its code `psandovalsegura/inactive-heads` computes them, for one sample.
The paper's text was not available. Two things differ. Queries on padding are excluded; in the published code they count
in the means of `first-token` and `entropy`. A layer in which every head is zero scores 0. "Last" is the last token of
prompt and answer. The code's two norms after W_o are not among the 13.

No score is negative. Small output, small values and low entropy indicate an inactive head; a *large* `first-token` does
too. The paper sets the heads beyond a threshold to zero and finds `output-norm-ln` the best criterion. Heads that share
keys and values have equal value norms. Norms have the scale of the model; entropy is in nats of attention.

Cost: one forward pass. `output-norm` and `value-norm` take the memory of a forward pass. `first-token` equals
attention to values that are 1 at the first token and 0 elsewhere: the attention kernel of each layer runs once more,
without an attention matrix. `entropy` computes the weights of a few queries at a time, in 16 MB. Architectures with
their own attention code (bloom, gptj, ...) hide queries, keys and values, so only the output norms are available.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from headnb.engine.attention_weights import attention_rows, repeat_for_query_heads, split_samples
from headnb.scoring.one_pass import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable

    from headnb.engine.attention_functions import AttentionCall
    from headnb.engine.batching import Batch


def output_norm(outputs: Tensor, batch: Batch) -> Tensor:
    """|O[q]|: (B, T, H, D) -> (B, T, H), in float32 or float64."""
    del batch
    return _norm(outputs)


def value_norm(call: AttentionCall, batch: Batch) -> Tensor:
    """|V[k]| of the values that each query head uses, (B, T, H)."""
    del batch
    return repeat_for_query_heads(_norm(call.value), call.query.shape[1]).transpose(1, 2)


def first_token_weight(call: AttentionCall, batch: Batch) -> Tensor:
    """A[q, first token of q's sample], (B, T, H): attention to values that are 1 at that token and 0 elsewhere."""
    samples, token_mask = _samples_and_mask(batch, call.value.device)
    begins = token_mask.clone()  # (B, T): no padding, and the token before is padding or belongs to another sample
    begins[:, 1:] &= ~token_mask[:, :-1] | (samples[:, 1:] != samples[:, :-1])
    marked = torch.zeros_like(call.value)
    marked[..., 0] = begins[:, None].to(marked.dtype)
    outputs, _ = call.attend(call.module, call.query, call.key, marked, call.mask, **call.options)
    return torch.as_tensor(outputs[..., 0].to(_wide(outputs)))


def entropy(call: AttentionCall, batch: Batch) -> Tensor:
    """-sum_k A[q, k] log A[q, k], (B, T, H)."""
    if batch.lengths is not None:
        return torch.cat([_entropy(part, None) for part in split_samples(call, batch.lengths)], 1)
    return _entropy(call, None if batch.token_mask is None else batch.token_mask.to(call.query.device))


def _entropy(call: AttentionCall, token_mask: Tensor | None) -> Tensor:
    rows = [-torch.xlogy(weights, weights).sum(-1) for _, weights in attention_rows(call, token_mask)]  # each (B, H, R)
    return torch.cat(rows, 2).transpose(1, 2)


@dataclass(frozen=True)
class TokenSummary:
    """Statistics of a per-token quantity over the tokens of each sample, each (B, H)."""

    mean: Tensor
    first: Tensor
    last: Tensor


@dataclass(frozen=True)
class Activity:
    """One activity score: the quantity measured per token and head, and the statistic of it that is the score."""

    summary: str
    measure: Callable[[Any, Batch], Tensor]
    """Quantity per token (B, T, H). `output_norm` takes head outputs; all other measures take an attention call."""
    of: Callable[[TokenSummary], Tensor]
    """The score (B, H)."""
    relative_to: Callable[[TokenSummary], Tensor] | None = None
    """The divisor (B, H) or (B, 1)."""
    units: str = "norm"


def _mean(tokens: TokenSummary) -> Tensor:
    return tokens.mean


def _first(tokens: TokenSummary) -> Tensor:
    return tokens.first


def _last(tokens: TokenSummary) -> Tensor:
    return tokens.last


def _over_layer(of: Callable[[TokenSummary], Tensor], tokens: TokenSummary) -> Tensor:
    return of(tokens).mean(1, keepdim=True)


_LAYER = "of the layer's mean head"
_layer_mean = partial(_over_layer, _mean)
ACTIVITIES = {
    "output-norm": Activity("mean norm of the head's output; 1 forward pass", output_norm, _mean),
    "output-norm-ln": Activity(
        "output-norm divided by its mean over the layer's heads; 1 forward pass",
        output_norm,
        _mean,
        _layer_mean,
        _LAYER,
    ),
    "output-norm-last": Activity("norm of the head's output at the last token; 1 forward pass", output_norm, _last),
    "output-norm-last-ln": Activity(
        "output-norm-last divided by the mean output-norm over the layer's heads; 1 forward pass",
        output_norm,
        _last,
        _layer_mean,
        _LAYER,
    ),
    "output-norm-last-hn": Activity(
        "output-norm-last divided by the head's output-norm; 1 forward pass",
        output_norm,
        _last,
        _mean,
        "of the head's mean",
    ),
    "value-norm": Activity("mean norm of the head's values; 1 forward pass", value_norm, _mean),
    "value-norm-ln": Activity(
        "value-norm divided by its mean over the layer's heads; 1 forward pass",
        value_norm,
        _mean,
        _layer_mean,
        _LAYER,
    ),
    "value-norm-first": Activity("norm of the head's value at the first token; 1 forward pass", value_norm, _first),
    "value-norm-first-ln": Activity(
        "value-norm-first divided by its mean over the layer's heads; 1 forward pass",
        value_norm,
        _first,
        partial(_over_layer, _first),
        _LAYER,
    ),
    "first-token": Activity(
        "mean attention weight on the first token, large for inactive heads; 1 forward pass",
        first_token_weight,
        _mean,
        units="attention weight",
    ),
    "first-token-ln": Activity(
        "first-token divided by its mean over the layer's heads, large for inactive heads; 1 forward pass",
        first_token_weight,
        _mean,
        _layer_mean,
        _LAYER,
    ),
    "entropy": Activity(
        "mean entropy of the attention weights; 1 forward pass", entropy, _mean, units="nats of attention"
    ),
    "entropy-ln": Activity(
        "entropy divided by its mean over the layer's heads; 1 forward pass", entropy, _mean, _layer_mean, _LAYER
    ),
}


def activity_recorder(score: Activity) -> Recorder:
    """The recorder of an activity score."""
    reads: Literal["outputs", "call"] = "outputs" if score.measure is output_norm else "call"
    return Recorder(reads, score.measure, partial(_score_samples, score))


def _score_samples(score: Activity, measured: Tensor, batch: Batch) -> Tensor:
    """Scores (B, H) of one layer from the quantity measured on its tokens (B, T, H)."""
    tokens = _summarize_tokens(measured, batch)
    found = score.of(tokens)
    if score.relative_to is None:
        return found
    scale = score.relative_to(tokens).expand_as(found)
    return torch.where(scale > 0, found / scale, torch.zeros_like(found))


def _summarize_tokens(measured: Tensor, batch: Batch) -> TokenSummary:
    """Mean, first and last value over the tokens of each sample, from all tokens (B, T, H) or (1, N, H)."""
    samples, token_mask = _samples_and_mask(batch, measured.device)
    values, samples = measured[token_mask], samples[token_mask]  # (n, H), (n,): samples in order, tokens in order
    counts = samples.bincount(minlength=len(batch))  # (B,)
    ends = counts.cumsum(0)
    sums = values.new_zeros(len(batch), values.shape[1]).index_add_(0, samples, values)
    return TokenSummary(sums / counts[:, None], values[ends - counts], values[ends - 1])


def _samples_and_mask(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """The index of each token's sample, and a mask that is False on padding; both (B, T) or (1, N)."""
    samples = batch.sample_of_token.to(device)
    return samples, torch.ones_like(samples, dtype=torch.bool) if batch.token_mask is None else batch.token_mask.to(
        device
    )


def _norm(tensor: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor, dim=-1, dtype=_wide(tensor))
    return norm


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
