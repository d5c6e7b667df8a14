"""Gradient scores of attention heads: one forward pass and one backward pass through activations only.

For sample x, layer l and head h, with head outputs O = A V (T, D) and the loss L(x), the mean cross-entropy over the
answer tokens of x:

    activation    s[x, l, h] = sum_q sum_d O[q, d] * dL(x)/dO[q, d]    = sum_qk A[q, k] * dL(x)/dA[q, k]
    taylor-token  s[x, l, h] = sum_q | sum_d O[q, d] * dL(x)/dO[q, d] |

The two forms of the first line are equal because dL/dA = (dL/dO) V^T, so no attention matrix is ever made
(arXiv 2409.15820, equation of the activation level; Michel et al. 2019 for the gate at 1 and the per-token form).

What is left out, because no score needs it: gradients of parameters, everything before the first layer's head
outputs in the backward pass, and logits at positions that are not part of an answer. The samples of a batch do not
mix, so the backward pass of the *sum* of their losses gives each sample its own gradient.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from headnb.engine.hooks import checkpointed, head_outputs, input_device
from headnb.engine.losses import LossComputer, batch_context, find_heads_and_loss_computer
from headnb.engine.recompute import recompute_activations
from headnb.models.checks import check_gradients

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

    from headnb.engine.batching import Batch
    from headnb.engine.layout import HeadLayout


def activation(O: Tensor, dO: Tensor) -> Tensor:
    """s = sum_q sum_d O * dO: (B, T, H, D), (B, T, H, D) -> (B, H), summed in float32 or better."""
    return _token_products(O, dO).sum(1)


def taylor_token(O: Tensor, dO: Tensor) -> Tensor:
    """s = sum_q | sum_d O * dO |: (B, T, H, D), (B, T, H, D) -> (B, H), summed in float32 or better."""
    return _token_products(O, dO).abs().sum(1)


def _token_products(O: Tensor, dO: Tensor) -> Tensor:
    """sum_d O * dO (B, T, H). A product of two bfloat16 numbers is exact in float32; their sums are taken there."""
    wide = torch.promote_types(O.dtype, torch.float32)
    products: Tensor = torch.linalg.vecdot(O.to(wide), dO.to(wide))
    return products


class _ScoreOnBackward(torch.autograd.Function):
    """The identity, whose backward pass hands O and dL/dO to `receive`, as the gradient arrives.

    O is kept by `save_for_backward`, where attention's own backward pass keeps it anyway: so it costs no memory, and
    under gradient checkpointing it is recomputed like any other activation.
    """

    @staticmethod
    def forward(ctx: Any, O: Tensor, receive: Callable[[Tensor, Tensor], None], first: bool) -> Tensor:
        ctx.save_for_backward(O)
        ctx.receive, ctx.first = receive, first
        return O.view_as(O)

    @staticmethod
    def backward(ctx: Any, dO: Tensor) -> tuple[Tensor | None, None, None]:
        (O,) = ctx.saved_tensors
        ctx.receive(O, dO)
        return None if ctx.first else dO, None, None


@dataclass(frozen=True)
class GradientScorer:
    """Scores batches of one model with one of the reductions above.

    Use `gradient_scorer` to make one. Not safe for two threads on one model.
    """

    model: PreTrainedModel
    layout: HeadLayout
    reduce: Callable[[Tensor, Tensor], Tensor]
    loss_computer: LossComputer
    offloaded: bool = False
    """Whether weights come from memory or disk for each layer's turn. What autograd keeps would hold them all."""

    @property
    def supports_packing(self) -> bool:
        """Whether the model keeps the samples of a packed batch apart."""
        return self.loss_computer.supports_packing

    def __call__(self, batch: Batch, *, budget: int | None = None) -> tuple[Tensor, Tensor]:
        """Signed scores (B, L, H) and losses (B,), on the CPU; NaN where a layer has no such head.

        Args:
            batch: at least one answer token in each row.
            budget: with a sample of more tokens every layer is checkpointed, as with offloaded weights: a third more
                work, memory for one layer's activations.
        """
        layers, heads = self.layout.shape
        device = input_device(self.model)
        found: dict[int, Tensor] = {}  # layer -> (B, H of this layer), on the layer's own device
        recompute = self.offloaded or (budget is not None and batch.longest_sample > budget)

        def tap(layer: int, O: Tensor) -> Tensor:
            first = not O.requires_grad
            if first:  # nothing below needs a gradient: the graph starts here
                O = O.detach().requires_grad_()
            passed: Tensor = _ScoreOnBackward.apply(O, partial(receive, layer), first)  # type: ignore[no-untyped-call]
            return passed

        def receive(layer: int, O: Tensor, dO: Tensor) -> None:
            found[layer] = self._reduce_samples(O, dO, batch.lengths)

        with ExitStack() as stack:
            stack.enter_context(batch_context(self.model, self.layout, batch))
            stack.enter_context(checkpointed(self.model) if recompute else recompute_activations(self.model))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(head_outputs(self.model, tap, self.layout))
            loss = self.loss_computer.backward(batch, device)
        scores = torch.full((len(loss), layers, heads), torch.nan, dtype=loss.dtype, device=loss.device)
        for layer, score in found.items():
            scores[:, layer, : score.shape[1]] = score.to(loss.device)
        return scores.cpu(), loss.cpu()

    def _reduce_samples(self, O: Tensor, dO: Tensor, lengths: tuple[int, ...] | None) -> Tensor:
        """(B, H) of a layer: each sample for itself, where several share a row."""
        if lengths is None:
            return self.reduce(O, dO)
        samples = zip(torch.split(O, list(lengths), 1), torch.split(dO, list(lengths), 1), strict=True)
        return torch.cat([self.reduce(*sample) for sample in samples])


def gradient_scorer(model: PreTrainedModel, reduce: Callable[[Tensor, Tensor], Tensor]) -> GradientScorer:
    """Look at a model once, and make what scores its batches.

    Raises:
        HeadnbError: as for `find_heads_and_loss_computer` and `check_gradients`.
    """
    check_gradients(model)
    layout, loss_computer = find_heads_and_loss_computer(model)
    offloaded = any(weight.is_meta for weight in model.parameters())
    return GradientScorer(model, layout, reduce, loss_computer, offloaded)
