"""Linear fit of a complex task's change by basic tasks' changes. Finding 2 of arXiv 2409.15820.

With AP the pattern of activation levels and dAP = AP(after) - AP(before) of fine-tuning on a task, over the heads,

    dAP_complex = sum over i of alpha_i dAP_i + error.

R^2 alone is weak evidence. Patterns of different tasks are similar. If fine-tuning merely shrinks them (after = c *
before, because levels fall with the loss), the fit still reaches 0.8 to 0.9. Therefore every fit comes with null models
and with the reliability that bounds R^2. The verdict follows from `evidence`, which needs three training runs per task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from headnb.analysis.composition import null_models
from headnb.analysis.composition.design import Design, selection_frequency
from headnb.analysis.composition.fit_data import FitData, LinearFit
from headnb.analysis.composition.inputs import CompositionInputs, evaluate_evidence
from headnb.analysis.composition.least_squares import (
    Form,
    condition_number,
    permuted_r_squared,
    predicted_across_layers,
    r_squared,
    uncentred_r_squared,
)
from headnb.analysis.composition.verdict import UNCENTRED, describe_evidence, fit_verdict
from headnb.analysis.debiased_products import DebiasedProducts
from headnb.analysis.json_values import as_records, to_json_value, with_interval
from headnb.analysis.result import result_html
from headnb.call_checks import check_arguments
from headnb.display.charts.chart import Chart, chart_row
from headnb.display.charts.estimates import estimate_text
from headnb.display.charts.fits import nulls, regression, weights
from headnb.display.encodings import for_stdout
from headnb.errors import unknown_name
from headnb.stats import descriptive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

    from headnb.analysis.before_after import Change, Stages
    from headnb.analysis.debiased_products import Interval
    from headnb.stats.descriptive import Array

FITTED_ON = ("change", "after")


@dataclass(frozen=True, repr=False)
class CombinationFit(FitData):
    """Fit of a target's pattern by basic tasks' patterns, with null models and evidence for composition."""

    @property
    def supported(self) -> bool:
        """Whether composition is supported: *shared with these basics* or higher, each with a unique contribution."""
        return self.evidence.composed

    @property
    def verdict(self) -> str:
        """The level of evidence and the numbers behind it, in sentences."""
        return fit_verdict(self)

    @property
    def table(self) -> pd.DataFrame:
        """One row per basic task: weights (fitted, unconstrained, noise-corrected), contribution and R^2 alone."""
        columns = {
            "weight": self.weights,
            "ordinary": self.ordinary.weights,
            "corrected": self.interval["value"],
            "low": self.interval["low"],
            "high": self.interval["high"],
            "selected": self.selected,
            "contribution": self.contributions,
            "alone": self.alone,
            "reliability": self.reliability.sel(task=self.weights["basic"]).drop_vars("task"),
        }
        return xr.Dataset(columns).to_dataframe()

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values (NaN as None)."""
        return {
            "target": self.target,
            "on": self.on,
            "scale_free": self.scale_free,
            "nonnegative": self.form.nonnegative,
            "intercept": self.form.intercept,
            "r2": to_json_value(self.r2),
            "r2_uncentred": to_json_value(self.r2_uncentred),
            "r2_cv": to_json_value(self.r2_cv),
            "r2_corrected": with_interval(self.r2_corrected),
            "ordinary_r2": to_json_value(self.ordinary.r2),
            "ceiling": to_json_value(self.ceiling),
            "condition": to_json_value(self.condition),
            "level": self.level,
            "samples": {str(task): int(n) for task, n in self.samples.to_series().items()},
            "runs": {str(task): int(n) for task, n in self.runs.to_series().items()},
            "weights": as_records(self.table),
            "nulls": as_records(self.nulls),
            "evidence": {**self.evidence.to_dict(), "verdict": describe_evidence(self.evidence)},
            "supported": self.supported,
            "verdict": self.verdict,
        }

    def plot(self) -> Chart:
        """Fitted against observed values of the heads, the weights with their intervals, and the null models."""
        import pandas as pd  # noqa: PLC0415

        ordinary = {"least squares": self.ordinary.weights}
        others = {"weights ≥ 0": self.weights} | ordinary if self.form.nonnegative else ordinary
        own = pd.DataFrame({"r2": [self.r2], "r2_cv": [self.r2_cv]}, index=["the fit"])
        uncentred = f"R² {estimate_text(self.r2_uncentred)} ({UNCENTRED})"
        chart = chart_row(
            regression(self.observed, self.fitted, title=f"Observed and fitted, R² {estimate_text(self.r2)}"),
            weights(self.interval, name="noise-corrected", others=others, selected=self.selected, title="Weights"),
            nulls(
                pd.concat([own, self.nulls[["r2", "r2_cv"]]]), ceiling=self.ceiling, title="The fit and its null models"
            ),
        )
        title = f"Fit of {self.target} from {', '.join(map(str, self.weights['basic'].values))}"
        return replace(chart, title=title, words=(*chart.words, uncentred))

    def __repr__(self) -> str:
        parts = [
            f"{self._title()}\n",
            f"{self.table.to_string(float_format=_format)}\n",
            f"{self._r2_line()}\n",
            f"{self.nulls.to_string(float_format=_format, na_rep='–')}\n",
            *([f"{self.evidence.table.to_string(float_format=_format, na_rep='–')}\n"] if self._was_tested else []),
            self.verdict,
        ]
        return for_stdout("\n".join(parts))

    def _repr_html_(self) -> str:
        parts = [self._title(), self.table, self._r2_line(), self.nulls]
        evidence = [self.evidence.table] if self._was_tested else []
        return result_html(*parts, *evidence, verdict=self.verdict, float_format=_format, na_rep="–")

    @property
    def _was_tested(self) -> bool:
        return not self.evidence.reason_untested

    def _title(self) -> str:
        what = "change" if self.on == "change" else "pattern after fine-tuning"
        how = "weights ≥ 0" if self.form.nonnegative else "ordinary least squares"
        constant = "with intercept" if self.form.intercept else "without intercept"
        scale = ", scale-free" if self.scale_free else ""
        return f"{self.target}: {what}{scale}, from {', '.join(self.weights['basic'].values)} ({how}, {constant})"

    def _r2_line(self) -> str:
        return (
            f"R² {self.r2:.3g} ({self.r2_uncentred:.3g} {UNCENTRED}), leave-layers-out {self.r2_cv:.3g}, "
            f"ceiling {self.ceiling:.3g}; noise-corrected {self.r2_corrected}; ordinary least squares "
            f"{self.ordinary.r2:.3g}; condition number {self.condition:.3g}"
        )


