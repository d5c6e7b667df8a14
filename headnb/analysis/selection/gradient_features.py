"""Projected gradients of LoRA weights, sample by sample: the features of LESS (Xia et al. 2024, arXiv 2402.04333).

For sample x with loss L(x), the mean cross-entropy over its answer tokens, and LoRA weights w:

    g(x) = dL(x)/dw
    u(x) = direction of Adam's next update if x alone were the next batch

LESS ranks candidates z for a target x by the sum over checkpoints c of eta_c cos(R g_c(x), R u_c(z)), with eta_c the
mean learning rate before the checkpoint. Here a checkpoint's vectors have length sqrt(eta_c / sum of eta) and are
joined, so one scalar product is the sum.

R is a count sketch (Charikar et al. 2002): every weight is added with a random sign to a random one of d numbers. As
with the matrix of random signs in LESS, scalar products are kept in expectation, with the same variance
(|a|^2 |b|^2 + (a b)^2 - 2 sum a_i^2 b_i^2) / d; but it costs one addition per weight instead of d.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from headnb.analysis.selection.nearest import unit_rows
from headnb.engine.batching import collate
from headnb.engine.hooks import input_device
from headnb.engine.losses import find_loss_computer
from headnb.engine.model_contexts import frozen
from headnb.errors import HeadnbError, one_line, optional_import
from headnb.models.checks import check_gradients
from headnb.models.restore import restore_model, restore_random_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from transformers import PreTrainedModel

    from headnb.engine.tokenization import EncodedSample
    from headnb.stats.descriptive import Array

RANK = 16  # of a new LoRA


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of a LoRA training."""

    folder: Path
    rate: float
    """Mean learning rate since the checkpoint before."""

    @property
    def fingerprint(self) -> str:
        """Hash of the adapter's weights."""
        return hashlib.blake2b((self.folder / "adapter_model.safetensors").read_bytes(), digest_size=8).hexdigest()


class Moments(NamedTuple):
    """State of Adam for one weight, and its settings."""

    first: Tensor
    second: Tensor
    steps: int
    betas: tuple[float, float]
    eps: float

    def update(self, gradient: Tensor) -> Tensor:
        """Direction of the next update, without learning rate and weight decay (Kingma and Ba 2015, algorithm 1)."""
        beta, gamma = self.betas
        first = (beta * self.first + (1 - beta) * gradient) / (1 - beta ** (self.steps + 1))
        second = (gamma * self.second + (1 - gamma) * gradient**2) / (1 - gamma ** (self.steps + 1))
        return first / (second.sqrt() + self.eps)


@dataclass(frozen=True)
class CountSketch:
    """Projection of P numbers to d. `places` (P): one of the d numbers for each; `signs` (P): 1 or -1."""

    places: Tensor
    signs: Tensor
    dimensions: int

    @classmethod
    def of(cls, numbers: int, dimensions: int, seed: int, device: torch.device) -> CountSketch:
        """Draw a projection; the same on every device."""
        random = torch.Generator().manual_seed(seed)
        places = torch.randint(dimensions, (numbers,), generator=random)
        signs = torch.randint(2, (numbers,), generator=random, dtype=torch.int8) * 2 - 1
        return cls(places.to(device), signs.to(device), dimensions)

    def __call__(self, vector: Tensor) -> Tensor:
        """The projection (d) of a vector (P)."""
        return vector.new_zeros(self.dimensions).index_add_(0, self.places, vector * self.signs)


def read_checkpoints(folder: Path) -> list[Checkpoint]:
    """The checkpoints of a LoRA training by `finetune(output_dir=folder)`, in the order of their steps.

    Raises:
        HeadnbError: there are none, or a file of a checkpoint is missing or damaged.
    """
    folders = [path.parent for path in folder.glob("checkpoint-*/adapter_model.safetensors")]
    named = {path.name.removeprefix("checkpoint-"): path for path in folders}
    steps = {int(step): path for step, path in named.items() if step.isdecimal()}  # not a copy such as checkpoint-final
    if not steps:
        raise HeadnbError(f"{folder} has no checkpoint of a LoRA training; finetune(..., output_dir=...) writes them")
    checkpoints, before = [], 0
    for step, path in sorted(steps.items()):
        try:
            log = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
            rates = [row["learning_rate"] for row in log if "learning_rate" in row and before < row["step"] <= step]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise HeadnbError(f"{path} cannot be read: {one_line(error)}") from error
        checkpoints.append(Checkpoint(path, float(np.mean(rates)) if rates else 0.0))
        before = step
    return checkpoints


