"""What to make of a measurement that was repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binom

if TYPE_CHECKING:
    from collections.abc import Sequence


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Order statistics between which the median lies with at least this confidence."""
    ordered, n = sorted(values), len(values)
    low = int(binom.ppf((1 - level) / 2, n, 0.5))
    return ordered[max(low - 1, 0)], ordered[min(n - low, n - 1)]


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """p of values ~ sizes ** p, by least squares on the logarithms of the last three: small sizes measure overheads."""
    slope, _ = np.polyfit(np.log(sizes[-3:]), np.log(values[-3:]), 1)
    return float(slope)


def disagreement(scores: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference, in parts of the largest score."""
    return float(abs(scores - reference).max() / abs(reference).max())
