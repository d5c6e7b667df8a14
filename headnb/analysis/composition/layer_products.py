"""Products of patterns over the heads of each layer, corrected for the noise of samples and training runs.

The products are those of `debiased_products`, but per layer, so that weights can be fitted to the other layers. Changes
of heads, and their differences between runs, are roughly proportional to the heads' levels. Raw products would be
dominated by the few heads with the highest levels. Therefore patterns are in units of each head's level. A shift and a
multiple of the tasks' mean level are removed from each layer, so that a uniform change of a layer does not count. A
change of a whole layer in proportion to one task's own pattern is removed only as far as that pattern is the tasks'
mean. If target and basics share a pattern within layers beyond the tasks' mean, and each layer changes by a multiple of
it that they also share, then that change is a shared component and cannot be separated from composition. Removing each
task's own pattern from every layer does not exclude it and costs power (docs/validity.md has both).

A corrected product of two patterns averages over pairs of different samples and different runs. Jackknife replicates,
which leave out a group of samples or a run, are corrected for their own noise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from headnb.analysis.debiased_products import MAX_PRODUCT_GROUPS

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from headnb.analysis.debiased_products import MeasuredPattern, Rows
    from headnb.stats.descriptive import Array


_LEAST_UNIT = 0.02  # added to every head's level, as a fraction of the mean level
_NOTHING_LEFT_OUT: list[Rows] = [np.array([], dtype=np.int64)]


class Replicates(NamedTuple):
    """The products with each group of one source of noise (samples of a task, or runs) left out."""

    products: Array  # (groups, layers, patterns, patterns)
    sizes: Array  # (groups)


class LayerProducts:
    """The products (layers, patterns, patterns) of several measured patterns.

    Args:
        patterns: measured on the same heads, without NaN.
        layers: (heads), the layer of each head.
        levels: (heads), the level of each head, the unit of its values.
        seed: seed of the random groups, used with more than MAX_PRODUCT_GROUPS samples.
    """

    def __init__(self, patterns: Sequence[MeasuredPattern], layers: Array, levels: Array, seed: int = 0) -> None:
        self._patterns, self._seed = list(patterns), seed
        self._by_layer = ByLayer(layers, levels)
        self._by_run = [self._by_layer(pattern.by_run()) for pattern in patterns]  # (runs, layers, widest) each
        self._values = np.stack([runs.mean(axis=0) for runs in self._by_run])  # (patterns, layers, widest)
        self._run_noise = [_run_noise(runs) for runs in self._by_run]  # (layers) each
        self._run_specific = [self._run_specific_of(pattern) for pattern in patterns]  # (runs, n, layers, widest) each
        self._interaction = [
            _interaction(deviations, _NOTHING_LEFT_OUT)[0] for deviations in self._run_specific
        ]  # (layers) each
        sets: dict[Hashable, list[int]] = {}
        for index, pattern in enumerate(patterns):
            sets.setdefault(("alone", index) if pattern.sample_set is None else pattern.sample_set, []).append(index)
        self._sets = list(sets.values())
        self._influence = [
            np.stack([self._by_layer(patterns[index].influence()) for index in s], 1) for s in self._sets
        ]
        self._noise = [_sample_noise(psi, _NOTHING_LEFT_OUT)[0] for psi in self._influence]

    def plain(self) -> Array:
        """The products of the measured patterns, without correction."""
        return _products(self._values)

    def corrected(self) -> Array:
        """The products corrected for noise: estimates of those at unlimited samples and training runs."""
        return self._corrected(self._values, self._noise, self._run_noise, self._interaction)

    def replicates(self) -> list[Replicates]:
        """The corrected products with each group of samples, and each run, left out; one entry per source of noise."""
        return [self._without_samples(index) for index in range(len(self._sets))] + [
            self._without_runs(index) for index, runs in enumerate(self._by_run) if len(runs) > 1
        ]

    def _without_samples(self, set_index: int) -> Replicates:
        psi, indices = self._influence[set_index], self._sets[set_index]
        order = np.random.default_rng(self._seed).permutation(len(psi))
        groups = np.array_split(order, min(len(psi), MAX_PRODUCT_GROUPS))
        values = np.repeat(self._values[None], len(groups), axis=0)
        noise, run_noise, interaction = list(self._noise), list(self._run_noise), list(self._interaction)
        noise[set_index] = _sample_noise(psi, groups)
        for index in indices:
            by_run = self._by_layer(self._patterns[index].by_run_without(groups))  # (groups, runs, layers, widest)
            values[:, index], run_noise[index] = by_run.mean(axis=1), _run_noise(by_run)
            interaction[index] = _interaction(self._run_specific[index], groups)
        products = self._corrected(values, noise, run_noise, interaction)
        return Replicates(products, np.array([float(len(group)) for group in groups]))

    def _without_runs(self, index: int) -> Replicates:
        pattern = self._patterns[index]
        set_index = next(row for row, indices in enumerate(self._sets) if index in indices)
        products = []
        for run in range(len(pattern.plus)):
            fewer = replace(pattern, plus=np.delete(pattern.plus, run, axis=0))
            by_run = self._by_layer(fewer.by_run())
            values, psi = self._values.copy(), self._influence[set_index].copy()
            values[index] = by_run.mean(axis=0)
            psi[:, self._sets[set_index].index(index)] = self._by_layer(fewer.influence())
            noise, run_noise, interaction = list(self._noise), list(self._run_noise), list(self._interaction)
            noise[set_index] = _sample_noise(psi, _NOTHING_LEFT_OUT)[0]
            run_noise[index] = _run_noise(by_run)
            interaction[index] = _interaction(self._run_specific_of(fewer), _NOTHING_LEFT_OUT)[0]
            products.append(self._corrected(values, noise, run_noise, interaction))
        return Replicates(np.stack(products), np.ones(len(products)))

    def _corrected(
        self, values: Array, noise: Sequence[Array], run_noise: Sequence[Array], interaction: Sequence[Array]
    ) -> Array:
        products = _products(values)
        for indices, sample_noise in zip(self._sets, noise, strict=True):
            rows, columns = np.ix_(indices, indices)
            products[..., rows, columns] -= sample_noise
        for index, (noise_of_runs, counted_twice) in enumerate(zip(run_noise, interaction, strict=True)):
            products[..., index, index] -= noise_of_runs - counted_twice
        return products

    def _run_specific_of(self, pattern: MeasuredPattern) -> Array:
        return np.stack([self._by_layer(deviations) for deviations in pattern.run_specific_deviations()])


class ByLayer:
    """Maps values (..., heads) to units of the heads' levels, without shift and scale of their layer.

    The result is (..., layers, widest), padded with zeros in narrower layers. The unit of a head is its level plus 2 %
    of the mean level.
    """

    def __init__(self, layers: Array, levels: Array) -> None:
        rows = [np.flatnonzero(layers == layer) for layer in np.unique(layers)]
        self._count = len(layers)
        self._heads = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        present = np.zeros(self._heads.shape)
        for row, heads in enumerate(rows):
            self._heads[row, : len(heads)], present[row, : len(heads)] = heads, 1
        mean = levels.mean() or 1.0
        relative = levels / mean  # so that both columns below have similar lengths
        units = np.where(relative + _LEAST_UNIT > 0, relative + _LEAST_UNIT, 1)[self._heads]
        self._units = mean * units
        weights = present / units  # zero where there is no head
        shift_and_scale = np.stack([weights, weights * relative[self._heads]], axis=-1)  # (layers, widest, 2)
        projection = shift_and_scale @ np.linalg.pinv(shift_and_scale)
        self._rest = (np.eye(present.shape[1]) - projection) * present[..., None]

    def __call__(self, values: Array) -> Array:
        return np.asarray((self._rest @ (values[..., self._heads] / self._units)[..., None])[..., 0])

    def on_heads(self, scaled: Array) -> Array:
        """(heads): values (layers * widest) converted back from units of levels."""
        values = np.zeros(self._count)
        np.add.at(values, self._heads, scaled.reshape(self._heads.shape) * self._units)
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
    """Noise of samples, each group left out: (n, patterns, layers, widest) -> (groups, layers, patterns, patterns)."""
    squares = _products(psi)  # (n, layers, patterns, patterns)
    total, noise = squares.sum(axis=0), np.zeros((len(left_out), *squares.shape[1:]))
    for row, group in enumerate(left_out):
        n = len(psi) - len(group)
        if n > 1:
            mean = -psi[group].sum(axis=0) / n  # of the remaining samples: psi sums to 0
            noise[row] = (total - squares[group].sum(axis=0) - n * _products(mean)) / (n * (n - 1))
    return noise


def _interaction(deviations: Array, left_out: Sequence[Rows]) -> Array:
    """Noise of samples in single runs, each group left out: (runs, n, layers, widest) -> (groups, layers)."""
    runs, samples = deviations.shape[:2]
    squares = (deviations**2).sum(axis=(0, -1))  # (n, layers)
    noise = np.zeros((len(left_out), deviations.shape[2]))
    for row, group in enumerate(left_out):
        n = samples - len(group)
        if runs > 1 and n > 1:
            mean = -deviations[:, group].sum(axis=1) / n  # of the remaining samples: deviations sum to 0
            about_mean = squares.sum(axis=0) - squares[group].sum(axis=0) - n * (mean**2).sum(axis=(0, -1))
            noise[row] = about_mean / ((runs - 1) * (n - 1) * n * runs)
    return noise
