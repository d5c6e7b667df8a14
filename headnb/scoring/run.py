"""`score_heads`: score the heads of a model on a task, batch by batch, into a labelled array."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, Unpack, cast, overload

import numpy as np

from headnb.call_checks import check_arguments
from headnb.engine.batching import BLOCK, SIDES, plan_batches
from headnb.engine.hooks import find_heads
from headnb.engine.model_contexts import frozen
from headnb.engine.packing import max_batch_tokens, packing_is_faster
from headnb.engine.tokenization import ENCODINGS
from headnb.errors import HeadnbError, unknown_name
from headnb.models.checks import is_offloaded, model_name, passes_gradients
from headnb.models.fingerprint import unchanged_weights, weights_fingerprint
from headnb.models.locks import model_lock
from headnb.models.provenance import weights_source
from headnb.scoring.activity import ACTIVITIES, activity_recorder
from headnb.scoring.batch_run import BatchRun
from headnb.scoring.checks import check_left_padding, checked_task, explain_not_finite
from headnb.scoring.gates import FitRequest
from headnb.scoring.gradient import activation, gradient_scorer
from headnb.scoring.one_pass import pass_scorer
from headnb.scoring.progress import NotFiniteError
from headnb.scoring.progress_bars import scored, with_progress_bar
from headnb.scoring.registry import find_methods, method_settings, stored_options
from headnb.scoring.scorers import make_scorers
from headnb.scoring.stopping import Stopping, check_heads, rule_for
from headnb.scoring.workers import Workers, checked_client
from headnb.stats.patterns import LOSS_REDUCTIONS, OFFICIAL_BATCH, loss_factor
from headnb.stats.scoring_revision import REVISION, SCORING_REVISION
from headnb.storage.method_results import MethodResults
from headnb.storage.method_tables import method_stores, open_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from distributed import Client
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.engine.batching import Side
    from headnb.engine.layout import HeadLayout
    from headnb.engine.tokenization import EncodedTask, EncodingName
    from headnb.scoring.progress import Progress
    from headnb.scoring.registry import Option
    from headnb.scoring.scorers import Scorers
    from headnb.scoring.stopping import Rule, Until
    from headnb.stats.labelled import Scores
    from headnb.storage.zarr_columns import Attribute
    from headnb.tasks.loading import Task

LossName: TypeAlias = Literal["sample-mean", "batch-mean", "sum"]
Options: TypeAlias = "Mapping[str, Option] | Mapping[str, Mapping[str, Option]]"


class _Settings(TypedDict, total=False):
    """Arguments of `score_heads` besides the method, for its two signatures."""

    loss: LossName
    batch_tokens: int
    max_length: int | None
    encoding: EncodingName
    padding_side: Side
    packed: bool | None
    seed: int
    out: str | Path | None
    options: Options | None
    until: Until
    client: Client | None
    on_progress: Callable[[Progress], None] | None


@overload
def score_heads(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task | Any,
    *,
    method: str = ...,
    **settings: Unpack[_Settings],
) -> Scores: ...
@overload
def score_heads(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task | Any,
    *,
    method: list[str] | tuple[str, ...],
    **settings: Unpack[_Settings],
) -> MethodResults: ...
@check_arguments
@with_progress_bar(scored)
def score_heads(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task | Any,
    *,
    method: str | Sequence[str] = "activation",
    loss: LossName = "sample-mean",
    batch_tokens: int = 4096,
    max_length: int | None = None,
    encoding: EncodingName = "official",
    padding_side: Side = "right",
    packed: bool | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    options: Options | None = None,
    until: Until = None,
    client: Client | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Scores | MethodResults:
    """Score every attention head of a model on every sample of a task, by one method or by several in one pass.

    The model is not changed.

    Args:
        model: a causal decoder of transformers: plain, compiled, quantized or wrapped by peft.
        tokenizer: the model's tokenizer; None if the samples are already encoded.
        task: a `Task`, or anything that `load_task` accepts.
        method: a name from `methods()`, or a list of names. Gradient and activity methods of a list share one forward
            and one backward pass; the others have their own passes over the same batches. Each method gives the same
            numbers as when it is scored alone.
        loss: the loss that is differentiated. "sample-mean": each sample's mean cross-entropy over its answer tokens.
            "sum": its sum. "batch-mean": the mean over the answer tokens of four consecutive samples of the task, as in
            the paper's script; longer answers weigh more.
        batch_tokens: maximum number of tokens in a batch, padding included. A longer sample is scored alone, and its
            activations are recomputed in the backward pass, so that it needs about the same memory.
        max_length: truncate longer samples to this number of tokens. None: a sample longer than the context is an
            error.
        encoding: "official" tokenizes prompt and completion separately, "trl" together (see `encode_task`).
        padding_side: "right" needs no attention mask and is faster; both sides give the same scores.
        packed: put several samples in one row, each attending only to itself: no padding, and the same scores. None:
            pack on a CPU, if the model allows it.
        seed: seed of the processing order.
        out: a Zarr store, written after each batch, at most once a second. Run the same call again to resume after the
            last written batch. For a list of methods: a folder with one store for each method, `NAME.zarr`; methods
            whose stores are complete are not scored again.
        options: options of the method, such as {"steps": 50} for "attattr" or "gates"; for a list of methods, by
            method: {"attattr": {"steps": 50}}.
        until: stop early, after at least 64 samples. A number between 0 and 1: stop when norm(standard errors) /
            norm(levels) is at most this number. "top20": when random halves of the samples agree on 90 % of their top
            20 heads. "reliability0.9": when the reliability of the pattern (`.heads.reliability()`) is at least 0.9.
            Several methods stop together, when the last of them is precise enough. `attrs["until"]` holds the value
            reached. To continue, run the call again with the same `out` and a different `until`, or without it.
        client: a `dask.distributed.Client`. Its workers score batches in parallel, each with a copy of the model; this
            process writes the scores. Batches of a lost worker are scored by another one.
        on_progress: called with a `Progress` before the first batch and after each batch. None: a progress bar in
            notebooks and terminals.

    Returns:
        A Dataset with `score` (sample, layer, head), signed, float32, in the order of the task; `loss` and
        `answer_tokens` (sample). `.heads` has methods to analyse it. Scores are in nats, the unit of the loss, unless
        the method has another unit. `attrs["padding"]` is the fraction of padding among the computed tokens, at most
        5 %. With `out`, scores above 64 MB stay on disk and are read when needed. The result of "gates" has no sample
        dimension: see `headnb.scoring.gates`. A list of methods gives such a Dataset for each, in `MethodResults`.

    Raises:
        HeadnbError: bad input; a model that cannot be scored, or cannot be scored with padding on the left; NaN in
            weights or losses; not enough memory for one sample; or an `out` that belongs to another result or that
            another run is writing.
        ScoringInterrupted: on Ctrl-C; it contains the scores so far.
    """
    check_settings(method=method, loss=loss, encoding=encoding, padding_side=padding_side, until=until, options=options)
    if packed and padding_side == "left":
        raise HeadnbError("packed=True has no padding, so padding_side='left' cannot apply; omit one of them")
    task, encoded = checked_task(model, tokenizer, task, encoding=encoding, max_length=max_length)
    chosen = {one.name: one for one in find_methods(method)}
    settings = method_settings(method, options)
    request_attrs = {"loss_reduction": loss, "encoding": encoding, "padding_side": padding_side, "seed": seed}
    request_attrs |= {"max_length": -1 if max_length is None else max_length}

    with _explain_not_finite(model), ExitStack() as model_use:
        model_use.enter_context(model_lock(model))
        model_use.enter_context(frozen(model))  # once for all batches: with many weights it takes milliseconds
        model_use.enter_context(unchanged_weights(model))

        def attributes(layout: HeadLayout) -> dict[str, dict[str, Attribute]]:
            shared = _attributes(model, task, encoded, layout) | request_attrs  # once: it hashes the weights
            return {name: shared | one.attrs | stored_options(settings[name]) for name, one in chosen.items()}

        if isinstance(method, str) and (fit := chosen[method].fit) is not None:
            _reject_client(client, f"{method} is fitted to all samples at once")
            if packed is not None or padding_side != "right":
                raise HeadnbError(f"{method} is fitted in batches of its own; omit packed and padding_side")
            attrs = attributes(find_heads(model))
            request = FitRequest(encoded, attrs[method], settings[method], batch_tokens, seed, out, on_progress)
            return cast("Scores", fit(model, request))

        scorers = make_scorers(model, settings)
        check_heads(until, scorers.layout)
        if padding_side == "left":
            norms = activity_recorder(ACTIVITIES["output-norm-last"])
            scorer = gradient_scorer(model, activation) if passes_gradients(model) else pass_scorer(model, norms)
            check_left_padding(scorer, encoded.samples, model.dtype)
        workers = None if client is None else _workers(client, model, scorers, settings)
        packed = _choose_packing(packed, scorers, model, padding_side)
        most = max_batch_tokens(model, batch_tokens, packed=packed)
        plan = plan_batches(encoded.lengths, batch_tokens=most, packed=packed, seed=seed)

        paths = {method: out} if isinstance(method, str) else method_stores(out, list(chosen))
        attrs = attributes(scorers.layout)
        samples, shape = _sample_variables(encoded), scorers.layout.shape
        with open_tables(paths, attrs, encoded.ids, samples, plan, shape) as tables:
            weights = loss_factor(encoded.answer_tokens, loss, OFFICIAL_BATCH).astype(np.float32)
            scorers = scorers.only(tables.unfinished or chosen)
            collect = MethodResults if not isinstance(method, str) else itemgetter(method)
            run = BatchRun(scorers, encoded, tables, weights, packed, padding_side, batch_tokens, collect, on_progress)
            if until is not None:
                # A resumed store keeps its order, which may be that of a run without packing.
                block = 1 if packed and np.array_equal(tables.plan.order, plan.order) else BLOCK
                run.stopping = {
                    name: Stopping(cast("Rule", rule_for(until)), block, absolute=one.reduction == "mean-abs")
                    for name, one in chosen.items()
                }
            if workers is not None:
                workers.methods = {name: settings[name] for name in scorers.by_method}
                run.workers = workers
                model_use.close()  # workers may be threads of this process, which need the same lock
            return cast("Scores | MethodResults", run.scores())


def check_settings(
    *,
    method: str | Sequence[str] = "activation",
    loss: str = "sample-mean",
    encoding: str = "official",
    padding_side: str = "right",
    until: Until = None,
    options: Options | None = None,
) -> None:
    """Raise HeadnbError for settings that `score_heads` does not accept. Call it before loading a model.

    Raises:
        HeadnbError: unknown method, loss, encoding or padding side (the nearest name is given); methods that cannot be
            combined (see `find_methods`); a loss that a method does not support; an unknown stopping rule; or an option
            that a method does not have.
    """
    chosen = find_methods(method)
    method_settings(method, options)
    stops = rule_for(until) is not None
    for kind, name, known in (
        ("loss", loss, LOSS_REDUCTIONS),
        ("encoding", encoding, ENCODINGS),
        ("padding side", padding_side, SIDES),
    ):
        if name not in known:
            raise unknown_name(kind, name, known)
    for one in chosen:
        if stops and one.scorer is None:
            raise HeadnbError(f"until= is not available for {one.name}: the method is fitted to all samples at once")
        if loss != "sample-mean" and not one.follows_loss:
            raise HeadnbError(
                f"scores of the method {one.name} are not contributions to a loss; use loss='sample-mean'"
            )


@contextmanager
def _explain_not_finite(model: PreTrainedModel) -> Iterator[None]:
    """Turn NotFiniteError into HeadnbError, and add where in the model the value arises."""
    try:
        yield
    except NotFiniteError as error:
        raise HeadnbError(f"{error}{explain_not_finite(model, error.sample)}") from None


def _workers(
    client: Client, model: PreTrainedModel, scorers: Scorers, settings: dict[str, dict[str, Option]]
) -> Workers:
    for method in scorers.prepared:
        _reject_client(client, f"{method} needs a first pass over the whole task")
    if is_offloaded(model):
        _reject_client(client, "the weights of this model are offloaded")
    return Workers(checked_client(client), model, settings)


def _reject_client(client: object, reason: str) -> None:
    if client is not None:
        raise HeadnbError(f"client= cannot be used: {reason}")


def _choose_packing(packed: bool | None, scorers: Scorers, model: PreTrainedModel, side: Side) -> bool:
    """Whether to pack; raises HeadnbError if packing is requested but not supported."""
    if packed and not scorers.supports_packing:
        raise HeadnbError(
            "packed=True: this model, method or attention implementation does not separate packed samples"
        )
    return scorers.supports_packing and side == "right" and packing_is_faster(model) if packed is None else packed


def _sample_variables(encoded: EncodedTask) -> dict[str, np.ndarray]:
    tokens = encoded.answer_tokens
    batches = tokens / loss_factor(tokens, "batch-mean", OFFICIAL_BATCH)
    return {
        "answer_tokens": tokens.astype(np.int32),
        "batch_answer_tokens": np.rint(batches).astype(np.int32),
        "fingerprint": encoded.fingerprints,
    }


def _attributes(model: PreTrainedModel, task: Task, encoded: EncodedTask, layout: HeadLayout) -> dict[str, Attribute]:
    return {
        **model_attributes(model, layout),
        "task": task.name,
        "task_fingerprint": hashlib.blake2b(encoded.fingerprints.tobytes(), digest_size=16).hexdigest(),
        "samples_requested": len(task),
        "left_out": len(encoded.left_out),
        "truncated": encoded.truncated,
        **encoded.notices,
    }


def model_attributes(model: PreTrainedModel, layout: HeadLayout) -> dict[str, Attribute]:
    """Attributes of a result that describe the model, the software and the time."""
    versions = {name: importlib.metadata.version(name) for name in ("headnb", "torch", "transformers")}
    return {
        "model": model_name(model),
        "model_fingerprint": weights_fingerprint(model),
        **weights_source(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "kv_heads": layout.kv_heads,
        REVISION: SCORING_REVISION,
        "versions": json.dumps(versions),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
