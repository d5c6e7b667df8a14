"""Where a model's softmax attention heads are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class HeadLayout:
    """Where a model's softmax attention heads are."""

    heads: tuple[int, ...]
    """Query heads of each layer; 0 where a layer has no softmax attention (linear attention, Mamba, ...)."""
    kv_heads: int
    """Key/value heads that a layer's query heads share; equal to their number without grouping."""
    attention: tuple[tuple[int, nn.Module], ...]
    """(layer, attention module) for layers that are reached through the attention interface."""
    projections: tuple[tuple[int, nn.Module], ...]
    """(layer, output projection) for layers of older architectures."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the layer x head grid; the widest layer counts."""
        return len(self.heads), max(self.heads)
