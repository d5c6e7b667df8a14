"""Ablation scores: what a head's absence does to the loss of each sample.

    ablate-zero    s[x, l, h] = L(x; O[l, h] = 0) - L(x)
    ablate-mean    s[x, l, h] = L(x; O[l, h] = m[l, h]) - L(x)

O[l, h] (T, D) is the head's output before the output projection, L(x) the mean cross-entropy over the answer tokens of
x, and m[l, h] (D) the mean of O[l, h] over all tokens of the task, prompts and answers alike, taken in a first pass.

Sign and direction: positive where the head helps (without it the loss rises), negative where it harms; the pattern is
the signed mean. In nats. Zero takes the model further from what it was trained on than the mean does, so heads that
add a constant score higher by zero. Cost: a forward pass a head and batch, of the layers from the head's own upwards,
so about half the number of heads in whole passes, and one more pass for the mean; several heads share a pass where
the token budget has room. Memory: a forward pass's, and the hidden states between the layers of one batch. Source: the
standard definition; no single one is followed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headnb.engine.hooks import head_outputs, input_device
from headnb.engine.losses import LossComputer, batch_context, find_heads_and_loss_computer
from headnb.engine.partial_forward import PartialForward, find_partial_forward

if TYPE_CHECKING:
    from typing import Any

    from transformers import PreTrainedModel

    from headnb.engine.batching import Batch
    from headnb.engine.layout import HeadLayout


@dataclass(frozen=True)
class AblationScorer:
    """Scores batches by replacing each head's output by zero. Use `zero_ablation_scorer` to make one."""

    model: PreTrainedModel
    layout: HeadLayout
    loss_computer: LossComputer
    partial_forward: PartialForward

    @property
    def supports_packing(self) -> bool:
        """Whether the model keeps the samples of a packed batch apart."""
        return self.loss_computer.supports_packing

    @torch.no_grad()
    def __call__(self, batch: Batch, *, budget: int | None = None) -> tuple[Tensor, Tensor]:
        """Rises of the loss (B, L, H) and losses (B,), on the CPU; NaN where a layer has no such head.

        Args:
            batch: at least one answer token in each row.
            budget: tokens of a forward pass at most, if more than one head is to be replaced in it.
        """
        with batch_context(self.model, self.layout, batch), self.partial_forward.record_outputs() as hidden:
            before = self.loss_computer.losses(batch, input_device(self.model))
        scores = torch.full((len(batch), *self.layout.shape), torch.nan, dtype=before.dtype, device=before.device)
        copies = max(1, (budget or 0) // batch.input_ids.numel())
        for layer, heads in enumerate(self.layout.heads):
            for some in torch.split(torch.arange(heads), copies) if heads else ():
                after = self._losses_without(batch, layer, some, hidden)  # (heads, B)
                scores[:, layer, some] = (after - before).T
        return scores.cpu(), before.cpu()

    def replacement(self, layer: int, outputs: Tensor) -> Tensor:
        """What stands in place of a head's output (B, T, H, D): broadcastable to it."""
        del layer
        return torch.zeros((), dtype=outputs.dtype, device=outputs.device)

    def _losses_without(self, batch: Batch, layer: int, heads: Tensor, hidden: list[Any]) -> Tensor:
        """Losses (heads, B) without each of some heads of a layer, in one pass over a copy of the batch for each."""
        copies = batch.repeat_batch(len(heads))
        gone = torch.zeros(len(heads), self.layout.heads[layer], 1, dtype=torch.bool)
        gone[torch.arange(len(heads)), heads] = True
        gone = batch.expand_over_copies(gone)  # (copies * B, 1, H, 1), or (1, copies * N, H, 1)

        def transform(at: int, outputs: Tensor) -> Tensor:
            if at != layer:
                return outputs
            return torch.where(gone.to(outputs.device), self.replacement(layer, outputs), outputs)

        with (
            batch_context(self.model, self.layout, copies),
            head_outputs(self.model, transform, self.layout, [layer]),
            self.partial_forward.start_at(layer, hidden, lambda states: batch.repeat(states, len(heads))),
        ):
            return self.loss_computer.losses(copies, input_device(self.model)).view(len(heads), -1)


@dataclass(frozen=True)
class MeanAblationScorer(AblationScorer):
    """Scores batches by replacing each head's output by its mean over the tokens of the task, once it has seen it."""

    sums: dict[int, Tensor] = field(default_factory=dict)
    """Of the outputs of each layer's heads over the tokens seen so far, (H, D) float64."""
    tokens: dict[int, int] = field(default_factory=dict)
    """How many those are."""

    @torch.no_grad()
    def prepare(self, batch: Batch) -> None:
        """Add the outputs on one batch's tokens to the mean; a batch that fails leaves it as it was."""
        found: dict[int, Tensor] = {}

        def add(layer: int, outputs: Tensor) -> Tensor:
            own = outputs.flatten(0, 1) if batch.token_mask is None else outputs[batch.token_mask.to(outputs.device)]
            found[layer] = own.sum(0, dtype=torch.float64)  # (n, H, D) -> (H, D)
            return outputs

        with batch_context(self.model, self.layout, batch), head_outputs(self.model, add, self.layout):
            self.loss_computer.losses(batch, input_device(self.model))
        tokens = batch.input_ids.numel() if batch.token_mask is None else int(batch.token_mask.sum())
        for layer, total in found.items():
            self.sums[layer] = self.sums[layer] + total if layer in self.sums else total
            self.tokens[layer] = self.tokens.get(layer, 0) + tokens

    def replacement(self, layer: int, outputs: Tensor) -> Tensor:
        """The mean output of each head, (H, D)."""
        return (self.sums[layer] / self.tokens[layer]).to(outputs)


def zero_ablation_scorer(model: PreTrainedModel) -> AblationScorer:
    """Look at a model once, and make what scores its batches; raises HeadnbError as `gradient_scorer` does."""
    return AblationScorer(*_inspect_model(model))


def mean_ablation_scorer(model: PreTrainedModel) -> MeanAblationScorer:
    """The same for the mean; `prepare` must have seen the whole task before the first batch is scored."""
    return MeanAblationScorer(*_inspect_model(model))


def _inspect_model(model: PreTrainedModel) -> tuple[PreTrainedModel, HeadLayout, LossComputer, PartialForward]:
    layout, loss_computer = find_heads_and_loss_computer(model)
    return model, layout, loss_computer, find_partial_forward(model, layout)
