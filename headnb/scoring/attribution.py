"""Self-attention attribution: attention weights times the integrated gradient of the answer's probability.

    Attr[x, l, h] = A / m * sum over k = 0 .. m - 1 of dF(k A / m)/dA        (T, T), elementwise
    attattr         s[x, l, h] = max over q, k of Attr[x, l, h]

A is the attention of head h. F(a A) is the probability of the gold answer when the weights of *all* heads of layer l
are multiplied by a and all other layers are unchanged. Source: Hao et al. 2021, section 3, and
`prune_head_with_attr.py` of their code; as there, the sum starts at k = 0. In the paper F is the output of a
classifier. Here, for an answer of several tokens, F is the geometric mean of their probabilities, exp(-L); for a single
token that is its probability.

No attention matrix goes through the model. The output is linear in the weights, O = A V, so the outputs of the layer
are scaled instead. With G the mean over k of dF/dO,

    Attr = A * (G V^T)

Its largest entry is computed for a few queries at a time.

The score is the largest entry, not the largest absolute entry. A head whose weights all lower the answer's probability
scores 0, because the weights excluded by the causal mask are 0 and count as entries. Scores are large where the head is
needed. The pattern is the mean. The unit is probability: an answer that is unlikely in any case gives small scores.

Cost: m forward and backward passes per layer and batch, which start at that layer, so about layers * m / 2 whole
passes. Several k share a pass if the token budget allows. Memory: a gradient pass, the hidden states between the
layers, and 16 MB of weights. Architectures with their own attention code (bloom, gptj, ...) hide queries, keys and
values, and cannot be scored.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headnb.engine.attention_functions import observe_attention_calls
from headnb.engine.attention_weights import attention_rows, repeat_for_query_heads, split_samples
from headnb.engine.hooks import head_outputs, input_device
from headnb.engine.losses import LossComputer, batch_context, find_heads_and_loss_computer
from headnb.engine.model_contexts import checkpointed
from headnb.engine.partial_forward import PartialForward, find_partial_forward
from headnb.errors import HeadnbError
from headnb.models.checks import check_gradients

if TYPE_CHECKING:
    from typing import Any

    from torch import nn
    from transformers import PreTrainedModel

    from headnb.engine.attention_functions import AttentionCall
    from headnb.engine.batching import Batch
    from headnb.engine.layout import HeadLayout


@dataclass(frozen=True)
class AttributionScorer:
    """Scores the batches of one model by attribution. Create it with `attribution_scorer`."""

    model: PreTrainedModel
    layout: HeadLayout
    loss_computer: LossComputer
    partial_forward: PartialForward
    steps: int

    @property
    def supports_packing(self) -> bool:
        """Whether the model keeps the samples of a packed batch separate."""
        return self.loss_computer.supports_packing

    def __call__(self, batch: Batch, *, budget: int | None = None) -> tuple[Tensor, Tensor]:
        """Scores (B, L, H) and losses (B,), on the CPU; NaN for heads that a layer does not have."""
        with (
            torch.no_grad(),
            batch_context(self.model, self.layout, batch),
            self.partial_forward.record_outputs() as hidden,
        ):
            loss = self.loss_computer.losses(batch, input_device(self.model))
        scores = torch.full((len(batch), *self.layout.shape), torch.nan, dtype=loss.dtype)
        for layer, module in self.layout.attention:
            call = self._call(batch, layer, module, hidden)
            gradient = self._mean_gradient(batch, layer, hidden, budget)
            largest = _largest_attribution(call, gradient, batch)
            scores[:, layer, : largest.shape[1]] = largest.cpu()
        return scores, loss.cpu()

    @torch.no_grad()
    def _call(self, batch: Batch, layer: int, module: nn.Module, hidden: list[Any]) -> AttentionCall:
        """The call of a layer's attention function: its arguments and result."""
        calls: list[AttentionCall] = []
        with (
            batch_context(self.model, self.layout, batch),
            self.partial_forward.start_at(layer, hidden),
            observe_attention_calls(self.model, {module: calls.append}),
        ):
            self.loss_computer.losses(batch, input_device(self.model))
        return calls[0]

    def _mean_gradient(self, batch: Batch, layer: int, hidden: list[Any], budget: int | None) -> Tensor:
        """G (B, T, H, D): the mean of dF/dO over the scales k / m of the layer's outputs O."""
        scales_per_pass = max(1, (budget or 0) // batch.input_ids.numel())
        total: Tensor | None = None
        for scales in torch.split(torch.arange(self.steps, dtype=torch.float64) / self.steps, scales_per_pass):
            gradient = self._gradients(batch, layer, scales, hidden, budget)
            total = gradient if total is None else total + gradient
        assert total is not None  # noqa: S101  there is at least one step
        return total / self.steps

    def _gradients(self, batch: Batch, layer: int, scales: Tensor, hidden: list[Any], budget: int | None) -> Tensor:
        """The sum of dF/dO (B, T, H, D) over some scales, in one pass with one copy of the batch per scale."""
        copies = batch.repeat_batch(len(scales))
        scaled: list[Tensor] = []

        def transform(at: int, outputs: Tensor) -> Tensor:
            if at != layer:
                return outputs
            factors = batch.expand_over_copies(scales[:, None, None]).to(outputs)  # (copies * B, 1, 1, 1) or packed
            scaled.append((outputs.detach() * factors).requires_grad_())
            return scaled[-1]

        with ExitStack() as stack:
            stack.enter_context(batch_context(self.model, self.layout, copies))
            if budget is not None and batch.longest_sample > budget:
                stack.enter_context(checkpointed(self.model))
            stack.enter_context(
                self.partial_forward.start_at(layer, hidden, lambda states: batch.repeat(states, len(scales)))
            )
            stack.enter_context(torch.enable_grad())
            stack.enter_context(head_outputs(self.model, transform, self.layout, [layer]))
            losses = self.loss_computer.backward(copies, input_device(self.model))
        dL = scaled[0].grad
        assert dL is not None  # noqa: S101  the loss depends on every layer
        probability = torch.exp(-losses)[copies.sample_of_token.to(losses.device)].to(dL.device)  # (copies * B, T)
        dF = -dL.to(probability.dtype) * probability[..., None, None]
        shape = (len(scales), len(batch.input_ids), -1) if batch.lengths is None else (1, len(scales), -1)
        return dF.view(*shape, *dF.shape[2:]).sum(0 if batch.lengths is None else 1)


def attribution_scorer(model: PreTrainedModel, steps: int) -> AttributionScorer:
    """Create a scorer for a model, with m = `steps`.

    Raises:
        HeadnbError: as for `gradient_scorer`; or the model has its own attention code.
    """
    check_gradients(model)
    layout, loss_computer = find_heads_and_loss_computer(model)
    if layout.projections:
        raise HeadnbError(
            f"{type(model).__name__} has its own attention code, which hides the values that the weights multiply; "
            "attattr cannot score it"
        )
    return AttributionScorer(model, layout, loss_computer, find_partial_forward(model, layout), steps)


def _largest_attribution(call: AttentionCall, gradient: Tensor, batch: Batch) -> Tensor:
    """max over q, k of A * (G V^T) for each sample and head, (B, H)."""
    if batch.lengths is None:
        return _largest(call, gradient, None if batch.token_mask is None else batch.token_mask.to(gradient.device))
    parts = zip(split_samples(call, batch.lengths), torch.split(gradient, list(batch.lengths), 1), strict=True)
    return torch.cat([_largest(part, part_gradient, None) for part, part_gradient in parts])


def _largest(call: AttentionCall, gradient: Tensor, token_mask: Tensor | None) -> Tensor:
    values = repeat_for_query_heads(call.value, call.query.shape[1]).to(gradient.dtype)  # (B, H, T, D)
    largest = gradient.new_full(values.shape[:2], -torch.inf)
    for rows, weights in attention_rows(call, token_mask):  # (B, H, R, T)
        attributions = weights * (gradient[:, rows].transpose(1, 2) @ values.transpose(2, 3))
        if token_mask is not None:
            attributions = attributions.masked_fill(~token_mask[:, None, rows, None], 0)
        largest = torch.maximum(largest, attributions.amax((2, 3)))
    return largest
