"""Least squares over heads, with and without non-negative weights: pure functions on arrays.

`X` is (heads, basics), `y` is (heads), and `layers` is (heads), the layer of each head, everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import nnls

from headnb.stats import descriptive

if TYPE_CHECKING:
    from headnb.analysis.debiased_products import Products
    from headnb.stats.descriptive import Array


@dataclass(frozen=True)
class Form:
    """Form of a fit: y = constant + X weights; constant 0 without `intercept`, weights >= 0 if `nonnegative`."""

    nonnegative: bool = True
    intercept: bool = False

    def fit(self, X: Array, y: Array) -> tuple[Array, float]:
        """Least-squares weights (basics) and constant."""
        x_mean, y_mean = (X.mean(axis=0), float(y.mean())) if self.intercept else (np.zeros(X.shape[1]), 0.0)
        weights = _solve(X - x_mean, y - y_mean, nonnegative=self.nonnegative)
        return weights, float(y_mean - x_mean @ weights)

    def fit_products(self, products: Products, target: Array, columns: Array) -> tuple[Array, float]:
        """Weights and R^2 of the fit determined by mean products over heads; NaN if they do not determine a fit.

        Args:
            products: products of q patterns.
            target: (q), the combination of these patterns that is fitted.
            columns: (q, k), the combinations that are the predictors.
        """
        M = products.about_mean if self.intercept else products.about_zero
        G, c, yy = columns.T @ M @ columns, columns.T @ M @ target, target @ M @ target
        total = float(target @ products.about_mean @ target)
        scale = np.sqrt(np.diag(G)) if (np.diag(G) > 0).all() else np.full(len(G), np.nan)
        G, c = G / np.outer(scale, scale), c / scale
        # After noise correction a predictor may have no length left, or two predictors may be collinear.
        if not total > 0 or not np.isfinite(G).all() or np.linalg.eigvalsh(G)[0] < 1e-6:
            return np.full(len(G), np.nan), np.nan
        root = np.linalg.cholesky(G)
        weights = _solve(np.asarray(root.T), np.asarray(np.linalg.solve(root, c)), nonnegative=self.nonnegative)
        return weights / scale, float(1 - (yy - 2 * weights @ c + weights @ G @ weights) / total)


def r_squared(X: Array, y: Array, form: Form) -> float:
    """1 - SSE / SS about the mean of y; negative values are possible without an intercept."""
    weights, constant = form.fit(X, y)
    return float(descriptive.r_squared(y, constant + X @ weights))


def uncentred_r_squared(y: Array, fitted: Array) -> float:
    """1 - SSE / sum of squares of y; patterns that merely shrink reach 0.8, so it is high even without composition."""
    squares = float((y**2).sum())
    return 1 - float(((y - fitted) ** 2).sum()) / squares if squares > 0 else np.nan


def predicted_across_layers(X: Array, y: Array, layers: Array, form: Form) -> Array:
    """(heads): each layer predicted by the fit to all other layers; NaN if there is only one layer."""
    predicted = np.full(len(y), np.nan)
    for layer in np.unique(layers) if len(np.unique(layers)) > 1 else []:
        held_out = layers == layer
        weights, constant = form.fit(X[~held_out], y[~held_out])
        predicted[held_out] = constant + X[held_out] @ weights
    return predicted


def permuted_r_squared(X: Array, y: Array, layers: Array, form: Form, permutations: int = 1000, seed: int = 0) -> Array:
    """(permutations): R^2 of fits to the target with its heads shuffled within layers; NaN for a constant target."""
    total = ((y - y.mean()) ** 2).sum()
    if not total:
        return np.full(permutations, np.nan)
    rng = np.random.default_rng(seed)
    order = np.argsort(layers, kind="stable")
    X, y, layers = X[order], y[order], layers[order]
    keys = rng.random((permutations, len(y))) + np.searchsorted(np.unique(layers), layers)
    shuffled = y[np.argsort(keys, axis=1)]  # (permutations, heads)
    if form.intercept:
        X = X - X.mean(axis=0)
    target = shuffled - y.mean() if form.intercept else shuffled
    Q, R = np.linalg.qr(X)
    errors = [_solve_error(R, projection, nonnegative=form.nonnegative) for projection in target @ Q]
    sse = (target**2).sum(axis=1) - ((target @ Q) ** 2).sum(axis=1) + np.array(errors)
    return np.asarray(1 - sse / total)


def condition_number(X: Array, form: Form) -> float:
    """Condition number of the unit-length predictors (Belsley et al. 1980): 1 if orthogonal; above 30 collinear."""
    X = X - X.mean(axis=0) if form.intercept else X
    norms = np.linalg.norm(X, axis=0)
    return float(np.linalg.cond(X / norms)) if (norms > 0).all() else np.inf


def _solve(A: Array, b: Array, *, nonnegative: bool) -> Array:
    return np.asarray(nnls(A, b)[0] if nonnegative else np.linalg.lstsq(A, b, rcond=None)[0])


def _solve_error(A: Array, b: Array, *, nonnegative: bool) -> float:
    return float(((b - A @ _solve(A, b, nonnegative=nonnegative)) ** 2).sum())
