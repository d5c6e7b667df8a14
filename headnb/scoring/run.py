"""`score_heads`: from a model and a task to a labelled array of scores, batch by batch."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np

from headnb.call_checks import check_arguments
from headnb.engine.batching import BLOCK, SIDES, plan_batches
from headnb.engine.hooks import find_heads, frozen
from headnb.engine.packing import max_batch_tokens, packing_is_faster
from headnb.engine.tokenization import ENCODINGS, encode_task
from headnb.errors import HeadnbError, unknown_name
from headnb.models.checks import context_length, is_offloaded, model_name
from headnb.models.fingerprint import weights_fingerprint
from headnb.models.locks import model_lock
from headnb.models.provenance import weights_source
from headnb.scoring.batch_run import BatchRun
from headnb.scoring.checks import check_left_padding, check_loaded, check_tokens, explain_not_finite
from headnb.scoring.gates import FitRequest
from headnb.scoring.gradient import activation, gradient_scorer
from headnb.scoring.progress import NotFiniteError
from headnb.scoring.registry import PreparedScorer, find_method, stored_options
from headnb.scoring.stopping import Stopping, rule_for
from headnb.scoring.workers import Workers, checked_client
from headnb.stats.patterns import LOSS_REDUCTIONS, OFFICIAL_BATCH, loss_factor
from headnb.stats.scoring_revision import REVISION, SCORING_REVISION
from headnb.storage.score_store import open_table
from headnb.tasks.loading import Task, load_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from distributed import Client
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.engine.batching import Side
    from headnb.engine.layout import HeadLayout
    from headnb.engine.tokenization import EncodedTask, EncodingName
    from headnb.scoring.progress import Progress
    from headnb.scoring.registry import Method, Option, Scorer
    from headnb.scoring.stopping import Until
    from headnb.stats.labelled import Scores
    from headnb.storage.zarr_columns import Attribute

LossName: TypeAlias = Literal["sample-mean", "batch-mean", "sum"]


@check_arguments
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
    until: Until = None,
    client: Client | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Scores:
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
        out: a Zarr store to write to, after each batch, or each second where batches are faster. The same call again
            goes on behind the last batch that was written.
        options: settings of the method itself, as {"steps": 50} for "attattr" or "gates".
        until: end earlier, after 64 samples at least. A number between 0 and 1: when
            norm(standard errors) / norm(levels) is as small. "top20": when random halves of the samples agree on 90 %
            of their top 20 heads. "reliability0.9": when the pattern is as reliable (`.heads.reliability()`). What it
            came to is in `attrs["until"]`; with the same `out` and another `until`, or none, the run goes on.
        client: a `dask.distributed.Client`: its workers score batches side by side, each with a copy of the model,
            and this process writes. Batches of a worker that is lost are scored by another.
        on_progress: called with a `Progress` before the first batch and after each.

    Returns:
        A Dataset with `score` (sample, layer, head), signed, float32, in the order of the task; `loss` and
        `answer_tokens` (sample). `.heads` has what one does with it; a score's unit is that of the loss, nats, unless
        the method has another; `attrs["padding"]` is the share of padding among the tokens that were computed, at most
        5 %. With `out`, more than 64 MB of scores stay on disk and are read where they are used. "gates" has no
        samples: see `headnb.scoring.gates`.

    Raises:
        HeadnbError: bad input, a model that cannot be scored, or not with padding on the left, NaN in weights or
            losses, memory too small for one sample, or an `out` that belongs to something else or that another run is
            writing to.
        ScoringInterrupted: on Ctrl-C; it holds what was scored.
    """
    check_loaded(model, tokenizer)
    check_settings(method=method, loss=loss, encoding=encoding, padding_side=padding_side, until=until, options=options)
    task = load_task(task) if not isinstance(task, Task) else task
    encoded = encode_task(task, tokenizer, encoding=encoding, max_length=max_length, context=context_length(model))
    check_tokens(encoded, model)
    chosen = find_method(method)
    settings = chosen.settings(options)
    asked = {"loss_reduction": loss, "encoding": encoding, "padding_side": padding_side, "seed": seed}
    asked |= {"max_length": -1 if max_length is None else max_length} | stored_options(settings)

    with _explain_not_finite(model), ExitStack() as alone:
        alone.enter_context(model_lock(model))
        alone.enter_context(frozen(model))  # once, not for each batch anew: with many weights that takes milliseconds
        if chosen.scorer is None:
            assert chosen.fit is not None  # noqa: S101  a method scores or fits
            _reject_client(client, f"{method} is a fit to all samples at once")
            about = _attributes(model, task, encoded, chosen, find_heads(model)) | asked
            request = FitRequest(encoded, about, settings, batch_tokens, seed, out, on_progress)
            return cast("Scores", chosen.fit(model, request))

        scorer = chosen.scorer(model, **settings)
        if padding_side == "left":
            check_left_padding(gradient_scorer(model, activation), encoded.samples, model.dtype)
        workers = None if client is None else _workers(client, model, scorer, chosen, settings)
        packed = _choose_packing(packed, scorer, model, padding_side)
        most = max_batch_tokens(model, batch_tokens, packed=packed)
        plan = plan_batches(encoded.lengths, batch_tokens=most, packed=packed, seed=seed)

        about = _attributes(model, task, encoded, chosen, scorer.layout) | asked
        with open_table(out, about, encoded.ids, _sample_variables(encoded), plan, scorer.layout.shape) as table:
            weights = loss_factor(encoded.answer_tokens, loss, OFFICIAL_BATCH).astype(np.float32)
            run = BatchRun(scorer, encoded, table, weights, packed, padding_side, batch_tokens, on_progress)
            if (rule := rule_for(until)) is not None:
                run.stopping = Stopping(rule, 1 if packed else BLOCK, absolute=chosen.reduction == "mean-abs")
            if workers is not None:
                run.workers = workers
                alone.close()  # workers may be threads of this process, and then wait for the same lock
            return cast("Scores", run.scores())


