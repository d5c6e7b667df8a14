"""Effect of fine-tuning on a mixture of basic tasks before a complex task (arXiv 2409.15820, application 1).

Models are compared on the same held-out samples: the base model (`base`), the model fine-tuned on the complex task
alone (`plain`), and models fine-tuned first on a mixture, then on the complex task. A random mixture of the same size
controls for the additional updates: the mixture of the fit must be better than the random mixture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from headnb.analysis.json_values import as_records
from headnb.analysis.result import AnalysisResult, signed_text
from headnb.call_checks import checked_level
from headnb.errors import HeadnbError
from headnb.stats.rounding import interval_text
from headnb.stats.significance import crossed_intervals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it

    from headnb.stats.significance import HeadIntervals

BASE, PLAIN, RANDOM, FITTED = "base", "plain", "random", "weights"
NAMES = {
    BASE: "the base model",
    PLAIN: "the task alone",
    RANDOM: "a random mixture first",
    FITTED: "the fit's mixture first",
    "contributions": "the mixture by contributions first",
    "uniform": "a uniform mixture first",
    "single": "the best single task first",
}


@dataclass(frozen=True, repr=False)
class MixtureEffect(AnalysisResult):
    """Held-out loss and exact match of one complex task by training method (dim `way`).

    Attributes:
        target: name of the complex task.
        loss: Dataset (way) of `value`, `low`, `high`: mean loss in nats, over samples and training seeds.
        loss_change: Dataset (against, way) of `value`, `low`, `high`: mean paired difference from `plain` and from
            `random`.
        exact: as `loss`, fraction of correct answers; None if no answers were generated.
        exact_change: as `loss_change`, for the fraction of correct answers; None if `exact` is.
        samples: number of samples behind the losses.
        runs: number of training runs of each method.
        asked: number of generated answers of each run.
        level: confidence level of the intervals.
    """

    target: str
    loss: xr.Dataset
    loss_change: xr.Dataset
    exact: xr.Dataset | None
    exact_change: xr.Dataset | None
    samples: int
    runs: int
    asked: int
    level: float

    @property
    def supported(self) -> bool | None:
        """Whether the mixture of the fit has a lower loss than a random mixture; None if undecided."""
        if not {RANDOM, FITTED} <= set(self.loss["way"].to_numpy()):
            return None
        change = self.loss_change.sel(against=RANDOM, way=FITTED)
        return True if change["high"] < 0 else False if change["low"] > 0 else None

    @property
    def table(self) -> pd.DataFrame:
        """One row per method: loss, its difference from the task alone and from the random mixture, and exact match."""
        columns = {"loss": _interval_texts(self.loss)}
        columns |= {
            f"loss − {_column_suffix(name)}": _interval_texts(self.loss_change.sel(against=name))
            for name in self._against
        }
        if self.exact is not None:
            columns["exact match"] = _interval_texts(self.exact)
        return xr.Dataset(columns).drop_vars("against", errors="ignore").to_dataframe().rename(index=NAMES)

    @property
    def verdict(self) -> str:
        """The result in sentences."""
        pairs = ((FITTED, RANDOM), (FITTED, PLAIN), (RANDOM, PLAIN))
        lines = [self._comparison_sentence(way, against) for way, against in pairs if self._has(way, against)]
        if not self._has(FITTED):
            lines.append("No model was trained on the fit's mixture.")
        if self.exact_change is not None and self._has(FITTED, RANDOM):
            change = self.exact_change.sel(against=RANDOM, way=FITTED)
            lines.append(
                f"The difference in exact match between {NAMES[FITTED]} and {NAMES[RANDOM]} is {signed_text(change)} "
                f"({self.asked} answers in each run)."
            )
        runs = f"{self.runs} training run{'s' if self.runs > 1 else ''}"
        return " ".join([*lines, f"All differences are paired over {self.samples} held-out samples ({runs})."])

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values (NaN as None)."""
        tables = {"loss": self.loss, "loss_change": self.loss_change}
        if self.exact is not None and self.exact_change is not None:
            tables |= {"exact": self.exact, "exact_change": self.exact_change}
        return {
            "target": self.target,
            **{name: as_records(table) for name, table in tables.items()},
            "samples": self.samples,
            "runs": self.runs,
            "asked": self.asked,
            "level": self.level,
            "supported": self.supported,
            "verdict": self.verdict,
        }

    def _title(self) -> str:
        return self.target

    @property
    def _against(self) -> list[str]:
        return [str(name) for name in self.loss_change["against"].to_numpy()]

    def _has(self, *ways: str) -> bool:
        return set(ways) <= set(self.loss["way"].to_numpy())

    def _comparison_sentence(self, way: str, against: str) -> str:
        change = self.loss_change.sel(against=against, way=way)
        result = "is lower than" if change["high"] < 0 else "is higher than" if change["low"] > 0 else ""
        result = result or "does not differ significantly from the loss"
        return (
            f"With {NAMES[way]}, the loss on {self.target} {result} with {NAMES[against]}: difference "
            f"{signed_text(change)} nats."
        )


