"""A statistic with its interval, withheld where the interval says nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from headnb.stats.rounding import NEEDS_MORE_SAMPLES, interval_text

UNINFORMATIVE_WIDTH = 0.9  # of what a statistic can be: an interval as wide as that is not shown


@dataclass(frozen=True)
class Estimate:
    """A statistic of the population's pattern with its interval.

    `uncorrected` is what the pattern at hand says by itself: for Gini, CV and kurtosis too high, for correlations too
    near zero, the more so the fewer samples. Value and interval are NaN where they are withheld: below four samples,
    and where the interval says nothing (see `within`).
    """

    value: float
    low: float
    high: float
    level: float
    samples: int
    uncorrected: float

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return interval_text(self.value, self.low, self.high)

    @property
    def reason(self) -> str:
        """Why the value is withheld; empty where it is not."""
        return NEEDS_MORE_SAMPLES if math.isnan(self.value) else ""

    def within(self, lowest: float, highest: float, *, withhold_outside: bool = False) -> Estimate:
        """Withheld where the interval says nothing, else the interval cut at what the statistic can be.

        Args:
            lowest: what the statistic can be at least.
            highest: what it can be at most.
            withhold_outside: withhold also where the interval exceeds `highest`.
        """
        value, low, high = self.value, max(self.low, lowest), min(self.high, highest)
        known = lowest <= value <= highest and high - low < UNINFORMATIVE_WIDTH * (highest - lowest)  # NaN is not
        if not known or (withhold_outside and self.high > highest):
            return self.withheld()
        return replace(self, low=low, high=high)

    def withheld(self) -> Estimate:
        """Without value and interval."""
        return replace(self, value=math.nan, low=math.nan, high=math.nan)
