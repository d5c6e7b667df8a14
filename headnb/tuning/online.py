"""Scores of training batches from the training's own backward pass, and counts of trained samples and tokens.

Every training step computes the head outputs O and the gradient dL/dO. Their product gives the score without a further
pass. Only the loss differs from `score_heads`. A trainer's loss is the sum over all answer tokens of the (accumulated,
distributed) batch, times a factor c. c is 1 / (number of answer tokens), times the number of processes, times the loss
scale of mixed precision. The gradient with respect to the model's loss gives c, so that

    s[x, l, h] = (sum over q, d of O dL_train/dO) / (c n_x)          n_x: answer tokens of sample x

is the score under the sample's mean loss, for every scaling that the trainer applies.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from headnb.engine.hooks import head_outputs
from headnb.engine.threads import this_thread_only
from headnb.engine.tokenization import EncodedSample
from headnb.errors import HeadnbError
from headnb.tasks.row_values import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headnb.engine.layout import HeadLayout


@dataclass(frozen=True)
class TrainingBatch:
    """Inputs of one forward pass of the training."""

    input_ids: Tensor
    """(B, T)"""
    labels: Tensor | None
    """(B, T), -100 outside the answers."""
    token_mask: Tensor
    """(B, T), false on padding."""
    sample: Tensor | None
    """(B, T): index of each token's sample if rows are packed; None: each row is one sample."""
    samples: int
    """Number of samples, padding rows included."""

    @classmethod
    def read(cls, inputs: Mapping[str, Any]) -> TrainingBatch:
        """Read the batch from the keyword arguments of a model.

        A batch is packed if it has position ids but no attention mask. A sample starts where the position id is 0.
        """
        ids, mask, positions = (inputs.get(name) for name in ("input_ids", "attention_mask", "position_ids"))
        if ids is None:
            raise HeadnbError("the trainer passes no input_ids to the model, so samples cannot be distinguished")
        token_mask = (
            mask.bool() if mask is not None and mask.shape == ids.shape else torch.ones_like(ids, dtype=torch.bool)
        )
        if mask is not None or positions is None or positions.shape != ids.shape:
            return cls(ids, inputs.get("labels"), token_mask, None, len(ids))
        starts = positions == 0
        starts[:, 0] = True
        sample = starts.flatten().cumsum(0).view_as(ids) - 1
        return cls(ids, inputs.get("labels"), token_mask, sample, int(sample[-1, -1]) + 1)

    @property
    def answer_tokens(self) -> Tensor:
        """Number of answer tokens of each sample, (samples,); 0 for padding."""
        if self.labels is None:
            return torch.ones(self.samples, dtype=torch.long, device=self.input_ids.device)
        return self.sums((self.labels != IGNORED)[:, 1:].long())

    def sums(self, values: Tensor) -> Tensor:
        """Sum over the tokens of each sample: (B, T or T - 1, ...) -> (samples, ...)."""
        if self.sample is None:
            return values.sum(1)
        sample = self.sample[:, self.sample.shape[1] - values.shape[1] :].flatten()
        return values.new_zeros(self.samples, *values.shape[2:]).index_add_(0, sample, values.flatten(0, 1))

    def encoded(self) -> list[EncodedSample]:
        """The samples without padding."""
        assert self.labels is not None  # noqa: S101  only called for scored batches
        ids, labels, token_mask = (part.cpu().numpy() for part in (self.input_ids, self.labels, self.token_mask))
        if self.sample is None:
            return [EncodedSample(ids[row, token_mask[row]], labels[row, token_mask[row]]) for row in range(len(ids))]
        edges = np.flatnonzero(np.diff(self.sample.flatten().cpu().numpy())) + 1
        parts = zip(np.split(ids.ravel(), edges), np.split(labels.ravel(), edges), strict=True)
        return [EncodedSample(*part) for part in parts]


