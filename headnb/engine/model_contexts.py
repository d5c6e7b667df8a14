"""Contexts that change how a model runs, and restore it at the end."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from transformers.modeling_layers import GradientCheckpointingLayer

from headnb.engine.threads import this_thread_check
from headnb.models.checks import check_no_inference_weights, is_offloaded
from headnb.models.half_precision import float32_products
from headnb.models.quantization import keep_four_bit_layout
from headnb.models.torch_settings import default_torch_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode, `requires_grad` False and torch's default settings; all are restored on exit.

    If the model is already in evaluation mode, forward passes of other threads give the same numbers as before.

    Raises:
        HeadnbError: as for `keep_four_bit_layout`; or the weights were created in inference mode.
    """
    check_no_inference_weights(model)
    training = [module for module in model.modules() if module.training]
    # By name, because accelerate replaces the parameters of an offloaded model in each forward pass.
    trainable = [name for name, weight in model.named_parameters(remove_duplicate=False) if weight.requires_grad]
    try:
        for module in training:
            module.training = False
        for name in trainable:
            model.get_parameter(name).requires_grad_(False)
        with default_torch_settings(), keep_four_bit_layout(model), float32_products(model):
            yield
    finally:
        for module in training:
            module.training = True
        for name in trainable:
            model.get_parameter(name).requires_grad_(True)


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[None]:
    """Gradient checkpointing: recompute each layer in the backward pass, so memory holds one layer's activations.

    The forward function of each layer is wrapped, for passes of this thread. Transformers' own checkpointing works only
    in training mode, which would also enable dropout.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    offloaded, ours = is_offloaded(model), this_thread_check()

    def recompute(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not ours():
            return forward(*args, **kwargs)

        with set_checkpoint_early_stop(not offloaded):  # the hooks that unload weights must also run
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    with replace_forward(layers, lambda forward: partial(recompute, forward)):
        yield


@contextmanager
def replace_forward(
    modules: Sequence[nn.Module], replace: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Set each module's forward function to `replace(forward)`; the original functions are restored on exit."""
    original = [vars(module).get("forward") for module in modules]
    try:
        for module in modules:
            vars(module)["forward"] = replace(module.forward)
        yield
    finally:
        for module, forward in zip(modules, original, strict=True):
            vars(module).pop("forward", None)
            if forward is not None:
                vars(module)["forward"] = forward
