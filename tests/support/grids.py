"""Synthetic patterns, small and large, for the browser tests."""

from __future__ import annotations

import numpy as np
import xarray as xr
from headnb.display.grid import HeadGrid

FACTS = {
    "model": "smollm2-135m",
    "method": "activation",
    "loss_reduction": "sample-mean",
    "kind": "level",
    "units": "nats",
}


def levels(layers: int = 30, heads: int = 9, seed: int = 0, **attrs: object) -> xr.DataArray:
    """Heavy-tailed activation levels, largest at about 60 % of the depth, as in real models."""
    rng = np.random.default_rng(seed)
    depth = np.arange(layers) / layers
    values = rng.lognormal(-4.5, 0.8, (layers, heads)) * (0.4 + np.exp(-(((depth - 0.6) / 0.25) ** 2)))[:, None]
    coords = {"layer": range(layers), "head": range(heads)}
    facts = {"kv_heads": 3 if heads % 3 == 0 else heads, "samples": 32, "reliability": 0.87, "samples_for_090": 42}
    return xr.DataArray(
        values,
        dims=("layer", "head"),
        coords=coords,
        name="activation_level",
        attrs=FACTS | {"task": "gsm8k"} | facts | attrs,
    )


def grid(**options: object) -> HeadGrid:
    return HeadGrid.of(levels(**options))  # type: ignore[arg-type]


def tasks() -> HeadGrid:
    """A grid of three panels, one per task."""
    return HeadGrid.of({name: levels(seed=seed, task=name) for seed, name in enumerate(("gsm8k", "mbpp", "boolq"))})


def steps() -> HeadGrid:
    """A grid of panels at steps of fine-tuning."""
    courses = [levels() * (1 + 0.1 * step * levels(seed=9) / levels(seed=9).mean()) for step in range(6)]
    along = xr.concat(courses, dim=xr.Variable("step", np.arange(6) * 20))
    return HeadGrid.of(along.assign_attrs(levels().attrs))


def change() -> HeadGrid:
    """A grid of a comparison: three heads of L8 rise significantly, L11H9 falls."""
    values = np.random.default_rng(1).normal(0, 0.002, (16, 16))
    values[8, :3], values[11, 9] = 0.02, -0.025
    dims = ("layer", "head")
    columns = {
        "difference": values,
        "low": values - 0.004,
        "high": values + 0.004,
        "significant": np.abs(values) > 0.015,
    }
    facts = FACTS | {
        "kind": "difference",
        "task": "gsm8k",
        "kv_heads": 4,
        "alpha": 0.05,
        "samples": 64,
        "reliability": 0.7,
    }
    return HeadGrid.of(xr.Dataset({name: (dims, column) for name, column in columns.items()}, attrs=facts))


def hybrid() -> HeadGrid:
    """A grid of a model in which only every fourth layer has softmax heads."""
    pattern = levels(28, 12)
    return HeadGrid.of(pattern.where(pattern["layer"] % 4 == 3, other=np.nan).assign_attrs(pattern.attrs))


def study() -> HeadGrid:
    """A grid of two tasks at steps of fine-tuning."""
    courses = [
        [levels(seed=task) * (1 + 0.1 * step * levels(seed=9 - task) / levels(seed=9).mean()) for task in range(2)]
        for step in range(6)
    ]
    names, steps = xr.Variable("task", ["gsm8k", "mbpp"]), xr.Variable("step", np.arange(6) * 20)
    along = xr.concat([xr.concat(tasks, dim=names) for tasks in courses], dim=steps)
    return HeadGrid.of(along.assign_attrs({**levels().attrs, "task": ""}))


def rising() -> xr.DataArray:
    """A pattern of 6 x 8 heads whose values rise from 0 to 47 in reading order."""
    facts = FACTS | {"task": "rising", "kv_heads": 8}
    return xr.DataArray(np.arange(48.0).reshape(6, 8), dims=("layer", "head"), name="activation_level", attrs=facts)
