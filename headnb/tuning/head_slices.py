"""Which part of an attention layer's projections belongs to which heads.

The query projection's output features and the output projection's input features are the heads' own, side by side. Key
and value heads are shared by groups of query heads, so they belong to a selection that has the whole group:

    q_proj  rows     h D .. (h + 1) D        of each selected head h
    output  columns  h D .. (h + 1) D
    k_proj, v_proj  rows  g D .. (g + 1) D   of each group g with all its query heads g n .. (g + 1) n selected
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from headnb.engine.hooks import find_head
from headnb.engine.layout import OUTPUT_PROJECTIONS, output_projection
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from headnb.engine.layout import HeadLayout

QUERY, KEY, VALUE = "q_proj", "k_proj", "v_proj"


@dataclass(frozen=True)
class HeadSlice:
    """The part of one projection that belongs to selected heads."""

    name: str
    """Of the projection in the model."""
    of_outputs: bool
    """Whether they are output features (of q, k, v), or input features (of o)."""
    features: Tensor
    """(n,) int64, ascending."""


def head_slices(model: nn.Module, layout: HeadLayout, heads: Iterable[str]) -> list[HeadSlice]:
    """The slices of all selected heads, one of each projection that has any.

    Args:
        model: bare.
        layout: what `find_heads(model)` gave.
        heads: names.

    Raises:
        HeadnbError: the model has no such head, or not one projection each for queries, keys, values and outputs.
    """
    selected: dict[int, set[int]] = {}
    for name in heads:
        layer, head = find_head(name, layout)
        selected.setdefault(layer, set()).add(head)
    names = {module: name for name, module in model.named_modules()}
    places = {layer: names[module] for layer, module in layout.attention}
    places |= {layer: names[projection].rpartition(".")[0] for layer, projection in layout.projections}
    return [
        part
        for layer in sorted(selected)
        for part in _of_layer(model.get_submodule(places[layer]), places[layer], layout.heads[layer], selected[layer])
    ]


def _of_layer(attention: nn.Module, place: str, heads: int, selected: set[int]) -> Iterator[HeadSlice]:
    """The slices of one layer.

    Args:
        attention: the module that holds the projections.
        place: its name in the model.
        heads: its query heads.
        selected: some of them.
    """
    shared = int(getattr(attention, "num_key_value_groups", 1))  # query heads that share keys and values
    groups = heads // shared
    whole = [group for group in range(groups) if selected.issuperset(range(group * shared, (group + 1) * shared))]
    output = _output_projection(attention, heads, groups)
    yield HeadSlice(f"{place}.{QUERY}", True, _features(_linear(attention, QUERY).out_features, heads, selected))
    if whole:
        for name in (KEY, VALUE):
            yield HeadSlice(f"{place}.{name}", True, _features(_linear(attention, name).out_features, groups, whole))
    yield HeadSlice(f"{place}.{output}", False, _features(_linear(attention, output).in_features, heads, selected))


def _output_projection(attention: nn.Module, heads: int, groups: int) -> str:
    """The name of the output projection, once all four are known to be of the sizes that heads side by side have."""
    output = output_projection(attention) or ""
    if all(isinstance(getattr(attention, name, None), nn.Linear) for name in (QUERY, KEY, VALUE, output)):
        width = _linear(attention, output).in_features
        values = _linear(attention, VALUE).out_features
        queries, keys = (_linear(attention, name).out_features for name in (QUERY, KEY))
        if width * groups == values * heads and not (queries % heads or keys % groups or width % heads):
            return output
    *others, last = OUTPUT_PROJECTIONS
    raise HeadnbError(
        f"{type(attention).__name__} has no projections {QUERY}, {KEY}, {VALUE} and {', '.join(others)} or {last} with "
        "heads side by side, as llama, qwen, mistral, gemma or opt; its heads cannot be tuned alone"
    )


def _linear(attention: nn.Module, name: str) -> nn.Linear:
    found: nn.Linear = getattr(attention, name)
    return found


def _features(total: int, parts: int, chosen: Iterable[int]) -> Tensor:
    """The features of some of `parts` equal parts of `total` features."""
    edges = torch.arange(parts + 1) * (total // parts)
    spans = list(pairwise(edges.tolist()))
    return torch.cat([torch.arange(*spans[part]) for part in sorted(chosen)])
