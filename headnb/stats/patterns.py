"""Activation patterns of scores, as pure functions on labelled arrays.

Scores are a Dataset with signed `score` (sample, layer, head) and, per sample, `loss` and `answer_tokens`. A pattern is
a DataArray (layer, head). The scores' attribute `reduction` states how samples are averaged: "mean-abs" for activation
levels (mean over the samples of |s|), "mean" for scores with a meaningful sign.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import scipy
import xarray as xr

from headnb.errors import HeadnbError, unknown_name
from headnb.stats import descriptive
from headnb.stats.reliability import Evidence, components
from headnb.stats.results import (
    as_result,
    check_levels,
    check_unique_samples,
    is_result,
    is_signed,
    made_by,
    method_label,
    method_units,
    require_scores,
    rescaled,
    trusted_attrs,
    whole_number,
)
from headnb.stats.scoring_revision import REVISION

if TYPE_CHECKING:
    from collections.abc import Hashable

    from headnb.stats.descriptive import Array
    from headnb.stats.labelled import Pattern, Scores

HEADS = ("layer", "head")
MEAN_UNITS = "of the mean over heads"  # units of scale-free patterns
OFFICIAL_BATCH = 4  # batch size in the paper's script
NORMALISATIONS = ("layer", "max", "rank")
LOSS_REDUCTIONS = ("sample-mean", "batch-mean", "sum")
# Attributes of scores that count unusual content of the samples' text (samples or tokens). Present only if not 0.
NOTICES = (
    "bos_in_text",
    "eos_in_text",
    "special_tokens_in_text",
    "samples_with_special_tokens",
    "samples_losing_text",
)
KEPT_ATTRS = ("model", "task", "method", "method_label", "loss_reduction", "kv_heads", "dtype", REVISION, *NOTICES)


def pattern(scores: xr.Dataset, normalize: str | None = None) -> Pattern:
    """The pattern of scores: (layer, head) float64, or with the scores' leading dims.

    Args:
        scores: scores as returned by `headnb.score_heads`. Scores without samples already are a pattern.
        normalize: None (as scored), "layer" (L2 norm of each layer is 1), "max" (the largest head is 1) or "rank"
            (rank over the number of heads, 1 for the highest; equal heads have their mean rank).

    Returns:
        DataArray with attrs `kind` ("level" or "signed"), `units` and the fields of `stats.reliability.Evidence`. For
        numbers computed from scores (see `stats.results`): their mean over samples, with kind "value" only.

    Raises:
        HeadnbError: an unknown normalisation, or an error of `sample_levels`.
    """
    if normalize is not None and normalize not in NORMALISATIONS:
        raise unknown_name("normalisation", normalize, NORMALISATIONS)
    levels = sample_levels(scores)
    result = levels.mean("sample", skipna=False) if "sample" in levels.dims else levels
    result = result.transpose(..., *HEADS).rename(method_label(scores.attrs).replace(" ", "_"))
    if not is_result(scores):
        result = result.rename("value")
        result.attrs = {**trusted_attrs(scores), **made_by(scores), "kind": "value"}
        return cast("Pattern", result) if normalize is None else normalized(result, normalize)
    result.attrs = {name: scores.attrs[name] for name in KEPT_ATTRS if name in scores.attrs}
    result.attrs["kind"] = "level" if _reduction(scores) == "mean-abs" else "signed"
    result.attrs["units"] = pattern_units(scores)
    result.attrs.update(_worst_evidence(levels)._asdict())
    result = as_result(result)
    return cast("Pattern", result) if normalize is None else normalized(result, normalize)


def normalized(levels: xr.DataArray, how: str) -> Pattern:
    """Normalise a pattern; `how` takes the values of `normalize` in `pattern`."""
    if how == "layer":
        norm = (levels**2).sum("head") ** 0.5
        scaled, units = levels / norm.where(norm > 0), "of the layer's norm"
    elif how == "max":
        largest = abs(levels).max(HEADS)
        scaled, units = levels / largest.where(largest > 0), "of the largest head"
    elif how == "rank":
        scaled = xr.apply_ufunc(_rank_share, levels, input_core_dims=[HEADS], output_core_dims=[HEADS])
        units = "rank over the number of heads"
    else:
        raise unknown_name("normalisation", how, NORMALISATIONS)
    scaled = scaled.transpose(*levels.dims).rename(levels.name)
    return cast("Pattern", rescaled(levels, scaled, {"units": units, "normalize": how}))


def scale_free(levels: xr.DataArray) -> Pattern:
    """Divide each pattern by its mean over heads, because magnitudes fall with the loss.

    Raises:
        HeadnbError: the values are signed.
    """
    check_levels("scale_free", signed=is_signed(levels))
    mean = levels.mean(HEADS)
    scaled = (levels / mean.where(mean != 0)).rename(levels.name)
    return cast("Pattern", rescaled(levels, scaled, {"units": MEAN_UNITS}))


def sample_levels(scores: xr.Dataset) -> xr.DataArray:
    """Per-sample values whose mean is the pattern: |score| for the reduction "mean-abs", else score; float64.

    Raises:
        HeadnbError: not scores, no samples, a repeated or non-finite sample, or a negative loss.
    """
    if not isinstance(scores, xr.Dataset):
        raise HeadnbError(f"expected a Dataset of head scores (headnb.score_heads), got {type(scores).__name__}")
    if "score" not in scores:
        raise HeadnbError("these are not head scores: there is no variable 'score'")
    score = scores["score"].compute().astype(np.float64)
    if missing := [dim for dim in HEADS if dim not in score.dims]:
        raise HeadnbError(f"head scores need the dims layer and head; missing: {', '.join(missing)}")
    if "sample" in score.dims:
        if score.sizes["sample"] == 0:
            raise HeadnbError("these scores contain no samples yet")
        check_unique_samples(scores)
        finite = abs(score) < np.inf  # False for NaN
        broken = (~finite & score.notnull().any("sample")).any([dim for dim in score.dims if dim != "sample"])
        if broken.any():
            first = broken["sample"].values[np.flatnonzero(broken.values)[0]]
            raise HeadnbError(
                f"{int(broken.sum())} of {score.sizes['sample']} samples have scores that are not finite (the first: "
                f"{first}); exclude them, or score in a wider dtype"
            )
    return abs(score) if _reduction(scores) == "mean-abs" else score


def evidence(scores: xr.Dataset) -> Evidence:
    """Reliability of the scores' pattern; with leading dims, of the least reliable pattern."""
    levels = sample_levels(scores)
    require_scores(scores)
    return _worst_evidence(levels)


