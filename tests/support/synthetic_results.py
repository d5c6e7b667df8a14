"""Synthetic patterns, comparisons and scores for the tests of displays."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import xarray as xr

SCHEMA = json.loads(files("headnb.display").joinpath("pattern.schema.json").read_text(encoding="utf-8"))
FACTS = {"model": "smollm2-135m", "task": "gsm8k", "method": "activation", "loss_reduction": "sample-mean"}


def pattern(values: object, **attrs: object) -> xr.DataArray:
    """A pattern of activation levels with these values (layer, head)."""
    grid = np.asarray(values, dtype=float)
    coords = {"layer": range(grid.shape[0]), "head": range(grid.shape[1])}
    facts = FACTS | {"kind": "level", "units": "nats", "kv_heads": grid.shape[1]}
    return xr.DataArray(grid, dims=("layer", "head"), coords=coords, name="activation_level", attrs=facts | attrs)


def random_pattern(layers: int, heads: int, seed: int = 0, **attrs: object) -> xr.DataArray:
    """Heavy-tailed levels, as in real models."""
    return pattern(np.random.default_rng(seed).lognormal(-4, 0.8, (layers, heads)), **attrs)


def comparison(differences: object, significant: object, **attrs: object) -> xr.Dataset:
    """A comparison with confidence intervals of +-0.001."""
    values = np.asarray(differences, dtype=float)
    dims = ("layer", "head")
    columns = {"difference": values, "low": values - 0.001, "high": values + 0.001}
    variables = {name: (dims, column) for name, column in columns.items()}
    variables["significant"] = (dims, np.asarray(significant, dtype=bool))
    facts = FACTS | {"kind": "difference", "units": "nats", "kv_heads": values.shape[1], "alpha": 0.05, "samples": 64}
    return xr.Dataset(variables, attrs=facts | attrs)


def scores(samples: int, layers: int = 3, heads: int = 4, seed: int = 0, **attrs: object) -> xr.Dataset:
    """Signed scores per sample around a heavy-tailed pattern."""
    rng = np.random.default_rng(seed)
    level = rng.lognormal(-4, 0.8, (layers, heads))
    score = (rng.normal(0, 1, (samples, layers, heads)) * level).astype("float32")
    facts = FACTS | {"reduction": "mean-abs", "kv_heads": heads, "samples_requested": samples, "complete": 1}
    return xr.Dataset(
        {
            "score": (("sample", "layer", "head"), score),
            "loss": ("sample", np.ones(samples, "float32")),
            "answer_tokens": ("sample", np.full(samples, 7, "int32")),
        },
        coords={"sample": range(samples), "layer": range(layers), "head": range(heads)},
        attrs=facts | {"left_out": 0, "truncated": 0} | attrs,
    )