@check_arguments
def fit_combination(
    target: Change,
    basics: Mapping[str, Change],
    *,
    name: str | None = None,
    on: str = "change",
    scale_free: bool = False,
    nonnegative: bool = True,
    intercept: bool = False,
    others: Mapping[str, Change] | None = None,
    shuffled: Change | Mapping[str, Change] | None = None,
    level: float = 0.95,
    permutations: int = 1000,
    resamples: int = 500,
    seed: int = 0,
) -> CombinationFit:
    """Fit a complex task's pattern as a weighted sum of basic tasks' patterns (arXiv 2409.15820, finding 2).

    Each change is a (before, after) pair of scores of the same samples, or a list of such pairs (training runs with
    different seeds). A pair of patterns or a difference (layer, head) is also accepted; its noise is unknown.

    Args:
        target: the complex task's change.
        basics: the basic tasks' changes by name.
        name: name of the target; by default the task of its scores.
        on: "change" (AP after - AP before) or "after" (AP after fine-tuning).
        scale_free: divide every pattern by its mean over heads first, because magnitudes fall with the loss.
        nonnegative: constrain weights to >= 0 (scipy.optimize.nnls); the result also has the unconstrained fit.
        intercept: add a constant to the fit.
        others: changes of tasks that are neither target nor basic. Evidence above *gain* needs at least as many as
            there are basics, with three training runs each.
        shuffled: changes by fine-tuning on shuffled answers, task -> change. Evidence *beyond format* needs them for
            every task; run i has the seed of run i on that task's own answers. A single change is the target's and
            serves as a null model.
        level: confidence level of the intervals (over samples, with before/after pairs kept together, and training
            runs, never over heads) and of the one-sided limits of the evidence.
        permutations: number of permutations of heads within layers.
        resamples: number of resamples of samples and runs, for the selection frequency.
        seed: seed of groups, permutations and resamples.

    Raises:
        HeadnbError: no basics, patterns of different heads, or a fit that the given changes do not determine.
    """
    if on not in FITTED_ON:
        raise unknown_name("fit", on, FITTED_ON)
    inputs = CompositionInputs.read(target, basics, others or {}, shuffled, name)
    form = Form(nonnegative=nonnegative, intercept=intercept)
    design = Design.of(_named_stages(inputs), list(basics), list(others or {}), on=on, scale_free=scale_free)
    permuted = permuted_r_squared(design.predictors, design.observed, design.layers, form, permutations, seed)
    nulls = null_models.null_table(design, DebiasedProducts(design.patterns, seed), form, permuted, level)
    fit, ordinary = (_linear_fit(design, kind) for kind in (form, Form(nonnegative=False, intercept=intercept)))
    return CombinationFit(
        target=inputs.target,
        on=on,
        scale_free=scale_free,
        form=form,
        fit=fit,
        ordinary=ordinary,
        **_basic_columns(design, nulls.weights, fit, selection_frequency(design, form, resamples, seed)),
        alone=_single_task_r2(design, form),
        **_task_columns(design, [inputs.target, *basics], list(inputs.own.values())),
        condition=condition_number(design.predictors, form),
        r2_corrected=nulls.r2_corrected,
        nulls=nulls.table,
        permuted=permuted,
        observed=design.on_grid(design.observed).rename("observed"),
        level=level,
        evidence=evaluate_evidence(inputs, level, seed),
    )


