"""How far parameters moved in training, layer by layer, to set beside how far the pattern moved.

    movement[l] = || W[l] - W0[l] || / || W0[l] ||        (L2 over all weights of layer l)

Under LoRA W - W0 = s (B A - B0 A0), which is never made: with P = s [B, -B0] and Q = [A; A0], both of small rank,

    || P Q ||^2 = sum over i, j of (P^T P)[i, j] * (Q Q^T)[i, j]
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from headnb.errors import optional_import

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headnb.engine.layout import HeadLayout


@dataclass
class _LayerWeights:
    """What is remembered of one layer."""

    squared_norm: float = 0.0
    """Of its weights without adapters."""
    weights: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Those that are trained in place, and a copy of what they were."""
    factors: list[_LoraFactors] = field(default_factory=list)
    unknown: bool = False
    """Something is trained here whose effect on the weights has no simple form."""

    @torch.no_grad()
    def movement(self) -> float:
        if self.unknown or not self.squared_norm:
            return float("nan")
        moved = sum(_squares(weight.detach().cpu().double() - before) for weight, before in self.weights)
        moved += sum(factors.squared_change() for factors in self.factors)
        return float((moved / self.squared_norm) ** 0.5)


class Movement:
    """The relative L2 distance of each layer's weights from what they were when this object was made.

    Trainable weights are copied to main memory; adapters' factors are small, and frozen weights do not move.

    Args:
        model: bare or wrapped by peft.
        layout: what `find_heads(model)` gave.
    """

    def __init__(self, model: nn.Module, layout: HeadLayout) -> None:
        self._layers = [_LayerWeights() for _ in layout.heads]
        layer_of = _layer_finder(model, layout)
        adapters: set[Tensor] = set()
        for name, module in model.named_modules():
            layer = layer_of(name)
            if layer is None:
                continue
            held = self._layers[layer]
            held.factors += (found := list(_lora_factors(module)))
            parts = set(_adapter_parameters(module))
            known = {factor for pair in found for factor in (pair.A, pair.B)}
            held.unknown = held.unknown or any(part.requires_grad for part in parts - known)
            adapters |= parts
            for weight in module.parameters(recurse=False):  # of a wrapped module, after its wrapper
                if weight in adapters:
                    continue
                held.squared_norm += _squares(_dense(module, weight))
                if weight.requires_grad:
                    held.weights.append((weight, weight.detach().to("cpu", copy=True)))

    def measure(self) -> np.ndarray:
        """Movement of each layer, (L,); NaN where it is not known."""
        return np.array([layer.movement() for layer in self._layers])


class _LoraFactors:
    """A pair of LoRA factors, A (r, in) and B (out, r), and what they were."""

    def __init__(self, A: Tensor, B: Tensor, scaling: float) -> None:
        self.A, self.B, self._scaling = A, B, scaling
        self._A0, self._B0 = (_float64_copy(factor) for factor in (A, B))

    def squared_change(self) -> float:
        P = self._scaling * torch.cat([_float64_copy(self.B), -self._B0], 1)  # (out, 2r)
        Q = torch.cat([_float64_copy(self.A), self._A0], 0)  # (2r, in)
        return float(((P.T @ P) * (Q @ Q.T)).sum().clamp(min=0))


def _float64_copy(factor: Tensor) -> Tensor:
    return factor.detach().to("cpu", torch.float64, copy=True)


def _lora_factors(module: Any) -> Iterator[_LoraFactors]:
    """The factors of a linear layer that peft wrapped with LoRA; those of experts' weights are several in one."""
    if hasattr(module, "parameter_name"):  # of peft's wrapper for a parameter
        return
    A, B = getattr(module, "lora_A", None), getattr(module, "lora_B", None)
    if isinstance(A, nn.ModuleDict) and isinstance(B, nn.ModuleDict):
        for name in A:
            down, up = A[name], B[name]
            if isinstance(down, nn.Linear) and isinstance(up, nn.Linear):
                yield _LoraFactors(down.weight, up.weight, float(module.scaling[name]))


def _adapter_parameters(module: Any) -> Iterator[Tensor]:
    """Parameters that an adapter adds to a layer that peft wrapped."""
    for name in getattr(module, "adapter_layer_names", ()):
        part = getattr(module, name, None)
        if isinstance(part, (nn.Module, nn.ParameterDict)):
            yield from part.parameters()


def _dense(module: nn.Module, weight: nn.Parameter) -> Tensor:
    """A weight as numbers; a quantized one is packed."""
    if weight.is_floating_point():
        return weight.detach()
    with optional_import("train"):
        from peft.utils.integrations import dequantize_module_weight  # noqa: PLC0415

    dense: Tensor = dequantize_module_weight(module)
    return dense.detach()


def _squares(values: Tensor) -> float:
    wide = torch.promote_types(values.dtype, torch.float32)
    return float(torch.linalg.vector_norm(values, dtype=wide)) ** 2


def _layer_finder(model: nn.Module, layout: HeadLayout) -> Callable[[str], int | None]:
    """What tells a module's layer from its name; the names of the attention modules say where the layers are."""
    names = {module: name for name, module in model.named_modules()}
    places = [names[module] for _, module in (*layout.attention, *layout.projections)]
    stems = {found[1] for place in places if (found := re.match(r"(.*?\.)\d+\.", place))}
    pattern = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(stems)))})(\d+)(?:\.|$)")

    def layer_of(name: str) -> int | None:
        found = pattern.match(name)
        return int(found[1]) if found and int(found[1]) < len(layout.heads) else None

    return layer_of
