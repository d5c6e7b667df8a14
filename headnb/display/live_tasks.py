"""Live display of a score run over several tasks: one grid for each task, side by side on one colour scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import xarray as xr

from headnb.display.live import LiveState, Progress, patterns_of, progress_text
from headnb.stats.reliability import Evidence
from headnb.stats.results import MADE_BY, RESULT_ID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Sized


class _NamedTask(Protocol):
    @property
    def name(self) -> str: ...
    def __len__(self) -> int: ...


class TasksProgress(Protocol):
    """Progress of several tasks: the attributes of `scoring.several_tasks.TasksProgress` that a display needs."""

    @property
    def tasks(self) -> Sequence[_NamedTask]: ...
    @property
    def finished(self) -> Mapping[str, xr.Dataset | Mapping[str, xr.Dataset]]: ...
    @property
    def current(self) -> Progress: ...


def tasks_state(progress: TasksProgress) -> LiveState:
    """State for `LiveGrid.show`; `done` and `total` count the samples of all tasks.

    Tasks that have not begun are drawn as empty grids, so that the layout stays.
    """
    current, finished, tasks = progress.current, progress.finished, progress.tasks
    task = tasks[len(finished)]
    place = f"{task.name} (task {len(finished) + 1} of {len(tasks)})"
    before, after = tasks[: len(finished)], tasks[len(finished) + 1 :]
    done = _samples(before) + current.done
    return LiveState(
        done,
        _samples(before) + current.total + _samples(after),
        current.unit,
        f"{place}: {progress_text(current)}",
        " · ".join(filter(None, (place, current.message))),
        sketch=lambda: _patterns(progress),
        result=lambda: _patterns(progress),
        note=current.message,
    )


def _samples(tasks: Sequence[Sized]) -> int:
    return sum(map(len, tasks))


def _patterns(progress: TasksProgress) -> dict[str, Any] | None:
    """The pattern of each task so far by name, or those of each method; None before the first sample."""
    names = [task.name for task in progress.tasks]
    known: dict[str, Any] = {name: patterns_of(scores) for name, scores in progress.finished.items()}
    if progress.current.done:
        known[names[len(known)]] = patterns_of(progress.current.scores())
    if not known:
        return None
    first = next(iter(known.values()))
    if isinstance(first, dict):
        return {method: _with_empty({task: of[method] for task, of in known.items()}, names) for method in first}
    return _with_empty(known, names)


def _with_empty(known: Mapping[str, xr.DataArray], names: Sequence[str]) -> dict[str, xr.DataArray]:
    """The patterns by task, and an empty one for each task that has not begun."""
    first = next(iter(known.values()))
    unknown = {RESULT_ID, MADE_BY, "task", *Evidence._fields}
    empty = xr.full_like(first, np.nan).drop_attrs()
    empty = empty.assign_attrs({name: value for name, value in first.attrs.items() if name not in unknown})
    return {name: known.get(name, empty) for name in names}
