"""Reliability of a pattern: its expected correlation over heads with a replication, and what would raise it.

`values` d[r, x, h] come from R training runs crossed with n samples (the same samples in every run). The pattern is
their mean m[h]. Values are centred over heads, because a correlation over heads does not depend on the heads' mean.
Then, averaged over heads,

    a = variance over samples of the means over runs / n,
    b = variance over runs of the means over samples / R,
    c = residual mean square / (n R), which both a and b include.

The variance between heads has four components: S = var(m) - (a + b - c) of the heads themselves, V = n (a - c) of one
sample, B = R (b - c) of one training run, and E = n R c of one sample in one run; V, B and E are clipped at 0. The
reliability

    r = S / (S + B / R + V / n + E / (n R))

is the expected correlation with the pattern of the same number of new samples and runs. With one run it equals the
average of split halves with the Spearman-Brown formula, and excludes differences between training runs. A factor that
scales all heads of a sample counts as noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike

    from headnb.stats.descriptive import Array

MIN_SAMPLES = 4
TARGET_RELIABILITY = 0.9


class Evidence(NamedTuple):
    """Reliability of a pattern, and the samples and runs that would give 0.9.

    Attributes:
        samples: number of samples; 0 if unknown.
        reliability: expected correlation with a replication; NaN if unknown.
        samples_for_090: samples that give reliability 0.9 with the same number of runs; -1 if no number does, or if
            unknown.
        runs: number of training runs.
        runs_for_090: smallest number of runs with which some number of samples gives 0.9; -1 if unknown (one run).
    """

    samples: int = 0
    reliability: float = math.nan
    samples_for_090: int = -1
    runs: int = 1
    runs_for_090: int = -1

    @property
    def sentence(self) -> str:
        """`Reliability 0.71 (40 samples, 3 runs); more samples alone cannot give 0.90, at least 9 runs needed`."""
        counted = f"{self.samples} sample{'' if self.samples == 1 else 's'}"
        if self.runs > 1:
            counted += f", {self.runs} runs"
        if not self.samples:
            return "Reliability not available"
        if math.isnan(self.reliability):
            few = self.samples < MIN_SAMPLES
            return f"Reliability not available{f': fewer than {MIN_SAMPLES} samples' if few else f' ({counted})'}"
        if self.reliability <= 0:
            return f"Reliability not above 0 ({counted}): no signal above noise"
        return "; ".join(filter(None, (f"Reliability {self.reliability:.2f} ({counted})", self._needed)))

    @property
    def _needed(self) -> str:
        if self.samples_for_090 > 0:
            needed = "1 sample gives" if self.samples_for_090 == 1 else f"{self.samples_for_090} samples give"
            return f"about {needed} 0.90"
        if self.runs_for_090 > self.runs:
            return f"more samples alone cannot give 0.90, at least {self.runs_for_090} runs needed"
        return ""


def stored_evidence(attrs: Mapping[Any, Any]) -> Evidence:
    """The evidence in the attributes of a result; what they do not have is unknown."""
    stored = Evidence()._asdict()
    return Evidence(**{name: type(default)(attrs.get(name, default)) for name, default in stored.items()})


@dataclass(frozen=True)
class Components:
    """Variance components of a pattern over heads (see the module docstring).

    Attributes:
        heads: S.
        samples: V, of one sample.
        runs: B, of one training run; 0 if there is only one run.
        interaction: E, of one sample in one run; part of V if there is only one run.
        n: number of samples.
        R: number of training runs.
    """

    heads: float
    samples: float
    runs: float
    interaction: float
    n: int
    R: int

    @property
    def reliability(self) -> float:
        """r with these numbers of samples and runs, at least -1; NaN below four samples or if all values are equal."""
        total = self.heads + self.runs / self.R + self.samples / self.n + self.interaction / (self.n * self.R)
        if self.n < MIN_SAMPLES or (not total > 0 and self.heads == 0):
            return math.nan
        return max(-1.0, self.heads / total) if total > 0 else -1.0

    def samples_for(self, target: float = TARGET_RELIABILITY) -> int:
        """Samples that give `target` with R runs; -1 if no number does (more than B / K runs are needed)."""
        if math.isnan(self.reliability) or self.heads <= 0:
            return -1
        return _smallest_divisor(self.samples + self.interaction / self.R, self._noise_for(target) - self.runs / self.R)

    def fewest_runs_for(self, target: float = TARGET_RELIABILITY) -> int:
        """Smallest number of runs with which some number of samples gives `target`; -1 if unknown (R = 1)."""
        if math.isnan(self.reliability) or self.heads <= 0 or self.R == 1:
            return -1
        return math.floor(round(self.runs / self._noise_for(target), 6)) + 1

    @property
    def evidence(self) -> Evidence:
        """The reliability, and the samples and runs that would give 0.9."""
        return Evidence(self.n, self.reliability, self.samples_for(), self.R, self.fewest_runs_for())

    def _noise_for(self, target: float) -> float:
        """K: the noise variance at which the reliability equals `target`."""
        if not 0 < target < 1:
            raise HeadnbError(f"the target reliability must be between 0 and 1, got {target!r}")
        return self.heads * (1 - target) / target


def components(values: ArrayLike) -> Components:
    """Variance components of the mean pattern of `values`.

    Args:
        values: (runs, n, heads), or (n, heads) for one run. Heads with any NaN are excluded.

    Raises:
        HeadnbError: the array has another number of dimensions.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim not in {2, 3}:
        raise HeadnbError(f"reliability needs an array (runs, samples, heads) or (samples, heads), got {given.shape}")
    given = given.reshape(-1, *given.shape[-2:])
    runs, n = given.shape[:2]
    present = given[..., ~np.isnan(given).any(axis=(0, 1))]
    if present.shape[-1] < 2 or n < 2:
        return Components(0.0, 0.0, 0.0, 0.0, n, runs)
    scale = np.abs(present).mean()  # so that powers of small gradients do not underflow
    centred = (present - present.mean(axis=-1, keepdims=True)) / (scale if scale > 0 else 1)
    by_run, by_sample, mean = centred.mean(axis=1), centred.mean(axis=0), centred.mean(axis=(0, 1))
    a = _variance(by_sample, mean) / n
    b = c = 0.0
    if runs > 1:
        b = _variance(by_run, mean) / runs
        residual = centred - by_run[:, None] - by_sample + mean
        c = float((residual**2).sum()) / ((runs - 1) * (n - 1)) / (n * runs) / len(mean)
    between = float((mean**2).mean())
    if between + a + b <= 1e-24:  # all values are equal up to rounding
        return Components(0.0, 0.0, 0.0, 0.0, n, runs)
    noise = n * max(a - c, 0.0), runs * max(b - c, 0.0), n * runs * c
    return Components(between - (a + b - c), *noise, n, runs)


