"""Training of selected heads only. All other weights stay bitwise unchanged with every optimizer.

A zero gradient does not keep a weight constant: weight decay changes it, and so may an optimizer that uses the whole
matrix. Therefore gradients outside the slices are set to zero before clipping and before Adam's moments. After each
update, the weights outside the slices are restored from a copy.

With an adapter, the selection is a LoRA dW = s B A. Outside the slices the rows of B, or the columns of A, are zero, so
dW is zero there. The result is a standard LoRA adapter, and merging it changes the slices only.
"""

# ruff: noqa: ARG002  callbacks of a Trainer have the arguments that it calls them with
from __future__ import annotations

import dataclasses
import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from headnb.errors import HeadnbError
from headnb.tuning.trainer import TrainerCallback

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peft import LoraConfig, PeftConfig
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from headnb.tuning.head_slices import HeadSlice

RANK, ALPHA = 16, 32
ALLOWED_LORA_OPTIONS = ("r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "task_type")


@dataclass
class _TrainedSlice:
    """The trained slice of one parameter, and a copy of the parameter's other values."""

    weight: nn.Parameter
    dim: int
    features: Tensor
    """Trained indices along `dim`, (n,)."""
    others: Tensor = field(init=False)
    """Frozen indices along `dim`."""
    frozen_values: Tensor = field(init=False)
    """The weight at `others`."""

    def __post_init__(self) -> None:
        self.features = self.features.to(self.weight.device)
        frozen = torch.ones(self.weight.shape[self.dim], dtype=torch.bool, device=self.weight.device)
        frozen[self.features] = False
        self.others = frozen.nonzero()[:, 0]
        self.frozen_values = self.weight.detach().index_select(self.dim, self.others)

    @property
    def size(self) -> int:
        """Number of trained values."""
        return self.weight.numel() // self.weight.shape[self.dim] * len(self.features)

    def mask_gradient(self, gradient: Tensor) -> Tensor:
        """The gradient with zeros outside the slice. NaN outside the slice becomes zero, too."""
        return gradient.index_fill(self.dim, self.others, 0)

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the frozen values."""
        self.weight.index_copy_(self.dim, self.others, self.frozen_values)


class SliceTraining(TrainerCallback):
    """Trainer callback that trains only slices of a model's projections, in place or through a LoRA.

    Args:
        model: a model without adapters. In place, `prepare` sets its `requires_grad` flags; otherwise the trainer adds
            the adapters of `lora_of_slices`.
        slices: the trained slices.
        inplace: train the weights themselves.
    """

    def __init__(self, model: nn.Module, slices: Sequence[HeadSlice], *, inplace: bool) -> None:
        self._model, self._slices, self._inplace = model, slices, inplace
        self._parts: list[_TrainedSlice] = []

    def prepare(self) -> None:
        """Call before creating the trainer. In place, only parameters that contain a slice require a gradient."""
        if not self._inplace:
            return
        self._model.requires_grad_(False)
        for part in self._slices:
            for weight in self._model.get_submodule(part.name).parameters(recurse=False):
                if weight.ndim > 1 or part.of_outputs:
                    weight.requires_grad_(True)

    @contextmanager
    def running(self, trainer: Any) -> Iterator[None]:
        """Freeze everything outside the slices while the context is open. Call after creating the trainer."""
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise HeadnbError("heads cannot be tuned separately with weights that FSDP or DeepSpeed shards")
        self._parts = list(self._in_place() if self._inplace else self._in_adapters())
        trainer.add_callback(self)
        hooks = [part.weight.register_hook(part.mask_gradient) for part in self._parts]  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for part in self._parts:  # an interrupt may occur between an update and `on_optimizer_step`
                part.restore()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        for part in self._parts:
            part.restore()

    @property
    def frozen_count(self) -> int:
        """Number of values outside the slices, in parameters that require a gradient."""
        return sum(part.weight.numel() - part.size for part in self._parts)

    def _in_place(self) -> Iterator[_TrainedSlice]:
        for part in self._slices:
            for weight in self._model.get_submodule(part.name).parameters(recurse=False):
                if weight.requires_grad:  # (out, in), or a bias (out)
                    yield _TrainedSlice(weight, 0 if part.of_outputs else 1, part.features)

    def _in_adapters(self) -> Iterator[_TrainedSlice]:
        for part in self._slices:
            layer: Any = self._model.get_submodule(part.name)
            if part.of_outputs:
                yield _TrainedSlice(layer.lora_B["default"].weight, 0, part.features)  # (out, r), zeros
            else:
                A = _rescale_features(layer.lora_A["default"].weight, part.features)  # (r, in)
                yield _TrainedSlice(A, 1, part.features)


@torch.no_grad()
def _rescale_features(A: nn.Parameter, features: Tensor) -> nn.Parameter:
    """Set A (r, in) to zero outside `features`, and scale it to the initial variance for that many input features.

    peft samples A uniformly within 1 / sqrt(in).
    """
    chosen = A.index_select(1, features.to(A.device)) * math.sqrt(A.shape[1] / len(features))
    A.zero_().index_copy_(1, features.to(A.device), chosen)
    return A


def lora_of_slices(slices: Sequence[HeadSlice], chosen: PeftConfig | None) -> LoraConfig:
    """LoRA configuration for the projections that contain a slice.

    Args:
        slices: the trained slices.
        chosen: the user's configuration, for rank, alpha and dropout; None: rank 16, alpha 32.

    Raises:
        HeadnbError: `chosen` sets other options, which could train weights outside the slices.
    """
    from peft import LoraConfig  # noqa: PLC0415

    given: dict[str, Any] = {"r": RANK, "lora_alpha": ALPHA}
    if chosen is not None:
        if type(chosen) is not LoraConfig:
            raise HeadnbError(f"heads= needs a LoraConfig or no peft_config, not {type(chosen).__name__}")
        given = {name: getattr(chosen, name) for name in ALLOWED_LORA_OPTIONS}
        allowed = LoraConfig(**given)
        names = [option.name for option in dataclasses.fields(chosen)]
        if more := [name for name in names if getattr(chosen, name) != getattr(allowed, name)]:
            raise HeadnbError(
                f"with heads= a LoraConfig may set only {', '.join(ALLOWED_LORA_OPTIONS[:4])}; this one sets {more[0]}"
            )
    return LoraConfig(**given | {"target_modules": [part.name for part in slices], "task_type": "CAUSAL_LM"})
