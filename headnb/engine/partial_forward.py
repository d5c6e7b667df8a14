"""Forward passes that begin at a later decoder layer: what is below a change is computed once and not again.

What enters each layer is kept from one whole pass. In a later pass the layers below the first that matters hand on
what was kept, and cost nothing. Architectures in which a layer needs more from those below than the hidden states
(keys and values that layers share, for instance) are told by a trial, and there every pass is a whole one.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from headnb.engine.hooks import frozen, input_device, replace_forward
from headnb.engine.threads import this_thread_check, this_thread_only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import PreTrainedModel

    from headnb.engine.layout import HeadLayout


@dataclass(frozen=True)
class PartialForward:
    """The decoder layers of one model; empty where passes cannot begin in the middle."""

    layers: tuple[nn.Module, ...]

    @contextmanager
    def record_outputs(self) -> Iterator[list[Any]]:
        """Collect what each layer gives in the one forward pass that runs inside."""
        outputs: list[Any] = []
        with ExitStack() as hooks:
            for layer in self.layers:
                hooks.callback(
                    layer.register_forward_hook(this_thread_only(lambda *call: outputs.append(call[-1]))).remove
                )
            yield outputs

    @contextmanager
    def start_at(
        self, at: int, outputs: list[Any], expand: Callable[[Tensor], Tensor] = lambda hidden: hidden
    ) -> Iterator[None]:
        """Start passes at layer `at`, on what `record_outputs` collected; `expand` may repeat rows (B, T, C)."""
        below = self.layers[:at]
        given = _with_hidden(outputs[at - 1], expand) if below else None
        ours = this_thread_check()

        def give(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            return given if ours() else forward(*args, **kwargs)

        with replace_forward(below, lambda forward: partial(give, forward)):
            yield


def find_partial_forward(model: PreTrainedModel, layout: HeadLayout) -> PartialForward:
    """Find the decoder layers, and try whether passes that begin at each of them give the model's own logits."""
    found = PartialForward(decoder_layers(model, layout))
    if not found.layers:
        return found
    with torch.no_grad(), frozen(model):
        return found if _starts_anywhere(model, found) else PartialForward(())


def _starts_anywhere(model: PreTrainedModel, found: PartialForward) -> bool:
    """Whether passes over a few tokens that begin at any of the layers give the logits of a whole one."""
    tokens = torch.tensor([[0, 1, 2, 3, 4], [3, 1, 4, 2, 0]], device=input_device(model))
    whole = partial(model, input_ids=tokens, use_cache=False, return_dict=True)
    with found.record_outputs() as outputs:
        expected = whole().logits
    if len(outputs) != len(found.layers):
        return False
    try:
        for at in range(1, len(found.layers)):
            with found.start_at(at, outputs):
                if not torch.allclose(whole().logits, expected, equal_nan=True):
                    return False
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError):
        return False
    return True


def decoder_layers(model: nn.Module, layout: HeadLayout) -> tuple[nn.Module, ...]:
    """One module for each layer of the layout, with that layer's heads in it; empty where they cannot be told."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if len(layers) != len(layout.heads):
        return ()
    within = all(
        any(module is part for part in layers[layer].modules())
        for layer, module in (*layout.attention, *layout.projections)
    )
    return tuple(layers) if within else ()


def _with_hidden(outputs: Any, expand: Callable[[Tensor], Tensor]) -> Any:
    """A layer's outputs spread: the hidden states (B, T, C), or a tuple that begins with them, all that has B rows."""
    if isinstance(outputs, Tensor):
        return expand(outputs)
    rows = len(outputs[0])
    return tuple(
        expand(each) if isinstance(each, Tensor) and each.ndim > 1 and len(each) == rows else each for each in outputs
    )
