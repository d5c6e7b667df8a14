"""Concentration of a pattern over heads before and after fine-tuning, with intervals over samples and training runs.

The three statistics are those of `stats.jackknife`, bias-corrected for few samples. The jackknife leaves the same
groups of samples out of both stages, so the interval of the change accounts for the pairing. Several training runs add
the statistic's variance between runs, divided by their number.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import special

from headnb.stats import descriptive, jackknife
from headnb.stats.estimates import Estimate
from headnb.stats.jackknife import FLATNESS, GINI, SQUARED_CV, Jackknifed, JackknifeStatistic
from headnb.stats.run_variance import RunNoise

if TYPE_CHECKING:
    from collections.abc import Callable

    from headnb.stats.descriptive import Array

STAGES = ("before", "after", "change")


class Concentration(NamedTuple):
    """One statistic: its estimate from samples, its value for a pattern, and its jackknife."""

    of_samples: Callable[[Array, float, int], Estimate]
    of_pattern: Callable[[Array], Array]
    over_heads: JackknifeStatistic
    back_transform: Callable[[Array], Array]  # from the scale of `over_heads` to the statistic


CONCENTRATIONS = {
    "gini": Concentration(jackknife.gini, descriptive.gini, GINI, special.expit),
    "cv": Concentration(
        jackknife.coefficient_of_variation,
        descriptive.coefficient_of_variation,
        SQUARED_CV,
        lambda squared: np.sqrt(np.maximum(squared, 0)),
    ),
    "kurtosis": Concentration(
        jackknife.kurtosis,
        descriptive.kurtosis,
        FLATNESS,
        lambda flatness: np.where(flatness > 0, flatness, np.nan) ** -2.0 - 3,
    ),
}


def concentration(before: Array, after: Array, name: str, level: float = 0.95, seed: int = 0) -> dict[str, Estimate]:
    """A statistic before and after fine-tuning, and its change; the change is withheld if either stage is.

    Args:
        before: (n, heads), levels per sample.
        after: (runs, n, heads), levels of the same samples after each training run.
        name: "gini", "cv" or "kurtosis".
        level: confidence level of the intervals.
        seed: seed of the jackknife groups.
    """
    statistic = CONCENTRATIONS[name]
    stages = {"before": statistic.of_samples(before, level, seed)}
    if len(after) == 1:
        stages["after"] = statistic.of_samples(after[0], level, seed)
    else:
        stages["after"] = statistic.over_heads.clip_or_withhold(
            _estimate(statistic, after, None, level, seed), before.shape[1]
        )
    change = _estimate(statistic, after, before, level, seed)
    lowest, highest = statistic.over_heads.bounds(before.shape[1])
    informative = not any(stage.reason for stage in stages.values()) and change.high - change.low < highest - lowest
    stages["change"] = change if informative else change.withheld()
    return stages


def _estimate(statistic: Concentration, after: Array, before: Array | None, level: float, seed: int) -> Estimate:
    """Mean over runs of the statistic after fine-tuning, minus the statistic before (if given)."""
    stages = [*after] if before is None else [*after, before]
    plain = [float(statistic.of_pattern(stage.mean(axis=0))) for stage in stages]
    uncorrected = float(np.mean(plain[: len(after)])) - (plain[-1] if before is not None else 0.0)
    n = after.shape[1]
    if n < statistic.over_heads.fewest_samples or not np.isfinite(plain).all():
        return Estimate(math.nan, math.nan, math.nan, level, n, uncorrected)
    features = [feature for stage in stages for feature in statistic.over_heads.features(stage)]
    sums, sizes = jackknife.group_sums(features, seed)
    width = len(features) // len(stages)

    def per_stage(sums: Array, n: Array) -> Array:
        """The statistic of each stage without each group, (stages, groups)."""
        parts = [sums[:, stage * width : (stage + 1) * width] for stage in range(len(stages))]
        return statistic.back_transform(np.stack([statistic.over_heads.statistic(part, n) for part in parts]))

    def difference(values: Array) -> Array:
        return np.asarray(values[: len(after)].mean(axis=0) - (values[-1] if before is not None else 0.0))

    total, count = sums.sum(axis=0), sizes.sum()
    full = per_stage(total[None], np.full((1, 1), count))
    left = per_stage(total - sums, (count - sizes)[:, None])
    fit = jackknife.grouped_jackknife(float(difference(full)[0]), difference(left), sizes)
    value, low, high = _widen_by_runs(fit, full[: len(after), 0], level)
    return Estimate(value, low, high, level, n, uncorrected)


def _widen_by_runs(fit: Jackknifed, per_run: Array, level: float) -> tuple[float, float, float]:
    """The interval over samples, widened by the variance between training runs."""
    runs = len(per_run)
    of_runs = float(per_run.var(ddof=1)) / runs if runs > 1 else 0.0
    half = float(RunNoise(np.array(fit.se**2), fit.df, np.array(of_runs), runs - 1).half_width(level))
    return fit.value, fit.value - half, fit.value + half
