"""The numbers of a combination fit, from which its verdict and its pictures are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    import xarray as xr

    from headnb.analysis.composition.evidence import CompositionEvidence
    from headnb.analysis.composition.least_squares import Form
    from headnb.stats.descriptive import Array
    from headnb.stats.estimates import Estimate


@dataclass(frozen=True)
class LinearFit:
    """One least-squares fit over the heads: target = constant + sum of weights times basics."""

    weights: xr.DataArray  # (basic)
    constant: float
    r2: float
    r2_uncentred: float
    r2_cv: float
    fitted: xr.DataArray  # (layer, head)


@dataclass(frozen=True, repr=False)
class FitData:
    """The numbers of a target's pattern fitted by basic ones.

    Attributes:
        target: name of the complex task.
        on: "change" (dAP) or "after" (AP after fine-tuning).
        scale_free: whether each pattern was divided by its mean over heads first.
        form: non-negative or not, with intercept or not.
        fit: the fit in this form to the patterns at hand: what scipy's nnls gives.
        ordinary: the unconstrained fit beside it.
        interval: Dataset (basic) of `value`, `low`, `high`: the weights of the ordinary fit to the patterns that
            unlimited samples (and training runs, where there are several) would give, with their intervals.
        selected: (basic), in what share of resamples of samples and runs the weight was above zero; NaN where samples
            are too few or unknown.
        contributions: (basic), alpha_i times the norm of dAP_i: raw weights depend on each pattern's scale.
        alone: (basic), R^2 of the fit in this form from that basic task alone.
        condition: condition number of the predictors at unit length; above 30 they can hardly be told apart.
        reliability: (task) of the target and each basic: expected correlation with a replication; with the coordinates
            `samples_for_090` and `runs_for_090`, see `headnb.stats.reliability.CompositionEvidence`.
        r2_corrected: R^2 between the patterns that unlimited samples would give, with its interval.
        nulls: one row per null model: `r2`, `r2_uncentred`, `r2_cv`, `r2_corrected`, `advantage` of the fit over it
            (corrected R^2) with `low` and `high`, `p` (see `headnb.analysis.composition.null_models`).
        permuted: R^2 of fits to the target with heads shuffled within layers.
        observed: (layer, head), the target.
        samples: (task), samples behind each pattern; 0 if unknown. `runs`: (task), training runs.
        level: of the intervals.
        evidence: for composition, the same for every form of the fit.
    """

    target: str
    on: str
    scale_free: bool
    form: Form
    fit: LinearFit
    ordinary: LinearFit
    interval: xr.Dataset
    selected: xr.DataArray
    contributions: xr.DataArray
    alone: xr.DataArray
    condition: float
    reliability: xr.DataArray
    samples: xr.DataArray
    runs: xr.DataArray
    r2_corrected: Estimate
    nulls: pd.DataFrame
    permuted: Array
    observed: xr.DataArray
    level: float
    evidence: CompositionEvidence

    @property
    def weights(self) -> xr.DataArray:
        """(basic): alpha of the fit."""
        return self.fit.weights

    @property
    def r2(self) -> float:
        """1 - SSE / SS about the target's mean over heads; negative if worse than that mean."""
        return self.fit.r2

    @property
    def r2_uncentred(self) -> float:
        """1 - SSE / sum of squares, what a regression without a constant reports: high without composition."""
        return self.fit.r2_uncentred

    @property
    def r2_cv(self) -> float:
        """The same, each layer predicted from the fit to the others."""
        return self.fit.r2_cv

    @property
    def ceiling(self) -> float:
        """The target's reliability: what R^2 at most could be, of a target with this much noise."""
        return float(self.reliability.sel(task=self.target))

    @property
    def fitted(self) -> xr.DataArray:
        """(layer, head): the target as the fit has it."""
        return self.fit.fitted
