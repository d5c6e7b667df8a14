"""Tasks that an explorer offers by name; named tasks are loaded on first use."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from headnb.errors import HeadnbError, unknown_name
from headnb.tasks.loading import Task, known_tasks, load_task


class TaskSources:
    """Names of tasks and the sources of their samples.

    Args:
        tasks: a name, a file or a `Task`, several of these, or a mapping from names to anything that `load_task`
            accepts; None: all registered tasks.

    Raises:
        HeadnbError: two tasks have the same name, a task has no name, or a source cannot be read.
    """

    def __init__(self, tasks: object = None) -> None:
        if tasks is None:
            tasks = list(known_tasks())
        elif isinstance(tasks, (str, Path, Task)):
            tasks = [tasks]
        pairs = (
            list(tasks.items())
            if isinstance(tasks, Mapping)
            else [_name_and_source(one) for one in _check_iterable(tasks)]
        )
        self._sources: dict[str, Any] = {}
        for name, source in pairs:
            if name in self._sources:
                raise HeadnbError(f"two tasks are called {name!r}; give names: tasks={{'first': ..., 'second': ...}}")
            # Read sources other than names now, so that their errors are raised now.
            self._sources[str(name)] = source if isinstance(source, str) else load_task(source)

    @property
    def names(self) -> list[str]:
        """Names in the given order."""
        return list(self._sources)

    def load(self, name: str, n: int, seed: int) -> Task:
        """Load n samples of a task, or all samples if it is in memory and has at most n.

        Raises:
            HeadnbError: no task has this name, or its source cannot be read.
        """
        if name not in self._sources:
            raise unknown_name("task", name, self._sources)
        source = self._sources[name]
        whole = isinstance(source, Task) and n >= len(source)
        task = source if whole else load_task(source, n=n, seed=seed)
        return dataclasses.replace(task, name=name)

    def find_task(self, name: str, ids: set[int | str]) -> Task | None:
        """Task with this name, if it is in memory and has samples with all these ids; else None."""
        source = self._sources[name]
        return source if isinstance(source, Task) and ids <= set(source.ids) else None


def _check_iterable(tasks: object) -> Iterable[object]:
    if not isinstance(tasks, Iterable):
        raise HeadnbError(f"tasks must be names, files or Task objects, not {type(tasks).__name__}")
    return tasks


def _name_and_source(one: object) -> tuple[str, object]:
    if isinstance(one, (str, Path)):
        return str(one), str(one)
    if isinstance(one, Task):
        return one.name, one
    raise HeadnbError(f"a {type(one).__name__} has no name; give it one: tasks={{'mine': ...}}")
