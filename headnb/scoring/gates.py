"""Causal head gating: one gate per head, fitted to the task under two opposite rewards (arXiv 2505.13737).

The output of head (l, h) is multiplied by a gate g[l, h] = sigmoid(z[l, h]) before the output projection. The model is
frozen, and z minimises

    mean over x of L(x; g) - lambda * mean over (l, h) of clamp(z[l, h], -4, 4)

L(x; g) is the mean cross-entropy over the answer tokens of x. There are three fits: one with lambda = 0 from random
gates, and from its result one with lambda = +0.1, which rewards open gates, and one with -0.1, which rewards closed
ones.

    facilitating   open under both rewards: the task needs the head
    interfering    closed under both rewards: the task is better without the head
    irrelevant     open or closed, as the reward demands

Loss and settings (Adam at 1.0, gradient norm at most 1, 500 steps each) follow the code `andrewnam/causal_head_gating`
with three differences: no 16-bit arithmetic, one batch of 32 per step instead of two, and initial gates between
sigmoid(-4) and sigmoid(4) instead of 0 and 1. Beyond the clamp the reward has no gradient, so a head without effect
would stay there and look like a head with effect. The code has no classes; the paper's figure caption defines them as
above. The paper's text was not available, so counting a gate above 0.5 as open is a choice made here. "undecided" is a
gate that is open only where closed gates are rewarded.

The result has no sample dimension. `score` (layer, head) is the gate under the reward for closed gates, from 0 to 1,
large where the task needs the head. `gate` (penalty, layer, head) has all three gates, `role` (layer, head) the class,
and `loss` (penalty, step) the loss at each step in nats. Heads that are irrelevant alone may be needed together; which
of them stays open depends on the seed, so fit with several seeds.

Cost: 3 * steps forward and backward passes of `samples` samples. Memory: a gradient pass within the token budget. An
interrupt returns the gates so far. With `out`, run the same call again to resume from the last saved state.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from headnb.engine.hooks import head_outputs, input_device
from headnb.engine.losses import LossComputer, batch_context, find_heads_and_loss_computer, plan_passes
from headnb.engine.model_contexts import checkpointed
from headnb.models.checks import check_gradients
from headnb.scoring.progress import NotFiniteError, Progress, ScoringInterrupted, is_out_of_memory, smaller_budget
from headnb.stats.results import as_result
from headnb.storage.fit_store import open_fit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from transformers import PreTrainedModel

    from headnb.engine.batching import Batch
    from headnb.engine.layout import HeadLayout
    from headnb.engine.tokenization import EncodedTask
    from headnb.storage.fit_store import FitStore
    from headnb.storage.zarr_columns import Attribute

OPTIONS: dict[str, int | float] = {"steps": 500, "samples": 32, "learning_rate": 1.0, "penalty": 0.1}
OPEN_GATE = 0.5
CLAMP = 4.0
GRADIENT_NORM = 1.0
SECONDS_BETWEEN_WRITES = 10.0


@dataclass(frozen=True)
class FitRequest:
    """What to fit to which samples, and where to store it."""

    encoded: EncodedTask
    attrs: dict[str, Attribute]
    """Attributes of the result: flat scalars."""
    options: Mapping[str, int | float]
    budget: int
    """Maximum number of tokens in a batch."""
    seed: int
    out: str | Path | None
    on_progress: Callable[[Progress], None] | None


def fit_gates(model: PreTrainedModel, request: FitRequest) -> xr.Dataset:
    """Fit the gates of a model's heads to a task; the module docstring describes the result.

    Raises:
        HeadnbError: as for `gradient_scorer`, not enough memory for one sample, or `out` belongs to another result.
        NotFiniteError: a loss is not finite.
        ScoringInterrupted: on Ctrl-C; it holds the gates so far.
    """
    check_gradients(model)
    layout, loss_computer = find_heads_and_loss_computer(model)
    with open_fit(request.out, request.attrs) as store:
        fitting = _GateFit(model, layout, loss_computer, request)
        fitting.restore(store.load())
        try:
            fitting.run(store)
        except KeyboardInterrupt:
            fitting.write(store)
            raise ScoringInterrupted(fitting.result()) from None
    return fitting.result()


def roles(favoured: np.ndarray, disfavoured: np.ndarray) -> np.ndarray:
    """The class of each head from its gates under the rewards for open and for closed gates; "" where a gate is NaN."""
    opened, closed = favoured > OPEN_GATE, disfavoured <= OPEN_GATE
    classes = np.select(
        [np.isnan(favoured), opened & ~closed, ~opened & closed, opened],
        ["", "facilitating", "interfering", "irrelevant"],
        "undecided",
    )
    return np.asarray(classes, dtype=str)


class _GateFit:
    """Three fits, one after another; a step is one update of the gates."""

    def __init__(
        self, model: PreTrainedModel, layout: HeadLayout, loss_computer: LossComputer, request: FitRequest
    ) -> None:
        self.model, self.layout, self.loss_computer, self.request = model, layout, loss_computer, request
        self.steps = int(request.options["steps"])
        self.penalties = np.array([0.0, 1.0, -1.0]) * request.options["penalty"]
        self.budget = request.budget
        self.message = ""
        self.done = 0
        self.tokens = 0
        lowest = 1 / (1 + np.exp(CLAMP))
        random = np.random.default_rng(request.seed).uniform(lowest, 1 - lowest, (1, *layout.shape))
        self.exists = np.arange(layout.shape[1]) < np.array(layout.heads)[:, None]  # (L, H)
        self.logits = np.repeat(np.log(random / (1 - random)), 3, 0).astype(np.float32)  # (3, L, H)
        self.moments = np.zeros((2, *layout.shape), np.float32)  # Adam's, for the current fit
        self.losses = np.full((3, self.steps), np.nan, np.float32)

    @property
    def total(self) -> int:
        return 3 * self.steps

    def restore(self, saved: xr.Dataset | None) -> None:
        """Continue from a saved state; None: from the start."""
        if saved is not None:
            self.done = int(saved.attrs["steps_done"])
            self.logits, self.moments = saved["state_logits"].values, saved["state_moments"].values
            self.losses = saved["loss"].values

    def write(self, store: FitStore) -> None:
        store.save(self.result(), {"logits": self.logits, "moments": self.moments})

    def run(self, store: FitStore) -> None:
        began, before, written = time.perf_counter(), self.done, time.perf_counter()
        self._report(began, before)
        while self.done < self.total:
            fit, step = divmod(self.done, self.steps)
            self._update(fit, step)
            if time.perf_counter() - written > SECONDS_BETWEEN_WRITES or self.done == self.total:
                self.write(store)
                written = time.perf_counter()
            self._report(began, before)

    def result(self) -> xr.Dataset:
        """The gates so far. Until the last fit has begun, `score` is the gate of the current fit."""
        gates = np.where(self.exists, 1 / (1 + np.exp(-self.logits)), np.nan)
        shown = min(self.done, self.total - 1) // self.steps
        complete = self.done == self.total
        classes = roles(gates[1], gates[2]) if complete else np.full(self.layout.shape, "")
        gate_fit = xr.Dataset(
            {
                "score": (("layer", "head"), gates[shown].astype(np.float32)),
                "gate": (("penalty", "layer", "head"), gates.astype(np.float32)),
                "role": (("layer", "head"), classes),
                "loss": (("penalty", "step"), self.losses),
            },
            coords={
                "penalty": self.penalties,
                "layer": np.arange(self.layout.shape[0]),
                "head": np.arange(self.layout.shape[1]),
            },
            attrs=self.request.attrs | {"steps_done": self.done, "steps_total": self.total, "complete": int(complete)},
        )
        return as_result(gate_fit)

    @torch.enable_grad()
    def _update(self, fit: int, step: int) -> None:
        """Take one step of Adam. All state changes together at the end, so an interrupt cannot split the step."""
        positions = self._batch_positions(fit, step)
        logits = torch.tensor(self.logits[fit], requires_grad=True)
        while (loss := self._try_loss(logits, positions)) is None:
            logits.grad = None
        exists = torch.from_numpy(self.exists)
        reward = logits.clamp(-CLAMP, CLAMP)[exists].mean() * float(self.penalties[fit])
        (-reward).backward()  # type: ignore[no-untyped-call]
        moments = self.moments if step else np.zeros_like(self.moments)
        updated, moments = self._adam_step(logits, step, moments)
        self.logits = self.logits.copy()
        self.logits[fit or slice(None)] = updated  # the later fits start from the result of the first
        self.moments = moments
        self.losses[fit, step] = loss
        self.done += 1
        self.tokens += int(self.request.encoded.lengths[positions].sum())

    def _adam_step(self, logits: Tensor, step: int, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (L, H) and Adam's moments (2, L, H) after one step along the gradient of `logits`."""
        torch.nn.utils.clip_grad_norm_([logits], GRADIENT_NORM)
        optimizer = torch.optim.Adam([logits], lr=float(self.request.options["learning_rate"]))
        mean, square = torch.tensor(moments)
        optimizer.state[logits] = {"step": torch.tensor(float(step)), "exp_avg": mean, "exp_avg_sq": square}
        optimizer.step()
        return logits.detach().numpy(), torch.stack([mean, square]).numpy()

    def _batch_positions(self, fit: int, step: int) -> np.ndarray:
        """Positions of a step's samples. The task is shuffled anew for each epoch and divided into steps."""
        n = len(self.request.encoded.samples)
        size = min(int(self.request.options["samples"]), n)
        draws = np.arange(step * size, (step + 1) * size)
        epochs = np.unique(draws // n)
        order = [np.random.default_rng([self.request.seed, fit, int(epoch)]).permutation(n) for epoch in epochs]
        return np.asarray(np.concatenate(order)[draws - epochs[0] * n])

    def _try_loss(self, logits: Tensor, positions: np.ndarray) -> float | None:
        """Mean loss of some samples, with its gradient in `logits.grad`.

        If memory runs out, the budget is halved, and None is returned.
        """
        encoded = self.request.encoded
        lengths = encoded.lengths[positions]
        batches, make_batch = plan_passes(self.model, self.loss_computer, lengths, self.budget, max_padding=0.2)
        total = 0.0
        for chosen in (positions[places] for places in batches):
            batch = make_batch([encoded.samples[position] for position in chosen])
            losses = self._try_backward(logits, batch)
            if losses is None:
                tokens = batch.input_ids.numel()
                self.budget = smaller_budget(self.budget, encoded.lengths[chosen], tokens)
                self.message = f"out of memory with {tokens} tokens per batch; continuing with {self.budget}"
                return None
            if not losses.isfinite().all():
                first = int((~losses.isfinite()).nonzero()[0])
                position = chosen[first]
                raise NotFiniteError(
                    f"the loss of sample {encoded.ids[position]!r} is {losses[first].item()}", encoded.samples[position]
                )
            total += float(losses.sum(dtype=torch.float64))
        assert logits.grad is not None  # noqa: S101  the loss depends on every layer
        logits.grad /= len(positions)
        return total / len(positions)

    def _try_backward(self, logits: Tensor, batch: Batch) -> Tensor | None:
        """`_backward`; None if memory ran out. Afterwards nothing refers to the failed batch's tensors."""
        try:
            return self._backward(logits, batch)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _backward(self, logits: Tensor, batch: Batch) -> Tensor:
        """Losses (B,) of a batch; adds the gradient of their sum to `logits.grad`."""
        gates = logits.sigmoid()

        def transform(layer: int, outputs: Tensor) -> Tensor:
            return outputs * gates[layer, : outputs.shape[2], None].to(outputs)  # (B, T, H, D) * (H, 1)

        with ExitStack() as stack:
            stack.enter_context(batch_context(self.model, self.layout, batch))
            if batch.longest_sample > self.budget:
                stack.enter_context(checkpointed(self.model))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(head_outputs(self.model, transform, self.layout))
            return self.loss_computer.backward(batch, input_device(self.model)).cpu()

    def _report(self, began: float, before: int) -> None:
        if self.request.on_progress is None:
            return
        seconds = time.perf_counter() - began
        done = self.done - before  # in this run
        left = seconds * (self.total - self.done) / done if done else None
        rate = done / seconds if seconds else 0.0
        self.request.on_progress(
            Progress(self.done, self.total, seconds, rate, left, self.tokens, self.message, self.result, "steps")
        )
