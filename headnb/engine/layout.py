"""Where a model's softmax attention heads are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

# Output projections, which take the outputs of all heads side by side, (B, T, H * D): an attention module has one.
OUTPUT_PROJECTIONS = ("o_proj", "out_proj", "dense", "Wo")
# Attention classes that compute attention in their own code, where nothing but the output projection can be watched.
OWN_CODE = {
    "BloomAttention",
    "CodeGenAttention",
    "FalconAttention",
    "GPTJAttention",
    "GPTNeoSelfAttention",
    "GPTNeoXJapaneseAttention",
    "MptAttention",
    "XGLMAttention",
}


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


def output_projection(attention: nn.Module) -> str | None:
    """The name of an attention module's output projection; None: it has none of these."""
    return next((name for name in OUTPUT_PROJECTIONS if isinstance(getattr(attention, name, None), nn.Module)), None)


def watched_projections(model: nn.Module) -> Iterator[tuple[int, nn.Module]]:
    """Layers and output projections of attention modules with code of their own, in layer order."""
    own = [module for module in model.modules() if OWN_CODE & {base.__name__ for base in type(module).__mro__}]
    for layer, module in enumerate(own):
        name = output_projection(module)
        assert name is not None  # noqa: S101  every class of OWN_CODE has one
        yield layer, module.get_submodule(name)
