"""The decoder of a model, and the decoder layer of each attention module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedModel


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """The module that computes the last hidden states; the model itself where there is no such module."""
    decoder: nn.Module = model.get_decoder()  # type: ignore[no-untyped-call]
    # get_decoder does not find the decoder of llama4.
    return getattr(model, "model", model) if decoder is model else decoder


def layer_numbers(model: nn.Module, attention: Sequence[nn.Module]) -> tuple[int, ...]:
    """The decoder layer of each attention module, counted from 0.

    The number is the module's position in the model's list of layers. The attribute `layer_idx` is not reliable: it is
    -1 in zamba2, absent in zamba, and stale after layers were removed or repeated. It is used only where a decoder
    layer has several numbered attention modules (longcat_flash), or where the model has no list of layers.

    Args:
        model: the model that has the modules.
        attention: the attention modules, in the order of the forward pass.

    Raises:
        HeadnbError: neither the positions nor `layer_idx` give every module its own layer.
    """
    position_of = dict(_layer_positions(model))
    positions = [position_of.get(module) for module in attention]
    if None not in positions and len(set(positions)) == len(positions):
        return tuple(number for number in positions if number is not None)
    indices = [getattr(module, "layer_idx", None) for module in attention]
    if indices == [None] * len(indices) and positions == indices:
        return tuple(range(len(indices)))
    numbers = [number for number in indices if isinstance(number, int) and number >= 0]
    in_order = [number for _, number in sorted(zip((position or 0 for position in positions), numbers, strict=False))]
    if len(set(numbers)) == len(indices) and in_order == sorted(numbers):
        return tuple(numbers)
    raise HeadnbError(
        f"the attention modules of {type(model).__name__} cannot be assigned to layers: several share a decoder layer, "
        f"and their layer_idx is missing, negative, repeated or out of order ({', '.join(map(str, indices[:8]))})"
    )


def _layer_positions(module: nn.Module) -> Iterator[tuple[nn.Module, int]]:
    """Modules inside each outermost `ModuleList` with their positions, in reverse: a dict keeps the first position."""
    if isinstance(module, nn.ModuleList):
        for position, layer in reversed(list(enumerate(module))):
            for part in layer.modules():
                yield part, position
        return
    for child in reversed(list(module.children())):
        yield from _layer_positions(child)
