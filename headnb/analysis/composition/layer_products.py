"""Products of patterns over the heads of each layer, without the bias of few samples and few training runs.

As `debiased_products`, but layer by layer, so that weights can come from the other layers. Heads change, and runs
differ, about in proportion to their levels: in raw products the few heads of the highest levels would decide alone. So
patterns are taken in units of each head's level, and within a layer only as far as they are no shift and no scale of
all its heads: what a layer does as a whole does not count. A product of two patterns is that of different samples in
different runs; the replicates without a group of samples, or without a run, take their noise off anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from headnb.analysis.debiased_products import MAX_GROUPS

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from headnb.analysis.debiased_products import MeasuredPattern, Rows
    from headnb.stats.descriptive import Array


_LEAST_UNIT = 0.02  # of the mean level
_NOTHING_LEFT_OUT: list[Rows] = [np.array([], dtype=np.int64)]


class Replicates(NamedTuple):
    """The products without each group of one source of noise."""

    products: Array  # (groups, layers, patterns, patterns)
    sizes: Array  # (groups)


class LayerProducts:
    """The products (layers, patterns, patterns) of several measured patterns.

    Args:
        patterns: measured on the same heads, none of them NaN.
        layers: (heads), the layer of each head.
        levels: (heads), the level of each head, in whose units its values are taken.
        seed: of the groups, beyond MAX_GROUPS samples.
    """

    def __init__(self, patterns: Sequence[MeasuredPattern], layers: Array, levels: Array, seed: int = 0) -> None:
        self._patterns, self._seed = list(patterns), seed
        self._by_layer = ByLayer(layers, levels)
        self._by_run = [self._by_layer(pattern.by_run()) for pattern in patterns]  # (runs, layers, widest) each
        self._values = np.stack([runs.mean(axis=0) for runs in self._by_run])  # (patterns, layers, widest)
        self._run_noise = [_run_noise(runs) for runs in self._by_run]  # (layers) each
        self._run_specific = [self._run_specific_of(pattern) for pattern in patterns]  # (runs, n, layers, widest) each
        self._interaction = [_interaction(one, _NOTHING_LEFT_OUT)[0] for one in self._run_specific]  # (layers) each
        sets: dict[Hashable, list[int]] = {}
        for place, pattern in enumerate(patterns):
            sets.setdefault(("alone", place) if pattern.sample_set is None else pattern.sample_set, []).append(place)
        self._sets = list(sets.values())
        self._influence = [
            np.stack([self._by_layer(patterns[place].influence()) for place in s], 1) for s in self._sets
        ]
        self._noise = [_sample_noise(psi, _NOTHING_LEFT_OUT)[0] for psi in self._influence]

    def plain(self) -> Array:
        """The products as the patterns at hand have them."""
        return _products(self._values)

    def corrected(self) -> Array:
        """The products that unlimited samples and training runs would give."""
        return self._corrected(self._values, self._noise, self._run_noise, self._interaction)

    def replicates(self) -> list[Replicates]:
        """The corrected products without each group of samples, and without each run, of every source of noise."""
        return [self._without_samples(place) for place in range(len(self._sets))] + [
            self._without_runs(place) for place, runs in enumerate(self._by_run) if len(runs) > 1
        ]

    def _without_samples(self, of_set: int) -> Replicates:
        psi, places = self._influence[of_set], self._sets[of_set]
        order = np.random.default_rng(self._seed).permutation(len(psi))
        groups = np.array_split(order, min(len(psi), MAX_GROUPS))
        values = np.repeat(self._values[None], len(groups), axis=0)
        noise, run_noise, interaction = list(self._noise), list(self._run_noise), list(self._interaction)
        noise[of_set] = _sample_noise(psi, groups)
        for place in places:
            by_run = self._by_layer(self._patterns[place].by_run_without(groups))  # (groups, runs, layers, widest)
            values[:, place], run_noise[place] = by_run.mean(axis=1), _run_noise(by_run)
            interaction[place] = _interaction(self._run_specific[place], groups)
        products = self._corrected(values, noise, run_noise, interaction)
        return Replicates(products, np.array([float(len(group)) for group in groups]))

    def _without_runs(self, place: int) -> Replicates:
        pattern = self._patterns[place]
        of_set = next(row for row, places in enumerate(self._sets) if place in places)
        products = []
        for run in range(len(pattern.plus)):
            fewer = replace(pattern, plus=np.delete(pattern.plus, run, axis=0))
            by_run = self._by_layer(fewer.by_run())
            values, psi = self._values.copy(), self._influence[of_set].copy()
            values[place] = by_run.mean(axis=0)
            psi[:, self._sets[of_set].index(place)] = self._by_layer(fewer.influence())
            noise, run_noise, interaction = list(self._noise), list(self._run_noise), list(self._interaction)
            noise[of_set] = _sample_noise(psi, _NOTHING_LEFT_OUT)[0]
            run_noise[place] = _run_noise(by_run)
            interaction[place] = _interaction(self._run_specific_of(fewer), _NOTHING_LEFT_OUT)[0]
            products.append(self._corrected(values, noise, run_noise, interaction))
        return Replicates(np.stack(products), np.ones(len(products)))

    def _corrected(
        self, values: Array, noise: Sequence[Array], run_noise: Sequence[Array], interaction: Sequence[Array]
    ) -> Array:
        products = _products(values)
        for places, of_samples in zip(self._sets, noise, strict=True):
            rows, columns = np.ix_(places, places)
            products[..., rows, columns] -= of_samples
        for place, (of_runs, of_both) in enumerate(zip(run_noise, interaction, strict=True)):
            products[..., place, place] -= of_runs - of_both
        return products

    def _run_specific_of(self, pattern: MeasuredPattern) -> Array:
        return np.stack([self._by_layer(one) for one in pattern.run_specific_deviations()])


class ByLayer:
    """Values (..., heads) in units of the heads' levels, less shift and scale of their layer: (..., layers, widest).

    There are zeros where layers are narrower. The least unit is a fiftieth of the mean level.
    """

    def __init__(self, layers: Array, levels: Array) -> None:
        rows = [np.flatnonzero(layers == layer) for layer in np.unique(layers)]
        self._count = len(layers)
        self._heads = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        there = np.zeros(self._heads.shape)
        for place, heads in enumerate(rows):
            self._heads[place, : len(heads)], there[place, : len(heads)] = heads, 1
        units = levels + _LEAST_UNIT * levels.mean()
        self._units = np.where(units > 0, units, 1)[self._heads]
        weights = there / self._units  # zero where there is no head
        as_whole = np.stack([weights, weights * levels[self._heads]], axis=-1)  # (layers, widest, 2)
        self._rest = (np.eye(there.shape[1]) - as_whole @ np.linalg.pinv(as_whole)) * there[..., None]

    def __call__(self, values: Array) -> Array:
        return np.asarray((self._rest @ (values[..., self._heads] / self._units)[..., None])[..., 0])

    def on_heads(self, found: Array) -> Array:
        """Values (layers * widest) as they stand on the heads, in their own units: (heads)."""
        values = np.zeros(self._count)
        np.add.at(values, self._heads, found.reshape(self._heads.shape) * self._units)
        return values


def _products(values: Array) -> Array:
    """(..., patterns, layers, widest) -> (..., layers, patterns, patterns)."""
    of_layers = np.moveaxis(values, -2, -3)
    return np.asarray(of_layers @ np.swapaxes(of_layers, -1, -2))


def _run_noise(by_run: Array) -> Array:
    """(..., runs, layers, widest) -> (..., layers): variance of the mean over runs, summed over heads."""
    runs = by_run.shape[-3]
    if runs < 2:
        return np.zeros((*by_run.shape[:-3], by_run.shape[-2]))
    deviations = by_run - by_run.mean(axis=-3, keepdims=True)
    return np.asarray((deviations**2).sum(axis=(-3, -1)) / (runs * (runs - 1)))


def _sample_noise(psi: Array, left_out: Sequence[Rows]) -> Array:
    """(n, patterns, layers, widest) -> (groups, layers, patterns, patterns): noise without each group of samples."""
    squares = _products(psi)  # (n, layers, patterns, patterns)
    total, noise = squares.sum(axis=0), np.zeros((len(left_out), *squares.shape[1:]))
    for row, group in enumerate(left_out):
        n = len(psi) - len(group)
        if n > 1:
            mean = -psi[group].sum(axis=0) / n  # of those that stay
            noise[row] = (total - squares[group].sum(axis=0) - n * _products(mean)) / (n * (n - 1))
    return noise


def _interaction(run_specific_deviations: Array, left_out: Sequence[Rows]) -> Array:
    """(runs, n, layers, widest) -> (groups, layers): what the noise of samples and that of runs both count."""
    runs, every = run_specific_deviations.shape[:2]
    squares, found = (
        (run_specific_deviations**2).sum(axis=(0, -1)),
        np.zeros((len(left_out), run_specific_deviations.shape[2])),
    )
    for row, group in enumerate(left_out):
        n = every - len(group)
        if runs > 1 and n > 1:
            mean = -run_specific_deviations[:, group].sum(axis=1) / n  # of the samples that stay
            about = squares.sum(axis=0) - squares[group].sum(axis=0) - n * (mean**2).sum(axis=(0, -1))
            found[row] = about / ((runs - 1) * (n - 1) * n * runs)
    return found
