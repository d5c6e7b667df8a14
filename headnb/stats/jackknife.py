"""Noise-corrected estimates of statistics over heads, with jackknife intervals over samples.

Noise in a pattern inflates Gini, coefficient of variation and kurtosis, and attenuates correlations. With 24 samples
this bias exceeds the width of a naive interval. Each estimate is therefore corrected twice. Moments over heads use
products of *different* samples, whose noise is independent, so that squared noise does not enter. A jackknife over
samples (never over heads) removes the remaining bias and gives the interval. Above `MAX_JACKKNIFE_GROUPS` samples it
deletes random groups instead of single samples (delete-m_j jackknife, Busing, Meijer and van der Leeden 1999).
tests/simulation/test_statistics.py measures the coverage of the intervals.

`samples` is (n, heads) everywhere: one activation level per sample and head. NaN heads are skipped.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy

from headnb.call_checks import checked_level
from headnb.errors import HeadnbError
from headnb.stats import descriptive
from headnb.stats.descriptive import heads_present
from headnb.stats.estimates import Estimate
from headnb.stats.reliability import MIN_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    from headnb.stats.descriptive import Array

    Statistic = Callable[[Array, Array], Array]  # sums (k, features, heads), sample counts (k, 1) -> values (k)

MAX_JACKKNIFE_GROUPS = 256


class Jackknifed(NamedTuple):
    """A bias-corrected value, its standard error, and the degrees of freedom of that error."""

    value: float
    se: float
    df: float

    def interval(self, level: float) -> tuple[float, float]:
        half = float(scipy.stats.t.ppf((1 + level) / 2, self.df)) * self.se
        return self.value - half, self.value + half


class JackknifeStatistic(NamedTuple):
    """A statistic over heads as a function of sums over samples, on a scale suited to the jackknife.

    `bounds` gives the smallest and largest possible value of the statistic for a number of heads. With
    `withhold_outside` an interval that exceeds the upper bound is withheld instead of clipped. Below `fewest_samples`
    there is no estimate.
    """

    features: Callable[[Array], list[Array]]  # (n, heads) -> the arrays to sum over samples
    statistic: Statistic
    bounds: Callable[[int], tuple[float, float]]
    withhold_outside: bool = False
    fewest_samples: int = MIN_SAMPLES

    def clip_or_withhold(self, estimate: Estimate, heads: int) -> Estimate:
        """Clip the interval to the bounds; withhold an impossible or uninformative estimate."""
        return estimate.within(*self.bounds(heads), withhold_outside=self.withhold_outside)


def _logit_gini(sums: Array, n: Array) -> Array:
    """Logit of the Gini coefficient times the ratio of the standard deviations over heads without and with noise.

    Gini is proportional to the heads' deviations from their mean, so noise that widens a pattern by a factor raises
    Gini by the same factor. A jackknife alone leaves a bias larger than its interval if n is small.
    """
    between = _unbiased_product(sums, n, 0, 0, 1)
    widened = ((sums[:, 0] / n) ** 2).mean(axis=-1)
    g = descriptive.gini(np.maximum(sums[:, 2], 0))  # total - group may round to -1e-17
    known = (between > 0) & (widened > 0)
    narrow = np.sqrt(np.where(known, between, np.nan) / np.where(known, widened, 1))
    return np.asarray(scipy.special.logit(g * narrow))


def _squared_cv(sums: Array, n: Array) -> Array:
    return np.asarray(_unbiased_product(sums, n, 0, 0, 1) / (sums[:, 2].mean(axis=-1) / n[:, 0]) ** 2)


def _flatness(sums: Array, n: Array) -> Array:
    """m2 / sqrt(m4); excess kurtosis is its power of -2, minus 3."""
    m2, m4 = _unbiased_product(sums, n, 0, 0, 1), _fourth_moment(sums, n)
    known = (m2 > 0) & (m4 > 0)
    return np.where(known, np.where(known, m2, 1) / np.sqrt(np.where(known, m4, 1)), np.nan)


def _powers(samples: Array) -> list[Array]:
    relative = _scaled(samples)
    centred = relative - relative.mean(axis=1, keepdims=True)
    return [centred, centred**2, centred**3, centred**4]


def _squares(samples: Array) -> list[Array]:
    relative = _scaled(samples)
    centred = relative - relative.mean(axis=1, keepdims=True)
    return [centred, centred**2, relative]


GINI = JackknifeStatistic(_squares, _logit_gini, lambda heads: (0.0, (heads - 1) / heads))
SQUARED_CV = JackknifeStatistic(_squares, _squared_cv, lambda heads: (0.0, math.sqrt(heads - 1)))
FLATNESS = JackknifeStatistic(
    _powers,
    _flatness,
    lambda heads: (-2.0, heads - 5 + 1 / (heads - 1)),
    withhold_outside=True,
    fewest_samples=6,  # products of four different samples, without one sample
)


def gini(samples: ArrayLike, level: float = 0.95, seed: int = 0) -> Estimate:
    """Noise-corrected Gini coefficient of the population's pattern, jackknifed on a logit scale.

    Withheld if the variance between heads cannot be distinguished from noise.
    """
    level = checked_level(level)
    values = _checked_samples(samples)
    plain = float(descriptive.gini(values.mean(axis=0)))
    if len(values) < MIN_SAMPLES or not 1e-12 < plain < 1:
        return _unknown(values, level, plain)

    fit = _jackknife(GINI.statistic, *group_sums(GINI.features(values), seed))
    value, low, high = (float(scipy.special.expit(x)) for x in (fit.value, *fit.interval(level)))
    return GINI.clip_or_withhold(Estimate(value, low, high, level, len(values), plain), values.shape[1])


def coefficient_of_variation(samples: ArrayLike, level: float = 0.95, seed: int = 0) -> Estimate:
    """Coefficient of variation (ddof 0) of the population's pattern, from unbiased moments over heads.

    If the variance between heads cannot be distinguished from noise, the interval starts at 0.
    """
    level = checked_level(level)
    values = _checked_samples(samples)
    plain = float(descriptive.coefficient_of_variation(values.mean(axis=0)))
    if len(values) < MIN_SAMPLES or not plain > 0:
        return _unknown(values, level, plain)
    groups = group_sums(SQUARED_CV.features(values), seed)
    fit = _jackknife(SQUARED_CV.statistic, *groups)
    value, low, high = (max(x, 0.0) for x in (fit.value, *fit.interval(level)))
    if low > 0:  # away from zero the logarithmic scale is more symmetric
        fit = _jackknife(lambda sums, n: np.log(SQUARED_CV.statistic(sums, n)), *groups)
        value, low, high = (math.exp(x) for x in (fit.value, *fit.interval(level)))
    estimate = Estimate(math.sqrt(value), math.sqrt(low), math.sqrt(high), level, len(values), plain)
    return SQUARED_CV.clip_or_withhold(estimate, values.shape[1])


def kurtosis(samples: ArrayLike, level: float = 0.95, seed: int = 0) -> Estimate:
    """Excess kurtosis of the population's pattern, from unbiased m2 and m4 over heads, jackknifed as m2 / sqrt(m4).

    One or two heads can determine the kurtosis, so intervals are wide. Withheld if the interval exceeds the largest
    possible value for H heads, H - 2 + 1 / (H - 1) - 3, if an estimated moment is negative, or below six samples.
    """
    level = checked_level(level)
    values = _checked_samples(samples)
    plain = float(descriptive.kurtosis(values.mean(axis=0)))
    if len(values) < FLATNESS.fewest_samples:
        return _unknown(values, level, plain)
    fit = _jackknife(FLATNESS.statistic, *group_sums(FLATNESS.features(values), seed))
    if not fit.value > 0:
        return _unknown(values, level, plain)
    low, high = fit.interval(level)
    highest = low**-2 - 3 if low > 0 else math.inf
    return FLATNESS.clip_or_withhold(
        Estimate(fit.value**-2 - 3, high**-2 - 3, highest, level, len(values), plain), values.shape[1]
    )


def correlation(first: ArrayLike, second: ArrayLike, *, paired: bool, level: float = 0.95, seed: int = 0) -> Estimate:
    """Noise-corrected Pearson correlation of two populations' patterns.

    Withheld if the interval covers nearly all of -1 to 1.

    Args:
        first: (n, heads) samples of one pattern.
        second: (m, heads) samples of the other pattern; if paired, n = m.
        paired: whether row i of both is the same sample.
        level: confidence level of the interval.
        seed: seed of the random groups, used with more than MAX_JACKKNIFE_GROUPS samples.
    """
    level = checked_level(level)
    a, b = np.asarray(first), np.asarray(second)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or (paired and len(a) != len(b)):
        raise HeadnbError(f"cannot correlate samples of different shape: {a.shape} and {b.shape}")
    both = ~(np.isnan(a).any(axis=0) | np.isnan(b).any(axis=0))
    a, b = _checked_samples(a[:, both]), _checked_samples(b[:, both])
    plain = float(descriptive.correlation(a.mean(axis=0), b.mean(axis=0)))
    samples = min(len(a), len(b))
    if samples < MIN_SAMPLES or math.isnan(plain):
        return Estimate(math.nan, math.nan, math.nan, level, samples, plain)
    a, b = (_scaled(x) - _scaled(x).mean(axis=1, keepdims=True) for x in (a, b))
    fits = _paired_fits(a, b, seed) if paired else _independent_fits(a, b, seed)
    for fit, scale in fits:
        if math.isfinite(fit.value):
            value, low, high = (max(-1.0, min(1.0, scale(x))) for x in (fit.value, *fit.interval(level)))
            return Estimate(value, low, high, level, samples, plain).within(-1, 1)
    return Estimate(math.nan, math.nan, math.nan, level, samples, plain)


def rank_correlation(first: ArrayLike, second: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Estimate:
    """Noise-corrected Spearman correlation of two populations' patterns over the same samples.

    A rank is not a mean over samples, and neither a jackknife nor a bootstrap of ranks covers (58 to 85 % in
    simulations with 16 to 32 samples). Each rank is therefore linearised: a shift of a head's level changes its rank by
    the shift times the density of heads around that level, estimated within one standard error on either side. This
    gives a contribution of each sample, and the mean of the contributions is the rank. The contributions are then
    correlated like levels.

    Args:
        first: (n, heads) samples of one pattern; equal rows for a pattern without noise.
        second: (n, heads) samples of the other pattern; row i is the same sample in both.
        level: confidence level of the interval.
        seed: seed of the random groups, used with more than MAX_JACKKNIFE_GROUPS samples.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 2 or a.shape != b.shape:
        raise HeadnbError(f"cannot correlate samples of different shape: {a.shape} and {b.shape}")
    both = ~(np.isnan(a).any(axis=0) | np.isnan(b).any(axis=0))
    return correlation(_rank_influence(a[:, both]), _rank_influence(b[:, both]), paired=True, level=level, seed=seed)


