"""Scores of training batches from the training's own backward pass, and the count of what was trained on.

The head outputs O and dL/dO pass by in every training step: their product is the score, no further pass is needed.
What differs from `score_heads` is the loss that is differentiated. A trainer's loss is a sum over all answer tokens of
its (accumulated, distributed) batch, times one factor c: one over their number, times the number of processes, times
the scale of mixed precision. c is read off the gradient that arrives at the model's loss, so that

    s[x, l, h] = (sum over q, d of O dL_train/dO) / (c n_x)          n_x: answer tokens of sample x

is the score under the sample's own mean loss, whatever the trainer does behind the model.
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
from headnb.tasks.samples import IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headnb.engine.layout import HeadLayout


@dataclass(frozen=True)
class TrainingBatch:
    """What one forward pass of a training was given."""

    input_ids: Tensor
    """(B, T)"""
    labels: Tensor | None
    """(B, T), -100 outside the answers."""
    token_mask: Tensor
    """(B, T), false on padding."""
    sample: Tensor | None
    """(B, T): the number of each token's sample, where several are packed into a row; None: each row is one."""
    samples: int
    """How many there are, those of padding included."""

    @classmethod
    def read(cls, inputs: Mapping[str, Any]) -> TrainingBatch:
        """From the keyword arguments of a model.

        Packed rows are known by position ids that begin again at 0, without a mask.
        """
        ids, mask, positions = (inputs.get(name) for name in ("input_ids", "attention_mask", "position_ids"))
        if ids is None:
            raise HeadnbError("the training gives its model no input_ids, so its samples cannot be told apart")
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
        """Answer tokens of each sample (samples,); 0 for one that is padding."""
        if self.labels is None:
            return torch.ones(self.samples, dtype=torch.long, device=self.input_ids.device)
        return self.sums((self.labels != IGNORED)[:, 1:].long())

    def sums(self, values: Tensor) -> Tensor:
        """Sums over the tokens of each sample: (B, T or T - 1, ...) -> (samples, ...)."""
        if self.sample is None:
            return values.sum(1)
        sample = self.sample[:, self.sample.shape[1] - values.shape[1] :].flatten()
        return values.new_zeros(self.samples, *values.shape[2:]).index_add_(0, sample, values.flatten(0, 1))

    def encoded(self) -> list[EncodedSample]:
        """Every sample's own tokens, without padding."""
        assert self.labels is not None  # noqa: S101  only scored batches are asked
        ids, labels, token_mask = (part.cpu().numpy() for part in (self.input_ids, self.labels, self.token_mask))
        if self.sample is None:
            return [EncodedSample(ids[row, token_mask[row]], labels[row, token_mask[row]]) for row in range(len(ids))]
        edges = np.flatnonzero(np.diff(self.sample.flatten().cpu().numpy())) + 1
        parts = zip(np.split(ids.ravel(), edges), np.split(labels.ravel(), edges), strict=True)
        return [EncodedSample(*part) for part in parts]


class _ReadGradient(torch.autograd.Function):
    """The identity, whose backward pass hands O and dL/dO to `receive`. O is saved as any activation is."""

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
    """One forward and backward pass of the training, of one part of an accumulated batch."""

    batch: TrainingBatch
    update: int = -1  # the number of the update that it became a part of
    scores: dict[int, Tensor] = field(default_factory=dict)  # layer -> (samples, H), under the training loss
    factors: Tensor | None = None  # least and largest c over the answer tokens, (2,)


