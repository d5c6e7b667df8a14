"""Tests and intervals of each head's mean over training runs and samples, valid from two runs on.

`values` d[r, x, h] come from R runs crossed with n samples (the same samples in every run). The variance of a head's
mean m is a + b - c, where

    a = variance over samples of the means over runs / n,
    b = variance over runs of the means over samples / R,
    c = residual mean square / (n R), which both a and b include.

The true a and b are at least c, so an estimate of a below c is replaced by c.

A few runs give a poor estimate of one head's b, and run noise differs between heads. Therefore the ratios b / a of all
heads are fitted together as s^2 F(R - 1, d0) by maximum likelihood. Given its estimate b, a head's true b is then
distributed as (d0 s^2 a + (R - 1) b) / chi2(d0 + R - 1). Tests and intervals average Student's t over that
distribution. A t test with estimated degrees of freedom (Welch-Satterthwaite) finds heads in most data sets without any
change. d0 is at most n - 1: the ratio also varies with the estimate of a, which has n - 1 degrees of freedom.
One head in a thousand is assumed not to follow the other heads: its b / a may have any size, and its true b is
distributed as (R - 1) b / chi2(R - 1). A head counts as such with the probability that its ratio gives. A head without
sample noise, whose ratio is infinite, therefore has R - 1 degrees of freedom, and does not change the other heads' fit.
Fewer than 50 heads do not determine s and d0. In that case d0 = 0, so that every head is tested with its own runs only
(the solution of Behrens and Fisher). It covers at least 94 % at two to five runs and any ratio b / a.

The model assumes that heads are independent given s and d0. Run effects that many heads share cannot be detected with
two runs. From three runs on, `CrossedMeans.shared` measures them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy

from headnb.call_checks import checked_level

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from headnb.stats.descriptive import Array

MIN_HEADS = 50  # fewer heads do not determine s and d0
_NO_PRIOR = (0.0, 0.0)  # d0 and s^2 for fewer heads
_APART = 1e-3  # fraction of heads whose run noise does not follow that of the other heads
_MOST_D0 = 200
_LOG_S2 = np.linspace(-3, 3, 61)  # grid, relative to the logarithm of the median ratio
_LARGEST_RATIO = 1e200
_NODES = 65
_TAIL = 1e-10  # probability of the chi-squared distribution outside each end of the quadrature
# Fraction of the first component above which run effects count as shared. Two runs have only one component.
_SHARED_LIMITS = {3: 0.7, 4: 0.6}
_SHARED_FROM_5 = 0.5


@dataclass(frozen=True)
class CrossedMeans:
    """Means over runs and samples with their variance components, each of shape (heads); NaN heads stay NaN.

    Attributes:
        mean: m.
        over_samples: a, the part of the variance of m that more samples reduce.
        over_runs: b, the part that more runs reduce.
        interaction: c, which both include.
        runs: R.
        samples: n.
        d0: prior degrees of freedom of the heads' run noise (large if it is even over heads), at most n - 1; 0 below
            50 heads, NaN for one run.
        s2: s^2, the typical ratio b / a; 0 below 50 heads, NaN for one run.
        shared: fraction of the run variance over heads in its first principal component, between 1 / (R - 1) and 1;
            NaN below three runs.
    """

    mean: Array
    over_samples: Array
    over_runs: Array
    interaction: Array
    runs: int
    samples: int
    d0: float
    s2: float
    shared: float

    @property
    def run_to_sample(self) -> float:
        """Median over heads of (b - c) / a, the ratio of run noise to sample noise; NaN for one run."""
        if self.runs < 2:
            return np.nan
        varied = self.over_samples > 0
        ratios = (self.over_runs - self.interaction)[varied] / self.over_samples[varied]
        return float(np.median(ratios)) if ratios.size else np.nan

    @property
    def moves_together(self) -> bool:
        """Whether heads share run effects so much that more than 5 % of the tests may be false positives."""
        return bool(self.shared > _SHARED_LIMITS.get(self.runs, _SHARED_FROM_5))

    def p_values(self) -> Array:
        """(heads): two-sided p-values for a mean of zero; 1 for heads with mean 0."""
        return np.where(self.mean == 0, 1.0, self._noise.tail(np.abs(self.mean)))

    def intervals(self, level: float = 0.95) -> tuple[Array, Array]:
        """Confidence intervals by inverting the test of `p_values`: (low, high), each of shape (heads)."""
        half = self._noise.half_width(level)
        return self.mean - half, self.mean + half

    @property
    def _noise(self) -> RunNoise:
        b, c = self.over_runs, self.interaction
        return RunNoise(np.maximum(self.over_samples, c), self.samples - 1, b, self.runs - 1, c, self.d0, self.s2)


@dataclass(frozen=True)
class RunNoise:
    """Noise of means over samples and runs: a and b with their degrees of freedom, and c; arrays of one shape.

    Attributes:
        a: variance of each mean due to samples, estimated with `df_a` degrees of freedom.
        b: variance of each mean due to runs, estimated with `df_b` degrees of freedom; `df_b` is 0 for one run.
        c: the part that both include.
        d0: degrees of freedom of the prior distribution of b / a; 0 without one.
        s2: scale s^2 of the prior distribution of b / a.
    """

    a: Array
    df_a: float
    b: Array
    df_b: float
    c: Array | float = 0.0
    d0: float = _NO_PRIOR[0]
    s2: float = _NO_PRIOR[1]

    def tail(self, distance: Array) -> Array:
        """Two-sided probability that a mean deviates from its true value by at least `distance`."""
        if not self.df_b:
            return _two_sided(self.df_a, distance, self.a)
        apart = self._averaged_tail(distance, 0.0)
        if not self.d0:
            return apart
        return apart + self._follows_prior() * (self._averaged_tail(distance, self.d0) - apart)

    def _averaged_tail(self, distance: Array, d0: float) -> Array:
        """Tail of Student's t averaged over the distribution of the true b, with this many prior degrees of freedom."""
        chi2, weights = _chi2_nodes(d0 + self.df_b)
        beta = (d0 * self.s2 * self.a + self.df_b * self.b)[..., None] / chi2  # (..., nodes)
        variance = self.a[..., None] + np.maximum(beta - np.asarray(self.c)[..., None], 0)
        return np.asarray(_two_sided(self.df_a, distance[..., None], variance) @ weights)

    def _follows_prior(self) -> Array:
        """Probability that a head's b / a follows the prior distribution."""
        return np.asarray(scipy.special.expit(_log_prior_odds(_ratios(self.b, self.s2 * self.a), self.df_b, self.d0)))

    def half_width(self, level: float = 0.95) -> Array:
        """The distance with `tail` 1 - level; NaN where a is NaN."""
        alpha = 1 - checked_level(level)
        scale = np.sqrt(self.a + self.b)
        varied = scale > 0  # False for NaN
        high = np.where(varied, scale, 0.0)
        while (too_small := varied & (self.tail(high) > alpha)).any():
            high = np.where(too_small, 2 * high, high)

        def excess(distance: Array, a: Array, b: Array, c: Array) -> Array:
            return np.log(replace(self, a=a, b=b, c=c).tail(distance) / alpha)

        noise = tuple(np.broadcast_to(part, scale.shape)[varied] for part in (self.a, self.b, self.c))
        ends = np.zeros_like(high[varied]), high[varied]
        from scipy.optimize import elementwise  # noqa: PLC0415  scipy does not load it by attribute

        high[varied] = elementwise.find_root(excess, ends, args=noise, tolerances={"xrtol": 1e-10}).x
        return np.where(np.isnan(scale), np.nan, high)