def _rank_influence(samples: Array) -> Array:
    """Contribution of each sample to each head's rank, (n, heads); the mean over samples is the rank (1 = lowest)."""
    mean = samples.mean(axis=0)
    ranks = np.asarray(scipy.stats.rankdata(mean))
    if len(samples) == 1:
        return ranks[None]
    se = samples.std(axis=0, ddof=1) / math.sqrt(len(samples))
    ascending = np.sort(mean)
    within = np.searchsorted(ascending, mean + se, "right") - np.searchsorted(ascending, mean - se, "left")
    density = np.divide(within, 2 * se, out=np.zeros_like(se), where=se > 0)
    return np.asarray(ranks + density * (samples - mean))


def _paired_fits(a: Array, b: Array, seed: int) -> list[tuple[Jackknifed, Callable[[float], float]]]:
    groups = group_sums([a, a * a, b, b * b, a * b], seed)

    def r(sums: Array, n: Array) -> Array:
        covariance = _unbiased_product(sums, n, 0, 2, 4)
        return correlation_of(covariance, _unbiased_product(sums, n, 0, 0, 1), _unbiased_product(sums, n, 2, 2, 3))

    return [(_jackknife(lambda s, n: fisher(r(s, n)), *groups), math.tanh), (_jackknife(r, *groups), float)]