class TrainingBatches:
    """Watches the batches that a model is trained on: counts samples and tokens, and scores them if asked.

    Args:
        model: as the trainer hands it to callbacks.
        layout: what `find_heads(model)` gave.
        reduce: how O and dL/dO make scores: `scoring.gradient.activation` or `taylor_token`. None: only count.
    """

    def __init__(self, model: nn.Module, layout: HeadLayout, reduce: Callable[..., Tensor] | None = None) -> None:
        self.layout = layout
        self.layers_without_gradient: tuple[int, ...] = ()
        self._reduce = reduce
        self._counts = torch.zeros(2, dtype=torch.float64)  # samples and tokens, in this process
        self._current: _TrainingPass | None = None
        self._passes: list[_TrainingPass] = []
        self._undo = ExitStack()
        self._undo.callback(model.register_forward_pre_hook(this_thread_only(self._before), with_kwargs=True).remove)
        if reduce is not None:
            self._undo.callback(model.register_forward_hook(this_thread_only(self._after), with_kwargs=True).remove)
            self._undo.enter_context(head_outputs(model, self._tap, layout, ()))  # type: ignore[arg-type]

    def close(self) -> None:
        """Take the hooks off the model."""
        self._undo.close()

    def counts(self) -> np.ndarray:
        """Samples and tokens in all processes until now, (2,)."""
        from accelerate.utils import gather_object  # noqa: PLC0415  a trainer has imported it

        return np.asarray(np.sum(gather_object([self._counts.numpy().copy()]), axis=0))

    def end_update(self, update: int) -> None:
        """What was seen since the last call belongs to this update."""
        self._current = None
        for each in self._passes:
            each.update = update if each.update < 0 else each.update

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
                    "online scores need the labels among the model's inputs, as SFTTrainer has them; with this trainer "
                    "or loss, track tasks instead"
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

        if (log_probs := getattr(outputs, "log_probs", None)) is not None:  # TRL's fused head: a loss for each token
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
        passed: Tensor = _ReadGradient.apply(O, partial(self._receive, current, layer))  # type: ignore[no-untyped-call]
        return passed

    def _receive(self, current: _TrainingPass, layer: int, O: Tensor, dO: Tensor) -> None:
        reduce = self._reduce
        assert reduce is not None  # noqa: S101  there is no tap otherwise
        if current.batch.sample is None:
            current.scores[layer] = reduce(O, dO)  # (B, H)
            return
        # Each token as a sample of its own, (B * T, 1, H, D), then the tokens of a sample together.
        tokens = reduce(O.flatten(0, 1)[:, None], dO.flatten(0, 1)[:, None])  # (B * T, H)
        current.scores[layer] = current.batch.sums(tokens.view(*O.shape[:3]))

    def collect(self) -> xr.Dataset | None:
        """Scores (sample, layer, head) of all processes since the last call, ordered by update; None: none.

        `step` (sample) is the update that a sample was in, `fingerprint` that of its tokens (see `EncodedTask`).

        Raises:
            HeadnbError: the loss is not a mean over answer tokens, or not the model's own.
        """
        if any(each.factors is None and each.scores for each in self._passes):
            raise HeadnbError("online scores need the model's own loss, and this training makes another of its logits")
        rows = [self._rows(each) for each in self._passes if each.factors is not None]
        self._passes.clear()
        from accelerate.utils import gather_object  # noqa: PLC0415

        gathered: list[dict[str, np.ndarray]] = gather_object(rows)
        if not gathered:
            return None
        columns = {name: np.concatenate([row[name] for row in gathered]) for name in gathered[0]}
        order = np.argsort(columns["step"], kind="stable")
        finite = ~np.isinf(columns["score"]).any((1, 2)) & np.isfinite(columns["factor"])
        order = order[finite[order]]  # mixed precision leaves updates out whose gradients overflow
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

    def _rows(self, each: _TrainingPass) -> dict[str, np.ndarray]:
        assert each.factors is not None  # noqa: S101
        low, high = each.factors.cpu().double().tolist()
        if high - low > 1e-6 * abs(high):
            raise HeadnbError("online scores need a loss that is a mean over answer tokens, and this training's is not")
        answers = each.batch.answer_tokens.cpu()
        layers, heads = self.layout.shape
        scores = torch.full((len(answers), layers, heads), torch.nan)
        for layer, score in each.scores.items():
            scores[:, layer, : score.shape[1]] = score.float().cpu()
        self._warn_missing_layers(each)
        trained = (answers > 0).numpy()
        scores /= high * answers.clamp(min=1)[:, None, None]
        encoded = each.batch.encoded()
        return {
            "score": scores.numpy()[trained],
            "step": np.full(trained.sum(), each.update),
            "answer_tokens": answers.numpy().astype(np.int32)[trained],
            "fingerprint": np.array([sample.fingerprint for sample in encoded], np.int64)[trained],
            "factor": np.full(trained.sum(), high),
        }

    def _warn_missing_layers(self, each: _TrainingPass) -> None:
        expected = {layer for layer, heads in enumerate(self.layout.heads) if heads}
        missing = tuple(sorted(expected - each.scores.keys()))
        if missing and not self.layers_without_gradient:
            names = ", ".join(f"L{layer}" for layer in missing)
            warnings.warn(
                f"no gradient reaches the heads of {names} in this training, because nothing below them is trained: "
                "their online scores are NaN; tracked tasks have scores for them",
                stacklevel=2,
            )
            self.layers_without_gradient = missing
