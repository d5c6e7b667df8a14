"""Progress of a fine-tuning run: updates, scoring of the tracked tasks, and the remaining time."""

# ruff: noqa: ARG002  callbacks of a Trainer have the arguments that it calls them with
from __future__ import annotations

import math
import time
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headnb.tuning.trainer import TrainerCallback, TrainerState

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr
    from transformers import TrainerControl, TrainingArguments

    from headnb.scoring.progress import Progress
    from headnb.tuning.budget import TrackingPlan
    from headnb.tuning.tracking import HeadScoreCallback


@dataclass(frozen=True)
class TuningProgress:
    """Progress of a fine-tuning run."""

    step: int
    """Number of finished updates, including those of an earlier run that was resumed."""
    total: int
    """Total number of updates."""
    seconds: float
    """Seconds since the start of this run."""
    seconds_left: float | None
    """Estimated remaining seconds of updates and scoring; None before the first measurement."""
    train_loss: float
    """Training loss of the last update; NaN before the first update."""
    tracked: bool
    """Whether tasks were scored since the last report."""
    study: Callable[[], xr.Dataset]
    """Returns the study so far, as `FineTuned.study`."""
    scores: Callable[[], dict[str, xr.Dataset]]
    """Returns the scores so far, as `FineTuned.scores`."""
    task: str = ""
    """Tracked task that is being scored; empty during updates."""
    scoring: Progress | None = None
    """Progress of that scoring; None during updates."""
    tracking: str = ""
    """The tracked steps and samples that the budget allows, and their cost; empty without a budget."""
    measuring: bool = False
    """Whether the cost of tracking is being measured."""

    @property
    def activity(self) -> str:
        """`scoring gsm8k before training: 12 of 64 samples`, or `training step 3 of 60`; empty at the end."""
        if self.measuring:
            return "measuring the cost of tracking"
        if self.scoring is not None:
            when = f"at step {self.step}" if self.step else "before training"
            return f"scoring {self.task} {when}: {self.scoring.done} of {self.scoring.total} {self.scoring.unit}"
        return f"training step {self.step + 1} of {self.total}" if self.step < self.total else ""


class ProgressReporter(TrainerCallback):
    """Trainer callback that reports a `TuningProgress` at every scored batch, before the first and after every update.

    The remaining time is that of the remaining updates and scoring passes at the measured rates. Before the first
    update it is that of the callback's plan. Without a plan, an update is assumed to take as long as the scoring of its
    samples, which computes the same gradients of activations.
    """

    def __init__(
        self, report: Callable[[TuningProgress], None], callback: HeadScoreCallback, samples_of_update: int
    ) -> None:
        self._report, self._callback, self._samples = report, callback, samples_of_update
        self._began = time.perf_counter()
        self._first: int | None = None
        """Number of updates at the start of this run; None until it is known."""
        self._loss = math.nan
        self._tracked: set[int] = set()
        self._scoring_seconds: dict[str, float] = {}
        """Task -> duration of its last scoring, estimated while it is scored for the first time."""
        self._scored_seconds = 0.0
        """Total duration of the finished scorings."""
        self._tracked_steps: list[int] | None = None
        """All tracked steps, once they are planned and counted."""
        self._guess: float | None = None
        """Assumed seconds of an update before the first one."""
        callback.on_scored, callback.on_planned = self.on_scored, self.on_planned

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._begin(state)
        self._report_progress(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not control.should_log:  # otherwise `on_log` reports, with the loss
            self._report_progress(state)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        if "loss" in (logs := given.get("logs") or {}):
            self._loss = float(logs["loss"])
            self._report_progress(state)

    def on_planned(self, state: TrainerState, plan: TrackingPlan | None) -> None:
        """Report that the cost of tracking is being measured, or the plan; the time counts from here."""
        self._began, self._first, self._tracked_steps = time.perf_counter(), state.global_step, None
        if plan is not None:
            self._scoring_seconds = {task: plan.of_step(task) for task in plan.sizes}
            self._guess = plan.costs.update
        self._report_progress(state, measuring=plan is None)

    def on_scored(self, state: TrainerState, task: str, scoring: Progress) -> None:
        """Report a scored batch of a tracked task."""
        self._begin(state)
        if scoring.seconds_left is not None:
            self._scoring_seconds[task] = scoring.seconds + scoring.seconds_left
            if self._callback.plan is None:
                self._guess = self._samples / scoring.samples_per_second if scoring.samples_per_second else None
        if scoring.done == scoring.total:
            self._scored_seconds += scoring.seconds
        self._report_progress(state, task, scoring)

    def _begin(self, state: TrainerState) -> None:
        if self._first is None:
            self._began, self._first = time.perf_counter(), state.global_step

    def _report_progress(
        self, state: TrainerState, task: str = "", scoring: Progress | None = None, *, measuring: bool = False
    ) -> None:
        tracked = set(self._callback.collected.steps)
        self._report(
            TuningProgress(
                step=state.global_step,
                total=state.max_steps,
                seconds=time.perf_counter() - self._began,
                seconds_left=self._seconds_left(state, task, scoring),
                train_loss=self._loss,
                tracked=tracked != self._tracked,
                study=lambda: self._callback.study,
                scores=lambda: self._callback.scores,
                task=task,
                scoring=scoring,
                tracking="" if measuring else str(self._callback.attrs.get("tracking", "")),
                measuring=measuring,
            )
        )
        self._tracked = tracked

    def _seconds_left(self, state: TrainerState, task: str, scoring: Progress | None) -> float | None:
        update = self._seconds_of_update(state, scoring)
        tasks, known = list(self._callback.tasks), self._scoring_seconds
        if update is None or (tasks and not known):
            return None
        usual = sum(known.values()) / max(len(known), 1)
        seconds = {name: known.get(name, usual) for name in tasks}
        step, last = state.global_step, state.max_steps
        if self._tracked_steps is None:
            self._tracked_steps = [one for one in range(last + 1) if self._callback.is_tracked(one, last)]
        scorings = len(self._tracked_steps) - bisect_right(self._tracked_steps, step)
        left = (last - step) * update + scorings * sum(seconds.values())
        if scoring is not None:
            left += seconds[task] if scoring.seconds_left is None else scoring.seconds_left
            left += sum(seconds[name] for name in tasks[tasks.index(task) + 1 :])
        return left

    def _seconds_of_update(self, state: TrainerState, scoring: Progress | None) -> float | None:
        """Mean duration of an update of this run, without scoring."""
        updates = state.global_step - (self._first or 0)
        if updates == 0:
            return self._guess
        running = scoring.seconds if scoring is not None and scoring.done < scoring.total else 0.0
        return max(time.perf_counter() - self._began - self._scored_seconds - running, 0.0) / updates
