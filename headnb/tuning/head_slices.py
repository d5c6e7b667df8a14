"""Slices of the attention projections that belong to selected heads.

Each query head owns contiguous output features of the query projection and contiguous input features of the output
projection. A group of query heads shares a key/value head, so its slice is included if the whole group is selected:

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
    """The features of one projection that belong to selected heads."""

    name: str
    """Name of the projection in the model."""
    of_outputs: bool
    """Whether the features are output features (of q, k, v) or input features (of o)."""
    features: Tensor
    """Indices of the features, (n,), int64, ascending."""


def head_slices(model: nn.Module, layout: HeadLayout, heads: Iterable[str]) -> list[HeadSlice]:
    """Slices of the selected heads, one per affected projection.

    Args:
        model: a model without adapters.
        layout: result of `find_heads(model)`.
        heads: names such as "L3H5".

    Raises:
        HeadnbError: a head does not exist, or a layer does not have one linear projection each for queries, keys,
            values and outputs.
    """
    selected: dict[int, set[int]] = {}
    for name in heads:
        layer, head = find_head(name, layout)
        selected.setdefault(layer, set()).add(head)
    names = {module: name for name, module in model.named_modules()}
    attention = {layer: names[module] for layer, module in layout.attention}
    attention |= {layer: names[projection].rpartition(".")[0] for layer, projection in layout.projections}
    return [
        part
        for layer in sorted(selected)
        for part in _layer_slices(
            model.get_submodule(attention[layer]), attention[layer], layout.heads[layer], selected[layer]
        )
    ]


def _layer_slices(attention: nn.Module, name: str, heads: int, selected: set[int]) -> Iterator[HeadSlice]:
    """The slices of one layer.

    Args:
        attention: the module that contains the projections.
        name: its name in the model.
        heads: number of query heads.
        selected: indices of the selected query heads.
    """
    shared = int(getattr(attention, "num_key_value_groups", 1))  # query heads that share keys and values
    groups = heads // shared
    complete = [group for group in range(groups) if selected.issuperset(range(group * shared, (group + 1) * shared))]
    output = _output_projection(attention, heads, groups)
    yield HeadSlice(f"{name}.{QUERY}", True, _features(_linear(attention, QUERY).out_features, heads, selected))
    if complete:
        for part in (KEY, VALUE):
            yield HeadSlice(f"{name}.{part}", True, _features(_linear(attention, part).out_features, groups, complete))
    yield HeadSlice(f"{name}.{output}", False, _features(_linear(attention, output).in_features, heads, selected))


def _output_projection(attention: nn.Module, heads: int, groups: int) -> str:
    """Name of the output projection. It checks that all four projections consist of contiguous heads of equal size."""
    output = output_projection(attention) or ""
    if all(isinstance(getattr(attention, name, None), nn.Linear) for name in (QUERY, KEY, VALUE, output)):
        width = _linear(attention, output).in_features
        values = _linear(attention, VALUE).out_features
        queries, keys = (_linear(attention, name).out_features for name in (QUERY, KEY))
        if width * groups == values * heads and not (queries % heads or keys % groups or width % heads):
            return output
    *others, last = OUTPUT_PROJECTIONS
    raise HeadnbError(
        f"the heads of {type(attention).__name__} cannot be tuned separately: this needs linear projections "
        f"{QUERY}, {KEY}, {VALUE} and {', '.join(others)} or {last} with contiguous heads, as in llama, qwen, mistral, "
        "gemma or opt"
    )


def _linear(attention: nn.Module, name: str) -> nn.Linear:
    linear: nn.Linear = getattr(attention, name)
    return linear


def _features(total: int, parts: int, chosen: Iterable[int]) -> Tensor:
    """Indices of the features in the `chosen` parts, where `total` features are divided into `parts` equal parts."""
    edges = torch.arange(parts + 1) * (total // parts)
    spans = list(pairwise(edges.tolist()))
    return torch.cat([torch.arange(*spans[part]) for part in sorted(chosen)])
