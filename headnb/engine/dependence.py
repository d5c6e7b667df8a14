"""Gradient test of whether some of a model's logits depend on some of its input tokens.

The gradient of a logit with respect to the embedding of a token that it cannot see is exactly zero in every precision,
because masked attention weights are exactly zero. Rounding that differs between batches, as in a mixture of experts,
does not affect it. Two forward passes with different tokens cannot distinguish a small dependence from rounding.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from headnb.engine.model_contexts import checkpointed, frozen
from headnb.engine.threads import this_thread_only
from headnb.models.checks import is_offloaded

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel


def depends_on_tokens(model: PreTrainedModel, run: Callable[[], Tensor], at: slice, tokens: slice) -> bool | None:
    """Whether logits at some positions depend on tokens at other positions of the same row.

    Args:
        model: the model that `run` runs; it is left unchanged.
        run: computes logits (B, T, V) of fixed token ids (B, T).
        at: positions of the logits.
        tokens: positions of the tokens.

    Returns:
        None if this cannot be determined: no finite gradient reaches the tokens at `at` themselves.
    """
    embedded: list[Tensor] = []

    def start_graph(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    with ExitStack() as stack:
        stack.enter_context(model.get_input_embeddings().register_forward_hook(this_thread_only(start_graph)))
        stack.enter_context(frozen(model))
        stack.enter_context(torch.enable_grad())
        if is_offloaded(model):  # otherwise autograd's saved tensors would hold all weights in memory
            stack.enter_context(checkpointed(model))
        try:
            logits = run()
            selected = logits[:, at]
            (gradient,) = torch.autograd.grad(selected, embedded[0], _random_weights(selected))  # (B, T, C)
        except (RuntimeError, IndexError):  # weights without a backward pass, or unused embeddings
            return None
    size = gradient.abs().amax((0, 2))  # (T,)
    if len(size) != logits.shape[1] or not size.isfinite().all() or not size[at].any():
        return None
    return bool(size[tokens].any())


def _random_weights(logits: Tensor) -> Tensor:
    """Weights of the summed logits, the same in each call; random, because a plain sum may be constant by design."""
    random = torch.Generator().manual_seed(0)
    return torch.randn(logits.shape, generator=random).to(logits)
