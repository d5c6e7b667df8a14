"""Products of patterns over heads, corrected for the noise of samples and training runs.

Every quadratic function of patterns (distances, correlations, regressions) is computed from mean products over heads,

    M_ij = mean over h of p_i[h] p_j[h].

Patterns are means over samples, so the product of two observed patterns is the product of the expected patterns plus
the covariance of their noise. A square is therefore too large, and a regression coefficient too small. The covariance
of the means is estimated from the samples and subtracted:

    M_ij - sum over x of psi_i[x] . psi_j[x] / (n (n - 1)),

psi_i[x] is the influence of sample x on pattern i, minus its mean over samples. Patterns measured on different samples
have independent noise, so nothing is subtracted. Training runs are a second source of noise, with their own psi. The
interaction of samples and runs is part of both noise estimates and is added back once; what remains for R runs are the
products of different samples in different runs. For patterns linear in the samples' levels this is unbiased (a
U-statistic); a scale-free pattern is linearised. The uncertainty of any function of the products comes from a jackknife
over groups of samples and over training runs; heads are never resampled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import stats

from headnb.stats.jackknife import Jackknifed, grouped_jackknife, sum_variances, welch_df
from headnb.stats.patterns import scale_free_values
from headnb.stats.reliability import MIN_SAMPLES, Components, components, scale_free_levels
from headnb.stats.run_variance import RunNoise

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from numpy.typing import NDArray

    from headnb.stats.descriptive import Array

    Rows = NDArray[np.int64]

MAX_PRODUCT_GROUPS = 64


class Products(NamedTuple):
    """Mean products over heads of all pairs of patterns, (patterns, patterns).

    `about_zero` uses the patterns themselves, `about_mean` their deviations from their own mean over heads.
    """

    about_zero: Array
    about_mean: Array


@dataclass(frozen=True)
class MeasuredPattern:
    """A pattern with its samples: the mean over samples (and runs) of `plus`, minus the mean of `minus`.

    Patterns of equal `sample_set` are measured on the same samples, row by row.
    """

    plus: Array  # (runs, n, heads)
    minus: Array | None = None  # (n, heads)
    sample_set: Hashable = None
    scale_free: bool = False

    @property
    def samples(self) -> int:
        """Number of samples; 1 for a pattern without samples."""
        return int(self.plus.shape[1])

    def values(self) -> Array:
        """The pattern, (heads)."""
        return np.asarray(self.by_run().mean(axis=0))

    def by_run(self) -> Array:
        """The pattern of each run, (runs, heads)."""
        return self._by_run(self.plus.mean(axis=1), None if self.minus is None else self.minus.mean(axis=0))

    def without(self, groups: Sequence[Rows]) -> Array:
        """The pattern without each group of samples: (groups, heads)."""
        return np.asarray(self.by_run_without(groups).mean(axis=1))

    def by_run_without(self, groups: Sequence[Rows]) -> Array:
        """The pattern of each run without each group of samples: (groups, runs, heads)."""
        plus, minus = self.plus.sum(axis=1), None if self.minus is None else self.minus.sum(axis=0)
        left = np.empty((len(groups), len(self.plus), self.plus.shape[-1]))
        for row, group in enumerate(groups):
            n = self.samples - len(group)
            fewer = None if minus is None or self.minus is None else (minus - self.minus[group].sum(axis=0)) / n
            left[row] = self._by_run((plus - self.plus[:, group].sum(axis=1)) / n, fewer)
        return left

    def influence(self) -> Array:
        """psi: the influence of each sample on the pattern, minus its mean over samples; (n, heads)."""
        added = self._sample_effects()
        return added if self.minus is None else added - _deviations(self.minus, scale_free=self.scale_free)

    def interaction(self) -> tuple[float, float]:
        """Variance of the pattern due to the interaction of samples and runs, about zero and about the pattern's mean.

        Mean over heads. Both the sample noise and the run noise contain it.
        """
        runs, n, heads = self.plus.shape
        if runs < 2 or n < 2:
            return 0.0, 0.0
        own = self.run_specific_deviations()
        squares = [((one**2).sum(), ((one - one.mean(axis=1, keepdims=True)) ** 2).sum()) for one in own]
        about_zero, about_mean = np.sum(squares, axis=0) / ((runs - 1) * (n - 1) * heads * n * runs)
        return float(about_zero), float(about_mean)

    def run_specific_deviations(self) -> Iterator[Array]:
        """Interaction of samples and runs: for each run, each sample's deviation in that run only, (n, heads)."""
        in_all = self._sample_effects()
        return (_deviations(stage, scale_free=self.scale_free) - in_all for stage in self.plus)

    def run_noise(self) -> tuple[float, float]:
        """Variance of one training run's pattern, mean over heads: about zero and about the pattern's mean."""
        by_run = self.by_run()
        if len(by_run) < 2:
            return 0.0, 0.0
        deviations = by_run - by_run.mean(axis=0)
        centred = deviations - deviations.mean(axis=1, keepdims=True)
        scale = by_run.shape[1] * (len(by_run) - 1)
        return float((deviations**2).sum() / scale), float((centred**2).sum() / scale)

    def resampled(self, counts: Array, run_counts: Array) -> Array:
        """Patterns of resamples, (resamples, heads), from weights (resamples, n) of samples and (resamples, runs)."""
        after = np.zeros((len(counts), self.plus.shape[-1]))
        for run, levels in enumerate(self.plus):
            after += run_counts[:, [run]] * _level(counts @ levels, scale_free=self.scale_free)
        return after if self.minus is None else after - _level(counts @ self.minus, scale_free=self.scale_free)

    def components(self) -> Components:
        """Variance components of the pattern, which give its reliability; to first order if scale-free."""
        levels = (self.plus, 0.0 if self.minus is None else self.minus)
        if self.scale_free:
            levels = (scale_free_levels(self.plus), 0.0 if self.minus is None else scale_free_levels(self.minus))
        return components(levels[0] - levels[1])

    def _sample_effects(self) -> Array:
        """Influence of each sample on the mean over runs of `plus`, minus its mean over samples; (n, heads)."""
        added = sum((_deviations(stage, scale_free=self.scale_free) for stage in self.plus), np.zeros(1))
        return np.asarray(added / len(self.plus))

    def _by_run(self, plus: Array, minus: Array | None) -> Array:
        after = _level(plus, scale_free=self.scale_free)
        return after if minus is None else after - _level(minus, scale_free=self.scale_free)


