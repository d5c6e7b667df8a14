"""Errors of each layer predicted from the other layers: pure functions on products of patterns.

Everywhere `products` is (..., layers, q, q). The first patterns are Z, which every prediction may use; the pattern
behind them is the one that is predicted. Z is taken out once (Frisch, Waugh and Lovell), then sets of the other
patterns are compared by small matrices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headnb.stats.descriptive import Array

_MIN_EIGENVALUE = 1e-3  # of products at unit length; below it noise decides, and patterns count as dependent


class Residuals(NamedTuple):
    """Products of what Z leaves of the other patterns, (..., layers, q - z, q - z); the first is the predicted one."""

    training: Array  # over the other layers
    held_out: Array  # over the layer itself, by the weights of the others


def independent_combinations(products: Array) -> Array:
    """(z, z) products over all heads -> (z, r): combinations of the patterns, without what noise alone tells apart."""
    scale = np.sqrt(np.where(np.diag(products) > 0, np.diag(products), np.inf))
    values, vectors = np.linalg.eigh(products / np.outer(scale, scale))
    return np.asarray(vectors[:, values > _MIN_EIGENVALUE] / scale[:, None])


def regress_out(products: Array, z: int, combinations: Array) -> Residuals:
    """What the first `z` patterns, as `independent_combinations` combinations of them (z, r), leave of the others."""
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
    """(..., layers): squared errors of the predicted pattern; NaN where the predictors are dependent or only noise."""
    learnt, held_out = residuals
    places = list(predictors)
    if not places:
        return np.asarray(held_out[..., 0, 0])
    gram, long = _unit_length(learnt[..., places, :][..., places])
    usable = long & (np.linalg.eigvalsh(gram)[..., 0] > _MIN_EIGENVALUE)
    gram = np.where(usable[..., None, None], gram, np.eye(len(places)))
    length = np.sqrt(np.where(usable[..., None], _diagonal(learnt)[..., places], 1))
    weights = np.linalg.solve(gram, (learnt[..., places, 0] / length)[..., None])[..., 0] / length
    crossed = (weights * held_out[..., places, 0]).sum(axis=-1)
    squares = np.einsum("...i,...ij,...j->...", weights, held_out[..., places, :][..., places], weights)
    return np.where(usable, held_out[..., 0, 0] - 2 * crossed + squares, np.nan)


def condition_after_regression(products: Array, z: int, combinations: Array, predictors: Sequence[int]) -> float:
    """Condition number, at unit length, of what Z leaves of the predictors over all heads; infinite if only noise."""
    total = products.sum(axis=0)
    Z = combinations.T @ total[:z, :z] @ combinations
    crossed = combinations.T @ total[:z, z:]
    left = (total[z:, z:] - crossed.T @ np.linalg.solve(Z, crossed))[np.ix_(predictors, predictors)]
    gram, usable = _unit_length(left)
    values = np.linalg.eigvalsh(gram)
    return float(np.sqrt(values[-1] / values[0])) if usable and values[0] > 0 else np.inf


def _unit_length(gram: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Products at unit length, and where there is a length to divide by; the identity elsewhere."""
    squares = _diagonal(gram)
    usable = np.asarray((squares > 0).all(axis=-1))
    length = np.sqrt(np.where(usable[..., None], squares, 1))
    scaled = gram / length[..., :, None] / length[..., None, :]
    return np.where(usable[..., None, None], scaled, np.eye(gram.shape[-1])), usable


def _diagonal(gram: Array) -> Array:
    return np.asarray(np.diagonal(gram, axis1=-2, axis2=-1))
