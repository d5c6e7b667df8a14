"""Inner products of the samples' representations in each layer.

A sample's representation in a layer is the mean of the residual stream after the layer over the positions that predict
its answer. The loss, and so the heads' scores, use the same positions. There is one vector per sample, since the tokens
of a sample are not independent. Only the inner products (n, n) of the vectors (n, C) of a layer are stored:
`headnb.analysis.cka` needs nothing else, and they are small enough to stay in a run's folder.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from headnb.analysis.cka import gram
from headnb.call_checks import check_arguments
from headnb.engine.hooks import find_heads, input_device
from headnb.engine.losses import batch_context, find_loss_computer, plan_passes
from headnb.engine.model_contexts import frozen
from headnb.engine.partial_forward import decoder_layers
from headnb.engine.threads import this_thread_only
from headnb.errors import HeadnbError
from headnb.models.checks import model_name
from headnb.models.locks import model_lock
from headnb.scoring.checks import checked_task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.engine.batching import Batch
    from headnb.engine.tokenization import EncodedSample, EncodingName
    from headnb.tasks.loading import Task

MAX_SAMPLES = 256  # vectors of all layers are in memory at once: 134 MB for 32 layers of width 4096


class UnknownLayersError(HeadnbError):
    """The model's decoder layers cannot be identified."""


@check_arguments
def layer_grams(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task | Any,
    *,
    batch_tokens: int = 4096,
    max_length: int | None = None,
    encoding: EncodingName = "official",
) -> xr.Dataset:
    """Inner products of all pairs of samples' representations after each layer; one forward pass over the task.

    Args:
        model: as for `score_heads`; it is not changed.
        tokenizer: its tokenizer; None if the samples are already encoded.
        task: a `Task`, or anything that `load_task` accepts; only the first 256 samples are used.
        batch_tokens: tokens per batch, padding included.
        max_length: truncate longer samples to this number of tokens.
        encoding: as for `score_heads`.

    Returns:
        A Dataset with `gram` (layer, sample, other_sample), float32, of the deviations from the samples' mean, and the
        samples' `fingerprint` (sample).

    Raises:
        UnknownLayersError: the model's decoder layers cannot be identified.
        HeadnbError: bad input.
    """
    task, encoded = checked_task(model, tokenizer, task, encoding=encoding, max_length=max_length)
    samples, ids = encoded.samples[:MAX_SAMPLES], list(encoded.ids[:MAX_SAMPLES])
    with model_lock(model), frozen(model):
        vectors = _layer_vectors(model, samples, batch_tokens)
    grams = np.stack([gram(layer).astype(np.float32) for layer in vectors])
    return xr.Dataset(
        {
            "gram": (("layer", "sample", "other_sample"), grams),
            "fingerprint": ("sample", encoded.fingerprints[:MAX_SAMPLES]),
        },
        {"layer": np.arange(len(grams)), "sample": ids, "other_sample": ids},
        {"model": model_name(model), "task": task.name, "quantity": "inner products of representations"},
    )


@torch.no_grad()
def _layer_vectors(model: PreTrainedModel, samples: Sequence[EncodedSample], batch_tokens: int) -> np.ndarray:
    """Representations of the samples after each layer, (layers, n, C) float32."""
    layout, device = find_heads(model), input_device(model)
    layers = decoder_layers(model, layout)
    if not layers:
        raise UnknownLayersError(f"cannot identify the decoder layers of {type(model).__name__} among its modules")
    loss_computer = find_loss_computer(model, layout)
    lengths = np.array([len(sample) for sample in samples])
    batches, make_batch = plan_passes(model, loss_computer, lengths, batch_tokens)
    vectors: np.ndarray | None = None
    for positions in batches:
        batch = make_batch([samples[position] for position in positions])
        with batch_context(model, layout, batch), _record_means(layers, batch) as means:
            loss_computer.losses(batch, device)
        batch_vectors = np.stack(means)  # (layers, B, C)
        vectors = (
            np.empty((len(layers), len(samples), batch_vectors.shape[-1]), np.float32) if vectors is None else vectors
        )
        vectors[:, positions] = batch_vectors
    assert vectors is not None  # noqa: S101  a task has at least one sample
    return vectors


@contextmanager
def _record_means(layers: Sequence[torch.nn.Module], batch: Batch) -> Iterator[list[np.ndarray]]:
    """Record each layer's mean output over the positions that predict a sample's answer, (B, C), in a forward pass."""
    means: list[np.ndarray] = []
    places, _, rows, counts = batch.answers

    def keep(_module: torch.nn.Module, _args: Any, outputs: Any) -> None:
        hidden: Tensor = outputs if isinstance(outputs, Tensor) else outputs[0]  # (B, T, C)
        states = hidden.flatten(0, 1)[places.to(hidden.device)].float().cpu()  # (N, C)
        sums = torch.zeros(len(batch), states.shape[1]).index_add_(0, rows, states)
        means.append((sums / counts[:, None]).numpy())

    with ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.register_forward_hook(this_thread_only(keep)).remove)
        yield means
