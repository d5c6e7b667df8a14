"""Statistics of repeated measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binom

if TYPE_CHECKING:
    from collections.abc import Sequence


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Distribution-free confidence interval of the median, from order statistics."""
    ordered, n = sorted(values), len(values)
    low = int(binom.ppf((1 - level) / 2, n, 0.5))
    return ordered[max(low - 1, 0)], ordered[min(n - low, n - 1)]


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Exponent p of values ~ sizes ** p, by least squares on the logarithms of the last three points.

    Earlier points are excluded, because overheads dominate at small sizes.
    """
    slope, _ = np.polyfit(np.log(sizes[-3:]), np.log(values[-3:]), 1)
    return float(slope)


def disagreement(scores: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference relative to the largest score."""
    return float(abs(scores - reference).max() / abs(reference).max())
