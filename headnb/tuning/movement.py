"""Relative parameter distance of each layer from its weights before training.

    movement[l] = || W[l] - W0[l] || / || W0[l] ||        (L2 over all weights of layer l)

With LoRA, W - W0 = s (B A - B0 A0). The norm is computed without this product. With the low-rank factors
P = s [B, -B0] and Q = [A; A0],

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


_NUMBERED = re.compile(r"(.+?)\.(\d+)(?:\.|$)")  # a list of modules and the number of one of them


@dataclass
class _LayerWeights:
    """Initial weights of one layer."""

    squared_norm: float = 0.0
    """Squared L2 norm of the layer's weights without adapters."""
    weights: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Weights that are trained in place, each with a copy of its initial value."""
    factors: list[_LoraFactors] = field(default_factory=list)
    unknown: bool = False
    """Whether the layer has trained adapter parameters whose effect on the weights is not computed."""

    @torch.no_grad()
    def movement(self) -> float:
        if self.unknown or not self.squared_norm:
            return float("nan")
        moved = sum(_squares(weight.detach().cpu().double() - before) for weight, before in self.weights)
        moved += sum(factors.squared_change() for factors in self.factors)
        return float((moved / self.squared_norm) ** 0.5)


class Movement:
    """Relative L2 distance of each layer's weights from their values when this object was created.

    Trainable weights and LoRA factors are copied to main memory. Frozen weights do not change and are not copied.

    Args:
        model: with or without peft adapters.
        layout: result of `find_heads(model)`.
        from_base: measure LoRA from the model without it (B0 = 0), not from the current factors.
    """

    def __init__(self, model: nn.Module, layout: HeadLayout, *, from_base: bool = False) -> None:
        self._layers = [_LayerWeights() for _ in layout.heads]
        layer_of = layer_finder(model, layout)
        adapters: set[Tensor] = set()
        for name, module in model.named_modules():
            layer = layer_of(name)
            if layer is None:
                continue
            initial = self._layers[layer]
            initial.factors += (factors := list(_lora_factors(module, from_base=from_base)))
            parameters = set(_adapter_parameters(module))
            known = {factor for pair in factors for factor in (pair.A, pair.B)}
            initial.unknown = initial.unknown or any(parameter.requires_grad for parameter in parameters - known)
            adapters |= parameters
            for weight in module.parameters(recurse=False):  # a wrapped module comes after its wrapper
                if weight in adapters:
                    continue
                initial.squared_norm += _squares(_dense(module, weight))
                if weight.requires_grad:
                    initial.weights.append((weight, weight.detach().to("cpu", copy=True)))

    def measure(self) -> np.ndarray:
        """Movement of each layer, (L,); NaN where it cannot be computed."""
        return np.array([layer.movement() for layer in self._layers])


class _LoraFactors:
    """A pair of LoRA factors, A (r, in) and B (out, r), with copies of their initial values; `from_base`: B0 = 0."""

    def __init__(self, A: Tensor, B: Tensor, scaling: float, *, from_base: bool) -> None:
        self.A, self.B, self._scaling = A, B, scaling
        self._A0, self._B0 = (_float64_copy(factor) for factor in (A, B))
        if from_base:
            self._B0.zero_()

    def squared_change(self) -> float:
        P = self._scaling * torch.cat([_float64_copy(self.B), -self._B0], 1)  # (out, 2r)
        Q = torch.cat([_float64_copy(self.A), self._A0], 0)  # (2r, in)
        return float(((P.T @ P) * (Q @ Q.T)).sum().clamp(min=0))


def _float64_copy(factor: Tensor) -> Tensor:
    return factor.detach().to("cpu", torch.float64, copy=True)


def _lora_factors(module: Any, *, from_base: bool) -> Iterator[_LoraFactors]:
    """The LoRA factors of a linear layer. Factors of expert weights are skipped: they combine several matrices."""
    if hasattr(module, "parameter_name"):  # peft's wrapper of a single parameter, such as experts
        return
    A, B = getattr(module, "lora_A", None), getattr(module, "lora_B", None)
    if isinstance(A, nn.ModuleDict) and isinstance(B, nn.ModuleDict):
        for name in A:
            down, up = A[name], B[name]
            if isinstance(down, nn.Linear) and isinstance(up, nn.Linear):
                yield _LoraFactors(down.weight, up.weight, float(module.scaling[name]), from_base=from_base)


def _adapter_parameters(module: Any) -> Iterator[Tensor]:
    """Adapter parameters of a layer that peft wrapped."""
    for name in getattr(module, "adapter_layer_names", ()):
        part = getattr(module, name, None)
        if isinstance(part, (nn.Module, nn.ParameterDict)):
            yield from part.parameters()


def _dense(module: nn.Module, weight: nn.Parameter) -> Tensor:
    """The weight in floating point; a quantized weight is dequantized."""
    if weight.is_floating_point():
        return weight.detach()
    with optional_import("train"):
        from peft.utils.integrations import dequantize_module_weight  # noqa: PLC0415

    dense: Tensor = dequantize_module_weight(module)
    return dense.detach()


def _squares(values: Tensor) -> float:
    wide = torch.promote_types(values.dtype, torch.float32)
    return float(torch.linalg.vector_norm(values, dtype=wide)) ** 2


def layer_finder(model: nn.Module, layout: HeadLayout) -> Callable[[str], int | None]:
    """Function from the name of a module or of a stored weight to its layer index; None outside the layers.

    The names of the attention modules give the name of the list of layers. A file may lack parts of that name or have
    them in another order: `language_model.model.layers` for `model.language_model.layers`.
    """
    names = {module: name for name, module in model.named_modules()}
    attention = [names[module] for _, module in (*layout.attention, *layout.projections)]
    lists = [match[1].split(".") for name in attention if (match := _NUMBERED.match(name))]

    def layer_of(name: str) -> int | None:
        match = _NUMBERED.match(name)
        if match is None or int(match[2]) >= len(layout.heads):
            return None
        parts = match[1].split(".")
        return int(match[2]) if any(parts[-1] == own[-1] and set(parts) <= set(own) for own in lists) else None

    return layer_of
