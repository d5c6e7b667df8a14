"""`score_heads`: from a model and a task to a labelled array of scores, batch by batch."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch

from headnb.capture import find_heads, input_device
from headnb.encoding import (
    BLOCK,
    ENCODINGS,
    SIDES,
    BatchPlan,
    collate,
    encode_task,
    pack,
    plan_batches,
    split_at_budget,
)
from headnb.errors import HeadnbError, known_keywords, unknown_name
from headnb.model_checks import check_left_padding, is_offloaded, model_name, weights_fingerprint, why_not_finite
from headnb.patterns import LOSS_REDUCTIONS, OFFICIAL_BATCH, loss_factor
from headnb.scoring.gates import FitRequest
from headnb.scoring.gradient import activation, gradient_scorer
from headnb.scoring.methods import Surveyor, find_method, stored_options
from headnb.scoring.progress import NotFiniteError, Progress, ScoringInterrupted, is_out_of_memory
from headnb.store import open_table
from headnb.tasks import Task, load_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import xarray as xr
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.capture import HeadLayout
    from headnb.encoding import Batch, EncodedTask, EncodingName, Side
    from headnb.scoring.methods import Method, Option, Scorer
    from headnb.store import Attribute, ScoreTable

# Tokens of a packed row on a CPU: matrix products are at full speed from a few hundred on, and memory stays small.
PACKED_ON_CPU = 1024

_Done = TypeVar("_Done")
LossName: TypeAlias = Literal["sample-mean", "batch-mean", "sum"]

_model_locks: WeakKeyDictionary[torch.nn.Module, threading.RLock] = WeakKeyDictionary()
_locks_lock = threading.Lock()


@known_keywords
def score_heads(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task | Any,
    *,
    method: str = "activation",
    loss: LossName = "sample-mean",
    batch_tokens: int = 4096,
    max_length: int | None = None,
    encoding: EncodingName = "official",
    padding_side: Side = "right",
    packed: bool | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    options: Mapping[str, Option] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> xr.Dataset:
    """Score every attention head of a model on every sample of a task.

    The model is left as it was.

    Args:
        model: a causal decoder of transformers, bare, compiled, quantized or wrapped by peft.
        tokenizer: its tokenizer; None if the samples are encoded already.
        task: a `Task`, or anything that `load_task` accepts.
        method: one of `methods()`.
        loss: what is differentiated. "sample-mean": each sample's mean cross-entropy over its answer tokens.
            "sum": its sum. "batch-mean": the mean over the answer tokens of four samples at a time in the order
            of the task, as the paper's script has it, where longer answers weigh more.
        batch_tokens: tokens of a batch at most, padding included. A longer sample runs alone, and recomputes its
            activations in the backward pass to stay in about the same memory.
        max_length: cut longer samples to so many tokens. None: a sample longer than the context is an error.
        encoding: "official" tokenizes prompt and completion apart, "trl" together (see `encode_task`).
        padding_side: "right" needs no attention mask and is faster; the scores are the same.
        packed: several samples in one row, each attending to itself alone: no padding, and the same scores. None: on a
            CPU, where the model allows it.
        seed: of the order of work.
        out: a Zarr store to write each batch to. The same call again goes on behind the last complete batch.
        options: settings of the method itself, as {"steps": 50} for "attattr" or "gates".
        on_progress: called with a `Progress` before the first batch and after each.

    Returns:
        A Dataset with `score` (sample, layer, head), signed, float32, in the order of the task; `loss` and
        `answer_tokens` (sample). `.heads` has what one does with it; a score's unit is that of the loss, nats, unless
        the method has another. "gates" has no samples: see `headnb.scoring.gates`.

    Raises:
        HeadnbError: bad input, a model that cannot be scored, or not with padding on the left, NaN in weights or
            losses, memory too small for one sample, or an `out` that belongs to something else or that another run is
            writing to.
        ScoringInterrupted: on Ctrl-C; it holds what was scored.
    """
    _refuse_unloaded(model, tokenizer)
    check_settings(method=method, loss=loss, encoding=encoding, padding_side=padding_side)
    task = load_task(task) if not isinstance(task, Task) else task
    chosen = find_method(method)
    settings = chosen.settings(options)
    encoded = encode_task(task, tokenizer, encoding=encoding, max_length=max_length, context=context_length(model))
    _refuse_unknown_tokens(encoded, model)
    with model_lock(model), _explained(model):
        scorer = chosen.scorer(model, **settings) if chosen.scorer is not None else None
        about = _attributes(model, task, encoded, chosen, scorer.layout if scorer else find_heads(model))
        about |= {"loss_reduction": loss, "encoding": encoding, "padding_side": padding_side, "seed": seed}
        about |= {"max_length": -1 if max_length is None else max_length} | stored_options(settings)
        if scorer is None:
            assert chosen.fit is not None  # noqa: S101  a method scores or fits
            return chosen.fit(model, FitRequest(encoded, about, settings, batch_tokens, seed, out, on_progress))
        if padding_side == "left":
            check_left_padding(gradient_scorer(model, activation), encoded.samples, model.dtype)
        packed = _packing(packed, scorer, model, padding_side)
        most = min(batch_tokens, PACKED_ON_CPU) if packed and input_device(model).type == "cpu" else batch_tokens
        plan = plan_batches(encoded.lengths, batch_tokens=most, packed=packed, seed=seed)
        with open_table(out, about, encoded.ids, _sample_variables(encoded), plan, scorer.layout.shape) as table:
            weights = loss_factor(encoded.answer_tokens, loss, OFFICIAL_BATCH).astype(np.float32)
            return _Run(scorer, encoded, table, weights, packed, padding_side, batch_tokens, on_progress).scores()


def check_settings(
    *, method: str, loss: str = "sample-mean", encoding: str = "official", padding_side: str = "right"
) -> None:
    """Refuse settings that `score_heads` does not know. Who loads a model first asks here before.

    Raises:
        HeadnbError: there is no such method, loss, encoding or side (the nearest is named), or no such loss with this
            method.
    """
    chosen = find_method(method)
    for kind, name, known in (
        ("loss", loss, LOSS_REDUCTIONS),
        ("encoding", encoding, ENCODINGS),
        ("padding side", padding_side, SIDES),
    ):
        if name not in known:
            raise unknown_name(kind, name, known)
    if loss != "sample-mean" and not chosen.follows_loss:
        raise HeadnbError(f"the method {method} is no share of a loss; it has loss='sample-mean' only")


@contextmanager
def _explained(model: PreTrainedModel) -> Iterator[None]:
    """A loss or score that is not finite is told with where in the model it comes from."""
    try:
        yield
    except NotFiniteError as found:
        raise HeadnbError(f"{found}{why_not_finite(model, found.sample)}") from None


@dataclass
class _Run:
    """One pass over the batches that a table is waiting for."""

    scorer: Scorer
    encoded: EncodedTask
    table: ScoreTable
    weights: np.ndarray  # (n,): a sample's loss as asked for, over its mean loss
    packed: bool
    side: Side  # of the padding, where batches are not packed
    budget: int  # tokens of a batch; shrinks when memory runs out
    on_progress: Callable[[Progress], None] | None
    message: str = ""
    tokens: int = 0
    started: float = field(default_factory=time.perf_counter)

    def scores(self) -> xr.Dataset:
        """The scores of the whole task.

        Raises:
            ScoringInterrupted: on Ctrl-C; it holds what was scored.
        """
        try:
            self._score_pending()
        except KeyboardInterrupt:
            raise ScoringInterrupted(self.table.scores()) from None
        return self.table.scores()

    def _score_pending(self) -> None:
        pending = self.table.pending()
        waiting = sum(int(self._lengths(places).sum()) for places in pending)
        before = int(self.table.done.sum())
        if pending and isinstance(self.scorer, Surveyor):
            for _ in self._in_turn(self.table.plan.batches(), partial(self._survey, self.scorer)):
                self._report(before, waiting, "a first pass over the task")
        self._report(before, waiting)
        for places, scored in self._in_turn(pending, self._score):
            self.table.write(places, *scored)
            self.tokens += int(self._lengths(places).sum())
            self._report(before, waiting)

    def _in_turn(
        self, batches: list[np.ndarray], work: Callable[[np.ndarray], _Done]
    ) -> Iterator[tuple[np.ndarray, _Done]]:
        """Each batch and what `work` makes of it; in smaller batches from where memory runs out."""
        queue = deque(self._within_budget(batches))
        while queue:
            places = queue.popleft()
            done = self._if_it_fits(work, places)
            if done is None:
                self._shrink_budget(places)
                queue = deque(self._within_budget([places, *queue]))
            else:
                yield places, done

    def _if_it_fits(self, work: Callable[[np.ndarray], _Done], places: np.ndarray) -> _Done | None:
        """None if memory ran out; on return nothing holds the failed batch's tensors any more."""
        try:
            return work(places)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _survey(self, scorer: Surveyor, places: np.ndarray) -> bool:
        scorer.survey(self._batch(places))
        return True

    def _score(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores (b, L, H) and losses (b,) of one batch."""
        positions = self.table.plan.order[places]
        scores, losses = self.scorer(self._batch(places), budget=self.budget)
        self._refuse_not_finite(positions, scores, losses)
        weights = self.weights[positions]
        return scores.numpy() * weights[:, None, None], losses.numpy()

    def _batch(self, places: np.ndarray) -> Batch:
        samples = [self.encoded.samples[position] for position in self.table.plan.order[places]]
        return pack(samples) if self.packed else collate(samples, side=self.side)

    def _refuse_not_finite(self, positions: np.ndarray, scores: torch.Tensor, losses: torch.Tensor) -> None:
        expected = torch.tensor([heads > 0 for heads in self.scorer.layout.heads])
        broken = ~scores[:, expected].sum(-1).isfinite()  # (b, layers with heads)
        broken_samples = (~losses.isfinite() | broken.any(1)).nonzero()[:, 0]
        if not len(broken_samples):
            return
        row = int(broken_samples[0])
        key, sample = self.encoded.ids[positions[row]], self.encoded.samples[positions[row]]
        if not losses[row].isfinite():
            raise NotFiniteError(f"the loss of sample {key!r} is {losses[row].item()}", sample)
        layer = int(expected.nonzero()[:, 0][broken[row]][-1])
        raise NotFiniteError(f"sample {key!r} has scores that are not finite, from layer {layer} down", sample)

    def _shrink_budget(self, failed: np.ndarray) -> None:
        """Half the budget, after memory ran out in a batch."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        longest = int(self._lengths(failed).max())
        if len(failed) == 1 and longest > self.budget:
            raise HeadnbError(f"memory is too small for one sample of {longest} tokens; max_length cuts samples")
        tokens = int(self._computed(failed).sum())
        self.budget = max(1, min(self.budget, tokens) // 2)
        self.message = f"out of memory with {tokens} tokens a batch; going on with {self.budget}"

    def _within_budget(self, batches: list[np.ndarray]) -> list[np.ndarray]:
        """The same work in batches that the budget allows; the table keeps the new plan."""
        smaller = [part for places in batches for part in self._split(places)]
        if len(smaller) > len(batches):
            batch = self.table.plan.batch.copy()
            for number, places in enumerate(smaller, start=int(batch.max()) + 1):
                batch[places] = number
            self.table.replan(BatchPlan(self.table.plan.order, batch))
        return smaller

    def _split(self, places: np.ndarray) -> list[np.ndarray]:
        return [places[group] for group in split_at_budget(self._computed(places), self.budget)]

    def _computed(self, places: np.ndarray) -> np.ndarray:
        """Tokens that each sample costs in a batch of these, padding included."""
        lengths = self._lengths(places)
        return lengths if self.packed else np.full_like(lengths, lengths.max())

    def _lengths(self, places: np.ndarray) -> np.ndarray:
        return np.asarray(self.encoded.lengths[self.table.plan.order[places]])

    def _report(self, before: int, waiting: int, doing: str = "") -> None:
        if self.on_progress is None:
            return
        seconds = time.perf_counter() - self.started
        done = int(self.table.done.sum())
        left = seconds * (waiting - self.tokens) / self.tokens if self.tokens else None
        self.on_progress(
            Progress(
                done=done,
                total=len(self.table.done),
                seconds=seconds,
                samples_per_second=(done - before) / seconds if seconds else 0.0,
                seconds_left=left,
                tokens=self.tokens,
                message=doing or self.message,
                scores=lambda: self.table.scores(whole_blocks_of=BLOCK),
            )
        )


def _packing(asked: bool | None, scorer: Scorer, model: PreTrainedModel, side: Side) -> bool:
    """Whether to pack. On accelerators the many small attention calls of a packed row take longer than padding does."""
    if asked and not scorer.packs:
        raise HeadnbError("this model, method or attention implementation cannot keep packed samples apart")
    if asked is None:
        return scorer.packs and side == "right" and input_device(model).type == "cpu"
    return asked


def _refuse_unloaded(model: object, tokenizer: object) -> None:
    if not isinstance(model, torch.nn.Module) or not hasattr(model, "config"):
        raise HeadnbError(
            f"the first argument is {type(model).__name__}, not a model; load_model(id) gives model and tokenizer"
        )
    if tokenizer is not None and not callable(tokenizer):
        raise HeadnbError(f"the second argument is {type(tokenizer).__name__}, not a tokenizer")
    if any(weight.is_meta for weight in model.parameters()) and not is_offloaded(model):
        raise HeadnbError("the model has no weights: it is on the meta device")
    if torch.is_inference_mode_enabled():
        raise HeadnbError("scores need gradients, which torch.inference_mode() forbids; call it outside")


def _refuse_unknown_tokens(encoded: EncodedTask, model: PreTrainedModel) -> None:
    """Token ids outside the vocabulary would be a crash on a CPU, and an unusable process on CUDA."""
    vocabulary = model.get_input_embeddings().weight.shape[0]  # type: ignore[index]
    for key, sample in zip(encoded.ids, encoded.samples, strict=True):
        lowest, highest = int(sample.input_ids.min()), int(max(sample.input_ids.max(), sample.labels.max()))
        if lowest < 0 or highest >= vocabulary:
            token = lowest if lowest < 0 else highest
            raise HeadnbError(
                f"sample {key!r} has the token {token}, and the model has {vocabulary}; is this the model's tokenizer?"
            )


def _sample_variables(encoded: EncodedTask) -> dict[str, np.ndarray]:
    tokens = encoded.answer_tokens
    batches = tokens / loss_factor(tokens, "batch-mean", OFFICIAL_BATCH)
    return {
        "answer_tokens": tokens.astype(np.int32),
        "batch_answer_tokens": np.rint(batches).astype(np.int32),
        "fingerprint": encoded.fingerprints,
    }


def _attributes(
    model: PreTrainedModel, task: Task, encoded: EncodedTask, method: Method, layout: HeadLayout
) -> dict[str, Attribute]:
    units = {} if method.follows_loss else {"units": method.units}
    versions = {name: importlib.metadata.version(name) for name in ("headnb", "torch", "transformers")}
    return {
        "model": model_name(model),
        "model_fingerprint": weights_fingerprint(model),
        "task": task.name,
        "task_fingerprint": hashlib.blake2b(encoded.fingerprints.tobytes(), digest_size=16).hexdigest(),
        "method": method.name,
        "reduction": method.reduction,
        **units,
        "dtype": str(model.dtype).removeprefix("torch."),
        "kv_heads": layout.kv_heads,
        "samples_requested": len(task),
        "left_out": len(encoded.left_out),
        "truncated": encoded.truncated,
        "versions": json.dumps(versions),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def context_length(model: PreTrainedModel) -> int | None:
    """The longest sequence of a model in tokens; None if it has no limit."""
    config = model.config.get_text_config()
    limits = (getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len"))
    return next((int(limit) for limit in limits if limit), None)


def model_lock(model: PreTrainedModel) -> threading.RLock:
    """One run at a time on one model: hooks and flags of two would mix. Two models may run in two threads.

    A model and what wraps it (`torch.compile`, peft) share their embeddings, and so their lock.
    """
    with _locks_lock:
        return _model_locks.setdefault(model.get_input_embeddings(), threading.RLock())
