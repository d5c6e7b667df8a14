"""Vector representations of pool and target for selection: head scores, features, words, or random order."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headnb.analysis.selection.nearest import PoolPart, Ranked, rank_part, unit_rows
from headnb.analysis.selection.pools import Source, sample_keys, score_rows, text_rows
from headnb.analysis.selection.tfidf import TfIdf
from headnb.errors import HeadnbError
from headnb.stats import patterns
from headnb.stats.scoring_revision import check_same_revision
from headnb.tasks.chat_rows import message_text
from headnb.tasks.loading import Task
from headnb.tasks.samples import Sample, TokenSample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from headnb.analysis.selection.nearest import Vectors
    from headnb.stats.descriptive import Array

FEATURES = ("embedding", "embedding-middle", "gradient", "less")  # kinds of `sample_features`


class View(Protocol):
    """Vectors of a pool and its target."""

    @property
    def target_ids(self) -> Sequence[Any]:
        """Ids of the target's samples (m)."""

    @property
    def target_keys(self) -> NDArray[np.int64]:
        """Content hashes of the target's samples (m), comparable with the keys of `parts`."""

    def parts(self) -> Iterator[PoolPart]:
        """Iterate over the pool in parts, from its beginning."""

    def ranked(self, to: str) -> Iterator[Ranked]:
        """Iterate over the pool with similarities to the target."""


@dataclass(frozen=True)
class ScoreView:
    """Samples as patterns of heads (d = heads that are not NaN), or as the vectors of `sample_features`.

    A sample's levels |s| are divided by their mean over heads, because an easy sample has small gradients in all heads,
    regardless of which heads it uses. With `standardised`, each head is then centred and scaled by its mean and
    standard deviation over the pool. Otherwise heads that are strong on every text would dominate, and all samples
    would be similar. Standardised vectors are also centred over heads, so that their cosine is a correlation. Without
    `standardised`, the similarity is the plain cosine. A sample whose scores are all zero is excluded from the means,
    and its vector is zero. Features are treated in the same way, except that they are not divided by their mean.
    """

    sources: Sequence[Source]
    target_scores: xr.Dataset
    standardised: bool
    mean: Array
    scale: Array

    @classmethod
    def of(cls, sources: Sequence[Source], target: xr.Dataset, *, standardised: bool) -> ScoreView:
        """Create the view; if `standardised`, read the pool once for the heads' means and standard deviations."""
        heads = target["feature" if "feature" in target else "score"].isel(sample=0).size
        view = cls(sources, target, standardised, np.zeros(heads), np.ones(heads))
        if not standardised:
            return view
        read, n, total, squares = 0, 0, np.zeros(heads), np.zeros(heads)
        for source, _, part in score_rows(sources):
            _check_same_kind(part, target, source)
            levels = view.levels(part)
            read += len(levels)
            levels = levels[levels.any(axis=1)]
            n += len(levels)
            total += levels.sum(axis=0)
            squares += (levels**2).sum(axis=0)
        if not read:
            raise HeadnbError("the pool has no scores yet")
        mean = total / max(1, n)
        deviation = np.sqrt(np.maximum(squares / max(1, n) - mean**2, 0))
        # Below this a head is constant over samples, up to rounding.
        varies = deviation > 1e-6 * np.abs(mean)
        scale = np.divide(1, deviation, out=np.zeros(heads), where=varies)
        return cls(sources, target, standardised, mean, scale)

    @property
    def target_ids(self) -> Sequence[Any]:
        return list(self.target_scores["sample"].values.tolist())

    @property
    def target_keys(self) -> NDArray[np.int64]:
        return _fingerprints(self.target_scores)

    def parts(self) -> Iterator[PoolPart]:
        for source, positions, scores in score_rows(self.sources):
            _check_same_kind(scores, self.target_scores, source)
            ids = source.ids(scores["sample"].values.tolist())
            yield PoolPart(positions, ids, _fingerprints(scores), self.vectors(scores))

    def ranked(self, to: str) -> Iterator[Ranked]:
        target = self.vectors(self.target_scores)
        return (rank_part(part, target, to) for part in self.parts())

    def levels(self, scores: xr.Dataset) -> Array:
        """(b, layers x heads): levels divided by their mean over heads; 0 for missing heads. Or features (b, d)."""
        if "feature" in scores:
            return scores["feature"].to_numpy().astype(np.float64)
        levels = patterns.sample_levels(scores).transpose("sample", *patterns.HEADS)
        flat = np.nan_to_num(levels.values.reshape(levels.sizes["sample"], -1))
        size = np.abs(flat).mean(axis=1, keepdims=True)
        return np.asarray(np.divide(flat, size, out=np.zeros_like(flat), where=size > 0))

    def vectors(self, scores: xr.Dataset) -> Array:
        """(b, heads): unit vectors, or zero."""
        levels = self.levels(scores)
        if not self.standardised:
            return unit_rows(levels)
        standard = (levels - self.mean) * self.scale
        varies = self.scale > 0
        centre = standard.sum(axis=1, keepdims=True) / max(1, varies.sum())  # constant heads are 0
        return unit_rows(np.where(varies & levels.any(axis=1, keepdims=True), standard - centre, 0))


