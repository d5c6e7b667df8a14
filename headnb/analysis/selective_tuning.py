"""Losses after fine-tuning only selected heads, compared with random heads, all weights and LoRA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
import xarray as xr

from headnb.analysis.json_values import with_interval
from headnb.analysis.result import AnalysisResult
from headnb.analysis.training_means import direction, format_estimate, mean_over_trainings
from headnb.display.charts.chart import Chart, chart_row
from headnb.display.charts.fits import weights
from headnb.errors import unknown_name

if TYPE_CHECKING:
    from headnb.stats.estimates import Estimate

LEVEL = 0.95
TOP = "top heads"
RANDOM = "random heads"
BASELINE_WAYS = ("all weights", "LoRA")
TESTS = ("trained task", "other tasks")


@dataclass(frozen=True, repr=False)
class SelectiveTuning(AnalysisResult):
    """Losses of the same samples after fine-tuning top heads, random heads, all weights or LoRA (dim `way`).

    Attributes:
        arrays: Dataset of `loss_before` (evaluated, sample) and `loss` (way, trained, seed, evaluated, sample) in nats,
            padded with NaN after an evaluated task's last sample; `parameters` (way), the fraction of the model's
            parameters that is trained. Its attributes: `heads`, the number of selected heads, and `of_heads`, the
            number of all heads.
    """

    arrays: xr.Dataset

    @property
    def ways(self) -> list[str]:
        """The tuning methods, top heads first."""
        return [str(way) for way in self.arrays["way"].to_numpy()]

    @property
    def tests(self) -> list[str]:
        """The evaluations: the trained task, and the other tasks if there are any."""
        return list(TESTS[: min(2, self.arrays.sizes["evaluated"])])

    def change(self, way: str, test: str, minus: str = "") -> Estimate:
        """Change of the loss by fine-tuning in nats; with `minus`, minus the change by that method.

        Mean over trained tasks, and over the other tasks. The interval is over samples and training seeds, both paired.

        Args:
            way: the tuning method.
            test: "trained task" or "other tasks".
            minus: a tuning method to subtract.

        Raises:
            HeadnbError: a tuning method or the test is unknown.
        """
        for kind, name, known in (
            ("tuning method", way, self.ways),
            ("tuning method", minus or way, self.ways),
            ("test", test, self.tests),
        ):
            if name not in known:
                raise unknown_name(kind, name, known)
        loss = self.arrays["loss"]
        other = loss.sel(way=minus, drop=True) if minus else self.arrays["loss_before"]
        values = loss.sel(way=way, drop=True) - other
        own = values["trained"] == values["evaluated"]
        return mean_over_trainings(values.where(own if test == TESTS[0] else ~own), LEVEL)

    def changes(self, test: str) -> xr.Dataset:
        """`change` of every method: `value`, `low`, `high` (way)."""
        changes = [self.change(way, test) for way in self.ways]
        columns = {
            name: ("way", np.array([getattr(one, name) for one in changes])) for name in ("value", "low", "high")
        }
        attrs = {"quantity": "change of the loss", "units": "nats"}
        return xr.Dataset(columns, {"way": self.ways}, attrs)

    @property
    def table(self) -> pd.DataFrame:
        """One row per method: fraction of the parameters, changes of the losses, and top heads minus this method."""
        rows = {}
        for way in self.ways:
            row = {"parameters": f"{float(self.arrays['parameters'].sel(way=way)):.2%}"}
            row |= {test: format_estimate(self.change(way, test)) for test in self.tests}
            if way != TOP:
                row |= {
                    f"top heads minus this method, {test}": format_estimate(self.change(TOP, test, way))
                    for test in self.tests
                }
            rows[way] = row
        return pd.DataFrame.from_dict(rows, orient="index").fillna("–").rename_axis("trained")

    @property
    def supported(self) -> bool | None:
        """Whether top heads reduce the loss of the trained task more than random heads; None if undecided."""
        return {-1: True, 1: False, 0: None}[direction(self.change(TOP, TESTS[0], RANDOM))]

    @property
    def verdict(self) -> str:
        """The result in sentences."""
        arrays = self.arrays
        tasks, seeds = arrays.sizes["trained"], arrays.sizes["seed"]
        share = float(arrays["parameters"].sel(way=TOP))
        first = (
            f"Fine-tuning the {arrays.attrs['heads']} of {arrays.attrs['of_heads']} heads with the highest levels "
            f"({share:.2%} of the parameters) changes the loss of the trained task by "
            f"{format_estimate(self.change(TOP, TESTS[0]))} nats (mean over {tasks} "
            f"task{'s' if tasks > 1 else ''} and {seeds} training seed{'s' if seeds > 1 else ''})."
        )
        words = {-1: "lower than with", 1: "higher than with", 0: "not significantly different from"}
        sentences = []
        for test in self.tests:
            differences = {way: self.change(TOP, test, way) for way in self.ways if way != TOP}
            parts = [f"{words[direction(one)]} {way} ({format_estimate(one)} nats)" for way, one in differences.items()]
            sentences.append(f"On the {test}, the loss with {TOP} is {'; '.join(parts)}.")
        return " ".join([first, *sentences])

    def plot(self) -> Chart:
        """Change of the loss by every method, on the trained task and on the other tasks."""
        charts = [weights(self.changes(test), name="change", title=f"On the {test}") for test in self.tests]
        return chart_row(*charts, title="Change of the loss by fine-tuning (nats)")

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values (NaN as None)."""
        arrays = self.arrays
        rows = [
            {
                "way": way,
                "on": test,
                "parameters": float(arrays["parameters"].sel(way=way)),
                **with_interval(self.change(way, test)),
                **({} if way == TOP else {"top heads minus these": with_interval(self.change(TOP, test, way))}),
            }
            for way in self.ways
            for test in self.tests
        ]
        return {
            "heads": int(arrays.attrs["heads"]),
            "of_heads": int(arrays.attrs["of_heads"]),
            "trained": list(map(str, arrays["trained"].to_numpy())),
            "seeds": arrays["seed"].to_numpy().tolist(),
            "rows": rows,
            "verdict": self.verdict,
        }
