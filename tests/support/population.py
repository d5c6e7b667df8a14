"""A population of head scores whose true statistics are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import stats

HEADS = 270


@dataclass(frozen=True)
class Population:
    """The distribution of the scores of a replicate's samples."""

    level: np.ndarray  # (heads)
    sign: np.ndarray  # (heads): a_h
    factors: np.ndarray  # (heads, 3): w_h
    sigma: float

    @classmethod
    def random(cls, rng: np.random.Generator, sigma: float) -> Population:
        factors = 0.25 * rng.standard_normal((HEADS, 3))
        return cls(np.exp(0.55 * rng.standard_normal(HEADS)), rng.normal(0, 0.7, HEADS), factors, sigma)

    def tuned(self, rng: np.random.Generator, correlation: float) -> Population:
        """A population with other levels; their logarithms have this correlation with the logarithms of these."""
        own = 0.55 * rng.standard_normal(HEADS)
        level = np.exp(correlation * np.log(self.level) + np.sqrt(1 - correlation**2) * own)
        return Population(level, self.sign, self.factors, self.sigma)

    @property
    def activation_levels(self) -> np.ndarray:
        scale = np.exp(self.sigma**2 / 2 + (self.factors**2).sum(axis=1) / 2)
        return scale * self.level * stats.foldnorm(np.abs(self.sign)).mean()

    def scale(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Factors of the samples (n, heads), the same before and after fine-tuning."""
        factors = rng.standard_normal((n, 3)) @ self.factors.T
        return np.exp(self.sigma * rng.standard_normal((n, 1)) + factors)

    def scores(self, scale: np.ndarray, noise: np.ndarray) -> np.ndarray:
        return scale * self.level * (self.sign + noise)

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return self.scores(self.scale(rng, n), rng.standard_normal((n, HEADS)))


def true_statistics(levels: np.ndarray) -> dict[str, float]:
    differences = np.abs(levels[:, None] - levels).mean()
    return {
        "gini": differences / (2 * levels.mean()),
        "cv": levels.std() / levels.mean(),
        "kurtosis": float(stats.kurtosis(levels)),
    }


def as_scores(score: np.ndarray) -> xr.Dataset:
    n = len(score)
    return xr.Dataset(
        {
            "score": (("sample", "layer", "head"), score.reshape(n, 30, 9).astype(np.float32)),
            "loss": ("sample", np.ones(n)),
            "answer_tokens": ("sample", np.ones(n, dtype=np.int32)),
        },
        coords={"sample": range(n), "layer": range(30), "head": range(9)},
        attrs={"task": "simulated", "method": "activation", "reduction": "mean-abs", "loss_reduction": "sample-mean"},
    )


def significantly_below(hits: int, replicates: int, rate: float) -> bool:
    """Whether the number of hits is significantly (p < 0.001) below that of this true rate, by a binomial test."""
    return bool(stats.binomtest(hits, replicates, rate, alternative="less").pvalue < 0.001)


def significantly_above(hits: int, replicates: int, rate: float) -> bool:
    return bool(stats.binomtest(hits, replicates, rate, alternative="greater").pvalue < 0.001)