def _independent_fits(a: Array, b: Array, seed: int) -> list[tuple[Jackknifed, Callable[[float], float]]]:
    """Jackknife each set of samples with the other held fixed, then add biases and variances."""
    groups_a, groups_b = group_sums([a, a * a], seed), group_sums([b, b * b], seed)

    def against(other: tuple[Array, Array]) -> Statistic:
        total, n_other = other[0].sum(axis=0), other[1].sum()
        other_variance = _unbiased_product(total[None], np.full((1, 1), n_other), 0, 0, 1)

        def r(sums: Array, n: Array) -> Array:
            covariance = (sums[:, 0] * total[0]).mean(axis=-1) / (n[:, 0] * n_other)
            return correlation_of(covariance, _unbiased_product(sums, n, 0, 0, 1), other_variance)

        return r

    r_a, r_b = against(groups_b), against(groups_a)
    total_a, n_a = groups_a[0].sum(axis=0)[None], np.full((1, 1), groups_a[1].sum())
    r = float(r_a(total_a, n_a)[0])
    twice = _noise_product(groups_a, groups_b)

    def joint(scale: Callable[[Array], Array], slope: float) -> Jackknifed:
        fit_a = _jackknife(lambda s, n: scale(r_a(s, n)), *groups_a)
        fit_b = _jackknife(lambda s, n: scale(r_b(s, n)), *groups_b)
        variances = np.array([fit_a.se**2, fit_b.se**2])
        variance = max(float(variances.sum()) - twice * slope**2, float(variances.max()))
        df = welch_df(variances, np.array([fit_a.df, fit_b.df]))
        return Jackknifed(fit_a.value + fit_b.value - float(scale(np.array([r]))[0]), math.sqrt(variance), df)

    return [(joint(fisher, 1 / max(1 - r * r, 1e-12)), math.tanh), (joint(np.asarray, 1.0), float)]


