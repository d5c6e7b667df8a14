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

from headnb.engine.hooks import forwards_replaced, frozen, input_device
from headnb.engine.threads import only_here, passes_of_this_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import PreTrainedModel

    from headnb.engine.layout import HeadLayout


@dataclass(frozen=True)
class LaterLayers:
    """The decoder layers of one model; empty where passes cannot begin in the middle."""

    layers: tuple[nn.Module, ...]

    @contextmanager
    def kept(self) -> Iterator[list[Any]]:
        """Collect what each layer gives in the one forward pass that runs inside."""
        outputs: list[Any] = []
        with ExitStack() as hooks:
            for layer in self.layers:
                hooks.callback(layer.register_forward_hook(only_here(lambda *call: outputs.append(call[-1]))).remove)
            yield outputs

    @contextmanager
    def beginning(
        self, at: int, outputs: list[Any], spread: Callable[[Tensor], Tensor] = lambda hidden: hidden
    ) -> Iterator[None]:
        """Let forward passes begin at layer `at`, on what `kept` collected; `spread` may repeat rows (B, T, C)."""
        below = self.layers[:at]
        given = _with_hidden(outputs[at - 1], spread) if below else None
        ours = passes_of_this_thread()

        def give(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            return given if ours() else forward(*args, **kwargs)

        with forwards_replaced(below, lambda forward: partial(give, forward)):
            yield


def later_layers(model: PreTrainedModel, layout: HeadLayout) -> LaterLayers:
    """Find the decoder layers, and try whether passes that begin at each of them give the model's own logits."""
    found = LaterLayers(decoder_layers(model, layout))
    if not found.layers:
        return found
    with torch.no_grad(), frozen(model):
        return found if _begin_anywhere(model, found) else LaterLayers(())


def _begin_anywhere(model: PreTrainedModel, found: LaterLayers) -> bool:
    """Whether passes over a few tokens that begin at any of the layers give the logits of a whole one."""
    tokens = torch.tensor([[0, 1, 2, 3, 4], [3, 1, 4, 2, 0]], device=input_device(model))
    whole = partial(model, input_ids=tokens, use_cache=False, return_dict=True)
    with found.kept() as outputs:
        expected = whole().logits
    if len(outputs) != len(found.layers):
        return False
    try:
        for at in range(1, len(found.layers)):
            with found.beginning(at, outputs):
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


def _with_hidden(outputs: Any, spread: Callable[[Tensor], Tensor]) -> Any:
    """A layer's outputs spread: the hidden states (B, T, C), or a tuple that begins with them, all that has B rows."""
    if isinstance(outputs, Tensor):
        return spread(outputs)
    rows = len(outputs[0])
    return tuple(
        spread(each) if isinstance(each, Tensor) and each.ndim > 1 and len(each) == rows else each for each in outputs
    )
