"""Output projections of attention modules, which take the outputs of all heads side by side, (B, T, H * D)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("o_proj", "out_proj", "dense", "Wo")  # an attention module has one of them
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


def output_projection(attention: nn.Module) -> str | None:
    """The name of an attention module's output projection; None: it has none of these."""
    return next((name for name in NAMES if isinstance(getattr(attention, name, None), nn.Module)), None)


def watched_projections(model: nn.Module) -> Iterator[tuple[int, nn.Module]]:
    """Layers and output projections of attention modules with code of their own, in layer order."""
    own = [module for module in model.modules() if OWN_CODE & {base.__name__ for base in type(module).__mro__}]
    for layer, module in enumerate(own):
        name = output_projection(module)
        assert name is not None  # noqa: S101  every class of OWN_CODE has one
        yield layer, module.get_submodule(name)
