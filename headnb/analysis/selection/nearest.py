"""Streaming search for the samples of a large pool that are most similar to a target.

Samples are vectors of unit length, so the similarity is a scalar product. `views` defines the vectors (patterns of
heads, weighted words). The pool is read in parts, and only the vectors of the best samples so far are in memory. Of
every sample of the pool, `select` keeps two numbers: its key and its similarity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from headnb.stats.descriptive import Array

    Vectors: TypeAlias = Array | sparse.csr_array

# Rounding of matrix products depends on the number of rows; it must not decide between equal samples.
DECIMALS = 12


class PoolPart(NamedTuple):
    """A part of a pool: b samples."""

    positions: NDArray[np.int64]
    """(b): position in the pool; orders equally similar samples."""
    ids: NDArray[np.object_]
    keys: NDArray[np.int64]
    """(b): hash of the sample's content; equal for copies."""
    vectors: Vectors
    """(b, d), of unit length or zero."""


class Ranked(NamedTuple):
    """Samples (b) with their similarities; NaN and -1 if nothing was compared."""

    positions: NDArray[np.int64]
    ids: NDArray[np.object_]
    keys: NDArray[np.int64]
    similarity: Array
    nearest: NDArray[np.int64]
    """(b): index of the most similar sample of the target."""
    nearest_similarity: Array

    def take(self, rows: NDArray[np.int64]) -> Ranked:
        """The samples in these rows, in this order."""
        columns: Any = (column[rows] for column in self)
        return Ranked(*columns)

    def concat(self, other: Ranked) -> Ranked:
        """These samples, followed by the other samples."""
        columns: Any = (np.concatenate(pair) for pair in zip(self, other, strict=True))
        return Ranked(*columns)


def rank_part(part: PoolPart, target: Vectors, to: str) -> Ranked:
    """Compute the similarities of a part's samples to the target.

    Args:
        part: a part of the pool.
        target: (m, d), unit vectors.
        to: "mean": cosine to the mean of the target's vectors; "nearest": largest cosine to any of them.
    """
    cosines = np.round(dense(part.vectors @ target.T), DECIMALS)  # (b, m)
    nearest = cosines.argmax(axis=1)
    nearest_similarity = cosines[np.arange(len(cosines)), nearest]
    similarity = nearest_similarity
    if to == "mean":
        centre = unit_rows(dense(target).mean(axis=0, keepdims=True))
        similarity = np.round(dense(part.vectors @ centre.T)[:, 0], DECIMALS)
    return Ranked(part.positions, part.ids, part.keys, similarity, nearest, nearest_similarity)


def select_best(parts: Iterable[Ranked], count: int, *, without: NDArray[np.int64], deduplicate: bool) -> Ranked | None:
    """The `count` most similar samples, ties in the order of the pool; None for an empty pool.

    Args:
        parts: all samples of the pool, in any order.
        count: number of samples; fewer are returned if the pool has fewer.
        without: keys of samples to skip.
        deduplicate: use only the best of the samples with the same key.
    """
    best: Ranked | None = None
    for part in parts:
        new = part.take(np.flatnonzero(~np.isin(part.keys, without)))
        both = new if best is None else best.concat(new)
        order = np.lexsort((both.positions, -both.similarity))
        if deduplicate:
            _, first = np.unique(both.keys[order], return_index=True)
            order = order[np.sort(first)]
        best = both.take(order[:count])
    return best


def gather_vectors(parts: Iterable[PoolPart], positions: NDArray[np.int64]) -> Vectors:
    """The vectors of the samples at these positions of the pool, in this order: (len(positions), d)."""
    vectors, found = [], []
    for part in parts:
        wanted = np.flatnonzero(np.isin(part.positions, positions))
        vectors.append(part.vectors[wanted])
        found.append(part.positions[wanted])
    rows = np.argsort(np.concatenate(found))[np.argsort(np.argsort(positions))]
    stacked = sparse.vstack(vectors, "csr") if sparse.issparse(vectors[0]) else np.concatenate(vectors)
    return stacked[rows]


def select_diverse(similarity: Array, vectors: Vectors, count: int, weight: float) -> NDArray[np.int64]:
    """Indices of `count` samples by maximal marginal relevance (Carbonell and Goldstein 1998), in the order of choice.

    The next sample maximises (1 - weight) * similarity - weight * (largest cosine to the samples chosen before).

    Args:
        similarity: (c), similarity to the target.
        vectors: (c, d), unit vectors.
        count: at most c.
        weight: weight of diversity, 0 to below 1.
    """
    available = np.ones(len(similarity), bool)
    redundancy = np.full(len(similarity), -np.inf)
    chosen: list[int] = []
    while len(chosen) < count:
        penalty = redundancy if chosen else np.zeros(len(similarity))
        best = int(np.where(available, (1 - weight) * similarity - weight * penalty, -np.inf).argmax())
        chosen.append(best)
        available[best] = False
        redundancy = np.maximum(redundancy, dense(vectors @ vectors[[best]].T)[:, 0])
    return np.array(chosen)


def unit_rows(vectors: Array) -> Array:
    """Scale the rows of (n, d) to length 1; rows of zeros stay zero and have similarity 0 to all samples."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0))


def dense(matrix: Vectors) -> Array:
    """The matrix as a numpy array."""
    return matrix if isinstance(matrix, np.ndarray) else np.asarray(matrix.toarray())