class _ReadGradient(torch.autograd.Function):
    """Identity whose backward pass calls `receive(O, dL/dO)`. Autograd saves O as any activation."""

    @staticmethod
    def forward(ctx: Any, O: Tensor, receive: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.save_for_backward(O)
        ctx.receive = receive
        return O.view_as(O)

    @staticmethod
    def backward(ctx: Any, dO: Tensor) -> tuple[Tensor, None]:
        (O,) = ctx.saved_tensors
        ctx.receive(O, dO)
        return dO, None


@dataclass
class _TrainingPass:
    """One forward and backward pass of the training: one micro-batch of an accumulated batch."""

    batch: TrainingBatch
    update: int = -1  # the update that this micro-batch belongs to; -1: not yet known
    scores: dict[int, Tensor] = field(default_factory=dict)  # layer -> (samples, H), under the training loss
    factors: Tensor | None = None  # minimum and maximum of c over the answer tokens, (2,)


class TrainingBatches:
    """Hooks that count the samples and tokens of the training batches, and optionally score them.

    Args:
        model: the model that the trainer passes to callbacks.
        layout: result of `find_heads(model)`.
        reduce: function from O and dL/dO to scores, `online` of a method (see `scoring.registry`). None: only count.
    """

    def __init__(self, model: nn.Module, layout: HeadLayout, reduce: Callable[..., Tensor] | None = None) -> None:
        self.layout = layout
        self.layers_without_gradient: tuple[int, ...] = ()
        self._reduce = reduce
        self._counts = torch.zeros(2, dtype=torch.float64)  # samples and tokens of this process
        self._current: _TrainingPass | None = None
        self._passes: list[_TrainingPass] = []
        self._undo = ExitStack()
        self._undo.callback(model.register_forward_pre_hook(this_thread_only(self._before), with_kwargs=True).remove)
        if reduce is not None:
            self._undo.callback(model.register_forward_hook(this_thread_only(self._after), with_kwargs=True).remove)
            self._undo.enter_context(head_outputs(model, self._tap, layout, ()))  # type: ignore[arg-type]

    def close(self) -> None:
        """Remove the hooks from the model."""
        self._undo.close()

    def counts(self) -> np.ndarray:
        """Number of samples and tokens so far, summed over all processes, (2,)."""
        from accelerate.utils import gather_object  # noqa: PLC0415  the trainer has already imported it

        return np.asarray(np.sum(gather_object([self._counts.numpy().copy()]), axis=0))

    def end_update(self, update: int) -> None:
        """Assign the passes since the last call to this update."""
        self._current = None
        for training_pass in self._passes:
            if training_pass.update < 0:
                training_pass.update = update

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _before(self, model: nn.Module, _: Any, inputs: dict[str, Any]) -> None:
        self._current = None
        if not model.training or not torch.is_grad_enabled():  # an evaluation
            return
        batch = TrainingBatch.read(inputs)
        counted = torch.stack([(batch.answer_tokens > 0).sum(), batch.token_mask.sum()])
        self._counts += counted.cpu()
        if self._reduce is not None:
            if batch.labels is None:
                raise HeadnbError(
                    "online scores need labels in the model's inputs, as with SFTTrainer; track tasks instead"
                )
            self._current = _TrainingPass(batch)
            self._passes.append(self._current)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _after(self, _: nn.Module, __: Any, inputs: dict[str, Any], outputs: Any) -> None:
        current = self._current
        if current is None:
            return

        def receive(gradient: Tensor, divisor: Any = -1) -> None:
            current.factors = torch.stack(torch.aminmax(gradient / divisor)).detach()

        if (log_probs := getattr(outputs, "log_probs", None)) is not None:  # TRL's fused head: one loss per token
            log_probs.register_hook(receive)
            return
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs[0]
        divisor = inputs.get("num_items_in_batch")
        divisor = current.batch.answer_tokens.sum() if divisor is None else divisor
        loss.register_hook(partial(receive, divisor=divisor))

    def _tap(self, layer: int, O: Tensor) -> Tensor:
        current = self._current
        if current is None or not O.requires_grad:
            return O
        same: Tensor = _ReadGradient.apply(O, partial(self._receive, current, layer))  # type: ignore[no-untyped-call]
        return same

    def _receive(self, current: _TrainingPass, layer: int, O: Tensor, dO: Tensor) -> None:
        reduce = self._reduce
        assert reduce is not None  # noqa: S101  `_tap` is not installed otherwise
        if current.batch.sample is None:
            current.scores[layer] = reduce(O, dO)  # (B, H)
            return
        # Reduce each token separately, (B * T, 1, H, D), then sum over the tokens of a sample.
        tokens = reduce(O.flatten(0, 1)[:, None], dO.flatten(0, 1)[:, None])  # (B * T, H)
        current.scores[layer] = current.batch.sums(tokens.view(*O.shape[:3]))

    def collect(self) -> xr.Dataset | None:
        """Scores (sample, layer, head) of all processes since the last call, ordered by update; None without scores.

        `step` (sample) is the update that used the sample. `fingerprint` identifies its tokens (see `EncodedTask`).

        Raises:
            HeadnbError: the loss is not a mean over answer tokens, or is not the model's own loss.
        """
        if any(training_pass.factors is None and training_pass.scores for training_pass in self._passes):
            raise HeadnbError("online scores need the model's own loss, but this trainer computes another loss")
        rows = [self._rows(training_pass) for training_pass in self._passes if training_pass.factors is not None]
        self._passes.clear()
        from accelerate.utils import gather_object  # noqa: PLC0415

        gathered: list[dict[str, np.ndarray]] = gather_object(rows)
        if not gathered:
            return None
        columns = {name: np.concatenate([row[name] for row in gathered]) for name in gathered[0]}
        order = np.argsort(columns["step"], kind="stable")
        finite = ~np.isinf(columns["score"]).any((1, 2)) & np.isfinite(columns["factor"])
        order = order[finite[order]]  # mixed precision skips updates whose gradients overflow
        score, step = columns["score"][order], columns["step"][order]
        return xr.Dataset(
            {
                "score": (("sample", "layer", "head"), score),
                "answer_tokens": ("sample", columns["answer_tokens"][order]),
                "fingerprint": ("sample", columns["fingerprint"][order]),
            },
            coords={
                "sample": np.arange(len(order)),
                "step": ("sample", step),
                "layer": np.arange(score.shape[1]),
                "head": np.arange(score.shape[2]),
            },
        )

    def _rows(self, training_pass: _TrainingPass) -> dict[str, np.ndarray]:
        assert training_pass.factors is not None  # noqa: S101
        low, high = training_pass.factors.cpu().double().tolist()
        if high - low > 1e-6 * abs(high):
            raise HeadnbError(
                "online scores need a loss that is the mean over answer tokens; this trainer's loss is not"
            )
        answers = training_pass.batch.answer_tokens.cpu()
        layers, heads = self.layout.shape
        scores = torch.full((len(answers), layers, heads), torch.nan)
        for layer, score in training_pass.scores.items():
            scores[:, layer, : score.shape[1]] = score.float().cpu()
        self._warn_missing_layers(training_pass)
        trained = (answers > 0).numpy()
        scores /= high * answers.clamp(min=1)[:, None, None]
        encoded = training_pass.batch.encoded()
        return {
            "score": scores.numpy()[trained],
            "step": np.full(trained.sum(), training_pass.update),
            "answer_tokens": answers.numpy().astype(np.int32)[trained],
            "fingerprint": np.array([sample.fingerprint for sample in encoded], np.int64)[trained],
            "factor": np.full(trained.sum(), high),
        }

    def _warn_missing_layers(self, training_pass: _TrainingPass) -> None:
        expected = {layer for layer, heads in enumerate(self.layout.heads) if heads}
        missing = tuple(sorted(expected - training_pass.scores.keys()))
        if missing and not self.layers_without_gradient:
            names = ", ".join(f"L{layer}" for layer in missing)
            warnings.warn(
                f"online scores of {names} are NaN: nothing below these layers is trained, so no gradient reaches "
                "their heads; scores of tracked tasks include these layers",
                stacklevel=2,
            )
            self.layers_without_gradient = missing
