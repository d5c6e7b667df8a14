"""Forward passes that start at a later decoder layer: layers below a change run only once.

One whole pass records the output of each layer. In a later pass the layers below the start return the recorded output,
which costs nothing. In some architectures a layer needs more from lower layers than the hidden states, for example
shared keys and values. A trial detects them, and every pass there is a whole pass.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from headnb.engine.hooks import probe_tokens
from headnb.engine.model_contexts import frozen, replace_forward
from headnb.engine.threads import this_thread_check, this_thread_only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import PreTrainedModel

    from headnb.engine.layout import HeadLayout


@dataclass(frozen=True)
class PartialForward:
    """The decoder layers of one model; empty if passes cannot start at a later layer."""

    layers: tuple[nn.Module, ...]

    @contextmanager
    def record_outputs(self) -> Iterator[list[Any]]:
        """Record the output of each layer in the one forward pass that runs inside."""
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
        """Start passes at layer `at` with the outputs of `record_outputs`; `expand` may repeat rows (B, T, C)."""
        below = self.layers[:at]
        recorded = _with_hidden(outputs[at - 1], expand) if below else None
        ours = this_thread_check()

        def skip(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            return recorded if ours() else forward(*args, **kwargs)

        with replace_forward(below, lambda forward: partial(skip, forward)):
            yield


def find_partial_forward(model: PreTrainedModel, layout: HeadLayout) -> PartialForward:
    """Find the decoder layers, and test whether passes that start at each of them reproduce the model's logits."""
    candidate = PartialForward(decoder_layers(model, layout))
    if not candidate.layers:
        return candidate
    with torch.no_grad(), frozen(model):
        return candidate if _starts_anywhere(model, candidate) else PartialForward(())


def _starts_anywhere(model: PreTrainedModel, candidate: PartialForward) -> bool:
    """Whether passes over a few tokens that start at any of the layers give the logits of a whole pass."""
    tokens = probe_tokens(model, [[0, 1, 2, 3, 4], [3, 1, 4, 2, 0]])
    whole = partial(model, input_ids=tokens, use_cache=False, return_dict=True)
    with candidate.record_outputs() as outputs:
        expected = whole().logits
    if len(outputs) != len(candidate.layers):
        return False
    try:
        for at in range(1, len(candidate.layers)):
            with candidate.start_at(at, outputs):
                if not torch.allclose(whole().logits, expected, equal_nan=True):
                    return False
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError):
        return False
    return True


def decoder_layers(model: nn.Module, layout: HeadLayout) -> tuple[nn.Module, ...]:
    """The module of each layer of the layout, which contains that layer's heads; empty if it cannot be determined."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if len(layers) != len(layout.heads):
        return ()
    within = all(
        any(module is part for part in layers[layer].modules())
        for layer, module in (*layout.attention, *layout.projections)
    )
    return tuple(layers) if within else ()


def _with_hidden(outputs: Any, expand: Callable[[Tensor], Tensor]) -> Any:
    """Expand a layer's output: hidden states (B, T, C), or all tensors with B rows of a tuple that begins with them."""
    if isinstance(outputs, Tensor):
        return expand(outputs)
    rows = len(outputs[0])
    return tuple(
        expand(part) if isinstance(part, Tensor) and part.ndim > 1 and len(part) == rows else part for part in outputs
    )
