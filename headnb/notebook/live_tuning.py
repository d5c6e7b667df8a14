"""Live head grid of a running fine-tuning, with a slider over the tracked steps."""

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

    from headnb.tuning.result import FineTuned
    from headnb.tuning.training import TuningProgress


class LiveStudy(LiveGrid):
    """Live grid of the first tracked task; `update_tuning` is the `on_progress` of `headnb.finetune`."""

    _picture: xr.DataArray | None = None
    _new: bool = False  # whether steps were tracked since `_picture` was made

    def update_tuning(self, progress: TuningProgress) -> None:
        """Show the progress of the fine-tuning."""
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
    """Patterns of the first task (step, layer, head), with the reliability of each step as coordinates.

    Args:
        scores: task -> scores (step, sample, layer, head), as `FineTuned.scores`.
    """
    task, first = next(iter(scores.items()))
    pattern: xr.DataArray = first.heads.pattern()
    evidences = [evidence(first.sel(step=step)) for step in first["step"].values]
    coords = {name: ("step", [getattr(each, name) for each in evidences]) for name in Evidence._fields}
    truncation = {name: first.attrs[name] for name in ("left_out", "truncated") if name in first.attrs}
    return pattern.assign_coords(coords).assign_attrs(task=task, **truncation)


def course_notes(result: FineTuned) -> str:
    """What the grid of `pattern_course` does not show: shortened training samples and further tracked tasks."""
    return " ".join(filter(None, (_truncation_note(result), _tracked_note(result))))


def _truncation_note(result: FineTuned) -> str:
    """Number of training samples that --max-length truncated or removed."""
    left_out, truncated = (result.study.attrs.get(f"train_{name}", 0) for name in ("left_out", "truncated"))
    words = [f"{left_out} sample(s) without an answer token after truncation left out"] if left_out else []
    words += [f"{truncated} sample(s) truncated"] if truncated else []
    return f"Training: {', '.join(words)}." if words else ""


def _tracked_note(result: FineTuned) -> str:
    """Names of the tracked tasks that the grid does not show."""
    names = list(result.scores)[1:]
    return f"Also tracked: {', '.join(names)} (result.study)." if names else ""
