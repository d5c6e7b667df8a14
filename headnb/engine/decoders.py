"""Where a model's decoder is, and which decoder layer each of its modules belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedModel


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """The module that makes the last hidden states; the model itself where it has no such module."""
    decoder: nn.Module = model.get_decoder()  # type: ignore[no-untyped-call]
    # llama4 names its decoder in a way that get_decoder does not know.
    return getattr(model, "model", model) if decoder is model else decoder


def layer_numbers(model: nn.Module, attention: Sequence[nn.Module]) -> tuple[int, ...]:
    """The decoder layer of each attention module, counted from 0.

    It is the module's place in the model's list of layers. What the modules say themselves, `layer_idx`, is -1 in
    zamba2, absent in zamba, and of the old place where somebody removed or repeated layers. It counts only where a
    layer has several attention modules with a number each (longcat_flash), or where there is no list of layers.

    Args:
        model: the model that has the modules.
        attention: in the order of the forward pass.

    Raises:
        HeadnbError: neither gives each module a layer of its own.
    """
    place = dict(_layer_positions(model))
    places = [place.get(module) for module in attention]
    if None not in places and len(set(places)) == len(places):
        return tuple(number for number in places if number is not None)
    given = [getattr(module, "layer_idx", None) for module in attention]
    if given == [None] * len(given) and places == given:
        return tuple(range(len(given)))
    numbers = [number for number in given if isinstance(number, int) and number >= 0]
    in_order = [number for _, number in sorted(zip((each or 0 for each in places), numbers, strict=False))]
    if len(set(numbers)) == len(given) and in_order == sorted(numbers):
        return tuple(numbers)
    raise HeadnbError(
        f"the attention modules of {type(model).__name__} cannot be assigned to layers: several share a decoder layer, "
        f"and their layer_idx is missing, negative, repeated or out of order ({', '.join(map(str, given[:8]))})"
    )


def _layer_positions(module: nn.Module) -> Iterator[tuple[nn.Module, int]]:
    """Each module inside an outermost list of modules, with the place in that list that holds it first."""
    if isinstance(module, nn.ModuleList):
        for place, layer in reversed(list(enumerate(module))):
            for part in layer.modules():
                yield part, place
        return
    for child in reversed(list(module.children())):
        yield from _layer_positions(child)
