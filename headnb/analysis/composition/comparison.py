"""What changes of basic tasks add to the patterns before fine-tuning: computes the numbers of `evidence`."""

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
    """The measured patterns of the tasks that enter, the target first, then the basics, then the others.

    Attributes:
        names: of the tasks.
        basics: how many of them are basics.
        before: a pattern of each task.
        change: of each task.
        layers: (heads).
    """

    names: tuple[str, ...]
    basics: int
    before: tuple[MeasuredPattern, ...]
    change: tuple[MeasuredPattern, ...]
    layers: Array

    @property
    def levels(self) -> Array:
        """(heads): the level before fine-tuning, mean over the tasks."""
        return np.asarray(np.mean([np.abs(one.plus).mean(axis=(0, 1)) for one in self.before], axis=0))


def compare(changes: ComparisonInputs, level: float = 0.95, seed: int = 0) -> Comparison:
    """What the basics add to Z (see `evidence`).

    Args:
        changes: of at least five layers.
        level: of the one-sided limits and of the tests.
        seed: of the jackknife's groups and of the sign flips.
    """
    z = len(changes.names)
    measured = LayerProducts([*changes.before, *changes.change], changes.layers, changes.levels, seed)
    products = measured.corrected()
    combinations = independent_combinations(products[:, :z, :z].sum(axis=0))
    basics = list(range(1, 1 + changes.basics))
    full = regress_out(products, z, combinations)
    rivals = _best_alternative(full, range(1 + changes.basics, z), changes.basics)
    sets = [basics, *([rivals] if rivals else []), *([b for b in basics if b != left] for left in basics)]

    plain_error = prediction_errors(regress_out(measured.plain(), z, combinations), []).sum()
    reliability = float(prediction_errors(full, []).sum() / plain_error)
    limits = [Limit(math.nan, math.nan, math.nan)] * len(sets)
    if reliability >= MIN_RELIABILITY:
        replicates = [
            (_error_shares(regress_out(one, z, combinations), sets), sizes) for one, sizes in measured.replicates()
        ]
        limits = _one_sided_limits(_error_shares(full, sets), replicates, level)
    of_layers = [prediction_errors(full, one) for one in ([], *sets[: 2 if rivals else 1])]
    tested = [sign_flip_p_value(worse - of_layers[1], seed=seed) for worse in (of_layers[0], *of_layers[2:])]
    limits = [one._replace(p=p) for one, p in zip(limits, tested, strict=False)] + limits[len(tested) :]
    adds = limits[len(tested) :]
    return Comparison(
        gain=limits[0],
        excess=limits[1] if rivals else None,
        adds={changes.names[place]: one for place, one in zip(basics, adds, strict=True)},
        rivals=tuple(changes.names[place] for place in rivals),
        condition=condition_after_regression(products, z, combinations, basics),
        reliability=reliability,
        level=level,
    )


def _best_alternative(full: Residuals, others: Sequence[int], size: int) -> list[int]:
    """The best set of so many other tasks; empty if there are fewer."""
    sets = map(list, itertools.combinations(others, size))
    return list(
        min(sets, key=lambda one: float(np.nan_to_num(prediction_errors(full, one).sum(), nan=np.inf)), default=())
    )


def _error_shares(residuals: Residuals, sets: Sequence[Sequence[int]]) -> Array:
    """(..., sets): gain of the first set, then by how much of e(Z) each other set is worse than the first."""
    nothing, basics, *others = (prediction_errors(residuals, one).sum(axis=-1) for one in ([], *sets))
    return np.stack([1 - basics / nothing, *((one - basics) / nothing for one in others)], axis=-1)


def _one_sided_limits(full: Array, replicates: Sequence[tuple[Array, Array]], level: float) -> list[Limit]:
    """Of each share: bias-corrected value and one-sided limit, over all sources of noise."""
    found = []
    for place, value in enumerate(full):
        fits = [grouped_jackknife(float(value), left[:, place], sizes) for left, sizes in replicates]
        found.append(Limit(*combine_jackknives(float(value), fits, 2 * level - 1)[:2]))
    return found
