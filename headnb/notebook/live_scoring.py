"""Scoring of one or several tasks under a live grid, for `%headscore` and `headnb score`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from headnb import _background_imports
from headnb.display.live_tasks import tasks_state
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headnb.display.live import LiveGrid
    from headnb.tasks.loading import Task


def score_live(live: LiveGrid, model: Any, tokenizer: Any, tasks: Sequence[Task], **settings: Any) -> Any:
    """Scores of a single task, or the study of several: what `score_heads` or `score_tasks` returns."""
    if len(tasks) == 1:
        from headnb.scoring.run import score_heads  # noqa: PLC0415  loads torch

        return score_heads(model, tokenizer, tasks[0], **settings, on_progress=_load_drawing(live.update))
    from headnb.scoring.several_tasks import score_tasks  # noqa: PLC0415  loads torch

    report = _load_drawing(lambda progress: live.show(tasks_state(progress)))
    return score_tasks(model, tokenizer, tasks, **settings, on_progress=report)


def _load_drawing(show: Callable[[Any], None]) -> Callable[[Any], None]:
    """Import what draws scores during the first batch, in which the model runs and nothing else is imported."""
    begun = False

    def report(progress: Any) -> None:
        nonlocal begun
        if begun:
            _background_imports.wait()
        else:
            _background_imports.start(_background_imports.FOR_DRAWING)
        begun = True
        show(progress)

    return report


def distinct_tasks(tasks: Sequence[Task], words: Sequence[str]) -> list[Task]:
    """Tasks with distinct names: their own, or where two are equal, the words that the user typed.

    Raises:
        HeadnbError: a task is given twice.
    """
    if repeated := [word for word in words if words.count(word) > 1]:
        raise HeadnbError(f"the task {repeated[0]} is given twice")
    if len({task.name for task in tasks}) == len(tasks):
        return list(tasks)
    return [dataclasses.replace(task, name=word) for task, word in zip(tasks, words, strict=True)]


def joined_names(tasks: Sequence[Task]) -> str:
    """The names of tasks, for a title."""
    return ", ".join(task.name for task in tasks)
