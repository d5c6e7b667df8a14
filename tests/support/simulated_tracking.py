"""Simulated patterns at the steps of a training."""

from __future__ import annotations

import numpy as np
import xarray as xr

from simulated_finetuning import scores_of

STEPS = np.array([0, 1, 2, 5, 10, 20, 40, 80])


SHAPE = (6, 5)


def simulated_study(done: np.ndarray, noise: float = 0.0, n: int = 24, seed: int = 0):
    """(study, scores) of a pattern that has completed the fraction `done` of its change at each step."""
    rng = np.random.default_rng(seed)
    first, last = rng.lognormal(sigma=0.5, size=(2, *SHAPE))
    shared = rng.standard_normal((n, *SHAPE))
    parts = []
    for fraction in done:
        factor = np.exp(noise * (0.9 * shared + 0.43 * rng.standard_normal((n, *SHAPE))) - noise**2 / 2)
        parts.append(scores_of((first + fraction * (last - first)) * factor, "gsm8k"))
    scores = xr.concat(parts, xr.DataArray(STEPS, dims="step", name="step"), combine_attrs="override")
    levels = abs(scores["score"]).mean("sample").expand_dims(task=["gsm8k"]).transpose("step", "task", "layer", "head")
    study = xr.Dataset(
        {
            "level": levels,
            "movement": (("step", "layer"), np.tile(np.sqrt(STEPS / 80)[:, None] * 0.02, (1, 6))),
            "samples_seen": ("step", STEPS * 8.0),
            "eval_loss": (("step", "task"), (2 - done)[:, None]),
        }
    )
    return study, scores


EXPONENTIAL = (1 - np.exp(-STEPS / 8)) / (1 - np.exp(-10))