def _named_stages(inputs: CompositionInputs) -> dict[str, Stages]:
    """The stages of the fit and its null models, by the names that `Design.of` expects."""
    stages = {"target": inputs.own[inputs.target]}
    for kind, names in (("basic", inputs.basics), ("other", inputs.others)):
        stages |= {f"{kind} {name}": inputs.own[name] for name in names}
    return stages | ({"shuffled": inputs.shuffled[inputs.target]} if inputs.target in inputs.shuffled else {})


def _basic_columns(design: Design, weights: Interval, fit: LinearFit, selected: Array) -> dict[str, Any]:
    coords = {"basic": design.basics}
    return {
        "interval": xr.Dataset({name: ("basic", column) for name, column in weights._asdict().items()}, coords),
        "selected": xr.DataArray(selected, coords, name="selected"),
        "contributions": (fit.weights * np.linalg.norm(design.predictors, axis=0)).rename("contribution"),
    }


def _single_task_r2(design: Design, form: Form) -> xr.DataArray:
    r2 = [r_squared(column[:, None], design.observed, form) for column in design.predictors.T]
    return xr.DataArray(r2, {"basic": design.basics}, name="alone")


def _task_columns(design: Design, names: list[str], stages: Sequence[Stages]) -> dict[str, Any]:
    """Reliability and numbers of samples and runs of the target and each basic, the first entries of `stages`."""
    evidence = design.evidence()
    needed = {name: ("task", [getattr(e, name) for e in evidence]) for name in ("samples_for_090", "runs_for_090")}
    reliability = xr.DataArray([e.reliability for e in evidence], {"task": names, **needed}, ("task",), "reliability")
    columns = {
        "samples": [s.n for s in stages[: len(names)]],
        "runs": [s.runs for s in stages[: len(names)]],
    }
    counted = {name: xr.DataArray(column, {"task": names}, name=name) for name, column in columns.items()}
    return {"reliability": reliability, **counted}


def _linear_fit(design: Design, form: Form) -> LinearFit:
    weights, constant = form.fit(design.predictors, design.observed)
    fitted = constant + design.predictors @ weights
    predicted = predicted_across_layers(design.predictors, design.observed, design.layers, form)
    return LinearFit(
        xr.DataArray(weights, {"basic": design.basics}, name="weight"),
        constant,
        float(descriptive.r_squared(design.observed, fitted)),
        uncentred_r_squared(design.observed, fitted),
        float(descriptive.r_squared(design.observed, predicted)) if np.isfinite(predicted).all() else math.nan,
        design.on_grid(fitted).rename("fitted"),
    )


def _format(value: float) -> str:
    return f"{value:.3g}"