def correlations(patterns: xr.DataArray, dim: Hashable = "task", kind: str = "pearson") -> xr.DataArray:
    """Correlation over heads of every pair of patterns along `dim`: (..., dim, other_dim)."""
    if dim not in patterns.dims:
        raise HeadnbError(
            f"no dim {dim!r} to correlate along; these patterns have the dims {', '.join(map(str, patterns.dims))}"
        )
    heads = patterns.transpose(..., dim, *HEADS)
    flat = heads.values.reshape(*heads.shape[:-2], -1)
    matrix = descriptive.correlation(flat[..., :, None, :], flat[..., None, :, :], kind)
    dims = (*heads.dims[:-2], f"other_{dim}")
    coords: dict[Any, Any] = {d: patterns.coords[d].values for d in dims[:-1] if d in patterns.coords}
    if dim in coords:
        coords[f"other_{dim}"] = coords[dim]
    return xr.DataArray(matrix, dims=dims, coords=coords, name="correlation", attrs={"kind": kind})


def with_loss(scores: xr.Dataset, loss: str, batch_size: int = 4) -> Scores:
    """Convert scores to another reduction of the loss, without a second pass (the gradient is linear in the loss).

    With n_x the answer tokens of sample x, "sum" is n_x times "sample-mean". "batch-mean" (the official script's mean
    over all answer tokens of a batch) is n_x / N_batch times "sample-mean", for batches of `batch_size` in the order of
    the whole task. For a part of the task's samples it is only known with batches of four, from the scores'
    `batch_answer_tokens`. The variable `loss` is unchanged: the loss of each sample.

    Raises:
        HeadnbError: an unknown loss, scores that are not parts of a loss, samples without answer tokens, or a part of
            the samples that does not determine the batches.
    """
    if loss not in LOSS_REDUCTIONS:
        raise unknown_name("loss", loss, LOSS_REDUCTIONS)
    if pattern_units(scores) not in {"nats", ""}:
        raise HeadnbError(
            f"scores of the method {scores.attrs.get('method')} are not parts of a loss and cannot be converted"
        )
    require_scores(scores)
    if "answer_tokens" not in scores or "sample" not in scores.dims:
        raise HeadnbError("converting the loss needs scores of samples and their answer_tokens")
    if batch_size < 1:
        raise HeadnbError(f"batch_size must be at least 1, got {batch_size}")
    tokens = scores["answer_tokens"].values.astype(np.float64)
    if (tokens < 1).any():
        raise HeadnbError("a sample without answer tokens has no loss to convert")
    stored = str(scores.attrs.get("loss_reduction", "sample-mean"))
    stored_batch = whole_number(scores.attrs, "loss_batch_size", OFFICIAL_BATCH)
    factor = _stored_factor(scores, loss, batch_size) / _stored_factor(scores, stored, stored_batch)
    result = scores.copy()
    score = scores["score"] * xr.DataArray(factor, dims="sample")
    result["score"] = score.transpose(*scores["score"].dims).astype(scores["score"].dtype)
    result["score"].attrs = scores["score"].attrs
    result.attrs["loss_reduction"] = loss
    result.attrs.pop("loss_batch_size", None)
    if loss == "batch-mean":
        result.attrs["loss_batch_size"] = batch_size
    return cast("Scores", as_result(result))