def mixture_effect(target: str, results: Mapping[str, Sequence[xr.Dataset]], *, level: float = 0.95) -> MixtureEffect:
    """Compare training methods by the losses of the same held-out samples, paired by sample.

    Args:
        target: name of the complex task.
        results: method -> the results of `evaluate`, one per training seed, the same seeds for each method: `loss`
            (sample), and optionally `exact_match` (sample), NaN without a generated answer. `plain` is required.
        level: confidence level of the intervals, which are over samples and seeds (`crossed_intervals`).

    Raises:
        HeadnbError: no `plain`, no training runs, different numbers of seeds, or fewer than two common samples.
    """
    level = checked_level(level)
    if PLAIN not in results:
        raise HeadnbError(
            f"{target}: results lacks {PLAIN!r}, fine-tuning on the task alone, the baseline of all mixtures"
        )
    if len(counts := {len(runs) for runs in results.values()}) > 1:
        raise HeadnbError(f"{target}: all methods need the same number of training runs; got {sorted(counts)}")
    if not results[PLAIN]:
        raise HeadnbError(f"{target}: results has no training runs; give the evaluation of each training seed")
    ways = [way for way in NAMES if way in results] + [way for way in results if way not in NAMES]
    losses = _values({way: results[way] for way in ways}, "loss")
    if losses.shape[2] < 2:
        raise HeadnbError(f"{target}: the models have {losses.shape[2]} samples in common; at least 2 are needed")
    answers = _values({way: results[way] for way in ways}, "exact_match")
    asked = answers.shape[2] if answers.shape[2] > 1 else 0
    loss, loss_change = _compared(ways, losses, level, "loss", "nats")
    exact, exact_change = _compared(ways, answers, level, "exact match", "") if asked else (None, None)
    runs, samples = losses.shape[1:]
    return MixtureEffect(target, loss, loss_change, exact, exact_change, samples, runs, asked, level)


def _values(results: Mapping[str, Sequence[xr.Dataset]], name: str) -> np.ndarray:
    """(methods, seeds, samples), for the samples that have a value in every run."""
    runs = [run[name].dropna("sample") for way in results.values() for run in way if name in run]
    if len(runs) < sum(map(len, results.values())):
        return np.empty((len(results), 0, 0))
    common = set.intersection(*(set(run["sample"].to_numpy().tolist()) for run in runs))
    order = [sample for sample in runs[0]["sample"].to_numpy().tolist() if sample in common]
    values = np.array([run.sel(sample=order).to_numpy() for run in runs], np.float64)
    return np.reshape(values, (len(results), len(runs) // len(results), len(order)))


def _compared(
    ways: list[str], values: np.ndarray, level: float, name: str, units: str
) -> tuple[xr.Dataset, xr.Dataset]:
    """Means (way), and mean paired differences (against, way)."""
    attrs = {"long_name": name, "units": units}
    against = [way for way in (PLAIN, RANDOM) if way in ways]
    means = _dataset(crossed_intervals(np.moveaxis(values, 0, -1), level), ways, attrs)
    changes = [
        _dataset(crossed_intervals(np.moveaxis(values - values[ways.index(one)], 0, -1), level), ways, attrs)
        for one in against
    ]
    joined = xr.concat(changes, xr.DataArray(against, dims="against", name="against"))
    return means, joined.assign_attrs({**attrs, "long_name": f"change of {name}"})


def _dataset(intervals: HeadIntervals, ways: list[str], attrs: dict[str, str]) -> xr.Dataset:
    names = {"value": intervals.mean, "low": intervals.low, "high": intervals.high}
    return xr.Dataset({name: ("way", values) for name, values in names.items()}, {"way": ways}, attrs)


def _column_suffix(way: str) -> str:
    return {PLAIN: "alone", RANDOM: "random"}[way]


def _interval_texts(table: xr.Dataset) -> xr.DataArray:
    rows = zip(*(table[name].to_numpy() for name in ("value", "low", "high")), strict=True)
    return xr.DataArray([interval_text(*row) for row in rows], dims="way", coords={"way": table["way"]})
