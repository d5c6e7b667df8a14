"""Simulated fine-tunings: scores before and after fine-tuning, with known true patterns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from population import HEADS, Population, as_scores


def scores_of(levels: np.ndarray, task: str = "sums", **attrs: object) -> xr.Dataset:
    """Scores with the absolute values `levels` (n, layers, heads), and signs that alternate over samples."""
    n, layers, heads = levels.shape
    signs = np.where(np.arange(n) % 2, 1.0, -1.0)[:, None, None]
    return xr.Dataset(
        {"score": (("sample", "layer", "head"), levels * signs)},
        {"sample": range(n), "layer": range(layers), "head": range(heads)},
        {"task": task, "method": "activation", "reduction": "mean-abs", "loss_reduction": "sample-mean", **attrs},
    )


def random_change(seed: int, task: str, n: int = 12, layers: int = 8, heads: int = 5, noise: float = 0.2):
    """(before, after) scores of independent patterns, with gamma noise of mean 1 on every sample and head."""
    rng = np.random.default_rng(seed)
    stages = rng.lognormal(sigma=0.5, size=(2, layers, heads))
    return tuple(scores_of(stage * rng.gamma(noise**-2, noise**2, (n, layers, heads)), task) for stage in stages)


def flat(pair: tuple[xr.Dataset, xr.Dataset]) -> np.ndarray:
    """The change of a pair's activation levels, (heads,), without a noise correction."""
    before, after = (np.abs(stage["score"].values).mean(axis=0).ravel() for stage in pair)
    return after - before


@dataclass(frozen=True)
class FineTuning:
    """A task's populations of scores before and after fine-tuning, with the true patterns in closed form."""

    before: Population
    after: Population

    @classmethod
    def of(cls, before: Population, after_levels: np.ndarray) -> FineTuning:
        """A fine-tuning that ends at these activation levels (heads,)."""
        levels = before.level * np.maximum(after_levels, 0.02 * before.activation_levels) / before.activation_levels
        return cls(before, replace(before, level=levels))

    @property
    def change(self) -> np.ndarray:
        return self.after.activation_levels - self.before.activation_levels

    def pattern(self, on: str, *, scale_free: bool) -> np.ndarray:
        before, after = self.before.activation_levels, self.after.activation_levels
        if scale_free:
            before, after = before / before.mean(), after / after.mean()
        return after - before if on == "change" else after

    def draw(self, rng: np.random.Generator, n: int, task: str, runs: int = 1, spread: float = 0.2):
        """(before, after) scores of each training run: the same samples, and half of the noise variance shared.

        The levels of a run are those of the population times 1 + `spread` * a normal number per head, at least 0.
        """
        scale, shared = self.before.scale(rng, n), rng.standard_normal((n, HEADS))

        def noise() -> np.ndarray:
            return (shared + rng.standard_normal((n, HEADS))) / np.sqrt(2)

        def scored(population: Population) -> xr.Dataset:
            return as_scores(population.scores(scale, noise())).assign_attrs(task=task)

        before = scored(self.before)
        if runs == 1:
            return before, scored(self.after)
        drawn = [np.maximum(1 + spread * rng.standard_normal(HEADS), 0) for _ in range(runs)]
        return [(before, scored(replace(self.after, level=self.after.level * factor))) for factor in drawn]


def similar_populations(
    rng: np.random.Generator, sigma: float, tasks: int, correlation: float = 0.8
) -> list[Population]:
    """Populations of tasks with similar patterns, as in one model."""
    first = Population.random(rng, sigma)
    return [first.tuned(rng, correlation) for _ in range(tasks)]