class Interval(NamedTuple):
    """Values with their intervals, each of shape (values)."""

    value: Array
    low: Array
    high: Array


class DebiasedProducts:
    """Noise-corrected products of several measured patterns, and the uncertainty of functions of them.

    Args:
        patterns: patterns of the same heads, without NaN.
        seed: seed of the jackknife groups, which are used above MAX_PRODUCT_GROUPS samples.
    """

    def __init__(self, patterns: Sequence[MeasuredPattern], seed: int = 0) -> None:
        self._patterns = list(patterns)
        self._seed = seed
        self.values = np.stack([pattern.values() for pattern in patterns])  # (patterns, heads)
        sets: dict[Hashable, list[int]] = {}
        for place, pattern in enumerate(patterns):
            sets.setdefault(("alone", place) if pattern.sample_set is None else pattern.sample_set, []).append(place)
        influences = [pattern.influence() for pattern in patterns]
        self._sets = [_SampleNoise(places, [influences[place] for place in places]) for places in sets.values()]
        self._noise = [samples.products() for samples in self._sets]
        self._run_noise = [pattern.run_noise() for pattern in patterns]
        self._interaction = [pattern.interaction() for pattern in patterns]

    @property
    def has_enough_samples(self) -> bool:
        """Whether every pattern has enough samples to estimate its noise."""
        return all(pattern.samples >= MIN_SAMPLES for pattern in self._patterns)

    def plain(self) -> Products:
        """The products of the observed patterns, without correction."""
        return _products(self.values)

    def corrected(self) -> Products:
        """The products expected with unlimited samples and training runs."""
        return self._corrected(self.values, self._noise, [len(p.plus) for p in self._patterns])

    def estimate(self, function: Callable[[Products], Array], level: float = 0.95) -> Interval:
        """Bias-corrected value of a function of the corrected products, with its interval over samples and runs.

        Each sample set and each pattern's runs are jackknifed separately; their biases and variances add.
        """
        full = np.asarray(function(self.corrected()), dtype=np.float64)
        fits = [
            [grouped_jackknife(full[j], left[:, j], sizes) for j in range(len(full))]
            for left, sizes in self._replicates(function)
        ]
        sets = len(self._sets)
        combined = [
            _combine_with_runs(full[j], [fit[j] for fit in fits[:sets]], [fit[j] for fit in fits[sets:]], level)
            for j in range(len(full))
        ]
        return Interval(*(np.array(column) for column in zip(*combined, strict=True)))

    def _replicates(self, function: Callable[[Products], Array]) -> list[tuple[Array, Array]]:
        """The function without each group (groups, values), and the group sizes: for each sample set, then for runs."""
        blocks = []
        runs = [len(pattern.plus) for pattern in self._patterns]
        for place, samples in enumerate(self._sets):
            groups = samples.groups(self._seed)
            without = np.stack([self._patterns[pattern].without(groups) for pattern in samples.pattern_indices])
            left = []
            for row, group in enumerate(groups):
                values, noise = self.values.copy(), self._noise.copy()
                values[samples.pattern_indices], noise[place] = without[:, row], samples.products(group)
                left.append(function(self._corrected(values, noise, runs)))
            blocks.append((np.array(left), np.array([float(len(group)) for group in groups])))
        for place, pattern in enumerate(self._patterns):
            by_run = pattern.by_run()
            left = []
            for run in range(len(by_run) if len(by_run) > 1 else 0):
                values = self.values.copy()
                values[place] = np.delete(by_run, run, axis=0).mean(axis=0)
                fewer = [*runs[:place], runs[place] - 1, *runs[place + 1 :]]
                left.append(function(self._corrected(values, self._noise, fewer)))
            if left:
                blocks.append((np.array(left), np.ones(len(left))))
        return blocks

    def _corrected(self, values: Array, noise: Sequence[Products], runs: Sequence[int]) -> Products:
        zero, mean = _products(values)
        for samples, of_samples in zip(self._sets, noise, strict=True):
            own = np.ix_(samples.pattern_indices, samples.pattern_indices)
            zero[own] -= of_samples.about_zero
            mean[own] -= of_samples.about_mean
        # Replicates without one run keep the sample noise and the interaction of all runs.
        for place, (of_runs, of_both) in enumerate(zip(self._run_noise, self._interaction, strict=True)):
            for products, one, both in zip((zero, mean), of_runs, of_both, strict=True):
                products[place, place] -= one / runs[place] - both
        return Products(zero, mean)


