"""Does training on a mixture of basic tasks first help a complex task? Application 1 of arXiv 2409.15820.

Models are compared on the same held-out samples: as it came (`base`), fine-tuned on the complex task alone (`plain`),
and first on a mixture, then on the complex task. What a mixture's extra updates do by themselves is seen in the random
mixture, which has as many: the mixture of the fit has to beat that one.
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
    BASE: "the model as it came",
    PLAIN: "the task alone",
    RANDOM: "a random mixture first",
    FITTED: "the fit's mixture first",
    "contributions": "the mixture by contributions first",
    "uniform": "a uniform mixture first",
    "single": "the best single task first",
}


@dataclass(frozen=True, repr=False)
class MixtureEffect(AnalysisResult):
    """Held-out loss and exact match of one complex task after different trainings.

    Attributes:
        target: the complex task.
        loss: Dataset (way) of `value`, `low`, `high`: mean loss in nats, over samples and training seeds.
        loss_change: Dataset (against, way) of the same: mean of the paired differences from `plain` and from `random`.
        exact: as `loss`, share of answers that are right; None where no answers were asked for.
        exact_change: as `loss_change`, of that share; None too.
        samples, runs: behind the losses. `asked`: answers of each run.
        level: of the intervals.
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
        """Whether the mixture of the fit is better than a random one by its loss; None: cannot be told."""
        if not {RANDOM, FITTED} <= set(self.loss["way"].to_numpy()):
            return None
        change = self.loss_change.sel(against=RANDOM, way=FITTED)
        return True if change["high"] < 0 else False if change["low"] > 0 else None

    @property
    def table(self) -> pd.DataFrame:
        """A row per way: loss, its change against plain fine-tuning and the random mixture, exact match."""
        columns = {"loss": _interval_texts(self.loss)}
        columns |= {
            f"loss − {_column_suffix(name)}": _interval_texts(self.loss_change.sel(against=name))
            for name in self._against
        }
        if self.exact is not None:
            columns["right"] = _interval_texts(self.exact)
        return xr.Dataset(columns).drop_vars("against", errors="ignore").to_dataframe().rename(index=NAMES)

    @property
    def verdict(self) -> str:
        """What the numbers show, in sentences."""
        pairs = ((FITTED, RANDOM), (FITTED, PLAIN), (RANDOM, PLAIN))
        lines = [self._comparison_sentence(way, against) for way, against in pairs if self._has(way, against)]
        if not self._has(FITTED):
            lines.append("The fit's mixture was not trained on: where no weight is above zero there is none.")
        if self.exact_change is not None and self._has(FITTED, RANDOM):
            change = self.exact_change.sel(against=RANDOM, way=FITTED)
            lines.append(
                f"Exact match, of {self.asked} answers in each run, differs by {signed_text(change)} from that with "
                f"{NAMES[RANDOM]}."
            )
        runs = f"{self.runs} training run{'s' if self.runs > 1 else ''}"
        return " ".join([*lines, f"{self.samples} held-out samples, {runs}."])

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values (NaN as None)."""
        found = {"loss": self.loss, "loss_change": self.loss_change}
        if self.exact is not None and self.exact_change is not None:
            found |= {"exact": self.exact, "exact_change": self.exact_change}
        return {
            "target": self.target,
            **{name: as_records(table) for name, table in found.items()},
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
        told = "is lower than" if change["high"] < 0 else "is higher than" if change["low"] > 0 else ""
        result = told or "is not shown to differ from that"
        said = f"With {NAMES[way]} the loss on {self.target} {result} with {NAMES[against]}"
        return f"{said}: {signed_text(change)} nats."


def mixture_effect(target: str, results: Mapping[str, Sequence[xr.Dataset]], *, level: float = 0.95) -> MixtureEffect:
    """Compare trainings by the loss of the same held-out samples, sample by sample.

    Args:
        target: name of the complex task.
        results: way -> what `evaluate` gives of the model of each training seed, the same seeds in each way: `loss`
            (sample), and perhaps `exact_match` (sample), NaN where nothing was asked. `plain` is needed.
        level: of the intervals, which are over samples and seeds (`crossed_intervals`).

    Raises:
        HeadnbError: no `plain`, ways of different numbers of seeds, or fewer than two samples that all have.
    """
    level = checked_level(level)
    if PLAIN not in results:
        raise HeadnbError(f"{target}: there is no fine-tuning on the task alone to compare mixtures with")
    if len(counts := {len(runs) for runs in results.values()}) > 1:
        raise HeadnbError(f"{target}: every way needs as many training runs; got {sorted(counts)}")
    ways = [way for way in NAMES if way in results] + [way for way in results if way not in NAMES]
    losses = _values({way: results[way] for way in ways}, "loss")
    if losses.shape[2] < 2:
        raise HeadnbError(f"{target}: the models have {losses.shape[2]} samples in common; this needs at least 2")
    answers = _values({way: results[way] for way in ways}, "exact_match")
    asked = answers.shape[2] if answers.shape[2] > 1 else 0
    loss, loss_change = _compared(ways, losses, level, "loss", "nats")
    exact, exact_change = _compared(ways, answers, level, "answered right", "") if asked else (None, None)
    runs, samples = losses.shape[1:]
    return MixtureEffect(target, loss, loss_change, exact, exact_change, samples, runs, asked, level)


def _values(results: Mapping[str, Sequence[xr.Dataset]], name: str) -> np.ndarray:
    """(ways, seeds, samples) of the samples for which every run has a value."""
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
    """Means (way), and means of paired differences (against, way)."""
    attrs = {"long_name": name, "units": units}
    against = [way for way in (PLAIN, RANDOM) if way in ways]
    means = _dataset(crossed_intervals(np.moveaxis(values, 0, -1), level), ways, attrs)
    changes = [
        _dataset(crossed_intervals(np.moveaxis(values - values[ways.index(one)], 0, -1), level), ways, attrs)
        for one in against
    ]
    joined = xr.concat(changes, xr.DataArray(against, dims="against", name="against"))
    return means, joined.assign_attrs({**attrs, "long_name": f"change of {name}"})


def _dataset(found: HeadIntervals, ways: list[str], attrs: dict[str, str]) -> xr.Dataset:
    names = {"value": found.mean, "low": found.low, "high": found.high}
    return xr.Dataset({name: ("way", values) for name, values in names.items()}, {"way": ways}, attrs)


def _column_suffix(way: str) -> str:
    return {PLAIN: "alone", RANDOM: "random"}[way]


def _interval_texts(table: xr.Dataset) -> xr.DataArray:
    rows = zip(*(table[name].to_numpy() for name in ("value", "low", "high")), strict=True)
    return xr.DataArray([interval_text(*row) for row in rows], dims="way", coords={"way": table["way"]})
