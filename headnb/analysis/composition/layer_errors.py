"""Errors of each layer predicted from the other layers: pure functions on products of patterns.

`products` is (..., layers, q, q) everywhere. The first z patterns are Z, which every prediction uses; the pattern after
them is the predicted one. Z is regressed out once (Frisch-Waugh-Lovell), so that sets of the remaining patterns are
compared with small matrices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headnb.stats.descriptive import Array

_MIN_EIGENVALUE = 1e-3  # of the products of unit-length patterns; below it patterns count as linearly dependent


class Residuals(NamedTuple):
    """Products of the other patterns' residuals after Z, (..., layers, q - z, q - z); the predicted one first."""

    training: Array  # summed over the other layers
    held_out: Array  # of the layer itself, with the weights fitted to the other layers


def independent_combinations(products: Array) -> Array:
    """Linearly independent combinations of patterns, (z, r), from their (z, z) products over all heads."""
    scale = np.sqrt(np.where(np.diag(products) > 0, np.diag(products), np.inf))
    values, vectors = np.linalg.eigh(products / np.outer(scale, scale))
    return np.asarray(vectors[:, values > _MIN_EIGENVALUE] / scale[:, None])


def regress_out(products: Array, z: int, combinations: Array) -> Residuals:
    """Regress the first `z` patterns out of the others, using their `independent_combinations` (z, r)."""
    rest = products.shape[-1] - z
    r = combinations.shape[1]
    turn = np.zeros((z + rest, r + rest))
    turn[:z, :r], turn[z:, r:] = combinations, np.eye(rest)
    own = turn.T @ products @ turn
    others = own.sum(axis=-3, keepdims=True) - own
    weights = np.linalg.solve(others[..., :r, :r], others[..., :r, r:])  # (..., layers, r, rest)
    turned = np.swapaxes(weights, -1, -2)
    crossed = turned @ own[..., :r, r:]
    held_out = own[..., r:, r:] - crossed - np.swapaxes(crossed, -1, -2) + turned @ own[..., :r, :r] @ weights
    return Residuals(others[..., r:, r:] - others[..., r:, :r] @ weights, held_out)


def prediction_errors(residuals: Residuals, predictors: Sequence[int]) -> Array:
    """(..., layers): squared errors of the predicted pattern; NaN if the predictors are dependent or only noise."""
    learnt, held_out = residuals
    rows = list(predictors)
    if not rows:
        return np.asarray(held_out[..., 0, 0])
    gram, long = _unit_length(learnt[..., rows, :][..., rows])
    usable = long & (np.linalg.eigvalsh(gram)[..., 0] > _MIN_EIGENVALUE)
    gram = np.where(usable[..., None, None], gram, np.eye(len(rows)))
    length = np.sqrt(np.where(usable[..., None], _diagonal(learnt)[..., rows], 1))
    weights = np.linalg.solve(gram, (learnt[..., rows, 0] / length)[..., None])[..., 0] / length
    crossed = (weights * held_out[..., rows, 0]).sum(axis=-1)
    squares = np.einsum("...i,...ij,...j->...", weights, held_out[..., rows, :][..., rows], weights)
    return np.where(usable, held_out[..., 0, 0] - 2 * crossed + squares, np.nan)


def condition_after_regression(products: Array, z: int, combinations: Array, predictors: Sequence[int]) -> float:
    """Condition number of the predictors' unit-length residuals after Z, over all heads; infinite if only noise."""
    total = products.sum(axis=0)
    Z = combinations.T @ total[:z, :z] @ combinations
    crossed = combinations.T @ total[:z, z:]
    left = (total[z:, z:] - crossed.T @ np.linalg.solve(Z, crossed))[np.ix_(predictors, predictors)]
    gram, usable = _unit_length(left)
    values = np.linalg.eigvalsh(gram)
    return float(np.sqrt(values[-1] / values[0])) if usable and values[0] > 0 else np.inf


def _unit_length(gram: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Products of unit-length patterns, and whether all lengths are positive; the identity where they are not."""
    squares = _diagonal(gram)
    usable = np.asarray((squares > 0).all(axis=-1))
    length = np.sqrt(np.where(usable[..., None], squares, 1))
    scaled = gram / length[..., :, None] / length[..., None, :]
    return np.where(usable[..., None, None], scaled, np.eye(gram.shape[-1])), usable


def _diagonal(gram: Array) -> Array:
    return np.asarray(np.diagonal(gram, axis1=-2, axis2=-1))
