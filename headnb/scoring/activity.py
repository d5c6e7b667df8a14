"""Activity scores: how much a head does, from one forward pass and no gradient.

With A (T, T) a head's attention weights, V (T, D) its values, O = A V, and all T tokens of sample x:

    output-norm            mean over q of |O[q]|                 value-norm             mean over k of |V[k]|
    output-norm-last       |O[T - 1]|                            value-norm-first       |V[0]|
    first-token            mean over q of A[q, 0]
    entropy                mean over q of -sum_k A[q, k] log A[q, k]

    ...-ln    the same divided by its mean over the layer's heads (output-norm-last-ln: by that of output-norm)
    output-norm-last-hn    output-norm-last divided by the same head's output-norm

These are the 13 scores of arXiv 2504.03889 as its code `psandovalsegura/inactive-heads` has them, of one sample each;
the paper's own text could not be had. Two things differ: queries on padding are left out (there they count in the
means of `first-token` and `entropy`), and a layer whose heads are all zero gives 0. "Last" is the last token of prompt
and answer. The code's two norms behind W_o are not among the 13.

Sign and direction: none is negative. Little output, small values and low entropy mean an inactive head, and so does a
*large* `first-token`. The paper zeroes the heads beyond a threshold and finds `output-norm-ln` the best guide. The
values of heads that share keys and values are the same. Norms in the model's own scale, entropy in nats of attention.

Cost: one forward pass. Memory: `output-norm` and `value-norm` a forward pass's. `first-token` is what attention gives
where V is 1 on the first token and 0 elsewhere: the model's own kernel runs once more on each layer, without a matrix.
`entropy` makes the weights of some queries at a time, in 16 MB. Architectures whose attention is code of their own
(bloom, gptj, ...) hide queries, keys and values: there only the output norms can be had.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headnb.engine.attention_functions import observe_attention_calls
from headnb.engine.attention_weights import attention_rows, repeat_for_query_heads, split_samples
from headnb.engine.hooks import head_outputs, input_device
from headnb.engine.losses import LossComputer, batch_context, find_heads_and_loss_computer
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn
    from transformers import PreTrainedModel

    from headnb.engine.attention_functions import AttentionCall
    from headnb.engine.batching import Batch
    from headnb.engine.layout import HeadLayout


def output_norm(outputs: Tensor, batch: Batch) -> Tensor:
    """|O[q]|: (B, T, H, D) -> (B, T, H), in float32 or better."""
    del batch
    return _norm(outputs)


def value_norm(call: AttentionCall, batch: Batch) -> Tensor:
    """|V[k]| of the values that each query head uses, (B, T, H)."""
    del batch
    return repeat_for_query_heads(_norm(call.value), call.query.shape[1]).transpose(1, 2)


def first_token_weight(call: AttentionCall, batch: Batch) -> Tensor:
    """A[q, first token of q's sample], (B, T, H): attention over values that are 1 there and 0 elsewhere."""
    samples, token_mask = _samples_and_mask(batch, call.value.device)
    begins = token_mask.clone()  # (B, T): own, and the token before is not, or is another sample's
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
    rows = [-torch.xlogy(weights, weights).sum(-1) for _, weights in attention_rows(call, token_mask)]  # (B, H, R) each
    return torch.cat(rows, 2).transpose(1, 2)


@dataclass(frozen=True)
class TokenSummary:
    """A number of each token as numbers of each sample, (B, H) each."""

    mean: Tensor
    first: Tensor
    last: Tensor


@dataclass(frozen=True)
class Activity:
    """One activity score: a number of each token and head, and what of it counts."""

    summary: str
    measure: Callable[[Any, Batch], Tensor]
    """(B, T, H): `output_norm` of outputs, the others of attention calls."""
    of: Callable[[TokenSummary], Tensor]
    """(B, H)"""
    relative_to: Callable[[TokenSummary], Tensor] | None = None
    """(B, H) or (B, 1)"""
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
    "output-norm": Activity("mean norm of the head's output; one forward", output_norm, _mean),
    "output-norm-ln": Activity(
        "output-norm divided by the layer's mean; one forward", output_norm, _mean, _layer_mean, _LAYER
    ),
    "output-norm-last": Activity("norm of the head's output on the last token; one forward", output_norm, _last),
    "output-norm-last-ln": Activity(
        "output-norm-last divided by the layer's mean output-norm; one forward", output_norm, _last, _layer_mean, _LAYER
    ),
    "output-norm-last-hn": Activity(
        "output-norm-last divided by the head's output-norm; one forward",
        output_norm,
        _last,
        _mean,
        "of the head's mean",
    ),
    "value-norm": Activity("mean norm of the head's values; one forward", value_norm, _mean),
    "value-norm-ln": Activity(
        "value-norm divided by the layer's mean; one forward", value_norm, _mean, _layer_mean, _LAYER
    ),
    "value-norm-first": Activity("norm of the head's value on the first token; one forward", value_norm, _first),
    "value-norm-first-ln": Activity(
        "value-norm-first divided by the layer's mean; one forward",
        value_norm,
        _first,
        partial(_over_layer, _first),
        _LAYER,
    ),
    "first-token": Activity(
        "mean attention weight on the first token: large if inactive; one forward",
        first_token_weight,
        _mean,
        units="attention weight",
    ),
    "first-token-ln": Activity(
        "first-token divided by the layer's mean: large if inactive; one forward",
        first_token_weight,
        _mean,
        _layer_mean,
        _LAYER,
    ),
    "entropy": Activity(
        "mean entropy of the attention weights; one forward", entropy, _mean, units="nats of attention"
    ),
    "entropy-ln": Activity("entropy divided by the layer's mean; one forward", entropy, _mean, _layer_mean, _LAYER),
}


