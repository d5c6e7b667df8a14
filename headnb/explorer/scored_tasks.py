"""Scores of an explorer by task and method, with the scored samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

    from headnb.explorer.task_sources import TaskSources
    from headnb.tasks.loading import Task


class ScoredTasks:
    """Scores and samples by (task, method).

    Attributes:
        scores: data set of scores by (task, method).
        samples: scored task by (task, method), if its samples are in memory.
    """

    def __init__(self, sources: TaskSources) -> None:
        self._sources = sources
        self.scores: dict[tuple[str, str], xr.Dataset] = {}
        self.samples: dict[tuple[str, str], Task] = {}

    def add(self, name: str, method: str, scores: xr.Dataset, task: Task | None = None) -> None:
        """Store scores; without `task`, look up their samples in the sources (for results computed elsewhere)."""
        if task is None and (name, method) not in self.samples and name in self._sources.names:
            task = self._sources.find_task(name, set(scores["sample"].values.tolist()))
        if task is not None:
            self.samples[name, method] = task
        self.scores[name, method] = scores

    def of_method(self, method: str, first: str) -> dict[str, xr.Dataset]:
        """Scores of all tasks by one method, beginning with the task `first`."""
        others = (name for name, scored_by in self.scores if scored_by == method and name != first)
        return {name: self.scores[name, method] for name in (first, *others)}