def _stored_factor(scores: xr.Dataset, loss: str, batch_size: int) -> Array:
    """`loss_factor` of these samples, in the batches of the whole task."""
    tokens = scores["answer_tokens"].values.astype(np.float64)
    if loss != "batch-mean":
        return loss_factor(tokens, loss, batch_size)
    if batch_size == OFFICIAL_BATCH and "batch_answer_tokens" in scores:
        return np.asarray(tokens / scores["batch_answer_tokens"].values)
    n = scores.sizes["sample"]
    whole = whole_number(scores.attrs, "samples_requested", n) - whole_number(scores.attrs, "left_out", 0)
    if scores.attrs.get("complete", 1) == 0 or n < whole:
        raise HeadnbError(
            f"the batches of {batch_size} cannot be determined from a part of the task's samples ({n} available); "
            'finish the scoring, or convert before selecting samples, or use the loss "sample-mean" or "sum"'
        )
    return loss_factor(tokens, loss, batch_size)


def pattern_units(scores: xr.Dataset) -> str:
    """Units of a pattern of these scores; empty for numbers that are not scores (see `stats.results`)."""
    return method_units(scores.attrs) if is_result(scores) else ""


def _reduction(scores: xr.Dataset) -> str:
    """How samples are averaged; the plain mean for numbers that are not scores (see `stats.results`)."""
    return str(scores.attrs.get("reduction", "mean-abs")) if is_result(scores) else "mean"


def flat_levels(levels: xr.DataArray) -> Array:
    """(sample, layer, head) -> (n, heads)."""
    return np.asarray(levels.transpose("sample", *HEADS).values, dtype=np.float64).reshape(levels.sizes["sample"], -1)


def scale_free_values(patterns: Array) -> Array:
    """Patterns (..., heads) divided by their mean over heads.

    Raises:
        HeadnbError: an all-zero pattern.
    """
    mean = patterns.mean(axis=-1, keepdims=True)
    if not mean.all():
        raise HeadnbError("cannot normalise an all-zero pattern")
    return np.asarray(patterns / mean)


def relative_to_mean_head(levels: Array) -> Array:
    """Levels divided by the pattern's mean over heads: (n, heads), whose mean is the scale-free pattern.

    The pattern's mean counts as known. With its uncertainty propagated, intervals are 1 to 5 % narrower, but the few
    samples with the largest gradients dominate: in simulations with 24 to 64 samples, 9 to 42 % of comparisons between
    identical models (instead of 5 %) had a false positive.
    """
    mean = np.nanmean(levels)
    if not mean > 0:
        raise HeadnbError("cannot normalise an all-zero pattern")
    return np.asarray(levels / mean)


def _rank_share(levels: Array) -> Array:
    flat = levels.reshape(*levels.shape[:-2], -1)
    ranks = np.asarray(scipy.stats.rankdata(flat, axis=-1, nan_policy="omit"))
    return np.asarray(ranks / np.sum(~np.isnan(flat), axis=-1, keepdims=True)).reshape(levels.shape)


def _worst_evidence(levels: xr.DataArray) -> Evidence:
    if "sample" not in levels.dims:
        return Evidence()
    n = levels.sizes["sample"]
    flat = levels.transpose(..., "sample", *HEADS).values.reshape(-1, n, levels.sizes["layer"] * levels.sizes["head"])
    found = [components(samples).evidence for samples in flat]
    return found[int(np.argmin([e.reliability for e in found]))]  # argmin prefers NaN


def loss_factor(tokens: Array, loss: str, batch_size: int) -> Array:
    """(n): factor that converts each sample's "sample-mean" score, from its answer tokens (n)."""
    if loss == "sample-mean":
        return np.ones(len(tokens))
    if loss == "sum":
        return tokens
    starts = np.arange(0, len(tokens), batch_size)
    return np.asarray(tokens / np.repeat(np.add.reduceat(tokens, starts), batch_size)[: len(tokens)])
