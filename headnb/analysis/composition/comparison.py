"""Comparison of predictors of a target's change: computes the numbers that `evidence` defines."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headnb.analysis.composition.evidence import MIN_RELIABILITY, Comparison, Limit
from headnb.analysis.composition.layer_errors import (
    Residuals,
    condition_after_regression,
    independent_combinations,
    prediction_errors,
    regress_out,
)
from headnb.analysis.composition.layer_products import LayerProducts
from headnb.analysis.debiased_products import combine_jackknives
from headnb.stats.jackknife import grouped_jackknife
from headnb.stats.significance import sign_flip_p_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headnb.analysis.debiased_products import MeasuredPattern
    from headnb.stats.descriptive import Array


@dataclass(frozen=True)
class ComparisonInputs:
    """The measured patterns of the compared tasks: the target, then the basics, then the other tasks.

    Attributes:
        names: the tasks.
        basics: number of basics.
        before: each task's pattern before fine-tuning.
        change: each task's change.
        layers: (heads), the layer of each head.
    """

    names: tuple[str, ...]
    basics: int
    before: tuple[MeasuredPattern, ...]
    change: tuple[MeasuredPattern, ...]
    layers: Array

    @property
    def levels(self) -> Array:
        """(heads): the levels before fine-tuning, mean over the tasks."""
        return np.asarray(np.mean([np.abs(pattern.plus).mean(axis=(0, 1)) for pattern in self.before], axis=0))


def compare(changes: ComparisonInputs, level: float = 0.95, seed: int = 0) -> Comparison:
    """Compute gain, excess and unique contributions of the basics (see `evidence`).

    Args:
        changes: patterns of at least five layers.
        level: confidence level of the one-sided limits and of the tests.
        seed: seed of the jackknife's groups and of the sign flips.
    """
    z = len(changes.names)
    measured = LayerProducts([*changes.before, *changes.change], changes.layers, changes.levels, seed)
    products = measured.corrected()
    combinations = independent_combinations(products[:, :z, :z].sum(axis=0))
    basics = list(range(1, 1 + changes.basics))
    full = regress_out(products, z, combinations)
    alternatives = _best_alternatives(full, range(1 + changes.basics, z), changes.basics)
    sets = [
        basics,
        *([alternatives] if alternatives else []),
        *([b for b in basics if b != omitted] for omitted in basics),
    ]

    plain_error = prediction_errors(regress_out(measured.plain(), z, combinations), []).sum()
    reliability = float(prediction_errors(full, []).sum() / plain_error)
    limits = [Limit(math.nan, math.nan, math.nan)] * len(sets)
    if reliability >= MIN_RELIABILITY:
        replicates = [
            (_error_shares(regress_out(replicate, z, combinations), sets), sizes)
            for replicate, sizes in measured.replicates()
        ]
        limits = _one_sided_limits(_error_shares(full, sets), replicates, level)
    errors = [prediction_errors(full, predictors) for predictors in ([], *sets[: 2 if alternatives else 1])]
    p_values = [sign_flip_p_value(worse - errors[1], seed=seed) for worse in (errors[0], *errors[2:])]
    tested = [limit._replace(p=p) for limit, p in zip(limits, p_values, strict=False)]
    contributions = limits[len(p_values) :]  # one per basic, without a test over layers
    return Comparison(
        gain=tested[0],
        excess=tested[1] if alternatives else None,
        unique_contributions={changes.names[b]: limit for b, limit in zip(basics, contributions, strict=True)},
        alternatives=tuple(changes.names[task] for task in alternatives),
        condition=condition_after_regression(products, z, combinations, basics),
        reliability=reliability,
        level=level,
    )


def _best_alternatives(full: Residuals, others: Sequence[int], size: int) -> list[int]:
    """The set of `size` other tasks with the smallest error; empty if there are fewer tasks."""

    def error(tasks: list[int]) -> float:
        return float(np.nan_to_num(prediction_errors(full, tasks).sum(), nan=np.inf))

    return min(map(list, itertools.combinations(others, size)), key=error, default=[])


def _error_shares(residuals: Residuals, sets: Sequence[Sequence[int]]) -> Array:
    """(..., sets): gain of the first set, then the error of each other set minus the first set's, over e(Z)."""
    z_error, basics, *others = (prediction_errors(residuals, tasks).sum(axis=-1) for tasks in ([], *sets))
    return np.stack([1 - basics / z_error, *((error - basics) / z_error for error in others)], axis=-1)


def _one_sided_limits(full: Array, replicates: Sequence[tuple[Array, Array]], level: float) -> list[Limit]:
    """Bias-corrected value and one-sided limit of each fraction, over all sources of noise."""
    limits = []
    for column, value in enumerate(full):
        fits = [grouped_jackknife(float(value), shares[:, column], sizes) for shares, sizes in replicates]
        middle, low, high = combine_jackknives(float(value), fits, 2 * level - 1)
        limits.append(Limit(middle, low, high=high))
    return limits
