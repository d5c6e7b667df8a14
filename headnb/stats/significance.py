"""Intervals and tests per head, for many heads at once.

`samples` and `differences` are (n, heads), one value per sample and head, everywhere. NaN heads give NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy

from headnb.call_checks import checked_level
from headnb.errors import HeadnbError
from headnb.stats.run_variance import crossed_means

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from headnb.stats.descriptive import Array

MAX_FLIPPED_GROUPS = 1024
MIN_TO_RESAMPLE = 5
FLIPS_PER_BATCH = 500


class HeadIntervals(NamedTuple):
    """Mean over the samples and its interval, each of shape (heads); the interval of one sample is NaN."""

    mean: Array
    low: Array
    high: Array


def t_intervals(samples: ArrayLike, level: float = 0.95) -> HeadIntervals:
    """Student's t interval of each head's mean, for differences, which are nearly symmetric."""
    level = checked_level(level)
    values = _checked_samples(samples, least=1)
    if len(values) == 1:
        return _no_intervals(values)
    mean, se = values.mean(axis=0), scipy.stats.sem(values, axis=0)
    half = scipy.stats.t.ppf((1 + level) / 2, len(values) - 1) * se
    return HeadIntervals(mean, mean - half, mean + half)


def crossed_intervals(values: ArrayLike, level: float = 0.95) -> HeadIntervals:
    """Intervals of means of values (runs, n, ...) with the same samples in every run (see `run_variance`)."""
    values = np.asarray(values, dtype=np.float64)
    means = crossed_means(values.reshape(*values.shape[:2], -1))
    return HeadIntervals(*(column.reshape(values.shape[2:]) for column in (means.mean, *means.intervals(level))))


def level_intervals(samples: ArrayLike, level: float = 0.95, resamples: int = 500, seed: int = 0) -> HeadIntervals:
    """Interval of each head's activation level: bootstrap-t with quantiles of t pooled over heads.

    Levels are skewed, because a few samples have large gradients in all heads. Student's t therefore covers only 84 to
    90 % instead of 95 % at n = 24 in simulations. The skew is similar in all heads, so its estimate is pooled. Below
    five samples the interval is Student's t: the few distinct resamples have standard errors near zero, which gives
    infinite or undefined quantiles of t.
    """
    level = checked_level(level)
    values = _checked_samples(samples, least=1)
    n = len(values)
    if n == 1:
        return _no_intervals(values)
    present = ~np.isnan(values).any(axis=0)
    mean, se = values.mean(axis=0), np.asarray(scipy.stats.sem(values, axis=0))
    if n < MIN_TO_RESAMPLE:
        _, low, high = t_intervals(values, level)
        return HeadIntervals(mean, np.where(mean >= 0, np.maximum(low, 0), low), high)
    varied = present & (se > 0)
    if not varied.any():
        return HeadIntervals(mean, mean.copy(), mean.copy())
    scaled = (values[:, varied] - mean[varied]) / se[varied]
    rng = np.random.default_rng(seed)
    t: list[Array] = []
    for start in range(0, resamples, 50):
        count = min(50, resamples - start)
        counts = rng.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float64)
        shift = counts @ scaled / n
        spread = np.sqrt(np.maximum(counts @ scaled**2 / n - shift**2, 0) / (n - 1))
        t.append(np.divide(shift, spread, out=np.full_like(shift, np.nan), where=spread > 0))
    low_t, high_t = np.nanquantile(np.concatenate(t), [(1 - level) / 2, (1 + level) / 2])
    low = mean - high_t * se
    return HeadIntervals(mean, np.where(mean >= 0, np.maximum(low, 0), low), mean - low_t * se)


def p_values(differences: ArrayLike) -> Array:
    """Two-sided paired t test of each head against no difference; 1 if all differences are zero."""
    values = _checked_samples(differences)
    constant = np.ptp(values, axis=0) == 0
    p = np.ones(values.shape[1])
    p[constant & (values[0] != 0)] = 0.0
    p[~constant] = scipy.stats.ttest_1samp(values[:, ~constant], 0).pvalue
    return np.where(np.isnan(values).any(axis=0), np.nan, p)


def q_values(p: ArrayLike) -> Array:
    """Benjamini-Hochberg adjusted p-values, over the heads that are not NaN."""
    p = np.asarray(p, dtype=np.float64)
    q = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        q[tested] = scipy.stats.false_discovery_control(p[tested])
    return q


def paired_tests(differences: ArrayLike, alpha: float) -> dict[str, NDArray[np.generic]]:
    """Columns of a paired comparison, each of shape (heads): see `headnb.compare`, which adds `p_max_t`."""
    intervals = t_intervals(differences, 1 - alpha)
    p = p_values(differences)
    q = q_values(p)
    return {
        "difference": intervals.mean,
        "low": intervals.low,
        "high": intervals.high,
        "p_value": p,
        "q_value": q,
        "significant": q < alpha,  # NaN heads: never
    }


def max_t_p_values(differences: ArrayLike, flips: int = 5000, seed: int = 0) -> Array:
    """Sign-flip max-T p-values: probability, if no head differs, that any head has at least this head's |t|.

    Flipping whole samples preserves the correlation between heads. The test is exact for differences that are symmetric
    about zero, such as those between two identical models. All 2^n sign patterns are used if these are at most `flips`
    (up to a global sign).
    """
    values = _checked_samples(differences)
    missing = np.isnan(values).any(axis=0)
    sums = _sums_of_groups(np.where(missing, 0, values), seed)
    norms = np.sqrt((sums**2).sum(axis=0))
    # With unit norm |t| grows with |sum|, so the largest |sum| over heads is the head of the largest |t|.
    scaled = np.divide(sums, norms, out=np.zeros_like(sums), where=norms > 0).astype(np.float32)
    largest = np.sort(
        np.concatenate([np.abs(signs @ scaled).max(axis=1) for signs in _sign_patterns(len(sums), flips, seed)])
    )
    observed = np.abs(scaled.sum(axis=0, dtype=np.float64)) * (1 - 1e-5)  # ties must not depend on float32 rounding
    at_least = len(largest) - np.searchsorted(largest, observed, side="left")
    exhaustive = len(largest) < flips
    p = at_least / len(largest) if exhaustive else (1 + at_least) / (1 + len(largest))
    return np.where(missing, np.nan, np.where(norms > 0, p, 1.0))


def sign_flip_p_value(differences: ArrayLike, flips: int = 5000, seed: int = 0) -> float:
    """One-sided sign-flip test of (n) differences: probability of a sum at least this large under symmetry about zero.

    All 2^n sign patterns are used if half of them are at most `flips`. 1 if a difference is NaN.
    """
    values = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(values).all() or not values.any():
        return 1.0
    values = values / np.abs(values).max()
    sums = np.concatenate([signs @ values for signs in _sign_patterns(len(values), flips, seed)])
    observed = float(values.sum()) - 1e-9 * len(values)  # ties must not depend on rounding
    if len(sums) < flips or 2 ** (len(values) - 1) == flips:  # every pattern once up to a global sign
        return float(((sums >= observed).sum() + (-sums >= observed).sum()) / (2 * len(sums)))
    return float((1 + (sums >= observed).sum()) / (1 + len(sums)))


def rank_intervals(
    samples: ArrayLike, heads: Sequence[int], level: float = 0.95, flips: int = 1000, seed: int = 0
) -> NDArray[np.int64]:
    """Interval of the rank (1 = largest) of each of the chosen heads: (len(heads), 2).

    A sign-flip max-T test of paired differences determines which heads are significantly above and below a head. The
    head's rank lies between these (Mogstad, Romano, Shaikh and Wilhelm 2024, "Inference for Ranks"). The intervals are
    valid for heads of similar level.
    """
    level = checked_level(level)
    values = _checked_samples(samples, least=1)
    missing = np.isnan(values).any(axis=0)
    sums = _sums_of_groups(np.where(missing, 0, values), seed)
    sums = sums / (np.abs(sums).max() or 1.0)
    flipped = np.concatenate([signs @ sums for signs in _sign_patterns(len(sums), flips, seed)])
    present = int((~missing).sum())
    ranks = np.empty((len(heads), 2), dtype=np.int64)
    for row, head in enumerate(heads):
        norms = np.sqrt(((sums - sums[:, [head]]) ** 2).sum(axis=0))
        comparable = (norms > 0) & ~missing
        statistics = (flipped - flipped[:, [head]])[:, comparable] / norms[comparable]
        critical = np.quantile(np.abs(statistics).max(axis=1), level, method="higher") if comparable.any() else 0.0
        observed = (sums - sums[:, [head]]).sum(axis=0)[comparable] / norms[comparable]
        ranks[row] = 1 + (observed > critical).sum(), present - (observed < -critical).sum()
    return ranks


def _no_intervals(values: Array) -> HeadIntervals:
    return HeadIntervals(values[0], np.full_like(values[0], np.nan), np.full_like(values[0], np.nan))


def _checked_samples(samples: ArrayLike, least: int = 2) -> Array:
    values = np.asarray(samples, dtype=np.float64)
    if values.ndim != 2:
        raise HeadnbError(f"expected an array of samples x heads, got {values.ndim} dimensions")
    if len(values) < least:
        raise HeadnbError(f"expected at least {least} samples, got {len(values)}")
    return values


def _sums_of_groups(values: Array, seed: int) -> Array:
    """Sums over random groups, if there are many samples: equally valid, and closer to symmetric."""
    n = len(values)
    if n <= MAX_FLIPPED_GROUPS:
        return values
    starts = np.arange(MAX_FLIPPED_GROUPS) * n // MAX_FLIPPED_GROUPS
    return np.asarray(np.add.reduceat(values[np.random.default_rng(seed).permutation(n)], starts, axis=0))


def _sign_patterns(n: int, flips: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """Rows of +1 and -1: all patterns up to a global sign if these are at most `flips`, else random patterns."""
    if n <= 30 and 2 ** (n - 1) <= flips:
        patterns = np.arange(2 ** (n - 1))[:, None] >> np.arange(n) & 1
        yield (1 - 2 * patterns).astype(np.float32)
        return
    rng = np.random.default_rng(seed)
    for start in range(0, flips, FLIPS_PER_BATCH):
        bits = rng.integers(0, 2, (min(FLIPS_PER_BATCH, flips - start), n), dtype=np.int8)
        yield (1 - 2 * bits).astype(np.float32)
