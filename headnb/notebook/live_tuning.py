"""Live head grid of a running fine-tuning: before, after and their difference, with a slider on the loss curve."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from headnb.display import grid_text
from headnb.display.live import LiveGrid, LiveState, thin_steps
from headnb.hub import user_path
from headnb.stats.patterns import pattern
from headnb.stats.rounding import format_duration
from headnb.tuning.run_folder import last_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr

    from headnb.tuning.progress import TuningProgress
    from headnb.tuning.result import FineTuned


class LiveStudy(LiveGrid):
    """Live grid of the tracked tasks; `update_tuning` is the `on_progress` of `headnb.finetune`."""

    def update_tuning(self, progress: TuningProgress) -> None:
        """Show the progress of the fine-tuning."""
        message = _message(progress)

        def sketch() -> xr.DataArray | xr.Dataset | None:
            study = progress.study()
            if "level" in study:
                return thin_steps(study)
            scoring = progress.scoring  # of the first task before training: its pattern so far
            return pattern(scoring.scores()) if scoring is not None and scoring.done else None

        counted = f"step {progress.step} of {progress.total}"
        line = " · ".join(filter(None, (counted, message)))
        self.show(LiveState(progress.step, progress.total, "steps", line, message, sketch, progress.study))


def _message(progress: TuningProgress) -> str:
    """`scoring gsm8k at step 5: 12 of 64 samples · loss 1.20 · about 3 min 5 s left`; before training also the plan."""
    words = [progress.activity if progress.scoring is not None or not progress.step else ""]
    if not math.isnan(progress.train_loss):
        words.append(f"loss {grid_text.format_number(progress.train_loss)}")
    if progress.seconds_left is not None and (progress.step < progress.total or progress.scoring is not None):
        words.append(f"about {format_duration(progress.seconds_left)} left")
    words += [progress.tracking] if not progress.step else []
    return " · ".join(filter(None, words))


def training_note(result: FineTuned) -> str:
    """The tracked steps that the budget chose, and the number of samples that --max-length truncated or removed."""
    left_out, truncated = (result.study.attrs.get(f"train_{name}", 0) for name in ("left_out", "truncated"))
    words = [f"{left_out} sample(s) without an answer token after truncation left out"] if left_out else []
    words += [f"{truncated} sample(s) truncated"] if truncated else []
    tracking = result.study.attrs.get("tracking", "")
    return " ".join([f"{tracking}."] * bool(tracking) + [f"Training: {', '.join(words)}."] * bool(words))


def how_to_continue(folder: str | Path | None, *, resume: bool) -> str:
    """Advice after an interrupt; empty if the folder of --out has no checkpoint to resume from."""
    if not folder or last_checkpoint(user_path(folder)) is None:
        return ""
    return f"; repeat the command {'' if resume else 'with --resume '}to continue"