def change_evidence(before: Array, after: Array, *, scale_free: bool = False) -> Evidence:
    """Reliability of the change of a pattern.

    Args:
        before: (n, heads) levels.
        after: (runs, n, heads) levels of the same samples after each training run.
        scale_free: use patterns divided by their mean over heads.
    """
    if scale_free:
        before, after = scale_free_levels(before), scale_free_levels(after)
    return components(after - before).evidence


def scale_free_levels(levels: Array) -> Array:
    """Contribution of each sample to the scale-free pattern, to first order: (n, heads) with that pattern as mean.

    The pattern P = mean over x of s[x] is divided by its mean over heads M. To first order sample x contributes
    (s[x] - P m[x] / M) / M, where m[x] is the sample's own mean over heads.

    Args:
        levels: (..., n, heads); NaN heads stay NaN.

    Raises:
        HeadnbError: an all-zero pattern.
    """
    pattern = levels.mean(axis=-2, keepdims=True)
    overall = np.nanmean(pattern, axis=-1, keepdims=True)
    if not (overall != 0).all():
        raise HeadnbError("cannot normalise an all-zero pattern")
    own = np.nanmean(levels, axis=-1, keepdims=True)
    return np.asarray((levels + pattern - own * pattern / overall) / overall)


def _variance(groups: Array, mean: Array) -> float:
    """Variance over the first axis about `mean`, averaged over heads."""
    return float(((groups - mean) ** 2).sum()) / (len(groups) - 1) / len(mean)


def _smallest_divisor(noise: float, allowed: float) -> int:
    """The smallest whole number k with `noise` / k <= `allowed`; -1 if there is none."""
    if not allowed > 0:
        return -1
    return max(1, math.ceil(round(noise / allowed, 6)))  # rounded first: 24.000000000000004 samples are 24
