"""Coverage of the intervals of weights, correlations, changes and steps.

Populations are those of test_statistics.py, whose patterns have a closed form. Fine-tuning on a task changes the level
of every head. Weights: the change of the target is 0.5 and 0.3 times the changes of two basic tasks plus 0.3 times its
own change; the true weights are those of the unconstrained fit to the populations' patterns. With three training runs,
the levels of each run differ by 20 %.

The default run has few replicates, and fails by chance once in a thousand runs. `-m slow` measures.
"""

from __future__ import annotations

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb.analysis.before_after import read_stages
from headnb.analysis.composition.design import Design
from headnb.analysis.composition.least_squares import Form, r_squared
from headnb.analysis.composition.null_models import null_table
from headnb.analysis.concentration import CONCENTRATIONS, concentration
from headnb.analysis.debiased_products import DebiasedProducts, MeasuredPattern
from headnb.analysis.task_correlations import task_correlations

from population import HEADS, Population, as_scores, significantly_above, significantly_below, true_statistics
from simulated_finetuning import FineTuning, similar_populations

FORMS = [("change", False), ("change", True), ("after", False)]
SIGMAS = (0.5, 1.0)
MANY = 150


def tuned_alone(rng: np.random.Generator, before: Population, sigma: float, shrunk: float = 1.0) -> FineTuning:
    levels = shrunk * before.activation_levels * rng.lognormal(sigma=sigma, size=HEADS)
    return FineTuning.of(before, levels)


def composed(rng: np.random.Generator, sigma: float) -> list[FineTuning]:
    """Fine-tuning of a target and of two basics."""
    own, *basics = (tuned_alone(rng, one, 0.5, rng.uniform(0.4, 0.8)) for one in similar_populations(rng, sigma, 3))
    change = 0.5 * basics[0].change + 0.3 * basics[1].change + 0.3 * own.change
    return [FineTuning.of(own.before, own.before.activation_levels + change), *basics]


def weight_coverage(n: int, replicates: int, seed: int, on: str, *, scale_free: bool, runs: int = 1) -> np.ndarray:
    """Number of replicates in which the intervals of both weights and of R^2 cover."""
    rng, hits, form = np.random.default_rng(seed), np.zeros(3, dtype=int), Form()
    for replicate in range(replicates):
        tasks = composed(rng, SIGMAS[replicate % 2])
        y, *columns = (task.pattern(on, scale_free=scale_free) for task in tasks)
        X = np.stack(columns, axis=1)
        names = ("target", "basic a", "basic b")
        stages = {
            name: read_stages(task.draw(rng, n, name, runs), name) for name, task in zip(names, tasks, strict=True)
        }
        design = Design.of(stages, ["a", "b"], [], on=on, scale_free=scale_free)
        found = null_table(design, DebiasedProducts(design.patterns), form, np.zeros(1), 0.95)
        truth = Form(nonnegative=False).fit(X, y)[0]
        hits[:2] += (found.weights.low <= truth) & (truth <= found.weights.high)
        hits[2] += found.r2_corrected.low <= r_squared(X, y, form) <= found.r2_corrected.high
    return hits


def other_coverage(n: int, replicates: int, seed: int, runs: int = 1) -> dict[str, int]:
    """Number of replicates in which intervals of changes cover or are withheld: Gini, CV, kurtosis, correlations."""
    rng = np.random.default_rng(seed)
    hits = dict.fromkeys([*CONCENTRATIONS, "correlation after", "change of correlation"], 0)
    for replicate in range(replicates):
        one, other = (tuned_alone(rng, p, 0.3) for p in similar_populations(rng, SIGMAS[replicate % 2], 2))
        first, second = (read_stages(task.draw(rng, n, name, runs), name) for task, name in ((one, "a"), (other, "b")))
        if runs == 1:
            before, after = (true_statistics(p.activation_levels) for p in (one.before, one.after))
            for name in CONCENTRATIONS:
                found = concentration(first.required_before, first.after, name)["change"]
                hits[name] += bool(found.reason) or found.low <= after[name] - before[name] <= found.high
        measured = [MeasuredPattern(x.required_before[None], None, x.task) for x in (first, second)]
        measured += [MeasuredPattern(x.after, None, x.task) for x in (first, second)]
        pair = task_correlations(measured, ["a", "b"]).sel(task="a", other_task="b")
        r = [
            np.corrcoef(getattr(one, stage).activation_levels, getattr(other, stage).activation_levels)[0, 1]
            for stage in ("before", "after")
        ]
        for name, stage, truth in (
            ("correlation after", "after", r[1]),
            ("change of correlation", "change", r[1] - r[0]),
        ):
            hits[name] += pair["low"].sel(stage=stage).item() <= truth <= pair["high"].sel(stage=stage).item()
    return hits


