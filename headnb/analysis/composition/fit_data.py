"""Numbers of a combination fit, from which its verdict and charts are made."""

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
    """Numbers of a target's pattern fitted by basic tasks' patterns.

    Attributes:
        target: name of the complex task.
        on: "change" (dAP) or "after" (AP after fine-tuning).
        scale_free: whether each pattern was divided by its mean over heads first.
        form: whether weights are non-negative and whether there is an intercept.
        fit: the fit in this form to the measured patterns (scipy's nnls if non-negative).
        ordinary: the unconstrained fit.
        interval: Dataset (basic) of `value`, `low`, `high`: noise-corrected weights of the unconstrained fit, which
            estimate the weights at unlimited samples (and training runs, if there are several), with intervals.
        selected: (basic), fraction of resamples of samples and runs with a weight above zero; NaN if samples are too
            few or unknown.
        contributions: (basic), alpha_i times the norm of dAP_i, because raw weights depend on each pattern's scale.
        alone: (basic), R^2 of the fit in this form from that basic task alone.
        condition: condition number of the predictors at unit length; above 30 they are nearly collinear.
        reliability: (task) of the target and each basic: expected correlation with a replication; with the coordinates
            `samples_for_090` and `runs_for_090`, see `headnb.stats.reliability.Evidence`.
        r2_corrected: noise-corrected R^2 (between the patterns at unlimited samples), with its interval.
        nulls: one row per null model: `r2`, `r2_uncentred`, `r2_cv`, `r2_corrected`, `advantage` of the fit over it
            (difference of corrected R^2) with `low` and `high`, `p` (see `headnb.analysis.composition.null_models`).
        permuted: R^2 of fits to the target with heads shuffled within layers.
        observed: (layer, head), the target.
        samples: (task), number of samples of each pattern; 0 if unknown.
        runs: (task), number of training runs.
        level: confidence level of the intervals.
        evidence: evidence for composition; it does not depend on the form of the fit.
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
        """(basic): the fitted weights alpha."""
        return self.fit.weights

    @property
    def r2(self) -> float:
        """1 - SSE / SS about the target's mean over heads; negative if the fit is worse than that mean."""
        return self.fit.r2

    @property
    def r2_uncentred(self) -> float:
        """1 - SSE / sum of squares, as regressions without a constant report it; high even without composition."""
        return self.fit.r2_uncentred

    @property
    def r2_cv(self) -> float:
        """Leave-layers-out R^2: each layer is predicted by the fit to the other layers."""
        return self.fit.r2_cv

    @property
    def ceiling(self) -> float:
        """The target's reliability, an upper bound of R^2 given the target's noise."""
        return float(self.reliability.sel(task=self.target))

    @property
    def fitted(self) -> xr.DataArray:
        """(layer, head): the fitted values of the target."""
        return self.fit.fitted
