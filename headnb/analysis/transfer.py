"""Early prediction of transfer: whether a cheap measurement tells how much training on one task helps another.

y[A, B] is the gain of task B by training on task A, for the T (T - 1) pairs of different tasks. A predictor x[A, B] is
measured early, for example the similarity of the patterns of A and B after ten steps. Z holds the baselines, such as
the losses before training, and a constant.

    least squares        y ~ Z, and y ~ Z + x, on the pairs without task t; errors on the pairs with task t, for every t
    skill                1 - (sum of squared errors with x) / (sum of squared errors without x)

An uninformative predictor has a skill below zero, because its fitted coefficient adds error. Pairs that share a
task are not independent, so the unit of the test is a task: the part of x that Z does not explain is permuted by
exchanging tasks, rows and columns together (semi-partialling, Dekker, Krackhardt and Snijders 2007), and the p-value is
the fraction of permutations with at least the same skill. p-values of several predictors are adjusted by Holm's method.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
import xarray as xr

from headnb.analysis.json_values import as_records, to_json_value
from headnb.analysis.result import AnalysisResult
from headnb.call_checks import check_arguments
from headnb.errors import HeadnbError
from headnb.stats.rounding import fixed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from headnb.stats.descriptive import Array

MIN_TASKS = 5  # four tasks have only 24 permutations, and too few pairs for the fits
DIMS = ("trained", "evaluated")
ROUNDING = 1e-12  # fraction of a predictor's sum of squares; what is left beyond Z is rounding below it
COLUMNS = ["r2_alone", "r2", "skill", "p_value"]


@dataclass(frozen=True, repr=False)
class TransferPrediction(AnalysisResult):
    """How well predictors tell the gain of one task by training on another, for tasks that are left out of the fit.

    Attributes:
        predictors: one row per predictor: `r2_alone`, its R² for tasks left out; `r2`, the same with the baselines;
            `skill`, the fraction of the baselines' squared error that it removes; `p_value`, adjusted; `works`.
        baselines: names of the baselines.
        r2_baselines: R² of the baselines alone for tasks left out.
        tasks: the tasks; below five nothing is tested, and the numbers are NaN.
        alpha: a predictor works if its adjusted p-value is at most this and its skill is above zero.
    """

    predictors: pd.DataFrame
    baselines: tuple[str, ...]
    r2_baselines: float
    tasks: tuple[str, ...]
    alpha: float

    @property
    def table(self) -> pd.DataFrame:
        """The predictors, best first."""
        return self.predictors.sort_values("skill", ascending=False)

    @property
    def verdict(self) -> str:
        """The result in sentences."""
        if len(self.tasks) < MIN_TASKS:
            return f"Transfer is not tested: that needs {MIN_TASKS} trained tasks, and there are {len(self.tasks)}."
        working = [str(name) for name in self.table.index[self.table["works"]]]
        failing = [str(name) for name in self.table.index[~self.table["works"]]]
        pairs, known = len(self.tasks) * (len(self.tasks) - 1), ", ".join(self.baselines)
        design = f"{pairs} pairs of {len(self.tasks)} tasks, each predicted without one of its tasks."
        baselines, beyond = f"The baselines ({known}) have", " beyond the baselines"
        if not self.baselines:
            baselines, beyond = "Without baselines, the mean gain has", ""
        parts = [f"{design} {baselines} R² {fixed(self.r2_baselines)}."]
        parts += [self._sentence(name, f"predicts transfer{beyond}") for name in working]
        parts += [self._sentence(name, f"does not predict transfer{beyond}") for name in failing]
        return " ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values."""
        return {
            "tasks": list(self.tasks),
            "baselines": list(self.baselines),
            "r2_baselines": to_json_value(self.r2_baselines),
            "predictors": as_records(self.table),
            "verdict": self.verdict,
        }

    def _sentence(self, name: str, finding: str) -> str:
        row = self.predictors.loc[name]
        return (
            f"{name} {finding}: R² {fixed(row['r2'])} with it, skill {fixed(row['skill'])}, p = {row['p_value']:.2g}."
        )