def step_coverage(n: int, replicates: int, seed: int, *, scale_free: bool) -> np.ndarray:
    """Number of replicates in which the intervals of half step, nine-tenths step and early fraction cover."""
    rng, hits = np.random.default_rng(seed), np.zeros(3, dtype=int)
    steps = np.array([0, 2, 5, 10, 20, 40, 60])
    way = (1 - np.exp(-steps / 12)) / (1 - np.exp(-5))
    for replicate in range(replicates):
        task = tuned_alone(rng, Population.random(rng, SIGMAS[replicate % 2]), 0.5)
        first, last = task.before.activation_levels, task.after.activation_levels
        tracked = [FineTuning.of(task.before, first + share * (last - first)).after for share in way]
        scale, shared = task.before.scale(rng, n), rng.standard_normal((n, HEADS))
        noise = (0.9 * shared + np.sqrt(0.19) * rng.standard_normal((n, HEADS)) for _ in steps)
        parts = [as_scores(one.scores(scale, e)) for one, e in zip(tracked, noise, strict=True)]
        scores = xr.concat(parts, xr.DataArray(steps, dims="step", name="step"), combine_attrs="override")
        found = headnb.trajectory(
            xr.Dataset({"level": abs(scores["score"]).mean("sample")}), scores, scale_free=scale_free
        )
        patterns = np.array([one.activation_levels for one in tracked])
        patterns = patterns / patterns.mean(axis=1, keepdims=True) if scale_free else patterns
        done = (patterns - patterns[0]) @ (patterns[-1] - patterns[0])
        done /= done[-1]
        truth = (np.interp(0.5, done, steps), np.interp(0.9, done, steps), np.interp(6, steps, done))
        estimates = (found.half, found.ninety, found.early)
        hits += [one.low <= x <= one.high for one, x in zip(estimates, truth, strict=True)]
    return hits


def misses(hits: np.ndarray, replicates: int, low: float = 0.93, high: float = 0.99) -> list[float]:
    """Measured coverages that a true coverage within the bounds gives less than once in a thousand runs."""
    return [
        k / replicates
        for k in map(int, hits)
        if significantly_below(k, replicates, low) or significantly_above(k, replicates, high)
    ]


@pytest.mark.parametrize(("on", "scale_free"), FORMS)
def test_intervals_of_weights_cover(on, scale_free):
    assert not misses(weight_coverage(24, 25, 1, on, scale_free=scale_free)[:2], 25)


def test_intervals_of_weights_cover_training_runs():
    assert not misses(weight_coverage(48, 15, 2, "change", scale_free=False, runs=3)[:2], 15)


def test_intervals_of_changes_cover():
    found = other_coverage(48, 20, 5)
    assert not misses(np.array([found[name] for name in found if name != "kurtosis"]), 20), found


def test_intervals_of_steps_cover():
    assert not misses(step_coverage(48, 20, 6, scale_free=False), 20, low=0.9)


@pytest.mark.slow
@pytest.mark.parametrize("n", [24, 64, 256])
@pytest.mark.parametrize(("on", "scale_free"), FORMS)
@pytest.mark.parametrize("runs", [1, 3])
def test_measured_coverage_of_weights(runs, on, scale_free, n):
    hits = weight_coverage(n, MANY, 100 + n + runs, on, scale_free=scale_free, runs=runs)
    print(on, "scale-free" if scale_free else "raw", n, "samples", runs, "runs: weights and R2", hits / MANY)
    assert not misses(hits[:2], MANY, high=1)


@pytest.mark.slow
@pytest.mark.parametrize("n", [24, 64, 256])
def test_measured_coverage_of_changes_and_steps(n):
    hits = other_coverage(n, MANY, 300 + n)
    print(n, "samples: changes", {name: count / MANY for name, count in hits.items()})
    covered = (step_coverage(n, MANY, 500 + n, scale_free=scale_free) / MANY for scale_free in (False, True))
    print(n, "steps (half, ninety, early)", *covered)
    assert not misses(np.array([hits[name] for name in hits if name != "kurtosis"]), MANY, high=1)
