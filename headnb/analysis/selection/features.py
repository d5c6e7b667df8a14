"""Feature vectors of samples that selection uses besides head scores: mean hidden states, projected gradients."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from headnb.analysis.selection.gradient_features import gradient_features, read_checkpoints
from headnb.analysis.selection.views import FEATURES
from headnb.call_checks import check_arguments
from headnb.engine.batching import collate, plan_batches
from headnb.engine.decoders import decoder_of
from headnb.engine.hooks import input_device
from headnb.engine.model_contexts import frozen
from headnb.errors import HeadnbError, unknown_name
from headnb.hub import user_path
from headnb.models.checks import model_name
from headnb.models.fingerprint import weights_fingerprint
from headnb.models.locks import model_lock
from headnb.models.restore import restore_model
from headnb.scoring.checks import checked_task
from headnb.storage.files import read_dataset, write_dataset

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.engine.tokenization import EncodedSample
    from headnb.stats.descriptive import Array
    from headnb.tasks.loading import Task


@check_arguments
def sample_features(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task | Any,
    kind: str = "embedding",
    *,
    warmup: str | Path | None = None,
    candidates: bool = False,
    dimensions: int = 8192,
    seed: int = 0,
    batch_tokens: int = 4096,
    max_length: int | None = None,
    out: str | Path | None = None,
) -> xr.Dataset:
    """Compute a feature vector of every sample, for `select_instructions`.

    Args:
        model: a causal decoder without adapters; it is not changed.
        tokenizer: its tokenizer; None if the samples are already encoded.
        task: a `Task`, or anything that `load_task` accepts.
        kind: kind of features.
            "embedding": mean over all tokens of the last hidden states (after the final normalisation).
            "embedding-middle": the same after half of the layers.
            "gradient": gradient of the loss with respect to the weights of a new LoRA (rank 16, all linear layers),
            projected.
            "less": the same at the checkpoints of a LoRA training (LESS, Xia et al. 2024, arXiv 2402.04333).
        warmup: for "less": the `output_dir` of a LoRA `finetune`, which holds its checkpoints.
        candidates: for "less": use Adam's update instead of the gradient, as LESS does for the samples of the pool.
        dimensions: length of a projected gradient, per checkpoint.
        seed: seed of the projection and of the new LoRA's weights; target and pool need the same seed.
        batch_tokens: tokens per batch of the embeddings, padding included; gradients are computed sample by sample.
        max_length: truncate longer samples to this number of tokens.
        out: netCDF file for the result; if it already has the result of the same call, it is read. A file with other
            content is an error.

    Returns:
        A Dataset with `feature` (sample, dimension), float32, and the samples' `fingerprint`.

    Raises:
        HeadnbError: bad input, an unknown kind, or a folder without the checkpoints of a LoRA training.
    """
    if kind not in FEATURES:
        raise unknown_name("kind of features", kind, FEATURES)
    if (kind == "less") != (warmup is not None):
        need = "needs warmup=, the folder of a LoRA training" if kind == "less" else "does not accept warmup="
        raise HeadnbError(f"kind={kind!r} {need}")
    if dimensions < 1:
        raise HeadnbError(f"dimensions must be at least 1, not {dimensions}")
    checkpoints = [] if warmup is None else read_checkpoints(user_path(warmup))
    task, encoded = checked_task(model, tokenizer, task, max_length=max_length)
    with model_lock(model):
        attrs: dict[str, Any] = {"model_fingerprint": weights_fingerprint(model), "method": kind}
        if not kind.startswith("embedding"):
            attrs["projection"] = f"{dimensions} dimensions, seed {seed}"
            attrs["warmup"] = " ".join(checkpoint.fingerprint for checkpoint in checkpoints)
        wanted = {**attrs, "candidates": candidates, "samples": encoded.fingerprints.tolist()}
        settings = json.dumps(wanted)
        path = None if out is None else user_path(out)
        if path and path.exists():
            stored = read_dataset(path)
            if stored.attrs.get("settings") == settings:
                return stored
            known = json.loads(stored.attrs.get("settings", "{}"))
            different = ", ".join(name for name in wanted if known.get(name) != wanted[name])
            raise HeadnbError(f"{path} contains other results ({different}); choose another `out` or remove it")
        if kind.startswith("embedding"):
            vectors = _embeddings(model, encoded.samples, batch_tokens, middle=kind == "embedding-middle")
        else:
            how: dict[str, Any] = {"adam": candidates, "dimensions": dimensions, "seed": seed}
            vectors = gradient_features(model, encoded.samples, checkpoints, **how)
    features = xr.Dataset(
        {
            "feature": (("sample", "dimension"), vectors.astype(np.float32)),
            "fingerprint": ("sample", encoded.fingerprints),
        },
        {"sample": list(encoded.ids)},
        {"model": model_name(model), "task": task.name, **attrs, "settings": settings},
    )
    if path:
        write_dataset(path, features)
    return features


@torch.no_grad()
def _embeddings(model: PreTrainedModel, samples: Sequence[EncodedSample], batch_tokens: int, *, middle: bool) -> Array:
    """Mean hidden state (n, C) over each sample's tokens. Padding is on the right, where no token sees it."""
    means: list[Any] = [None] * len(samples)
    plan = plan_batches(np.array([len(sample) for sample in samples]), batch_tokens=batch_tokens)
    with frozen(model), restore_model(model):  # transformers installs hooks for hidden states and leaves them
        for rows in plan.batches():
            positions = plan.order[rows]
            batch = collate([samples[position] for position in positions])
            ids = batch.input_ids.to(input_device(model))
            states = decoder_of(model)(input_ids=ids, use_cache=False, return_dict=True, output_hidden_states=middle)
            # hidden_states begins with the embeddings of the tokens.
            hidden = states.hidden_states[len(states.hidden_states) // 2] if middle else states.last_hidden_state
            mask = batch.token_mask.to(hidden.device)[..., None]  # type: ignore[union-attr]  # a padded batch has it
            sums = (hidden.double() * mask).sum(1)  # (B, T, C) -> (B, C)
            for position, mean in zip(positions, (sums / mask.sum(1)).cpu().numpy(), strict=True):
                means[position] = mean
    return np.stack(means)
