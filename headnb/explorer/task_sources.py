"""The tasks that an explorer offers by name, loaded when they are first needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from headnb.errors import HeadnbError, unknown_name
from headnb.tasks.loading import Task, known_tasks, load_task


class TaskSources:
    """Names of tasks, and where their samples come from.

    `tasks` is a name, a file or a `Task`, several of them, or a mapping from names to anything that `load_task`
    accepts; None offers every task in the registry.
    """

    def __init__(self, tasks: object = None) -> None:
        if tasks is None:
            tasks = list(known_tasks())
        elif isinstance(tasks, (str, Task)):
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
            # Anything but a name is read now, so that what is wrong with it is said now.
            self._sources[str(name)] = source if isinstance(source, str) else load_task(source)

    @property
    def names(self) -> list[str]:
        """In the order given."""
        return list(self._sources)

    def draw(self, name: str, n: int, seed: int) -> Task:
        """A task of n samples, or of all where the source is in memory and has fewer.

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
        """The task that these samples were drawn from, if it is in memory and has them all."""
        source = self._sources[name]
        return source if isinstance(source, Task) and ids <= set(source.ids) else None


def _check_iterable(tasks: object) -> Iterable[object]:
    if not isinstance(tasks, Iterable):
        raise HeadnbError(f"tasks are names, files or Task objects, not a {type(tasks).__name__}")
    return tasks


def _name_and_source(one: object) -> tuple[str, object]:
    if isinstance(one, str):
        return one, one
    if isinstance(one, Task):
        return one.name, one
    raise HeadnbError(f"a {type(one).__name__} has no name; give one: tasks={{'mine': ...}}")