@dataclass(frozen=True)
class TextView:
    """Samples as TF-IDF vectors of prompt and completion, with the document frequencies of the pool."""

    sources: Sequence[Source]
    target: Task
    weights: TfIdf

    @classmethod
    def of(cls, sources: Sequence[Source], target: Task) -> TextView:
        """Create the view; read the pool once for its document frequencies."""
        texts = (sample_text(sample) for _, _, _, samples in text_rows(sources) for sample in samples)
        return cls(sources, target, TfIdf.of(texts))

    @property
    def target_ids(self) -> Sequence[Any]:
        return self.target.ids

    @property
    def target_keys(self) -> NDArray[np.int64]:
        return sample_keys(self.target.samples)

    def parts(self) -> Iterator[PoolPart]:
        for source, positions, ids, samples in text_rows(self.sources):
            yield PoolPart(positions, source.ids(ids), sample_keys(samples), self.vectors(samples))

    def ranked(self, to: str) -> Iterator[Ranked]:
        target = self.vectors(self.target.samples)
        return (rank_part(part, target, to) for part in self.parts())

    def vectors(self, samples: Sequence[Sample | TokenSample]) -> Vectors:
        return self.weights.vectors([sample_text(sample) for sample in samples])


@dataclass(frozen=True)
class RandomView:
    """Samples in random order, given as scores or as text."""

    sources: Sequence[Source]
    target: Task | xr.Dataset
    seed: int
    distinct: bool

    @property
    def target_ids(self) -> Sequence[Any]:
        return []

    @property
    def target_keys(self) -> NDArray[np.int64]:
        return sample_keys(self.target.samples) if isinstance(self.target, Task) else _fingerprints(self.target)

    def parts(self) -> Iterator[PoolPart]:
        if isinstance(self.target, Task):
            for source, positions, ids, samples in text_rows(self.sources):
                yield PoolPart(positions, source.ids(ids), sample_keys(samples), np.zeros((len(ids), 0)))
            return
        for source, positions, scores in score_rows(self.sources):
            own = scores["sample"].values.tolist()
            yield PoolPart(positions, source.ids(own), _fingerprints(scores), np.zeros((len(own), 0)))

    def ranked(self, to: str) -> Iterator[Ranked]:
        """Rank by a hash of seed and content, so that repeated samples are not more likely to be chosen."""
        del to
        for part in self.parts():
            ranks = _random_numbers(part.keys if self.distinct else part.positions, self.seed)
            unknown = np.full(len(ranks), np.nan)
            yield Ranked(part.positions, part.ids, part.keys, ranks, np.full(len(ranks), -1), unknown)


def _random_numbers(keys: NDArray[np.int64], seed: int) -> Array:
    """A number in [0, 1) per key, a function of key and seed only (splitmix64, Steele et al. 2014)."""
    start = np.random.default_rng(seed).integers(2**63, dtype=np.uint64)
    mixed = (keys.astype(np.uint64) + start) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray((mixed ^ (mixed >> np.uint64(31))) / 2.0**64)


def sample_text(sample: Sample | TokenSample) -> str:
    """The text of prompt and completion.

    Raises:
        HeadnbError: the sample is already encoded.
    """
    if isinstance(sample, TokenSample):
        raise HeadnbError("by='tfidf' needs text, but these samples are already encoded")
    parts = (sample.prompt, sample.completion)
    return "\n".join(part if isinstance(part, str) else "\n".join(map(message_text, part)) for part in parts)


def _fingerprints(scores: xr.Dataset) -> NDArray[np.int64]:
    if "fingerprint" not in scores:
        raise HeadnbError("these scores have no fingerprint, so equal samples cannot be detected; score them again")
    return np.asarray(scores["fingerprint"].values, np.int64)


def _check_same_kind(scores: xr.Dataset, target: xr.Dataset, source: Source) -> None:
    """Raise HeadnbError unless pool and target have the same model, score method (with its settings) and heads."""
    check_same_revision(target.attrs, scores.attrs)
    where = source.name or str(scores.attrs.get("task", "the pool"))
    known = all("model_fingerprint" in each.attrs for each in (target, scores))
    for name in ("model_fingerprint" if known else "model", "method", "projection", "warmup"):
        one, other = target.attrs.get(name), scores.attrs.get(name)
        if one != other:
            raise HeadnbError(
                f"target and pool cannot be compared: {name} is {one!r} in the target and {other!r} in {where}"
            )
    if target.attrs.get("method") == "less" and (_is_update(target) or not _is_update(scores)):
        raise HeadnbError(
            f"by='less' compares gradients of the target with Adam updates of the pool; compute {where} with "
            "sample_features(..., candidates=True) and the target without it"
        )
    dims = ["dimension"] if "feature" in target else patterns.HEADS
    if any(not target.get_index(dim).equals(scores.get_index(dim)) for dim in dims):
        raise HeadnbError(f"target and pool cannot be compared: {where} has scores of different heads")


def _is_update(features: xr.Dataset) -> bool:
    """Whether features of the kind "less" are Adam updates, those of a pool, instead of gradients."""
    return bool(json.loads(features.attrs["settings"])["candidates"])
