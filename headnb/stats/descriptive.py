"""Statistics of activation patterns, as pure functions on numpy arrays.

The last axis of a *pattern* runs over heads (layers and heads flattened); functions vectorise over leading axes.
*Samples* are `(n, heads)`: one activation level per sample and head; their mean over samples is the pattern. Every
function skips NaN heads (layers without softmax heads). Noise-corrected estimates with intervals are in
`headnb.stats.jackknife`.
"""

from __future__ import annotations

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from headnb.errors import HeadnbError

Array = NDArray[np.float64]


def gini(levels: ArrayLike) -> Array:
    """Gini coefficient over the heads: 0 if all heads are equal, (H - 1) / H if one head has everything.

    The coefficient is the mean absolute difference of all pairs of heads (including a head with itself), divided by
    twice the mean. NaN if every level is zero.

    Raises:
        HeadnbError: a negative level; the coefficient is not defined on signed scores or differences.
    """
    levels = np.asarray(levels, dtype=np.float64)
    if np.any(levels < 0):
        raise HeadnbError("the Gini coefficient needs activation levels (>= 0); these values are signed")
    ascending = np.sort(levels, axis=-1)  # NaN last
    heads = np.sum(~np.isnan(levels), axis=-1, keepdims=True)
    weights = 2 * np.arange(1, levels.shape[-1] + 1) - heads - 1
    return _ratio(np.nansum(weights * ascending, axis=-1), heads[..., 0] * np.nansum(ascending, axis=-1))


def coefficient_of_variation(levels: ArrayLike) -> Array:
    """Population standard deviation (ddof 0) over the heads, divided by their mean. NaN if the mean is zero."""
    levels = np.asarray(levels, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        variation = np.asarray(scipy.stats.variation(levels, axis=-1, nan_policy="omit"), dtype=np.float64)
    return np.where(np.isfinite(variation), variation, np.nan)


def kurtosis(levels: ArrayLike) -> Array:
    """Excess kurtosis over the heads, m4 / m2^2 - 3 with population moments ("biased"; 0 for a normal distribution).

    NaN if the pattern is constant.
    """
    levels = np.asarray(levels, dtype=np.float64)
    central = _central(levels)
    m2 = _mean(central**2)
    return _ratio(_mean(central**4), m2**2) - 3


def correlation(first: ArrayLike, second: ArrayLike, kind: str = "pearson") -> Array:
    """Pearson or Spearman correlation over the heads that both patterns have. NaN if a pattern is constant."""
    a, b = np.broadcast_arrays(np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64))
    missing = np.isnan(a) | np.isnan(b)
    a, b = np.where(missing, np.nan, a), np.where(missing, np.nan, b)
    if kind == "spearman":
        a, b = (np.asarray(scipy.stats.rankdata(x, axis=-1, nan_policy="omit"), dtype=np.float64) for x in (a, b))
    elif kind != "pearson":
        raise HeadnbError(f"unknown correlation {kind!r}; known: pearson, spearman")
    a, b = _central(a), _central(b)
    r = _ratio(np.nansum(a * b, axis=-1), np.sqrt(np.nansum(a * a, axis=-1) * np.nansum(b * b, axis=-1)))
    return np.clip(r, -1.0, 1.0)


def r_squared(target: ArrayLike, fitted: ArrayLike) -> Array:
    """1 - SSE / SS about the target's mean, over the heads that both have; negative if worse than that mean."""
    y, f = np.broadcast_arrays(np.asarray(target, dtype=np.float64), np.asarray(fitted, dtype=np.float64))
    y = np.where(np.isnan(f), np.nan, y)
    return 1 - _ratio(np.nansum((y - f) ** 2, axis=-1), np.nansum((y - _mean(y)[..., None]) ** 2, axis=-1))


def heads_present(samples: ArrayLike) -> Array:
    """Drop heads that are NaN in any sample: (n, heads) -> (n, heads present), float64."""
    values = np.asarray(samples)
    if values.ndim != 2:
        raise HeadnbError(f"expected an array of samples x heads, got {values.ndim} dimensions")
    return np.asarray(values[:, ~np.isnan(values).any(axis=0)], dtype=np.float64)


def _mean(values: Array) -> Array:
    """Mean over the last axis, ignoring NaN; NaN without a warning if all values are NaN."""
    return _ratio(np.nansum(values, axis=-1), np.sum(~np.isnan(values), axis=-1))


def _central(values: Array) -> Array:
    """Deviations from the mean over the last axis; zero if all values are equal up to rounding."""
    mean = _mean(values)[..., None]
    highest = np.fmax.reduce(values, axis=-1, keepdims=True, initial=-np.inf)
    lowest = np.fmin.reduce(values, axis=-1, keepdims=True, initial=np.inf)
    constant = highest - lowest <= 1e-12 * np.abs(mean)
    return np.where(constant & ~np.isnan(values), 0.0, values - mean)


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    numerator, denominator = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    undefined = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=undefined, where=denominator != 0))
