"""Made-up studies of a complex task, two basic and three other tasks, in which composition is there, or something else.

Each task's levels before are log-normal and alike (correlation 0.64 of the logarithms); its fine-tuning shrinks them
by a factor of its own and adds a change of each head that is proportional to the level. Samples have a scale of their
own in all heads, noise that is half shared by before and after, and each training run moves every head by a share of
its level. What else the worlds have, in place of unrelated changes:

    composed        `share` of the target's own change (in squares) is the sum of those of the basics
    one basic task  the same, of the first basic alone
    null            nothing: every task changes in its own way
    noise only      no task changes at all
    additive        all tasks also change by one common pattern
    multiplicative  all tasks' levels are also multiplied by one common pattern
    layer profile, ...            every head of a layer changes alike, in all tasks, or in target and basics
    layer profile times level, ...   the same, in proportion to the head's level
    collinear       the basics change in the same way, and the target in part as they do
    format          target and basics share a change that training on shuffled answers makes as well
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
    before = _levels_before(rng, heads)
    shrunk = np.ones(len(TASKS)) if world == "noise only" else rng.uniform(0.5, 0.9, len(TASKS))
    changes, formats = _changes(rng, world, before, layers, share)
    own, shuffled = {}, {}
    for place, name in enumerate(TASKS):
        scale = np.exp(0.5 * rng.standard_normal((n, 1)))
        shared = rng.standard_normal((n, heads))

        def draw(levels, scale=scale, shared=shared, name=name):
            noise = (shared + rng.standard_normal((n, heads))) / np.sqrt(2)
            return scores_of((scale * levels * np.exp(0.5 * noise)).reshape(n, layers, width), name)

        def tuned(change, place=place, draw=draw):
            levels = np.maximum(shrunk[place] * before[place] + change, 0.05 * before[place])
            return draw(levels * np.maximum(1 + run_noise * rng.standard_normal(heads), 0.02))

        first = draw(before[place])
        untaught = formats[place] + 0.15 * before[place] * rng.standard_normal(heads)
        own[name] = [(first, tuned(changes[place] + formats[place])) for _ in range(runs)]
        shuffled[name] = [(first, tuned(untaught)) for _ in range(runs)]
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


def _changes(rng: np.random.Generator, world: str, before: np.ndarray, layers: int, share: float):
    """Of each task: the change by its own answers, and that by its format; (tasks, heads) both."""
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