class _SampleNoise:
    """Noise covariance of the patterns that are measured on one set of samples, as means over heads."""

    def __init__(self, places: list[int], influences: Sequence[Array]) -> None:
        self.pattern_indices = places
        psi = np.stack(influences, axis=1)  # (n, patterns, heads)
        self._psi = (psi, psi - psi.mean(axis=-1, keepdims=True))
        self._squares = [x @ x.transpose(0, 2, 1) for x in self._psi]  # (n, patterns, patterns) each

    def groups(self, seed: int) -> list[Rows]:
        """Random groups of the samples; groups of one sample up to MAX_PRODUCT_GROUPS samples."""
        n = len(self._psi[0])
        return np.array_split(np.random.default_rng(seed).permutation(n), min(n, MAX_PRODUCT_GROUPS))

    def products(self, left_out: Rows | None = None) -> Products:
        """Mean over heads of the noise covariance, (patterns, patterns), optionally without some samples.

        psi is not recomputed without these samples: the difference is of higher order.
        """
        left_out = np.array([], dtype=np.int64) if left_out is None else left_out
        n = len(self._psi[0]) - len(left_out)
        if n < 2:
            return Products(*np.zeros((2, len(self.pattern_indices), len(self.pattern_indices))))
        parts = []
        for psi, squares in zip(self._psi, self._squares, strict=True):
            mean = -psi[left_out].sum(axis=0) / n  # of the remaining samples
            about = squares.sum(axis=0) - squares[left_out].sum(axis=0) - n * mean @ mean.T
            parts.append(about / (n * (n - 1) * psi.shape[-1]))
        return Products(*parts)


def correlations(products: Array) -> Array:
    """Correlations of all pairs of patterns, from their products (patterns, patterns).

    NaN where a pattern's corrected square is not positive. Values may exceed 1 where it is small.
    """
    squares = np.diag(products)
    length = np.sqrt(np.where(squares > 0, squares, np.nan))
    return np.asarray(products / np.outer(length, length))


def _products(values: Array) -> Products:
    centred = values - values.mean(axis=1, keepdims=True)
    return Products(*(x @ x.T / x.shape[1] for x in (values, centred)))


def _level(pattern: Array, *, scale_free: bool) -> Array:
    return scale_free_values(pattern) if scale_free else pattern


def _deviations(levels: Array, *, scale_free: bool) -> Array:
    """Influence of each sample on one stage's pattern, minus its mean over samples; (n, heads) -> (n, heads)."""
    levels = scale_free_levels(levels) if scale_free else levels
    return np.asarray(levels - levels.mean(axis=0))


def combine_jackknives(full: float, fits: Sequence[Jackknifed], level: float) -> tuple[float, float, float]:
    """Value, low and high from jackknifes of independent sources of noise; `full` is the value from all data."""
    value = full + sum(fit.value - full for fit in fits)
    variances = np.array([fit.se**2 for fit in fits])
    if not math.isfinite(value) or not fits:
        return math.nan, math.nan, math.nan
    half = stats.t.ppf((1 + level) / 2, welch_df(variances, np.array([fit.df for fit in fits])))
    half = float(half) * math.sqrt(float(variances.sum()))
    return value, value - half, value + half


def _combine_with_runs(
    full: float, of_samples: Sequence[Jackknifed], of_runs: Sequence[Jackknifed], level: float
) -> tuple[float, float, float]:
    """`combine_jackknives` with an interval that covers from two training runs on (`RunNoise`)."""
    value, low, high = combine_jackknives(full, [*of_samples, *of_runs], level)
    if not of_runs or not math.isfinite(high):
        return value, low, high
    (a, df_a), (b, df_b) = (sum_variances([(fit.se**2, fit.df) for fit in fits]) for fits in (of_samples, of_runs))
    half = float(RunNoise(np.array(a), df_a, np.array(b), df_b).half_width(level))
    return value, value - half, value + half
