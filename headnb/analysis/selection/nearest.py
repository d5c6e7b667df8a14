"""The samples of a large pool that are most like a target's few, read part by part in bounded memory.

A sample is a vector of unit length, so a similarity is a scalar product: what the vectors are (patterns of heads,
weighted words) is decided elsewhere. Of each part only what is among the best so far is kept, so memory grows with the
number of samples chosen, not with the pool.
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

# Matrix products round differently with the number of rows; that must not decide between equal samples.
DECIMALS = 12


class PoolPart(NamedTuple):
    """Some samples (b) of a pool."""

    positions: NDArray[np.int64]
    """Where each is in the pool: decides between equally similar ones."""
    ids: NDArray[np.object_]
    keys: NDArray[np.int64]
    """Hashes of what the samples hold: equal for copies."""
    vectors: Vectors
    """(b, d), of unit length or zero."""


class Ranked(NamedTuple):
    """Samples (b) with what they were ranked by; NaN and -1 where nothing was compared."""

    positions: NDArray[np.int64]
    ids: NDArray[np.object_]
    keys: NDArray[np.int64]
    similarity: Array
    nearest: NDArray[np.int64]
    """Which of the target's samples is most like it."""
    nearest_similarity: Array

    def take(self, places: NDArray[np.int64]) -> Ranked:
        """Some of them, in this order."""
        columns: Any = (column[places] for column in self)
        return Ranked(*columns)

    def concat(self, other: Ranked) -> Ranked:
        """These, and the others behind them."""
        columns: Any = (np.concatenate(pair) for pair in zip(self, other, strict=True))
        return Ranked(*columns)


def rank_part(part: PoolPart, target: Vectors, to: str) -> Ranked:
    """Similarities of a part's samples to the target's (m, d).

    Args:
        part: of the pool.
        target: unit vectors.
        to: "mean": the cosine to the mean of the target's vectors; "nearest": the largest of the cosines to each.
    """
    each = np.round(dense(part.vectors @ target.T), DECIMALS)  # (b, m)
    nearest = each.argmax(axis=1)
    nearest_similarity = each[np.arange(len(each)), nearest]
    similarity = nearest_similarity
    if to == "mean":
        centre = unit_rows(dense(target).mean(axis=0, keepdims=True))
        similarity = np.round(dense(part.vectors @ centre.T)[:, 0], DECIMALS)
    return Ranked(part.positions, part.ids, part.keys, similarity, nearest, nearest_similarity)


def select_best(parts: Iterable[Ranked], count: int, *, without: NDArray[np.int64], deduplicate: bool) -> Ranked | None:
    """The `count` most similar samples, the earlier first among equals; None of an empty pool.

    Args:
        parts: all samples of the pool, in any order.
        count: how many, or fewer if there are not so many.
        without: keys of samples that are passed over.
        deduplicate: of samples with the same key, keep the best only.
    """
    kept: Ranked | None = None
    for part in parts:
        new = part.take(np.flatnonzero(~np.isin(part.keys, without)))
        both = new if kept is None else kept.concat(new)
        order = np.lexsort((both.positions, -both.similarity))
        if deduplicate:
            _, first = np.unique(both.keys[order], return_index=True)
            order = order[np.sort(first)]
        kept = both.take(order[:count])
    return kept


def gather_vectors(parts: Iterable[PoolPart], positions: NDArray[np.int64]) -> Vectors:
    """The vectors of the samples at these positions of the pool, in this order: (len(positions), d)."""
    found, places = [], []
    for part in parts:
        wanted = np.flatnonzero(np.isin(part.positions, positions))
        found.append(part.vectors[wanted])
        places.append(part.positions[wanted])
    rows = np.argsort(np.concatenate(places))[np.argsort(np.argsort(positions))]
    stacked = sparse.vstack(found, "csr") if sparse.issparse(found[0]) else np.concatenate(found)
    return stacked[rows]


def select_diverse(similarity: Array, vectors: Vectors, count: int, weight: float) -> NDArray[np.int64]:
    """Places of `count` samples by maximal marginal relevance (Carbonell and Goldstein 1998), in the order chosen.

    Each next one has the largest (1 - weight) * similarity - weight * (largest cosine to those chosen already).

    Args:
        similarity: (c), to the target.
        vectors: (c, d), of unit length.
        count: at most c.
        weight: of diversity, 0 to below 1.
    """
    left = np.ones(len(similarity), bool)
    redundancy = np.full(len(similarity), -np.inf)
    chosen: list[int] = []
    while len(chosen) < count:
        penalty = redundancy if chosen else np.zeros(len(similarity))
        place = int(np.where(left, (1 - weight) * similarity - weight * penalty, -np.inf).argmax())
        chosen.append(place)
        left[place] = False
        redundancy = np.maximum(redundancy, dense(vectors @ vectors[[place]].T)[:, 0])
    return np.array(chosen)


def unit_rows(vectors: Array) -> Array:
    """Rows (n, d) at length 1; a row of zeros stays one, and is like nothing."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0))


def dense(matrix: Vectors) -> Array:
    """The matrix as a numpy array."""
    return matrix if isinstance(matrix, np.ndarray) else np.asarray(matrix.toarray())
