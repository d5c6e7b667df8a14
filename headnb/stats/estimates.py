"""Estimate of a statistic with its interval, withheld if the interval is uninformative."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from headnb.stats.rounding import NEEDS_MORE_SAMPLES, interval_text

UNINFORMATIVE_WIDTH = 0.9  # of the statistic's range: wider intervals are withheld


@dataclass(frozen=True)
class Estimate:
    """A statistic of the population's pattern with its interval.

    `uncorrected` is the statistic of the measured pattern. It is too high for Gini, CV and kurtosis and too close to
    zero for correlations; this bias grows as samples become fewer. Value and interval are NaN if withheld: below four
    samples, or if the interval is uninformative (see `within`).
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
        """Why the value is withheld; empty if it is not."""
        return NEEDS_MORE_SAMPLES if math.isnan(self.value) else ""

    def within(self, lowest: float, highest: float, *, withhold_outside: bool = False) -> Estimate:
        """Clip the interval to the statistic's range; withhold the estimate if the interval is uninformative.

        Args:
            lowest: lower bound of the statistic.
            highest: upper bound of the statistic.
            withhold_outside: also withhold if the interval exceeds `highest`.
        """
        value, low, high = self.value, max(self.low, lowest), min(self.high, highest)
        known = lowest <= value <= highest and high - low < UNINFORMATIVE_WIDTH * (highest - lowest)  # False for NaN
        if not known or (withhold_outside and self.high > highest):
            return self.withheld()
        return replace(self, low=low, high=high)

    def withheld(self) -> Estimate:
        """The estimate with value and interval set to NaN."""
        return replace(self, value=math.nan, low=math.nan, high=math.nan)
