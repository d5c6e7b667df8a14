"""Layout of a model's softmax attention heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

# Names of the output projection, which takes the concatenated head outputs (B, T, H * D).
OUTPUT_PROJECTIONS = ("o_proj", "out_proj", "dense", "Wo")
# Classes that compute attention in their own code, where only the output projection can be hooked.
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
    """Number of softmax attention heads of each layer, and the modules to hook."""

    heads: tuple[int, ...]
    """Number of query heads of each layer; 0 for layers without softmax attention (linear attention, Mamba, ...)."""
    kv_heads: int
    """Number of key/value heads of a layer; without grouped-query attention equal to the number of query heads."""
    attention: tuple[tuple[int, nn.Module], ...]
    """(layer, attention module) for layers that use the attention interface of transformers."""
    projections: tuple[tuple[int, nn.Module], ...]
    """(layer, output projection) for layers that compute attention in their own code."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the layer x head grid: number of layers, and of heads in the widest layer."""
        return len(self.heads), max(self.heads)


def output_projection(attention: nn.Module) -> str | None:
    """The name of an attention module's output projection; None if it has none of `OUTPUT_PROJECTIONS`."""
    return next((name for name in OUTPUT_PROJECTIONS if isinstance(getattr(attention, name, None), nn.Module)), None)


def parent_of(model: nn.Module, child: nn.Module) -> nn.Module:
    """The module that directly contains `child`: the attention module of an output projection."""
    return next(module for module in model.modules() if any(found is child for found in module.children()))


def watched_projections(model: nn.Module) -> Iterator[tuple[int, nn.Module]]:
    """Layer and output projection of each attention module of a class in `OWN_CODE`, in layer order."""
    own = [module for module in model.modules() if OWN_CODE & {base.__name__ for base in type(module).__mro__}]
    for layer, module in enumerate(own):
        name = output_projection(module)
        assert name is not None  # noqa: S101  every class of OWN_CODE has one
        yield layer, module.get_submodule(name)
