"""Simulated changes of a task that are combinations of the changes of basic tasks."""

from __future__ import annotations

import numpy as np

from simulated_finetuning import flat, random_change, scores_of

BASICS = {name: random_change(seed, name) for seed, name in enumerate(("gsm8k", "mbpp"), start=1)}


def combined_change(weights: dict[str, float], n: int = 12, noise: float = 0.2, task: str = "sgsm"):
    """(before, after) scores of a task whose true change is this combination of the measured changes of the basics."""
    change = sum(w * flat(BASICS[name]).reshape(8, 5) for name, w in weights.items())
    before = np.full((8, 5), 9.0)
    rng = np.random.default_rng(4)
    stages = (
        stage * rng.gamma(noise**-2, noise**2, (n, 8, 5)) if noise else np.tile(stage, (n, 1, 1))
        for stage in (before, before + change)
    )
    return tuple(scores_of(stage, task) for stage in stages)
