"""Training of selected heads alone: everything else keeps every bit, whatever the optimizer does.

A gradient of zero does not hold a weight still: weight decay moves it, and an optimizer that looks at a whole matrix
may too. So gradients outside the slices are set to zero, before clipping and Adam's moments see them, and after each
update the weights there are put back from a copy.

As an adapter the selection is a LoRA dW = s B A whose B has rows, or whose A has columns, of zeros outside the slices:
zero times anything stays zero in dW, so the adapter is an ordinary one, and merges into the slices alone.
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
    """The slice of one parameter that is trained, and what the rest of it is."""

    weight: nn.Parameter
    dim: int
    features: Tensor
    """(n,) along `dim`: trained."""
    others: Tensor = field(init=False)
    kept: Tensor = field(init=False)
    """The weight at `others`."""

    def __post_init__(self) -> None:
        self.features = self.features.to(self.weight.device)
        still = torch.ones(self.weight.shape[self.dim], dtype=torch.bool, device=self.weight.device)
        still[self.features] = False
        self.others = still.nonzero()[:, 0]
        self.kept = self.weight.detach().index_select(self.dim, self.others)

    @property
    def size(self) -> int:
        """Numbers that are trained."""
        return self.weight.numel() // self.weight.shape[self.dim] * len(self.features)

    def mask_gradient(self, gradient: Tensor) -> Tensor:
        """A gradient that is zero outside the slice; NaN there is, too."""
        return gradient.index_fill(self.dim, self.others, 0)

    @torch.no_grad()
    def restore(self) -> None:
        self.weight.index_copy_(self.dim, self.others, self.kept)


class SliceTraining(TrainerCallback):
    """Trains slices of a model's projections, in place or through a LoRA, and nothing else.

    Args:
        model: bare; its weights' flags are set, or a trainer puts adapters of `lora` into it.
        slices: what is trained.
        inplace: the weights themselves.
    """

    def __init__(self, model: nn.Module, slices: Sequence[HeadSlice], *, inplace: bool) -> None:
        self._model, self._slices, self._inplace = model, slices, inplace
        self._parts: list[_TrainedSlice] = []

    def prepare(self) -> None:
        """Before a trainer is made: in place, of all weights those with a slice are trained."""
        if not self._inplace:
            return
        self._model.requires_grad_(False)
        for each in self._slices:
            for weight in self._model.get_submodule(each.name).parameters(recurse=False):
                if weight.ndim > 1 or each.of_outputs:
                    weight.requires_grad_(True)

    @contextmanager
    def running(self, trainer: Any) -> Iterator[None]:
        """Once a trainer is made: hold all but the slices still, while the context is open."""
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise HeadnbError("heads cannot be tuned alone where FSDP or DeepSpeed shards the weights")
        self._parts = list(self._in_place() if self._inplace else self._in_adapters())
        trainer.add_callback(self)
        hooks = [part.weight.register_hook(part.mask_gradient) for part in self._parts]  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for part in self._parts:  # an interrupt may come between an update and what is done behind it
                part.restore()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        for part in self._parts:
            part.restore()

    @property
    def frozen_count(self) -> int:
        """How many numbers of the parameters that are trained are none of the slices'."""
        return sum(part.weight.numel() - part.size for part in self._parts)

    def _in_place(self) -> Iterator[_TrainedSlice]:
        for each in self._slices:
            for weight in self._model.get_submodule(each.name).parameters(recurse=False):
                if weight.requires_grad:  # (out, in), or a bias (out)
                    yield _TrainedSlice(weight, 0 if each.of_outputs else 1, each.features)

    def _in_adapters(self) -> Iterator[_TrainedSlice]:
        for each in self._slices:
            layer: Any = self._model.get_submodule(each.name)
            if each.of_outputs:
                yield _TrainedSlice(layer.lora_B["default"].weight, 0, each.features)  # (out, r), zeros
            else:
                yield _TrainedSlice(
                    _rescale_features(layer.lora_A["default"].weight, each.features), 1, each.features
                )  # (r, in)


@torch.no_grad()
def _rescale_features(A: nn.Parameter, features: Tensor) -> nn.Parameter:
    """A (r, in) as peft drew it, uniform within 1 / sqrt(in), as it would be of these input features alone."""
    chosen = A.index_select(1, features.to(A.device)) * math.sqrt(A.shape[1] / len(features))
    A.zero_().index_copy_(1, features.to(A.device), chosen)
    return A


def lora_of_slices(slices: Sequence[HeadSlice], chosen: PeftConfig | None) -> LoraConfig:
    """The LoRA of the projections with a slice.

    Args:
        slices: what is trained.
        chosen: where rank, alpha and dropout come from; None: rank 16, alpha 32.

    Raises:
        HeadnbError: it asks for more than these, which could train other than the slices.
    """
    from peft import LoraConfig  # noqa: PLC0415

    given: dict[str, Any] = {"r": RANK, "lora_alpha": ALPHA}
    if chosen is not None:
        if type(chosen) is not LoraConfig:
            raise HeadnbError(f"heads are tuned by LoRA, not by {type(chosen).__name__}; give a LoraConfig or none")
        given = {name: getattr(chosen, name) for name in ALLOWED_LORA_OPTIONS}
        plain = LoraConfig(**given)
        names = [each.name for each in dataclasses.fields(chosen)]
        if more := [name for name in names if getattr(chosen, name) != getattr(plain, name)]:
            raise HeadnbError(
                f"with heads a LoraConfig chooses {', '.join(ALLOWED_LORA_OPTIONS[:4])} only; this one sets {more[0]}"
            )
    return LoraConfig(**given | {"target_modules": [each.name for each in slices], "task_type": "CAUSAL_LM"})
