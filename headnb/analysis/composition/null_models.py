"""Null models of a composition fit, to compare its R^2 with. The verdict uses `evidence`, not these models.

Each null model is fitted to the same target over the same heads:
(a) shrinkage: the target's own pattern before fine-tuning, with one weight of any sign. Without any learning (after =
    c * before) its R^2 is 1, and basic tasks' patterns, which are similar, still reach 0.8 to 0.9;
(b) other tasks: the mean change of tasks that are neither target nor basic;
(c) shuffled answers: the change by fine-tuning on answers to other questions;
(d) the best single basic task;
(e) the target's heads shuffled within their layers; R^2 is near 0 only with an intercept.
The mean over heads is listed as well. Its R^2 is 0; a fit without intercept can be worse.

A fit is better than a null model if both criteria are met. The interval of its advantage (difference of noise-corrected
R^2) lies above zero: the advantage does not depend on the samples and training runs at hand. A sign-flip test over
layers finds smaller errors in held-out layers: the advantage does not come from a few layers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xarray as xr

from headnb.analysis.composition import least_squares
from headnb.analysis.composition.least_squares import Form
from headnb.analysis.debiased_products import DebiasedProducts, Interval, Products
from headnb.stats import significance
from headnb.stats.estimates import Estimate

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

    from headnb.analysis.composition.design import Design
    from headnb.stats.descriptive import Array

MEAN, SINGLE, PERMUTED = "the mean over heads", "the best single task", "heads shuffled within layers"


class Nulls(NamedTuple):
    """The table of null models, with the noise-corrected weights and R^2 of the fit."""

    table: pd.DataFrame
    weights: Interval
    r2_corrected: Estimate


def null_table(design: Design, moments: DebiasedProducts, form: Form, permuted: Array, level: float) -> Nulls:
    """Compute the null models, and the noise-corrected weights and R^2 of the fit (from the same jackknife)."""
    models = _models(design, form)
    ordinary = Form(nonnegative=False, intercept=form.intercept)

    def corrected(products: Products) -> Array:
        """(k + 2 m): weights, R^2 of fit and nulls, the fit's advantage over each null and over the mean."""
        weights, _ = ordinary.fit_products(products, design.target, design.columns)
        r2 = np.array([f.fit_products(products, design.target, columns)[1] for columns, f in models.values()])
        return np.concatenate([weights, r2, r2[0] - r2[1:], r2[:1]])

    k, m = len(design.basics), len(models)
    estimates = (
        moments.estimate(corrected, level) if moments.has_enough_samples else Interval(*np.full((3, k + 2 * m), np.nan))
    )
    errors = {name: _layer_errors(design, columns, f) for name, (columns, f) in models.items()}
    total = float(((design.observed - design.observed.mean()) ** 2).sum())
    errors[MEAN] = _sum_by_layer((design.observed - design.observed.mean()) ** 2, design.layers)
    mean = np.full_like(design.observed, design.observed.mean())
    uncentred = least_squares.uncentred_r_squared(design.observed, mean)
    rows = {
        MEAN: {
            "r2": 0.0,
            "r2_uncentred": uncentred,
            "r2_cv": 0.0,
            "r2_corrected": 0.0,
            **_advantage(estimates, k + 2 * m - 1),
        }
    }
    for j, (name, (columns, f)) in enumerate(list(models.items())[1:], start=1):
        weights, constant = f.fit(design.rows.T @ columns, design.observed)
        fitted = constant + design.rows.T @ columns @ weights
        rows[name] = {
            "weight": float(weights[0]),
            "r2": least_squares.r_squared(design.rows.T @ columns, design.observed, f),
            "r2_uncentred": least_squares.uncentred_r_squared(design.observed, fitted),
            "r2_cv": 1 - float(errors[name].sum()) / total if total else math.nan,
            "r2_corrected": float(estimates.value[k + j]),
            **_advantage(estimates, k + m + j - 1),
        }
    for name, row in rows.items():
        row["p"] = _p_over_layers(errors[name] - errors["fit"])
    observed = least_squares.r_squared(design.predictors, design.observed, form)
    rows[PERMUTED] = {
        "r2": float(permuted.mean()),
        "p": float((1 + (permuted >= observed).sum()) / (1 + len(permuted))) if math.isfinite(observed) else math.nan,
    }
    variables = {
        column: ("null", [row.get(column, math.nan) for row in rows.values()])
        for column in ("r2", "r2_uncentred", "r2_cv", "r2_corrected", "advantage", "low", "high", "p", "weight")
    }
    table = xr.Dataset(variables, {"null": list(rows)}).to_dataframe()
    value, low, high = (float(part[k]) for part in estimates)
    return Nulls(
        table,
        Interval(*(part[:k] for part in estimates)),
        Estimate(value, low, high, level, design.n, observed),
    )


def _models(design: Design, form: Form) -> dict[str, tuple[Array, Form]]:
    """The fit and the null models that are fits: name -> (columns, form). Weights of (a) to (c) have any sign."""
    free = Form(nonnegative=False, intercept=form.intercept)
    models = {"fit": (design.columns, form)} | {name: (columns, free) for name, columns in design.nulls.items()}
    if len(design.basics) > 1:
        r2 = [least_squares.r_squared(column[:, None], design.observed, form) for column in design.predictors.T]
        best = int(np.argmax(r2))
        models[SINGLE] = (design.columns[:, [best]], form)
    return models


def _advantage(estimates: Interval, column: int) -> dict[str, float]:
    return {
        "advantage": float(estimates.value[column]),
        "low": float(estimates.low[column]),
        "high": float(estimates.high[column]),
    }


def _layer_errors(design: Design, columns: Array, form: Form) -> Array:
    """(layers): squared errors of each layer predicted from the other layers."""
    predicted = least_squares.predicted_across_layers(design.rows.T @ columns, design.observed, design.layers, form)
    return _sum_by_layer((design.observed - predicted) ** 2, design.layers)


def _sum_by_layer(errors: Array, layers: Array) -> Array:
    return np.array([errors[layers == layer].sum() for layer in np.unique(layers)])


def _p_over_layers(differences: Array) -> float:
    """Two-sided sign-flip test of the layers' differences; 1 if their sum is not above zero."""
    if len(differences) < 2 or not differences.sum() > 0:
        return 1.0
    return float(significance.max_t_p_values(differences[:, None])[0])