def gradient_features(
    model: PreTrainedModel,
    samples: Sequence[EncodedSample],
    checkpoints: Sequence[Checkpoint],
    *,
    adam: bool,
    dimensions: int,
    seed: int,
) -> Array:
    """Features (n, d), or (n, checkpoints x d) of unit length if there are checkpoints.

    Args:
        model: a model without adapters; it is not changed.
        samples: samples with at least one answer token.
        checkpoints: empty: a new LoRA, whose B is zero, so that only the gradients of B are not zero.
        adam: u(x) instead of g(x); needs checkpoints.
        dimensions: d.
        seed: of the projection and of the new LoRA.
    """
    if not checkpoints:
        return _features_of(model, samples, None, adam=False, dimensions=dimensions, seed=seed)
    rates = np.array([checkpoint.rate for checkpoint in checkpoints])
    shares = rates / rates.sum() if rates.any() else np.full(len(rates), 1 / len(rates))
    blocks = [
        unit_rows(_features_of(model, samples, checkpoint, adam=adam, dimensions=dimensions, seed=seed))
        for checkpoint in checkpoints
    ]
    return np.concatenate([np.sqrt(share) * block for share, block in zip(shares, blocks, strict=True)], axis=1)


def _features_of(
    model: PreTrainedModel,
    samples: Sequence[EncodedSample],
    checkpoint: Checkpoint | None,
    *,
    adam: bool,
    dimensions: int,
    seed: int,
) -> Array:
    """Projected gradients or updates (n, d) at one checkpoint."""
    features = np.empty((len(samples), dimensions))
    with _with_lora(model, checkpoint, seed) as (tuned, weights):
        moments = _read_moments(checkpoint, weights) if adam and checkpoint else None
        sketch = CountSketch.of(sum(weight.numel() for weight in weights), dimensions, seed, weights[0].device)
        for row, gradients in enumerate(sample_gradients(tuned, samples, weights)):
            if moments is not None:
                gradients = [m.update(gradient) for m, gradient in zip(moments, gradients, strict=True)]  # noqa: PLW2901
            joined = torch.cat([gradient.flatten().to(weights[0].device) for gradient in gradients])
            features[row] = sketch(joined).double().cpu().numpy()
    return features


def sample_gradients(
    model: Any, samples: Sequence[EncodedSample], weights: Sequence[torch.nn.Parameter]
) -> Iterator[list[Tensor]]:
    """Yield dL(x)/dw of each sample for these weights, in float32 or wider."""
    loss_computer, device = find_loss_computer(model), input_device(model)
    for weight in weights:
        weight.requires_grad_(True)
    for sample in samples:
        with torch.enable_grad():
            loss_computer.backward(collate([sample]), device)
        wide = [torch.promote_types(weight.dtype, torch.float32) for weight in weights]
        yield [
            torch.zeros_like(weight, dtype=dtype) if weight.grad is None else weight.grad.to(dtype)
            for weight, dtype in zip(weights, wide, strict=True)
        ]
        for weight in weights:
            weight.grad = None


@contextmanager
def _with_lora(
    model: PreTrainedModel, checkpoint: Checkpoint | None, seed: int
) -> Iterator[tuple[Any, list[torch.nn.Parameter]]]:
    """The frozen model with a LoRA, and the LoRA's weights; on exit the LoRA is removed."""
    with optional_import("train"):
        from peft import LoraConfig, PeftModel, get_peft_model  # noqa: PLC0415

    check_gradients(model)
    with restore_random_state(), restore_model(model):
        torch.manual_seed(seed)
        try:
            tuned: Any = (
                get_peft_model(model, LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM"))
                if checkpoint is None
                else PeftModel.from_pretrained(model, str(checkpoint.folder), is_trainable=True)
            )
        except (RuntimeError, ValueError, KeyError) as error:
            raise HeadnbError(f"the adapter does not fit the model: {one_line(error)}") from error
        weights = [weight for weight in tuned.parameters() if weight.requires_grad]
        with frozen(tuned):
            yield tuned, weights


def _read_moments(checkpoint: Checkpoint, weights: Sequence[torch.nn.Parameter]) -> list[Moments]:
    """Adam's state for each weight, from the trainer's optimizer.pt.

    The trainer lists the weights in the order of the model, those with weight decay first; LoRA weights all have it.
    """
    path = checkpoint.folder / "optimizer.pt"
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        groups = [(group, key) for group in stored["param_groups"] for key in group["params"]]
        moments = [
            Moments(
                (state := stored["state"][key])["exp_avg"].to(weight.device),
                state["exp_avg_sq"].to(weight.device),
                int(state["step"]),
                group["betas"],
                group["eps"],
            )
            for (group, key), weight in zip(groups, weights, strict=True)
        ]
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
        raise HeadnbError(f"{path} has no Adam state for these weights: {one_line(error)}") from error
    if any(m.first.shape != weight.shape for m, weight in zip(moments, weights, strict=True)):
        raise HeadnbError(f"{path} has no Adam state for these weights: the shapes differ")
    return moments
