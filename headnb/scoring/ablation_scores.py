"""Ablation scores: the increase of a sample's loss when one head is ablated.

    ablate-zero    s[x, l, h] = L(x; O[l, h] = 0) - L(x)
    ablate-mean    s[x, l, h] = L(x; O[l, h] = m[l, h]) - L(x)

O[l, h] (T, D) is the head's output before the output projection. L(x) is the mean cross-entropy over the answer tokens
of x. m[l, h] (D) is the mean of O[l, h] over all tokens of the task, prompts and answers, computed in a first pass.

Scores are in nats. A positive score means that the head helps: the loss rises without it. A negative score means that
the head harms. The pattern is the signed mean. Replacement by zero moves the model further from its training
distribution than replacement by the mean, so heads with a constant output score higher with `ablate-zero`.

Cost: one forward pass per head and batch, which starts at the head's layer; in total about half as many whole passes as
there are heads, and one more pass for the mean. Several heads share a pass if the token budget allows. Memory: a
forward pass, and the hidden states between the layers for one batch. Source: the standard definition.
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
    """Scores batches by replacing each head's output by zero. Create it with `zero_ablation_scorer`."""

    model: PreTrainedModel
    layout: HeadLayout
    loss_computer: LossComputer
    partial_forward: PartialForward

    @property
    def supports_packing(self) -> bool:
        """Whether the model keeps the samples of a packed batch separate."""
        return self.loss_computer.supports_packing

    @torch.no_grad()
    def __call__(self, batch: Batch, *, budget: int | None = None) -> tuple[Tensor, Tensor]:
        """Increases of the loss (B, L, H) and losses (B,), on the CPU; NaN for heads that a layer does not have.

        Args:
            batch: every row has at least one answer token.
            budget: maximum number of tokens in a forward pass that replaces more than one head.
        """
        with batch_context(self.model, self.layout, batch), self.partial_forward.record_outputs() as hidden:
            before = self.loss_computer.losses(batch, input_device(self.model))
        scores = torch.full((len(batch), *self.layout.shape), torch.nan, dtype=before.dtype, device=before.device)
        copies = max(1, (budget or 0) // batch.input_ids.numel())
        for layer, heads in enumerate(self.layout.heads):
            for group in torch.split(torch.arange(heads), copies) if heads else ():
                after = self._losses_without(batch, layer, group, hidden)  # (heads of the group, B)
                scores[:, layer, group] = (after - before).T
        return scores.cpu(), before.cpu()

    def replacement(self, layer: int, outputs: Tensor) -> Tensor:
        """The value that replaces the outputs (B, T, H, D) of the heads of a layer, broadcastable to them."""
        del layer
        return torch.zeros((), dtype=outputs.dtype, device=outputs.device)

    def _losses_without(self, batch: Batch, layer: int, heads: Tensor, hidden: list[Any]) -> Tensor:
        """Losses (heads, B) with each of these heads ablated in turn; one pass, with one copy of the batch per head."""
        copies = batch.repeat_batch(len(heads))
        ablated = torch.zeros(len(heads), self.layout.heads[layer], 1, dtype=torch.bool)
        ablated[torch.arange(len(heads)), heads] = True
        ablated = batch.expand_over_copies(ablated)  # (copies * B, 1, H, 1), or (1, copies * N, H, 1)

        def transform(at: int, outputs: Tensor) -> Tensor:
            if at != layer:
                return outputs
            return torch.where(ablated.to(outputs.device), self.replacement(layer, outputs), outputs)

        with (
            batch_context(self.model, self.layout, copies),
            head_outputs(self.model, transform, self.layout, [layer]),
            self.partial_forward.start_at(layer, hidden, lambda states: batch.repeat(states, len(heads))),
        ):
            return self.loss_computer.losses(copies, input_device(self.model)).view(len(heads), -1)


@dataclass(frozen=True)
class MeanAblationScorer(AblationScorer):
    """Scores batches by replacing each head's output by its mean over the task's tokens. `prepare` sums them."""

    sums: dict[int, Tensor] = field(default_factory=dict)
    """layer -> sum of the head outputs over the tokens processed so far, (H, D) float64."""
    tokens: dict[int, int] = field(default_factory=dict)
    """layer -> number of those tokens."""

    @torch.no_grad()
    def prepare(self, batch: Batch) -> None:
        """Add the head outputs at the tokens of one batch to the means. A batch that fails changes nothing."""
        batch_sums: dict[int, Tensor] = {}

        def add(layer: int, outputs: Tensor) -> Tensor:
            rows = outputs.flatten(0, 1) if batch.token_mask is None else outputs[batch.token_mask.to(outputs.device)]
            batch_sums[layer] = rows.sum(0, dtype=torch.float64)  # (n, H, D) -> (H, D)
            return outputs

        with batch_context(self.model, self.layout, batch), head_outputs(self.model, add, self.layout):
            self.loss_computer.losses(batch, input_device(self.model))
        tokens = batch.input_ids.numel() if batch.token_mask is None else int(batch.token_mask.sum())
        for layer, total in batch_sums.items():
            self.sums[layer] = self.sums[layer] + total if layer in self.sums else total
            self.tokens[layer] = self.tokens.get(layer, 0) + tokens

    def replacement(self, layer: int, outputs: Tensor) -> Tensor:
        """The mean output of each head, (H, D)."""
        return (self.sums[layer] / self.tokens[layer]).to(outputs)


def zero_ablation_scorer(model: PreTrainedModel) -> AblationScorer:
    """Create a scorer that replaces head outputs by zero; raises HeadnbError as `gradient_scorer` does."""
    return AblationScorer(*_inspect_model(model))


def mean_ablation_scorer(model: PreTrainedModel) -> MeanAblationScorer:
    """Create a scorer that replaces head outputs by their means; call its `prepare` with all batches before scoring."""
    return MeanAblationScorer(*_inspect_model(model))


def _inspect_model(model: PreTrainedModel) -> tuple[PreTrainedModel, HeadLayout, LossComputer, PartialForward]:
    layout, loss_computer = find_heads_and_loss_computer(model)
    return model, layout, loss_computer, find_partial_forward(model, layout)
