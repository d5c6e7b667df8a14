"""Gradient scores of attention heads, from one forward pass and one backward pass through the activations.

For sample x, layer l and head h: A (Tq, Tk) are the attention weights, V (Tk, D) the values, O = A V (Tq, D) is the
head's output, and L(x) is the loss, the mean cross-entropy over the answer tokens of x.

    activation    s[x, l, h] = sum over q, k of A[q, k] * dL(x)/dA[q, k]
                             = sum over q, d of O[q, d] * dL(x)/dO[q, d]
    taylor-token  s[x, l, h] = sum over q of | sum over d of O[q, d] * dL(x)/dO[q, d] |

The two forms of `activation` are equal because dL/dA = (dL/dO) V^T. The code uses the form in O, so it never computes
an attention matrix.

The code skips three computations that no score needs: gradients of parameters, the backward pass below the head outputs
of the first layer, and logits outside the answer. The samples of a batch do not mix, so one backward pass of the *sum*
of their losses gives dL(x)/dO of every sample x.

Sources: arXiv 2409.15820 (activation level); Michel et al. 2019 (gradient of a gate at 1, and the per-token form).
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
    """s = sum_q sum_d O * dO, (B, H), from O and dO = dL/dO, each (B, T, H, D); summed in float32 or float64."""
    return _token_products(O, dO).sum(1)  # (B, T, H) -> (B, H)


def taylor_token(O: Tensor, dO: Tensor) -> Tensor:
    """s = sum_q | sum_d O * dO |, (B, H), from O and dO = dL/dO, each (B, T, H, D); summed in float32 or float64."""
    return _token_products(O, dO).abs().sum(1)  # (B, T, H) -> (B, H)


def _token_products(O: Tensor, dO: Tensor) -> Tensor:
    """sum_d O * dO, (B, T, H). Products of bfloat16 numbers are exact in float32, so the sums are taken there."""
    wide = torch.promote_types(O.dtype, torch.float32)
    products: Tensor = torch.linalg.vecdot(O.to(wide), dO.to(wide))  # (B, T, H, D) -> (B, T, H)
    return products


class _ScoreOnBackward(torch.autograd.Function):
    """Identity function whose backward pass calls `receive(O, dO)` when dO = dL/dO arrives.

    `save_for_backward` stores O. Attention's own backward pass stores O too, so this takes no extra memory. Under
    gradient checkpointing O is recomputed like any other activation.

    `first` marks the first layer: no gradient is needed below it, so the backward pass ends there.
    """

    @staticmethod
    def forward(ctx: Any, O: Tensor, receive: Callable[[Tensor, Tensor], None], first: bool) -> Tensor:
        ctx.save_for_backward(O)
        ctx.receive, ctx.first = receive, first
        return O.view_as(O)

    @staticmethod
    def backward(ctx: Any, dO: Tensor) -> tuple[Tensor | None, None, None]:
        (O,) = ctx.saved_tensors
        ctx.receive(O, dO)  # (B, T, H, D) each
        return None if ctx.first else dO, None, None


@dataclass(frozen=True)
class GradientScorer:
    """Scores the batches of one model with `activation` or `taylor_token`.

    Create it with `gradient_scorer`. Two threads must not use one model at the same time.
    """

    model: PreTrainedModel
    layout: HeadLayout
    reduce: Callable[[Tensor, Tensor], Tensor]
    loss_computer: LossComputer
    offloaded: bool = False
    """Whether accelerate loads the weights of one layer at a time. Then every layer is checkpointed, because the saved
    graph would otherwise hold all weights."""

    @property
    def supports_packing(self) -> bool:
        """Whether the model keeps the samples of a packed batch separate."""
        return self.loss_computer.supports_packing

    def __call__(self, batch: Batch, *, budget: int | None = None) -> tuple[Tensor, Tensor]:
        """Signed scores s (B, layers, H) and losses L (B,), on the CPU; s is NaN for heads that a layer does not have.

        Args:
            batch: every row has at least one answer token.
            budget: tokens. If one sample is longer, every layer is checkpointed: about a third more work, and memory
                for the activations of one layer. The same is done with offloaded weights.
        """
        layers, heads = self.layout.shape
        device = input_device(self.model)
        s_of_layer: dict[int, Tensor] = {}  # layer -> (B, heads of this layer), on the device of this layer
        recompute = self.offloaded or (budget is not None and batch.longest_sample > budget)

        def tap(layer: int, O: Tensor) -> Tensor:  # (B, T, H, D), or (1, N, H, D) packed
            first = not O.requires_grad
            if first:  # nothing below needs a gradient: the graph starts here
                O = O.detach().requires_grad_()
            same: Tensor = _ScoreOnBackward.apply(O, partial(receive, layer), first)  # type: ignore[no-untyped-call]
            return same

        def receive(layer: int, O: Tensor, dO: Tensor) -> None:
            s_of_layer[layer] = self._reduce_samples(O, dO, batch.lengths)  # (B, H)

        with ExitStack() as stack:
            stack.enter_context(batch_context(self.model, self.layout, batch))
            stack.enter_context(checkpointed(self.model) if recompute else recompute_activations(self.model))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(head_outputs(self.model, tap, self.layout))
            L = self.loss_computer.backward(batch, device)  # (B,); calls `receive` for every layer
        s = torch.full((len(L), layers, heads), torch.nan, dtype=L.dtype, device=L.device)  # (B, layers, H)
        for layer, s_l in s_of_layer.items():
            s[:, layer, : s_l.shape[1]] = s_l.to(L.device)
        return s.cpu(), L.cpu()

    def _reduce_samples(self, O: Tensor, dO: Tensor, lengths: tuple[int, ...] | None) -> Tensor:
        """s (B, H) of one layer. A packed batch has one row (1, N, H, D), which is split into its samples."""
        if lengths is None:
            return self.reduce(O, dO)
        samples = zip(torch.split(O, list(lengths), 1), torch.split(dO, list(lengths), 1), strict=True)  # (1, T, H, D)
        return torch.cat([self.reduce(*sample) for sample in samples])  # B of (1, H) -> (B, H)


def gradient_scorer(model: PreTrainedModel, reduce: Callable[[Tensor, Tensor], Tensor]) -> GradientScorer:
    """Create a scorer for a model; `reduce` is `activation` or `taylor_token`.

    Raises:
        HeadnbError: as for `find_heads_and_loss_computer` and `check_gradients`.
    """
    check_gradients(model)
    layout, loss_computer = find_heads_and_loss_computer(model)
    offloaded = any(weight.is_meta for weight in model.parameters())
    return GradientScorer(model, layout, reduce, loss_computer, offloaded)