def check_settings(
    *,
    method: str,
    loss: str = "sample-mean",
    encoding: str = "official",
    padding_side: str = "right",
    until: Until = None,
    options: Mapping[str, Option] | None = None,
) -> None:
    """Refuse settings that `score_heads` does not know. Who loads a model first asks here before.

    Raises:
        HeadnbError: there is no such method, loss, encoding or side (the nearest is named), no such loss with this
            method, no such rule to stop by, or no such option of the method.
    """
    chosen = find_method(method)
    chosen.settings(options)
    if rule_for(until) is not None and chosen.scorer is None:
        raise HeadnbError(f"until= counts samples, and {method} is a fit to all of them at once")
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
def _explain_not_finite(model: PreTrainedModel) -> Iterator[None]:
    """A loss or score that is not finite is told with where in the model it comes from."""
    try:
        yield
    except NotFiniteError as found:
        raise HeadnbError(f"{found}{explain_not_finite(model, found.sample)}") from None


def _workers(
    client: Client, model: PreTrainedModel, scorer: Scorer, method: Method, settings: dict[str, Option]
) -> Workers:
    if isinstance(scorer, PreparedScorer):
        _reject_client(client, f"{method.name} sees the whole task before it scores any of it")
    if is_offloaded(model):
        _reject_client(client, "weights of this model are offloaded")
    return Workers(checked_client(client), model, method.name, settings)


def _reject_client(client: object, reason: str) -> None:
    if client is not None:
        raise HeadnbError(f"{reason}, and cannot be spread over the workers of client=")


def _choose_packing(asked: bool | None, scorer: Scorer, model: PreTrainedModel, side: Side) -> bool:
    """Whether to pack."""
    if asked and not scorer.supports_packing:
        raise HeadnbError("this model, method or attention implementation cannot keep packed samples apart")
    return scorer.supports_packing and side == "right" and packing_is_faster(model) if asked is None else asked


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
    versions = {name: importlib.metadata.version(name) for name in ("headnb", "torch", "transformers")}
    return {
        "model": model_name(model),
        "model_fingerprint": weights_fingerprint(model),
        **weights_source(model),
        "task": task.name,
        "task_fingerprint": hashlib.blake2b(encoded.fingerprints.tobytes(), digest_size=16).hexdigest(),
        **method.attrs,
        "dtype": str(model.dtype).removeprefix("torch."),
        "kv_heads": layout.kv_heads,
        "samples_requested": len(task),
        "left_out": len(encoded.left_out),
        "truncated": encoded.truncated,
        **encoded.notices,
        REVISION: SCORING_REVISION,
        "versions": json.dumps(versions),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
