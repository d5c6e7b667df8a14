"""Whether some of a model's logits depend on some of its tokens, decided by a gradient.

The gradient of a logit by the embedding of a token that it cannot see is exactly zero, in every precision: masked
attention weights are zero, and the products of a mixture of experts, which round differently with each batch, have no
part in it. Two forward passes with different tokens cannot tell a small dependence from rounding.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from headnb.engine.hooks import checkpointed, frozen
from headnb.engine.threads import this_thread_only
from headnb.models.checks import is_offloaded

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel


def depends_on_tokens(model: PreTrainedModel, run: Callable[[], Tensor], at: slice, tokens: slice) -> bool | None:
    """Whether logits at some positions depend on tokens at other positions of the same row.

    Args:
        model: what `run` runs; it is left as it was.
        run: makes logits (B, T, V) of token ids (B, T).
        at: the positions of the logits.
        tokens: the positions of the tokens.

    Returns:
        None where no finite gradient reaches the tokens at `at` themselves, so that nothing can be said.
    """
    embedded: list[Tensor] = []

    def start_graph(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    with ExitStack() as stack:
        stack.enter_context(model.get_input_embeddings().register_forward_hook(this_thread_only(start_graph)))
        stack.enter_context(frozen(model))
        stack.enter_context(torch.enable_grad())
        if is_offloaded(model):  # what autograd saves would hold all weights
            stack.enter_context(checkpointed(model))
        try:
            logits = run()
            read = logits[:, at]
            (gradient,) = torch.autograd.grad(read, embedded[0], _random_weights(read))  # (B, T, C)
        except (RuntimeError, IndexError):  # weights without a backward pass, or embeddings that are not called
            return None
    size = gradient.abs().amax((0, 2))  # (T,)
    if len(size) != logits.shape[1] or not size.isfinite().all() or not size[at].any():
        return None
    return bool(size[tokens].any())


def _random_weights(logits: Tensor) -> Tensor:
    """Random weights of the logits, the same in each call, so that no sum of logits is constant by design."""
    random = torch.Generator().manual_seed(0)
    return torch.randn(logits.shape, generator=random).to(logits)