def crossed_means(values: ArrayLike) -> CrossedMeans:
    """Means and variance components of values (runs, n, heads) with the same samples in every run."""
    values = np.asarray(values, dtype=np.float64)
    runs, n, _ = values.shape
    by_run, by_sample = values.mean(axis=1), values.mean(axis=0)  # (R, H), (n, H)
    mean = by_run.mean(axis=0)
    a = by_sample.var(axis=0, ddof=1) / n
    if runs == 1:
        none = np.where(np.isnan(mean), np.nan, 0.0)
        return CrossedMeans(mean, a, none, none, 1, n, np.nan, np.nan, np.nan)
    b = by_run.var(axis=0, ddof=1) / runs
    residual = values - by_run[:, None] - by_sample + mean
    c = (residual**2).sum(axis=(0, 1)) / ((runs - 1) * (n - 1)) / (n * runs)
    least = np.maximum(a, c)
    present = np.isfinite(mean) & (least > 0)
    d0, s2 = _fit_prior(_ratios(b, least)[present], runs - 1, n - 1) if present.sum() >= MIN_HEADS else _NO_PRIOR
    return CrossedMeans(mean, a, b, c, runs, n, d0, s2, _shared(by_run[:, present] - mean[present], least[present]))


def _fit_prior(ratios: Array, df: int, df_a: int) -> tuple[float, float]:
    """Maximum-likelihood d0 and s^2 of ratios ~ s^2 F(df, d0) on a grid; s^2 is then interpolated.

    d0 is at most `df_a`, the degrees of freedom of a, because the ratios vary with a.
    """
    d0_values = np.geomspace(1, min(_MOST_D0, df_a), 40)
    positive = ratios[ratios > 0]
    if not positive.size:
        return float(d0_values[-1]), 0.0
    log_s2 = _LOG_S2 + np.log(np.median(positive))
    x = ratios[:, None] / np.exp(log_s2)  # (heads, s^2)
    # A head's log density is log(1 + odds) plus that of a head apart, without a term that depends on the data only.
    apart = -0.5 * df * (np.log1p(x).sum(axis=0) + len(ratios) * log_s2)
    best = (-np.inf, float(d0_values[-1]), 0.0)
    for d0 in d0_values:
        likelihood = np.logaddexp(0, _log_prior_odds(x, df, d0)).sum(axis=0) + apart  # (s^2)
        highest, at = _parabola_peak(log_s2, likelihood)
        if highest > best[0]:
            best = (highest, float(d0), at)
    return best[1], float(np.exp(best[2]))


