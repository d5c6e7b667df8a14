"""Result of an ablation, as a card in a notebook and as text elsewhere."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headnb.display.encodings import for_stdout
from headnb.display.grid_text import format_number
from headnb.display.templating import render

if TYPE_CHECKING:
    import xarray as xr

    from headnb.scoring.ablation import Generation


@dataclass(frozen=True, repr=False)
class AblationCard:
    """Result of `headnb.ablate`, optionally with texts generated before and after."""

    result: xr.Dataset
    generation: Generation | None = None

    @property
    def heading(self) -> str:
        attrs = self.result.attrs
        change = "ablated" if attrs["factor"] == 0 else f"scaled by {attrs['factor']:g}"
        return f"{attrs['model']} · {attrs['task']} · {attrs['heads'].replace(',', ', ')} {change}"

    @property
    def lines(self) -> list[str]:
        """Loss before and after, its change with the interval, and the change with random control heads."""
        result = self.result
        before, after = (float(result[name].mean()) for name in ("loss_before", "loss_after"))
        words = [
            f"loss {format_number(before)} → {format_number(after)} nats, mean of {result.attrs['samples']} samples"
        ]
        low, high = float(result["low"]), float(result["high"])
        interval = (
            ""
            if math.isnan(low)
            else f" ({result.attrs['level']:.0%} interval {format_signed(low)} to {format_signed(high)})"
        )
        words.append(f"change {format_signed(float(result['mean_change']))} nats{interval}")
        controls = result["control_change"].values
        if len(controls):
            span = f" ({format_signed(controls.min())} to {format_signed(controls.max())} in {len(controls)} draws)"
            words.append(f"random heads of the same layers: {format_signed(controls.mean())} nats{span}")
        return words

    def _repr_html_(self) -> str:
        return render("ablation.html", heading=self.heading, lines=self.lines, texts=self._texts())

    def __repr__(self) -> str:
        texts = [f"{name}: {text!r}" for name, text in self._texts()]
        return for_stdout("\n".join([self.heading, *self.lines, *texts]))

    def _texts(self) -> list[tuple[str, str]]:
        if self.generation is None:
            return []
        made = self.generation
        return [("prompt", made.prompt), ("before", made.before), ("after", made.after)]


def to_row(result: xr.Dataset) -> dict[str, Any]:
    """Row of the explorer's table for one task: loss before and after, its change, and the changes with controls."""
    low, high = float(result["low"]), float(result["high"])
    return {
        "task": str(result.attrs["task"]),
        "samples": int(result.attrs["samples"]),
        "before": float(result["loss_before"].mean()),
        "after": float(result["loss_after"].mean()),
        "change": float(result["mean_change"]),
        "low": None if math.isnan(low) else low,
        "high": None if math.isnan(high) else high,
        "controls": result["control_change"].values.tolist(),
    }


def format_signed(value: float) -> str:
    """`+0.0120`, `−0.400`."""
    return f"+{format_number(value)}" if value > 0 else format_number(value)
