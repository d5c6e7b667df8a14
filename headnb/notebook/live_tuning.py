"""A fine-tuning while it runs: the head grid of the tracked steps, with a slider along them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from headnb.display import grid_text
from headnb.display.live import LiveGrid, LiveState, format_duration
from headnb.stats.patterns import evidence
from headnb.stats.reliability import Evidence

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from headnb.tuning.training import TuningProgress


class LiveStudy(LiveGrid):
    """A live grid whose `update_tuning` is the `on_progress` of `headnb.finetune`. The first tracked task is drawn."""

    _picture: xr.DataArray | None = None
    _new: bool = False  # steps were tracked since the picture was made

    def update_tuning(self, progress: TuningProgress) -> None:
        """Show how far the fine-tuning is."""
        words = [] if math.isnan(progress.train_loss) else [f"loss {grid_text.format_number(progress.train_loss)}"]
        if progress.seconds_left is not None and progress.step < progress.total:
            words.append(f"{format_duration(progress.seconds_left)} left")
        message = " · ".join(words)
        self._new = self._new or progress.tracked

        def sketch() -> xr.DataArray | None:
            if self._new and (scores := progress.scores()):
                self._picture, self._new = pattern_course(scores), False
            return self._picture

        self.show(
            LiveState(
                progress.step,
                progress.total,
                "steps",
                " · ".join(filter(None, (f"step {progress.step} of {progress.total}", message))),
                message,
                sketch=sketch,
                result=lambda: pattern_course(progress.scores()),
            )
        )


def pattern_course(scores: Mapping[str, xr.Dataset]) -> xr.DataArray:
    """The pattern of the first task at every step, (step, layer, head), each with its reliability.

    Args:
        scores: task -> scores (step, sample, layer, head), as `FineTuned.scores`.
    """
    task, first = next(iter(scores.items()))
    pattern: xr.DataArray = first.heads.pattern()
    believed = [evidence(first.sel(step=step)) for step in first["step"].values]
    coords = {name: ("step", [getattr(each, name) for each in believed]) for name in Evidence._fields}
    cut = {name: first.attrs[name] for name in ("left_out", "truncated") if name in first.attrs}
    return pattern.assign_coords(coords).assign_attrs(task=task, **cut)
