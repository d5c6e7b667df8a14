"""Study of instruction selection: precision of selection methods, and losses after fine-tuning on the selection."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
import xarray as xr

from headnb.analysis.json_values import with_interval
from headnb.analysis.result import AnalysisResult
from headnb.analysis.selection.precision import SCORE_METHODS, mean_over_targets
from headnb.analysis.training_means import direction, format_estimate, mean_over_trainings, on_own_task
from headnb.display.charts.chart import Chart, chart_row
from headnb.display.charts.fits import weights
from headnb.display.charts.plots import trajectory
from headnb.stats.estimates import Estimate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LEVEL = 0.95
# Methods that others are compared with; the last one present decides the verdict.
BASELINES = ("less", "gradient", "embedding-middle", "embedding", "random", "tfidf")
ALONE = "target alone"  # training without selected samples, in the scarce setting
# Variable of `SelectionStudy.arrays` -> what is trained on, quantity, and unit.
TRAININGS = {
    "loss": ("chosen samples", "loss", " nats"),
    "exact_match": ("chosen samples", "exact match", ""),
    "scarce_loss": ("target and chosen samples of other tasks", "loss", " nats"),
    "scarce_exact_match": ("target and chosen samples of other tasks", "exact match", ""),
}


@dataclass(frozen=True, repr=False)
class SelectionStudy(AnalysisResult):
    """Comparison of selection methods for targets with a few samples, in a pool of several tasks.

    Attributes:
        arrays: Dataset with `precision` (way, target, k) of `selection_precision`, where `way` is the selection method.
            If models were fine-tuned on the selections: `loss_before` (target, sample) of samples of the target's task
            that are in neither target nor pool, and `loss` (tuned_way, target, tuned_k, seed, sample) after fine-tuning
            on tuned_k chosen samples. In the same way `exact_match_before` and `exact_match`; and `scarce_loss`,
            `scarce_exact_match` (scarce_way, ...) after fine-tuning on the target and samples of other tasks, with the
            method `ALONE`. Attributes: `pool_samples`, `target_samples` (smallest numbers per task).
    """

    arrays: xr.Dataset

    @cached_property
    def precision(self) -> xr.Dataset:
        """`value`, `low`, `high` (way, k): means over targets with Student's t intervals, clipped to 0 to 1."""
        found = mean_over_targets(self.arrays["precision"], LEVEL).clip(0, 1).transpose("way", "k")
        found["value"].attrs["quantity"] = "fraction of the target's own task"
        return found

    @property
    def ways(self) -> list[str]:
        """The compared selection methods; those that use patterns or activity come first."""
        return sorted(map(str, self.arrays["way"].to_numpy()), key=lambda way: way not in SCORE_METHODS)

    @property
    def most(self) -> int:
        """The k of comparisons: the largest that a task's samples in the pool can fill, else the smallest."""
        ks = [int(k) for k in self.arrays["k"].to_numpy()]
        return max((k for k in ks if k <= self.arrays.attrs["pool_samples"]), default=min(ks))

    @property
    def tuned_ks(self) -> list[int]:
        """The numbers of chosen samples that models were fine-tuned on; empty without fine-tuning."""
        return [int(k) for k in self.arrays["tuned_k"].to_numpy()] if self.trainings else []

    @property
    def trainings(self) -> list[str]:
        """The names in `TRAININGS` of which there are results."""
        return [name for name in TRAININGS if name in self.arrays and self.arrays[name].count() > 0]

    def ways_of(self, training: str) -> list[str]:
        """The selection methods of a training, in its order."""
        return [str(way) for way in self.arrays[_way_dim(training)].to_numpy()]

    def precision_of(self, way: str, k: int, minus: str = "") -> Estimate:
        """Precision at k; with `minus`, minus the precision of that method, paired by target."""
        precision = self.arrays["precision"]
        if minus:
            one, other = (precision.sel(way=name, drop=True) for name in (way, minus))
            found = mean_over_targets((one - other).sel(k=k), LEVEL)
        else:
            found = self.precision.sel(way=way, k=k)
        value, low, high = (float(found[name]) for name in ("value", "low", "high"))
        return Estimate(value, low, high, LEVEL, precision.sizes["target"], value)

    def change_of(self, way: str, k: int, minus: str = "", of: str = "loss") -> Estimate:
        """Change of the target's loss in nats, or of its exact match, by fine-tuning on k chosen samples.

        The value is the mean over targets (with an exact match). The interval is over samples and training seeds, both
        paired.

        Args:
            way: selection method.
            k: number of chosen samples.
            minus: another method: the difference from the values with it.
            of: one of `trainings`.
        """
        dim = _way_dim(of)
        after = self.arrays[of].sel(tuned_k=k, drop=True)
        other = after.sel({dim: minus}, drop=True) if minus else self.arrays[f"{of.removeprefix('scarce_')}_before"]
        values = (after.sel({dim: way}, drop=True) - other).rename(target="trained").dropna("trained", how="all")
        return mean_over_trainings(on_own_task(values), LEVEL)

    def changes(self, of: str) -> xr.Dataset:
        """`change_of` for every fine-tuned method and k: `value`, `low`, `high` (way, samples_chosen)."""
        ways = self.ways_of(of)
        found = [[self.change_of(way, k, of=of) for k in self.tuned_ks] for way in ways]
        columns = {
            name: (("way", "samples_chosen"), np.array([[getattr(one, name) for one in row] for row in found]))
            for name in ("value", "low", "high")
        }
        attrs = {"quantity": f"change of the target's {TRAININGS[of][1]}", "units": TRAININGS[of][2].strip()}
        return xr.Dataset(columns, {"way": ways, "samples_chosen": self.tuned_ks}, attrs)

    @property
    def table(self) -> pd.DataFrame:
        """One row per method: precision at each k, and differences from the baselines at `most`."""
        rows = {}
        for way in self.ways:
            row = {f"at {int(k)}": _format_share(self.precision_of(way, int(k))) for k in self.arrays["k"].to_numpy()}
            for baseline in self._baselines(way):
                row[f"minus {baseline}, at {self.most}"] = format_estimate(self.precision_of(way, self.most, baseline))
            rows[way] = row
        return pd.DataFrame.from_dict(rows, orient="index").fillna("–").rename_axis("method")

    @property
    def changes_table(self) -> pd.DataFrame:
        """One row per training, k and method: change by fine-tuning, and differences from the baselines; 95 %."""
        rows = [
            {"trained on": TRAININGS[of][0], "change of": TRAININGS[of][1] + TRAININGS[of][2], "k": k, "method": way}
            | {"change": format_estimate(self.change_of(way, k, of=of))}
            | {
                f"minus {baseline}": format_estimate(self.change_of(way, k, baseline, of))
                for baseline in self._baselines(way, self.ways_of(of))
            }
            for of in self.trainings
            for k in self.tuned_ks
            for way in self.ways_of(of)
        ]
        keys = ["trained on", "change of", "k", "method"]
        return pd.DataFrame(rows, columns=None if rows else keys).set_index(keys).fillna("–")

    @property
    def supported(self) -> bool | None:
        """Whether the first method is more precise than `baseline`; None if undecided or without a baseline."""
        found = direction(self.precision_of(self.ways[0], self.most, self.baseline)) if self.baseline else 0
        return {1: True, -1: False, 0: None}[found]

    @property
    def baseline(self) -> str:
        """The last of `BASELINES` that is compared (TF-IDF, else random, and so on); empty if there is none."""
        return next(reversed(self._baselines(self.ways[0])), "")

    @property
    def verdict(self) -> str:
        """The results, in sentences."""
        trainings = (sentence for of in self.trainings for sentence in self._training_sentences(of))
        return " ".join([*self._precision_sentences(), *trainings])

    def plot(self) -> Chart:
        """Precision against the number of chosen samples, and the change of loss by fine-tuning on them."""
        title = "Precision of the selection"
        charts = [trajectory(self.precision.rename(k="samples_chosen"), along="samples_chosen", log=True, title=title)]
        for of in (name for name in self.trainings if name.endswith("loss")):
            changes, title = self.changes(of), f"Fine-tuning on {TRAININGS[of][0]}"
            if len(self.tuned_ks) == 1:  # a line needs two points
                title += f" ({self.tuned_ks[0]} chosen)"
                charts.append(weights(changes.isel(samples_chosen=0, drop=True), name="change", title=title))
            else:
                charts.append(trajectory(changes, along="samples_chosen", log=True, title=title))
        return chart_row(*charts, title=f"Selection for {self.arrays.sizes['target']} targets from one pool")

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values (NaN as None)."""
        rows = [
            {"way": way, "k": int(k), **with_interval(self.precision_of(way, int(k)))}
            | {
                f"minus {baseline}": with_interval(self.precision_of(way, int(k), baseline))
                for baseline in self._baselines(way)
            }
            for way in self.ways
            for k in self.arrays["k"].to_numpy()
        ]
        changes = [
            {"trained on": TRAININGS[of][0], "change of": TRAININGS[of][1], "way": way, "k": k}
            | with_interval(self.change_of(way, k, of=of))
            | {
                f"minus {baseline}": with_interval(self.change_of(way, k, baseline, of))
                for baseline in self._baselines(way, self.ways_of(of))
            }
            for of in self.trainings
            for way in self.ways_of(of)
            for k in self.tuned_ks
        ]
        return {
            **{name: self.arrays.attrs[name] for name in ("pool_samples", "target_samples")},
            "targets": list(map(str, self.arrays["target"].to_numpy())),
            "seeds": self.arrays.sizes["seed"] if self.tuned_ks else 0,
            "precision": rows,
            "changes": changes,
            "verdict": self.verdict,
        }

    def _baselines(self, way: str, among: Sequence[str] | None = None) -> list[str]:
        known = self.ways if among is None else among
        return [name for name in (ALONE, *BASELINES) if name in known and name != way]

    def _precision_sentences(self) -> Iterator[str]:
        k, targets, (first, *others) = self.most, self.arrays.sizes["target"], self.ways
        rest = ", ".join(f"{way} {_format_share(self.precision_of(way, k))}" for way in others)
        yield (
            f"Precision at {k}, the fraction of chosen samples of the target's own task, mean of {targets} "
            f"target{'s' if targets > 1 else ''}: {first} {_format_share(self.precision_of(first, k))}"
            f"{f'; {rest}' if rest else ''}."
        )
        comparison = {1: "is higher than", -1: "is lower than", 0: "is not shown to differ from"}
        for baseline in self._baselines(first):
            found = self.precision_of(first, k, baseline)
            yield (
                f"Paired by target, the precision of {first} {comparison[direction(found)]} that of {baseline} "
                f"(difference {format_estimate(found)})."
            )

    def _training_sentences(self, of: str) -> Iterator[str]:
        k, ways, (trained_on, quantity, units) = self.tuned_ks[-1], self.ways_of(of), TRAININGS[of]
        first, seeds = ways[0], self.arrays.sizes["seed"]
        yield (
            f"Fine-tuning on {trained_on} ({k} chosen by {first}) changes the {quantity} of the target's held-out "
            f"samples by {format_estimate(self.change_of(first, k, of=of))}{units} ({seeds} training "
            f"seed{'s' if seeds > 1 else ''})."
        )
        comparison = {1: "is higher than", -1: "is lower than", 0: "is not shown to differ from"}
        for baseline in self._baselines(first, ways):
            found = self.change_of(first, k, baseline, of)
            result, difference = comparison[direction(found)], format_estimate(found)
            yield f"The resulting {quantity} {result} that with {baseline} (difference {difference}{units})."


def _way_dim(training: str) -> str:
    return "scarce_way" if training.startswith("scarce_") else "tuned_way"


def _format_share(found: Estimate) -> str:
    return format_estimate(found, "")