@dataclass(frozen=True)
class ActivityScorer:
    """Scores batches of one model with one of the activities above. Use `activity_scorer` to make one."""

    model: PreTrainedModel
    layout: HeadLayout
    loss_computer: LossComputer
    score: Activity

    @property
    def supports_packing(self) -> bool:
        """Whether the model keeps the samples of a packed batch apart."""
        return self.loss_computer.supports_packing

    @torch.no_grad()
    def __call__(self, batch: Batch, *, budget: int | None = None) -> tuple[Tensor, Tensor]:
        """Scores (B, L, H) and losses (B,), on the CPU; NaN where a layer has no such head."""
        del budget  # a forward pass is the least there is
        found: dict[int, Tensor] = {}  # layer -> (B, H of this layer)

        def see(layer: int, outputs: Tensor) -> Tensor:
            found[layer] = self._score_samples(self.score.measure(outputs, batch), batch)
            return outputs

        def hear(layer: int, call: AttentionCall) -> None:
            found[layer] = self._score_samples(self.score.measure(call, batch), batch)

        with ExitStack() as stack:
            stack.enter_context(batch_context(self.model, self.layout, batch))
            if self.score.measure is output_norm:
                stack.enter_context(head_outputs(self.model, see, self.layout))
            else:
                listeners: dict[nn.Module, Callable[[AttentionCall], None]] = {
                    module: partial(hear, layer) for layer, module in self.layout.attention
                }
                stack.enter_context(observe_attention_calls(self.model, listeners))
            loss = self.loss_computer.losses(batch, input_device(self.model))
        scores = torch.full((len(batch), *self.layout.shape), torch.nan, dtype=loss.dtype)
        for layer, score in found.items():
            scores[:, layer, : score.shape[1]] = score.cpu()
        return scores, loss.cpu()

    def _score_samples(self, measured: Tensor, batch: Batch) -> Tensor:
        """The score (B, H) of a layer, from what was measured on its tokens (B, T, H)."""
        tokens = _summarize_tokens(measured, batch)
        score = self.score.of(tokens)
        if self.score.relative_to is None:
            return score
        scale = self.score.relative_to(tokens).expand_as(score)
        return torch.where(scale > 0, score / scale, torch.zeros_like(score))


def activity_scorer(model: PreTrainedModel, score: Activity) -> ActivityScorer:
    """Look at a model once, and make what scores its batches.

    Raises:
        HeadnbError: as for `gradient_scorer`; or what is measured cannot be seen in this architecture.
    """
    layout, loss_computer = find_heads_and_loss_computer(model)
    if layout.projections and score.measure is not output_norm:
        raise HeadnbError(
            f"{type(model).__name__} computes attention in code of its own, where only the heads' outputs can be "
            "seen; of the activity scores it has the output norms: output-norm, output-norm-ln, ..."
        )
    return ActivityScorer(model, layout, loss_computer, score)


def _summarize_tokens(measured: Tensor, batch: Batch) -> TokenSummary:
    """Mean, first and last of each sample's own tokens, from all tokens (B, T, H) or (1, N, H)."""
    samples, token_mask = _samples_and_mask(batch, measured.device)
    values, samples = measured[token_mask], samples[token_mask]  # (n, H), (n,): sample by sample, in order
    counts = samples.bincount(minlength=len(batch))  # (B,)
    ends = counts.cumsum(0)
    sums = values.new_zeros(len(batch), values.shape[1]).index_add_(0, samples, values)
    return TokenSummary(sums / counts[:, None], values[ends - counts], values[ends - 1])


def _samples_and_mask(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which sample each token belongs to, and whether it is one of its own or padding; both (B, T) or (1, N)."""
    samples = batch.sample_of_token.to(device)
    return samples, torch.ones_like(samples, dtype=torch.bool) if batch.token_mask is None else batch.token_mask.to(
        device
    )


def _norm(tensor: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor, dim=-1, dtype=_wide(tensor))
    return norm


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