@check_arguments
def predict_transfer(
    gain: xr.DataArray,
    predictors: Mapping[str, xr.DataArray],
    baselines: Mapping[str, xr.DataArray],
    *,
    permutations: int = 999,
    alpha: float = 0.05,
    seed: int = 0,
) -> TransferPrediction:
    """Test whether early measurements predict transfer between tasks, with one task at a time left out.

    Args:
        gain: (trained, evaluated), gain of a task by training on another; the diagonal is ignored.
        predictors: name -> (trained, evaluated).
        baselines: name -> (trained, evaluated), or one of these dims.
        permutations: number of random permutations of tasks; all T! are used if they are not more.
        alpha: significance level, the probability that an uninformative predictor is said to work.
        seed: of the permutations.

    Raises:
        HeadnbError: no predictors, other dims, missing values, equal gains, or too many baselines for the number of
            tasks.
    """
    if not predictors:
        raise HeadnbError("no predictors given")
    tasks = [name for name in gain["trained"].to_numpy().tolist() if name in gain["evaluated"].to_numpy()]
    if len(tasks) < MIN_TASKS:
        unknown = pd.DataFrame(math.nan, list(predictors), COLUMNS).rename_axis("predictor").assign(works=False)
        return TransferPrediction(unknown, tuple(baselines), math.nan, tuple(map(str, tasks)), alpha)
    x, z = ([_matrix(values, tasks) for values in given.values()] for given in (predictors, baselines))
    off = ~np.eye(len(tasks), dtype=bool)
    rows, columns = off.nonzero()
    constant = np.ones((len(rows), 1))
    known = np.column_stack([constant, *(matrix[off] for matrix in z)])
    folds = [(rows == task) | (columns == task) for task in range(len(tasks))]
    if known.shape[1] + 1 >= (~folds[0]).sum():
        raise HeadnbError(f"{len(z)} baselines are too many for {len(tasks)} tasks")
    orders = list(_orders(len(tasks), permutations, seed))
    gains = _matrix(gain, tasks)[off]
    if not np.ptp(gains):
        raise HeadnbError("the gain is the same for all pairs of tasks, so there is nothing to predict")
    error = _errors(gains, known, folds)
    found = []
    for values in x:
        skill = 1 - float(_errors(gains, known, folds, values[off][:, None])[0] / error)
        unexplained = np.zeros_like(values)
        rest = values[off] - known @ (np.linalg.pinv(known) @ values[off])
        if (rest**2).sum() > ROUNDING * (values[off] ** 2).sum():
            unexplained[off] = rest
        permuted = np.column_stack([unexplained[np.ix_(order, order)][off] for order in orders])
        null = 1 - _errors(gains, known, folds, permuted) / error
        p_value = (1 + (null >= skill - 1e-12).sum()) / (1 + len(orders))
        alone = _r2(gains, folds, _errors(gains, constant, folds, values[off][:, None])[0])
        found.append((alone, _r2(gains, folds, (1 - skill) * error), skill, float(p_value)))
    table = pd.DataFrame(found, list(predictors), COLUMNS).rename_axis("predictor")
    table["p_value"] = _holm(table["p_value"].to_numpy())
    table["works"] = (table["p_value"] <= alpha) & (table["skill"] > 0)
    return TransferPrediction(table, tuple(baselines), _r2(gains, folds, error), tuple(map(str, tasks)), alpha)


def _matrix(values: xr.DataArray, tasks: list[Any]) -> Array:
    """(T, T) of these tasks; the diagonal is 0."""
    if extra := [str(dim) for dim in values.dims if dim not in DIMS]:
        raise HeadnbError(
            f"{values.name or 'a measurement'} has the dims {', '.join(extra)} besides {' and '.join(DIMS)}"
        )
    whole = xr.DataArray(np.zeros((len(tasks),) * 2), dict.fromkeys(DIMS, tasks), DIMS)
    matrix = (whole + values.reindex({dim: tasks for dim in DIMS if dim in values.dims})).transpose(*DIMS).to_numpy()
    matrix[np.eye(len(tasks), dtype=bool)] = 0
    if not np.isfinite(matrix).all():
        raise HeadnbError(f"{values.name or 'a measurement'} is missing for some pairs of tasks")
    return matrix


def _errors(y: Array, z: Array, folds: list[NDArray[np.bool_]], x: Array | None = None) -> Any:
    """Sum of squared errors over the left-out pairs of all folds: (m) for the columns of x (P, m), or a number."""
    total: Any = 0.0
    for left_out in folds:
        fit = np.linalg.pinv(z[~left_out])
        residuals = y - z @ (fit @ y[~left_out])  # (P)
        if x is None:
            total += (residuals[left_out] ** 2).sum()
            continue
        rest = x - z @ (fit @ x[~left_out])  # (P, m)
        size = (rest[~left_out] ** 2).sum(axis=0)
        known = size > ROUNDING * (x**2).sum(axis=0)
        slope = np.divide(residuals[~left_out] @ rest[~left_out], size, out=np.zeros_like(size), where=known)
        total = total + ((residuals[left_out, None] - slope * rest[left_out]) ** 2).sum(axis=0)
    return total


def _r2(y: Array, folds: list[NDArray[np.bool_]], error: float) -> float:
    """R² for tasks left out: compared with the mean of the pairs in the fit."""
    return 1 - float(error) / float(_errors(y, np.ones((len(y), 1)), folds))


def _orders(tasks: int, permutations: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Permutations of the tasks, without the identity if all are used."""
    if math.factorial(tasks) - 1 <= permutations:
        yield from map(np.array, itertools.islice(itertools.permutations(range(tasks)), 1, None))
        return
    random = np.random.default_rng(seed)
    yield from (random.permutation(tasks) for _ in range(permutations))


def _holm(p_values: Array) -> Array:
    """p-values adjusted by Holm's method."""
    order = np.argsort(p_values)
    adjusted = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1))
    return np.minimum(adjusted, 1)[np.argsort(order)]