def _noise_product(groups_a: tuple[Array, Array], groups_b: tuple[Array, Array]) -> float:
    """Variance of r from products of noise in a and in b, which both jackknifes include."""
    noise, variances = [], []
    for sums, sizes in (groups_a, groups_b):
        total, n = sums.sum(axis=0), sizes.sum()
        noise.append((sums[:, 0] - sizes[:, None] * total[0] / n) / n)
        variances.append(float(_unbiased_product(total[None], np.full((1, 1), n), 0, 0, 1)[0]))
    products = noise[0] @ noise[1].T / noise[0].shape[1]
    correction = math.prod(len(sizes) / (len(sizes) - 1) for _, sizes in (groups_a, groups_b))
    if min(variances) <= 0:
        return 0.0
    return float((products**2).sum()) * correction / math.prod(variances)


def welch_df(variances: Array, df: Array) -> float:
    """Degrees of freedom of a sum of variances with degrees of freedom `df` each (Welch-Satterthwaite)."""
    total = float(variances.sum())
    return total**2 / float(np.sum(variances**2 / df)) if total > 0 else float(df.min())


def sum_variances(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Sum of independent variances (each with its degrees of freedom) and its `welch_df`; (0, 0) without variances."""
    if not parts:
        return 0.0, 0.0
    variances, df = np.array(parts, dtype=np.float64).T
    return float(variances.sum()), welch_df(variances, df)


def correlation_of(covariance: Array, first: Array, second: Array) -> Array:
    """Covariance over the root of two noise-corrected variances; NaN unless both are positive."""
    known = (first > 0) & (second > 0)
    return np.where(known, covariance / np.sqrt(np.where(known, first * second, 1)), np.nan)


def fisher(r: Array) -> Array:
    """Fisher's transform of correlations; NaN unless they are between -1 and 1."""
    inside = np.abs(r) < 1
    return np.where(inside, np.arctanh(np.where(inside, r, 0)), np.nan)


def _checked_samples(samples: ArrayLike) -> Array:
    values = heads_present(samples)
    if not len(values):
        raise HeadnbError("expected at least 1 sample, got 0")
    if values.shape[1] < 2:
        raise HeadnbError("a statistic over heads needs at least 2 heads that are not NaN")
    return values


def _unknown(values: Array, level: float, plain: float) -> Estimate:
    return Estimate(math.nan, math.nan, math.nan, level, len(values), plain)


def _scaled(values: Array) -> Array:
    """Scale to mean 1, so that powers of small gradients do not underflow; all statistics here are scale-free."""
    scale = np.abs(values).mean()
    return values / scale if scale > 0 else values


def _unbiased_product(sums: Array, n: Array, i: int, j: int, ij: int) -> Array:
    """Mean over heads of (sum_i sum_j - sum_ij) / (n (n - 1)): mean product of i and j of different samples."""
    return np.asarray(((sums[:, i] * sums[:, j] - sums[:, ij]) / (n * (n - 1))).mean(axis=-1))


def _fourth_moment(sums: Array, n: Array) -> Array:
    """Unbiased fourth central moment: mean product of deviations of four different samples (Newton's identities)."""
    p1, p2, p3, p4 = (sums[:, power] for power in range(4))
    products = p1**4 - 6 * p1**2 * p2 + 3 * p2**2 + 8 * p1 * p3 - 6 * p4
    return np.asarray((products / (n * (n - 1) * (n - 2) * (n - 3))).mean(axis=-1))


def group_sums(features: list[Array], seed: int) -> tuple[Array, Array]:
    """Sums over groups of samples, (groups, features, heads), and group sizes; see MAX_JACKKNIFE_GROUPS."""
    n = len(features[0])
    if n <= MAX_JACKKNIFE_GROUPS:
        return np.stack(features, axis=1), np.ones(n)
    starts = np.arange(MAX_JACKKNIFE_GROUPS) * n // MAX_JACKKNIFE_GROUPS
    order = np.random.default_rng(seed).permutation(n)
    sums = np.stack([np.add.reduceat(feature[order], starts, axis=0) for feature in features], axis=1)
    return sums, np.diff(starts, append=n).astype(np.float64)


def _jackknife(statistic: Statistic, sums: Array, sizes: Array) -> Jackknifed:
    n = sizes.sum()
    total = sums.sum(axis=0)
    full = float(statistic(total[None], np.full((1, 1), n))[0])
    return grouped_jackknife(full, statistic(total - sums, (n - sizes)[:, None]), sizes)


def grouped_jackknife(full: float, left: Array, sizes: Array) -> Jackknifed:
    """Delete-m_j jackknife (Busing et al. 1999, equations 6 to 8).

    The degrees of freedom depend on the kurtosis of the pseudo-values: if a few samples dominate the variance, the
    standard error itself is uncertain, and the interval must be wider than with n - 1 degrees of freedom.

    Args:
        full: the statistic of all samples.
        left: (groups), the statistic without each group.
        sizes: (groups), number of samples in each group.
    """
    n, count = sizes.sum(), len(sizes)
    if np.allclose(left, full, rtol=1e-12, atol=0):  # equal up to rounding
        return Jackknifed(full, 0.0, count - 1)
    value = count * full - float(np.sum((1 - sizes / n) * left))
    h = n / sizes
    pseudo = h * full - (h - 1) * left
    variance = float(np.mean((pseudo - value) ** 2 / (h - 1)))
    if not variance > 0 or count < 4:
        return Jackknifed(value, math.sqrt(max(variance, 0.0)), count - 1)
    tails = max(0.0, float(scipy.stats.kurtosis(pseudo, bias=False)))
    return Jackknifed(value, math.sqrt(variance), 2 / (tails / count + 2 / (count - 1)))
