"""One forward pass over a batch, with one backward pass if a method needs it, observed by recorders of several methods.

A recorder measures a quantity per token and head, and reduces it over the tokens of each sample:

    reads "outputs"     from the head outputs O of a layer
    reads "call"        from the inputs and outputs of a layer's attention function
    reads "gradient"    from O and dO = dL/dO, in the backward pass

Recorders only read, so each one's scores are the same whichever others observe the pass. A quantity that several of
them measure is computed once.

The code skips three computations that no score needs: gradients of parameters, the backward pass below the head outputs
of the first layer, and logits outside the answer. The samples of a batch do not mix, so one backward pass of the *sum*
of their losses gives dL(x)/dO of every sample x.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from headnb.engine.attention_functions import observe_attention_calls
from headnb.engine.hooks import head_outputs, input_device
from headnb.engine.losses import batch_context, find_heads_and_loss_computer
from headnb.engine.model_contexts import checkpointed
from headnb.engine.recompute import recompute_activations
from headnb.errors import HeadnbError
from headnb.models.checks import check_gradients, is_offloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from transformers import PreTrainedModel

    from headnb.engine.batching import Batch
    from headnb.engine.layout import HeadLayout
    from headnb.engine.losses import LossComputer


@dataclass(frozen=True)
class Recorder:
    """How one method scores the heads of a layer from what it reads of a pass."""

    reads: Literal["outputs", "call", "gradient"]
    measure: Callable[..., Tensor]
    """The quantity per token (B, T, H): from O and the batch, an `AttentionCall` and the batch, or O and dO."""
    score: Callable[[Tensor, Batch], Tensor]
    """The scores (B, H), from the quantity per token (B, T, H), or (1, N, H) of a packed batch."""


@dataclass(frozen=True)
class PassScorer:
    """Scores the batches of one model with one recorder. Create it with `pass_scorer`.

    Two threads must not use one model at the same time.
    """

    model: PreTrainedModel
    layout: HeadLayout
    loss_computer: LossComputer
    recorder: Recorder

    @property
    def supports_packing(self) -> bool:
        """Whether the model keeps the samples of a packed batch separate."""
        return self.loss_computer.supports_packing

    def __call__(self, batch: Batch, *, budget: int | None = None) -> tuple[Tensor, Tensor]:
        """Scores (B, layers, H) and losses L (B,), on the CPU; NaN for heads that a layer does not have.

        Args:
            batch: every row has at least one answer token.
            budget: as for `run_pass`.
        """
        (scores,), losses = run_pass([self], batch, budget=budget)
        return scores, losses


def pass_scorer(
    model: PreTrainedModel, recorder: Recorder, found: tuple[HeadLayout, LossComputer] | None = None
) -> PassScorer:
    """Create a scorer for a model; `found` is the result of `find_heads_and_loss_computer`, if already known.

    Raises:
        HeadnbError: as for `find_heads_and_loss_computer` and `check_gradients`; or this architecture hides the
            quantity that the method measures.
    """
    if recorder.reads == "gradient":
        check_gradients(model)
    layout, loss_computer = found or find_heads_and_loss_computer(model)
    if layout.projections and recorder.reads == "call":
        raise HeadnbError(
            f"{type(model).__name__} has its own attention code, which exposes only the heads' outputs; of the "
            "activity scores only the output norms are available: output-norm, output-norm-ln, ..."
        )
    return PassScorer(model, layout, loss_computer, recorder)


def run_pass(scorers: Sequence[PassScorer], batch: Batch, *, budget: int | None = None) -> tuple[list[Tensor], Tensor]:
    """Run one pass over a batch for scorers of the same model.

    Args:
        scorers: at least one.
        batch: every row has at least one answer token.
        budget: tokens. If one sample is longer, a pass with gradients checkpoints every layer: about a third more work,
            and memory for the activations of one layer. The same is done if accelerate loads the weights of one layer
            at a time, because the saved graph would hold all weights.

    Returns:
        Each scorer's scores (B, layers, H), and the losses L (B,), all on the CPU.
    """
    first = scorers[0]
    model, layout = first.model, first.layout
    observed = _PassScores([scorer.recorder for scorer in scorers], batch)
    with ExitStack() as stack:
        stack.enter_context(batch_context(model, layout, batch))
        if calls := observed.listeners(layout):
            stack.enter_context(observe_attention_calls(model, calls))
        if observed.reads("gradient"):
            recompute = is_offloaded(model) or (budget is not None and batch.longest_sample > budget)
            stack.enter_context(checkpointed(model) if recompute else recompute_activations(model))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(head_outputs(model, observed.tap, layout))
            losses = first.loss_computer.backward(batch, input_device(model))  # (B,); calls `tap` and its `receive`
        else:
            stack.enter_context(torch.no_grad())
            if observed.reads("outputs"):
                stack.enter_context(head_outputs(model, observed.read_outputs, layout))
            losses = first.loss_computer.losses(batch, input_device(model))
    return [_on_cpu(of_layer, losses, layout) for of_layer in observed.scores], losses.cpu()


class _PassScores:
    """Scores of each recorder by layer, collected during one pass over a batch."""

    def __init__(self, recorders: Sequence[Recorder], batch: Batch) -> None:
        self._recorders, self._batch = recorders, batch
        # layer -> (B, heads of this layer), on the device of this layer
        self.scores: list[dict[int, Tensor]] = [{} for _ in recorders]

    def reads(self, what: str) -> bool:
        """Whether a recorder reads this."""
        return any(recorder.reads == what for recorder in self._recorders)

    def listeners(self, layout: HeadLayout) -> Mapping[Any, Callable[..., None]]:
        """The listener of each attention module; empty if no recorder reads attention calls."""
        if not self.reads("call"):
            return {}
        return {module: partial(self._record, "call", layer) for layer, module in layout.attention}

    def read_outputs(self, layer: int, O: Tensor) -> Tensor:  # (B, T, H, D), or (1, N, H, D) packed
        """Record the head outputs of a layer."""
        self._record("outputs", layer, O)
        return O

    def tap(self, layer: int, O: Tensor) -> Tensor:
        """Record the head outputs of a layer, and their gradient in the backward pass."""
        self.read_outputs(layer, O)
        first = not O.requires_grad
        if first:  # nothing below needs a gradient: the graph starts here
            O = O.detach().requires_grad_()
        same: Tensor = _ReadOnBackward.apply(O, partial(self._record, "gradient", layer), first)  # type: ignore[no-untyped-call]
        return same

    @torch.no_grad()
    def _record(self, reads: str, layer: int, *seen: Any) -> None:
        measured: dict[Callable[..., Tensor], Tensor] = {}
        for recorder, scores in zip(self._recorders, self.scores, strict=True):
            if recorder.reads != reads or layer in scores:  # a checkpointed layer runs a second time
                continue
            if recorder.measure not in measured:
                measured[recorder.measure] = recorder.measure(*seen, self._batch)
            scores[layer] = recorder.score(measured[recorder.measure], self._batch)


class _ReadOnBackward(torch.autograd.Function):
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


def _on_cpu(of_layer: Mapping[int, Tensor], losses: Tensor, layout: HeadLayout) -> Tensor:
    """Scores (B, layers, H), from those of each layer."""
    scores = torch.full((len(losses), *layout.shape), torch.nan, dtype=losses.dtype, device=losses.device)
    for layer, s in of_layer.items():
        scores[:, layer, : s.shape[1]] = s.to(losses.device)
    return scores.cpu()
