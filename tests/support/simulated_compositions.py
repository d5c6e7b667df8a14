"""Simulated studies of a complex task, two basic tasks and three other tasks, with and without composition.

Before fine-tuning, the levels of each task are log-normal; the logarithms of two tasks have the correlation 0.64.
Fine-tuning shrinks the levels by a factor of the task, and adds a change that is proportional to the level and differs
between heads. Each sample has a scale common to all heads. Half of the noise variance is shared before and after
fine-tuning. Each training run changes every head by a random fraction of its level. The worlds differ in the changes:

    composed        the fraction `share` of the target's squared change is the sum of the changes of the basic tasks
    one basic task  the same with the first basic task only
    null            every task has an independent change
    noise only      no task changes
    additive        all tasks also change by one common pattern
    multiplicative  the levels of all tasks are also multiplied by one common pattern
    layer profile, ...            all heads of a layer have the same change, in all tasks, or in target and basics
    layer profile times level, ...   the same, in proportion to the head's level
    layer profile times pattern   a pattern within layers, which the levels of target and basic tasks share, is
                    added to their changes, with a factor of each layer that they share as well
    collinear       the basic tasks have nearly the same change, and the target contains part of it
    format          target and basic tasks share a change that training on shuffled answers causes as well
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from simulated_finetuning import scores_of

NULLS = (
    "null",
    "noise only",
    "additive",
    "multiplicative",
    "layer profile, all tasks",
    "layer profile, target and basics",
    "layer profile times level, all tasks",
    "layer profile times level, target and basics",
    "collinear",
)
TASKS = ("target", "a", "b", "c", "d", "e")
BASICS = 2

Pairs = list[tuple[xr.Dataset, xr.Dataset]]


def study(
    rng: np.random.Generator,
    world: str,
    *,
    share: float = 1.0,
    runs: int = 3,
    n: int = 32,
    run_noise: float = 0.2,
    layers: int = 15,
    width: int = 9,
) -> dict[str, dict]:
    """Arguments of `fit_combination`: target, basics, others and shuffled."""
    heads = layers * width
    before, pattern = _levels_before(rng, heads), np.zeros(heads)
    if world == "layer profile times pattern":
        pattern = rng.standard_normal(heads)
        before[: 1 + BASICS] *= np.exp(0.3 * pattern)
    shrunk = np.ones(len(TASKS)) if world == "noise only" else rng.uniform(0.5, 0.9, len(TASKS))
    changes, formats = _changes(rng, world, before, layers, share, pattern)
    own, shuffled = {}, {}
    for index, name in enumerate(TASKS):
        scale = np.exp(0.5 * rng.standard_normal((n, 1)))
        shared = rng.standard_normal((n, heads))

        def draw(levels, scale=scale, shared=shared, name=name):
            noise = (shared + rng.standard_normal((n, heads))) / np.sqrt(2)
            return scores_of((scale * levels * np.exp(0.5 * noise)).reshape(n, layers, width), name)

        def tuned(change, index=index, draw=draw):
            levels = np.maximum(shrunk[index] * before[index] + change, 0.05 * before[index])
            return draw(levels * np.maximum(1 + run_noise * rng.standard_normal(heads), 0.02))

        first = draw(before[index])
        shuffled_change = formats[index] + 0.15 * before[index] * rng.standard_normal(heads)
        own[name] = [(first, tuned(changes[index] + formats[index])) for _ in range(runs)]
        shuffled[name] = [(first, tuned(shuffled_change)) for _ in range(runs)]
    basics, others = TASKS[1 : 1 + BASICS], TASKS[1 + BASICS :]
    return {
        "target": own["target"],
        "basics": {name: own[name] for name in basics},
        "others": {name: own[name] for name in others},
        "shuffled": shuffled,
    }


def _levels_before(rng: np.random.Generator, heads: int) -> np.ndarray:
    base, own = rng.standard_normal(heads), rng.standard_normal((len(TASKS), heads))
    return np.exp(0.55 * (0.8 * base + 0.6 * own))


def _changes(rng: np.random.Generator, world: str, before: np.ndarray, layers: int, share: float, pattern: np.ndarray):
    """The changes of each task by its answers and by its format, (tasks, heads) each."""
    heads, width = before.shape[1], before.shape[1] // layers
    own = 0.35 * before * rng.standard_normal(before.shape)
    formats = np.zeros_like(own)
    with_target = np.arange(len(TASKS)) <= BASICS
    if world in {"composed", "one basic task"}:
        used = own[1 : 1 + BASICS] if world == "composed" else own[1:2]
        mixed = (used / np.linalg.norm(used, axis=1, keepdims=True)).sum(axis=0)
        mixed *= np.linalg.norm(own[0]) / np.linalg.norm(mixed)
        own[0] = np.sqrt(share) * mixed + np.sqrt(1 - share) * own[0]
    elif world == "noise only":
        own[:] = 0
    elif world == "additive":
        own = 0.5 * own + 0.35 * before.mean() * rng.standard_normal(heads)
    elif world == "multiplicative":
        own = 0.5 * own + 0.35 * before * rng.standard_normal(heads)
    elif world == "layer profile times pattern":
        own = 0.5 * own
        own[with_target] += 0.35 * before.mean(axis=0) * pattern * np.repeat(rng.standard_normal(layers), width)
    elif world.startswith("layer profile"):
        profiles = rng.standard_normal((len(TASKS), layers))
        profiles[with_target | world.endswith("all tasks")] = profiles[0]
        of_heads = np.repeat(profiles, width, axis=1)
        own = 0.5 * own + of_heads * (0.35 * before if "times" in world else 0.7 * before.mean())
    elif world == "collinear":
        own[2] = own[1] + 0.02 * own[2]
        own[0] = np.sqrt(0.5) * (own[0] + own[1])
    elif world == "format":
        own = 0.5 * own
        formats = 0.35 * before.mean() * rng.standard_normal(own.shape)
        formats[with_target] = formats[0]
    elif world != "null":
        raise ValueError(world)
    return own, formats
