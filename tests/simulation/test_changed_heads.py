"""Tests of changed heads over several training runs: false positives, coverage and power.

Each sample has a lognormal scale (sigma 0.5) common to all heads, and noise that is partly common to heads, so that
levels and changes are correlated over samples as in real scores. There are 15 x 9 heads and 32 samples. A world has R
runs and three parameters: `ratio` is the variance of a head's mean due to runs, divided by that due to samples;
`uneven` is the standard deviation over heads of the logarithm of the run noise; `shared` is the fraction of the run
variance common to all heads. No head changes otherwise. For power, 14 heads change by 5 median standard errors.

`selectivity` also computes other numbers, which take most of its time. Its tests of heads are `crossed_means` with
Benjamini-Hochberg (tested below), so most replicates call `crossed_means` alone.
`-m slow` prints the table of docs/validity.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb.stats.run_variance import CrossedMeans, crossed_means
from headnb.stats.significance import q_values

from population import significantly_above

LAYERS, WIDTH, N, CHANGED = 15, 9, 32, 14
HEADS = LAYERS * WIDTH
ALPHA = 0.05
MANY = 400


class World(NamedTuple):
    runs: int
    ratio: float
    uneven: float = 0.0
    shared: float = 0.0


APART = [World(runs, 0) for runs in (2, 3, 5)]
APART += [World(runs, ratio, uneven) for runs in (2, 3, 5) for uneven in (0, 0.7) for ratio in (0.5, 2, 8)]
TOGETHER = [World(runs, 2, 0, shared) for shared in (0.3, 0.6) for runs in (2, 3, 5)]


class Drawn(NamedTuple):
    """Levels of one replicate without any true change."""

    before: np.ndarray  # (n, heads)
    change: np.ndarray  # (runs, n, heads)
    effect: np.ndarray  # (heads): true change for the measurement of power, zero for most heads
    noisiest: np.ndarray  # (heads), bool: the tenth of heads with the largest run noise


def draw(rng: np.random.Generator, world: World) -> Drawn:
    runs, ratio, uneven, shared = world
    size = np.exp(0.5 * rng.standard_normal(HEADS))
    scale = np.exp(0.5 * rng.standard_normal((N, 1)) - 0.25)  # its mean square is 1
    before = size * scale * np.exp(0.3 * rng.standard_normal((N, HEADS)))
    of_sample = np.sqrt(0.5) * rng.standard_normal((N, HEADS)) + 0.5 * rng.standard_normal((N, 1))
    both = 0.5 * rng.standard_normal((runs, N, HEADS))
    added = (0.75 + 0.25 / runs) / N  # variance of the mean by samples, at size 1
    spread = np.sqrt(ratio * added * runs) * np.exp(uneven * rng.standard_normal(HEADS) - uneven**2)
    common = rng.choice([-1.0, 1.0], HEADS) * rng.standard_normal((runs, 1))
    of_run = spread * (np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.standard_normal((runs, HEADS)))
    noise = 0.02 * size * (scale * (of_sample + both) + of_run[:, None])
    effect = np.zeros(HEADS)
    effect[rng.choice(HEADS, CHANGED, replace=False)] = 5 * np.sqrt(added * (1 + ratio))
    return Drawn(before, noise, 0.02 * size * effect, np.argsort(np.argsort(-spread)) < HEADS // 10)


def by_selectivity(before: np.ndarray, change: np.ndarray) -> xr.Dataset:
    return headnb.selectivity({"t": _scores(before)}, {"t": [_scores(before + run) for run in change]}).heads


def _scores(levels: np.ndarray) -> xr.Dataset:
    return xr.Dataset(
        {"score": (("sample", "layer", "head"), levels.reshape(N, LAYERS, WIDTH)), "loss": ("sample", np.ones(N))},
        {"sample": np.arange(N), "layer": np.arange(LAYERS), "head": np.arange(WIDTH)},
        {"task": "t", "method": "activation", "reduction": "mean-abs", "loss_reduction": "sample-mean"},
    )


def significant(found: CrossedMeans) -> np.ndarray:
    return q_values(found.p_values()) < ALPHA


def replicate(world: World, number: int) -> dict[str, float]:
    """Results of one replicate without any change, and with a change of `CHANGED` heads."""
    drawn = draw(np.random.default_rng([*(round(10 * x) for x in world), number]), world)
    found = crossed_means(drawn.change)
    covered = found.p_values() >= ALPHA  # the interval covers zero
    marked, true = significant(replace(found, mean=found.mean + drawn.effect)), drawn.effect > 0
    return {
        "false head": significant(found).any(),
        "FDR": (marked & ~true).sum() / max(marked.sum(), 1),
        "coverage": covered.mean(),
        "noisiest tenth": covered[drawn.noisiest].mean(),
        "power": marked[true].mean(),
        "warned": found.moves_together,
    }


def measured(world: World, replicates: int, first: int = 0) -> dict[str, float]:
    """Results averaged over replicates."""
    found = [replicate(world, number) for number in range(first, first + replicates)]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


@pytest.mark.parametrize("world", [World(3, 2, 0.7), World(2, 0), World(5, 8, 0.7, 0.6)])
def test_selectivity_equals_the_estimator(world):
    drawn = draw(np.random.default_rng(1), world)
    change = drawn.change + drawn.effect
    found, expected = by_selectivity(drawn.before, change).sel(task="t"), crossed_means(change)
    low, high = expected.intervals()
    for name, values in {"p_value": expected.p_values(), "low": low, "high": high}.items():
        np.testing.assert_allclose(found[name].to_numpy().ravel(), values, rtol=1e-6, atol=1e-9)
    assert (found["significant"].to_numpy().ravel() == significant(expected)).all()
    assert bool(found["moves_together"]) == expected.moves_together


@pytest.mark.parametrize("world", [World(2, 2, 0.7), World(3, 0.5)])
def test_heads_are_rarely_marked_without_a_change(world):
    """At a true rate of 0.07 this fails by chance less than once in a thousand runs."""
    assert not significantly_above(sum(replicate(world, number)["false head"] for number in range(40)), 40, 0.07)


def _line(world: World, found: dict[str, float]) -> str:
    return " | ".join(["", *(f"{x:g}" for x in world), *(f"{x:.3f}" for x in found.values()), ""]).strip()


@pytest.mark.slow
@pytest.mark.parametrize("world", APART)
def test_measured_false_heads_coverage_and_power(world):
    found = measured(world, MANY)
    print(_line(world, found))
    assert found["false head"] <= 0.07 + 2 * np.sqrt(0.07 * 0.93 / MANY)
    assert found["FDR"] <= 0.07
    assert 0.93 <= found["coverage"] <= 0.985


@pytest.mark.slow
@pytest.mark.parametrize("world", TOGETHER)
def test_measured_false_heads_where_run_effects_are_shared(world):
    found = measured(world, MANY)
    print(_line(world, found))
    if world.shared < 0.5:
        assert found["false head"] <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / MANY)
    else:  # two runs have only one component; three runs detect shared effects in half of the replicates
        assert found["warned"] > {2: -1, 3: 0.4, 5: 0.65}[world.runs]
