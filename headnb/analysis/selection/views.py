"""Three views of a pool and a target in which samples can be alike: patterns of heads, words, and none at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headnb.analysis.selection.nearest import PoolPart, Ranked, rank_part, unit_rows
from headnb.analysis.selection.pools import Source, sample_keys, score_rows, text_rows
from headnb.analysis.selection.tfidf import TfIdf
from headnb.errors import HeadnbError
from headnb.stats import patterns
from headnb.tasks.loading import Task
from headnb.tasks.samples import Sample, TokenSample, message_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from headnb.analysis.selection.nearest import Vectors
    from headnb.stats.descriptive import Array


class View(Protocol):
    """The pool as vectors, with the target beside it."""

    @property
    def target_ids(self) -> Sequence[Any]:
        """(m)."""

    @property
    def target_keys(self) -> NDArray[np.int64]:
        """(m), comparable with the parts'."""

    def parts(self) -> Iterator[PoolPart]:
        """The pool, from its beginning."""

    def ranked(self, to: str) -> Iterator[Ranked]:
        """The pool compared with the target."""


@dataclass(frozen=True)
class PatternView:
    """Samples as patterns of heads (d = heads that are not NaN).

    A sample's levels |s| are divided by their mean over heads: a sample that the model finds easy has small gradients
    in all heads, which says nothing about which heads it uses. With `standardised` each head then has its mean over
    the pool subtracted and is divided by its standard deviation there: some heads are strong on every text, and left
    as they are these would decide that everything is like everything. Vectors are then centred over heads, which makes
    their cosine a correlation. Else the levels stay as they are, and their plain cosine is taken. A sample whose scores
    are all zero has no pattern: it is in no mean, and its vector is zero.
    """

    sources: Sequence[Source]
    target_scores: xr.Dataset
    standardised: bool
    mean: Array
    scale: Array

    @classmethod
    def of(cls, sources: Sequence[Source], target: xr.Dataset, *, standardised: bool) -> PatternView:
        """Reads the pool once, for the heads' means and standard deviations, if they are wanted."""
        heads = target.sizes["layer"] * target.sizes["head"]
        view = cls(sources, target, standardised, np.zeros(heads), np.ones(heads))
        if not standardised:
            return view
        read, n, total, squares = 0, 0, np.zeros(heads), np.zeros(heads)
        for _, _, part in score_rows(sources):
            levels = view.levels(part)
            read += len(levels)
            levels = levels[levels.any(axis=1)]
            n += len(levels)
            total += levels.sum(axis=0)
            squares += (levels**2).sum(axis=0)
        if not read:
            raise HeadnbError("the pool holds no scores yet")
        mean = total / max(1, n)
        deviation = np.sqrt(np.maximum(squares / max(1, n) - mean**2, 0))
        # Below this a head is the same on all samples, but for rounding.
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
        """(b, layers x heads) of the mean head; 0 for a head that does not exist."""
        levels = patterns.sample_levels(scores).transpose("sample", *patterns.HEADS)
        flat = np.nan_to_num(levels.values.reshape(levels.sizes["sample"], -1))
        size = np.abs(flat).mean(axis=1, keepdims=True)
        return np.asarray(np.divide(flat, size, out=np.zeros_like(flat), where=size > 0))

    def vectors(self, scores: xr.Dataset) -> Array:
        """(b, heads), of unit length."""
        levels = self.levels(scores)
        if not self.standardised:
            return unit_rows(levels)
        standard = (levels - self.mean) * self.scale
        varies = self.scale > 0
        centre = standard.sum(axis=1, keepdims=True) / max(1, varies.sum())  # the other heads are 0
        return unit_rows(np.where(varies & levels.any(axis=1, keepdims=True), standard - centre, 0))


@dataclass(frozen=True)
class TextView:
    """Samples as weighted words of prompt and completion; word frequencies are the pool's."""

    sources: Sequence[Source]
    target: Task
    weights: TfIdf

    @classmethod
    def of(cls, sources: Sequence[Source], target: Task) -> TextView:
        """Reads the pool once, for its words."""
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
    """Samples in random order, from scores or from text."""

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
        """Ranked by a hash of seed and content: a sample that is there twice is no likelier than others."""
        del to
        for part in self.parts():
            draws = _draws(part.keys if self.distinct else part.positions, self.seed)
            nothing = np.full(len(draws), np.nan)
            yield Ranked(part.positions, part.ids, part.keys, draws, np.full(len(draws), -1), nothing)


def _draws(keys: NDArray[np.int64], seed: int) -> Array:
    """A number in [0, 1) of each key and the seed, wherever the key stands (splitmix64, Steele et al. 2014)."""
    start = np.random.default_rng(seed).integers(2**63, dtype=np.uint64)
    mixed = (keys.astype(np.uint64) + start) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray((mixed ^ (mixed >> np.uint64(31))) / 2.0**64)


def sample_text(sample: Sample | TokenSample) -> str:
    """The words of prompt and completion.

    Raises:
        HeadnbError: a sample that is encoded already.
    """
    if isinstance(sample, TokenSample):
        raise HeadnbError("by='tfidf' compares text, and these samples are encoded already")
    parts = (sample.prompt, sample.completion)
    return "\n".join(part if isinstance(part, str) else "\n".join(map(message_text, part)) for part in parts)


def _fingerprints(scores: xr.Dataset) -> NDArray[np.int64]:
    if "fingerprint" not in scores:
        raise HeadnbError("these scores do not say which samples are the same (no fingerprint); score them again")
    return np.asarray(scores["fingerprint"].values, np.int64)


def _check_same_kind(scores: xr.Dataset, target: xr.Dataset, source: Source) -> None:
    """Patterns are alike only if they are of the same heads and the same score."""
    where = source.name or str(scores.attrs.get("task", "the pool"))
    for name in ("model", "model_fingerprint", "method"):
        one, other = target.attrs.get(name), scores.attrs.get(name)
        if one != other:
            raise HeadnbError(f"target and pool cannot be compared: {name} is {one!r} there and {other!r} in {where}")
    if any(not target.get_index(dim).equals(scores.get_index(dim)) for dim in patterns.HEADS):
        raise HeadnbError(f"target and pool cannot be compared: {where} has scores of other heads")