def _ratios(b: Array, scale: Array) -> Array:
    """b / scale, at most `_LARGEST_RATIO`; 0 where both are 0 or NaN."""
    scale = np.maximum(scale, b / _LARGEST_RATIO)
    return np.divide(b, scale, where=scale > 0, out=np.zeros_like(scale))


def _log_prior_odds(x: Array, df: float, d0: float) -> Array:
    """Logarithm of the odds that a head with ratio x = b / (a s^2) follows the prior F(df, d0), against a head apart.

    For heads apart the density of log x is proportional to (x / (1 + x))^(df / 2): flat for large x.
    """
    constant = np.log(1 / _APART - 1) + 0.5 * df * np.log(df / d0) - scipy.special.betaln(df / 2, d0 / 2)
    return np.asarray(constant + 0.5 * df * np.log1p(x) - 0.5 * (df + d0) * np.log1p(x * df / d0))


def _parabola_peak(log_s2: Array, likelihood: Array) -> tuple[float, float]:
    """Height and log s^2 of the peak of the parabola through the largest likelihood and its neighbours.

    The largest likelihood itself depends on where the grid begins, which one more head with a positive ratio moves.
    """
    index = int(np.argmax(likelihood))
    if not 0 < index < len(likelihood) - 1:
        return float(likelihood[index]), float(log_s2[index])
    left, top, right = likelihood[index - 1 : index + 2]
    slope, curvature = (right - left) / 2, left - 2 * top + right
    return float(top - slope**2 / (2 * curvature)), float(log_s2[index] - (log_s2[1] - log_s2[0]) * slope / curvature)


def _shared(deviations: Array, over_samples: Array) -> float:
    """Fraction of the run variance in the first component of deviations (R, heads), in units of each head's noise."""
    runs = len(deviations)
    if runs < 3 or not deviations.size:
        return np.nan
    spread = np.sqrt((deviations**2).sum(axis=0) / (runs - 1) + runs * over_samples)
    eigenvalues = np.linalg.eigvalsh((deviations / spread) @ (deviations / spread).T)
    total = float(eigenvalues.sum())
    return float(eigenvalues[-1]) / total if total > 0 else np.nan


def _chi2_nodes(df: float) -> tuple[Array, Array]:
    """Quadrature nodes and weights of chi-squared, by the trapezoidal rule in its logarithm: both (nodes)."""
    low, high = np.log(scipy.stats.chi2.isf([1 - _TAIL, _TAIL], df))
    log = np.linspace(low, high, _NODES)
    weights = np.exp(scipy.stats.chi2.logpdf(np.exp(log), df) + log)
    return np.exp(log), weights / weights.sum()


def _two_sided(df: float, distance: Array, variance: Array) -> Array:
    """Two-sided tail of Student's t at `distance`; 0 or 1 without variance."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(distance == 0, 0.0, -distance / np.sqrt(variance))
    return np.asarray(2 * scipy.special.stdtr(df, t))
