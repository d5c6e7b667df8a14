"""Training a few chosen heads alone, measured: what the task gains, and what other tasks lose."""

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

if TYPE_CHECKING:
    from headnb.stats.estimates import Estimate

LEVEL = 0.95
TOP = "top heads"
RANDOM = "random heads"
BASELINE_WAYS = ("all weights", "LoRA")
TESTS = ("trained task", "other tasks")


@dataclass(frozen=True, repr=False)
class SelectiveTuning(AnalysisResult):
    """Fine-tunings of the chosen heads, of random ones, of all weights and of adapters, on the same samples.

    Attributes:
        arrays: Dataset of `loss_before` (evaluated, sample) and `loss` (way, trained, seed, evaluated, sample) in nats,
            NaN behind an evaluated task's last sample; `parameters` (way), the share of the model's numbers that was
            trained. Attributes: `heads`, how many were chosen, and `of_heads`.
    """

    arrays: xr.Dataset

    @property
    def ways(self) -> list[str]:
        """What was trained, the chosen heads first."""
        return [str(way) for way in self.arrays["way"].to_numpy()]

    @property
    def tests(self) -> list[str]:
        """Where losses are compared: the trained task, and the other tasks if there are any."""
        return list(TESTS[: min(2, self.arrays.sizes["evaluated"])])

    def change(self, way: str, test: str, less: str = "") -> Estimate:
        """The change of the loss by fine-tuning, in nats; with `less` that less the change by another way.

        Mean over the trained tasks and, of other tasks, over these; the interval is over samples and training seeds,
        and pairs both.

        Args:
            way: what was trained.
            test: "trained task" or "other tasks".
            less: another way.
        """
        loss = self.arrays["loss"]
        other = loss.sel(way=less, drop=True) if less else self.arrays["loss_before"]
        values = loss.sel(way=way, drop=True) - other
        own = values["trained"] == values["evaluated"]
        return mean_over_trainings(values.where(own if test == TESTS[0] else ~own), LEVEL)

    def changes(self, test: str) -> xr.Dataset:
        """`change` by every way: `value`, `low`, `high` (way)."""
        found = [self.change(way, test) for way in self.ways]
        columns = {name: ("way", np.array([getattr(one, name) for one in found])) for name in ("value", "low", "high")}
        attrs = {"quantity": "change of the loss", "units": "nats"}
        return xr.Dataset(columns, {"way": self.ways}, attrs)

    @property
    def table(self) -> pd.DataFrame:
        """A row a way: share of the parameters, changes of the losses, and the top heads' less its."""
        rows = {}
        for way in self.ways:
            row = {"parameters": f"{float(self.arrays['parameters'].sel(way=way)):.2%}"}
            row |= {test: format_estimate(self.change(way, test)) for test in self.tests}
            if way != TOP:
                row |= {
                    f"top heads less these, {test}": format_estimate(self.change(TOP, test, way)) for test in self.tests
                }
            rows[way] = row
        return pd.DataFrame.from_dict(rows, orient="index").fillna("–").rename_axis("trained")

    @property
    def supported(self) -> bool | None:
        """Whether the task gains more by the chosen heads than by random ones; None where it cannot be told."""
        return {-1: True, 1: False, 0: None}[direction(self.change(TOP, TESTS[0], RANDOM))]

    @property
    def verdict(self) -> str:
        """What the numbers show, in sentences."""
        arrays = self.arrays
        tasks, seeds = arrays.sizes["trained"], arrays.sizes["seed"]
        share = float(arrays["parameters"].sel(way=TOP))
        first = (
            f"Training the {arrays.attrs['heads']} heads of the highest levels of {arrays.attrs['of_heads']} "
            f"({share:.2%} of the parameters) changes the loss of the trained task by "
            f"{format_estimate(self.change(TOP, TESTS[0]))} nats, mean of {tasks} "
            f"task{'s' if tasks > 1 else ''} and {seeds} "
            f"training seed{'s' if seeds > 1 else ''}."
        )
        words = {-1: "a lower loss than", 1: "a higher loss than", 0: "a loss that is not shown to differ from that of"}
        sentences = []
        for test in self.tests:
            found = {way: self.change(TOP, test, way) for way in self.ways if way != TOP}
            said = [f"{words[direction(one)]} {way} ({format_estimate(one)})" for way, one in found.items()]
            sentences.append(f"On the {test} it leaves {'; '.join(said)}.")
        return " ".join([first, *sentences])

    def plot(self) -> Chart:
        """The change of the loss by every way: on the trained task, and on the others."""
        charts = [weights(self.changes(test), name="change", title=f"on the {test}") for test in self.tests]
        return chart_row(*charts, title="change of the loss by fine-tuning (nats)")

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values (NaN as None)."""
        arrays = self.arrays
        rows = [
            {
                "way": way,
                "on": test,
                "parameters": float(arrays["parameters"].sel(way=way)),
                **with_interval(self.change(way, test)),
                **({} if way == TOP else {"top heads less these": with_interval(self.change(TOP, test, way))}),
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
