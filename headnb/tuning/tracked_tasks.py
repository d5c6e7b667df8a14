"""The tasks that a training tracks: as given by the caller, and those of a study that a resumed training continues."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headnb.errors import HeadnbError
from headnb.tasks.loading import Task, load_task
from headnb.tuning.budget import subsample

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from headnb.engine.tokenization import EncodedTask


def tracked_tasks(tasks: object) -> dict[str, Task]:
    """Name -> task, for a task, a list of tasks, or a mapping.

    Raises:
        HeadnbError: an error of `load_task`, or two tasks have the same name.
    """
    if isinstance(tasks, Mapping):
        return {str(name): load_task(task, name=str(name)) for name, task in tasks.items()}
    is_list = isinstance(tasks, (list, tuple)) and all(isinstance(task, (str, Path, Task)) for task in tasks)
    loaded = [load_task(task) for task in (tasks if is_list else [tasks])]  # type: ignore[attr-defined]
    names = [task.name for task in loaded]
    if twice := {name for name in names if names.count(name) > 1}:
        raise HeadnbError(f"two tracked tasks have the name {min(twice)!r}; give names with {{'name': task, ...}}")
    return dict(zip(names, loaded, strict=True))


def tasks_of_study(
    stored: Mapping[str, xr.Dataset],
    folder: Path,
    tasks: Mapping[str, Task],
    method: str,
    samples: int | None,
    encode: Callable[[Task], EncodedTask],
) -> dict[str, Task]:
    """The tracked tasks with the samples of a stored study, so that all its steps have the same samples.

    Args:
        stored: task -> scores of any step of the study.
        folder: the study's folder.
        tasks: name -> tracked task of this call.
        method: name of this call's scoring method.
        samples: number of samples that this call asks for; None if a budget chooses it.
        encode: encodes a task as this call does.

    Raises:
        HeadnbError: the study has other tasks, another method or other samples.
    """

    def differs(of_study: str, given: str) -> HeadnbError:
        return HeadnbError(
            f"the study in {folder} has {of_study}, not {given}; resume with the settings of the first call, or "
            "choose another output_dir"
        )

    if stored.keys() != tasks.keys():
        of_study, given = (", ".join(map(repr, sorted(names))) or "none" for names in (stored, tasks))
        raise differs(f"the tracked tasks {of_study}", given)
    chosen = {}
    for name, task in tasks.items():
        scores = stored[name]
        if scores.attrs.get("method", method) != method:
            raise differs(f"scores of the method {scores.attrs['method']!r}", repr(method))
        count = int(scores.attrs.get("samples_requested", len(task)))
        if samples is not None and count != len(task):
            raise differs(f"{count} samples of {name!r}", str(len(task)))
        chosen[name] = subsample(task, count)
        encoded, tokens = encode(chosen[name]), scores.get("fingerprint")
        same = scores["sample"].values.tolist() == list(encoded.ids)
        if not same or (tokens is not None and not np.array_equal(tokens, encoded.fingerprints)):
            raise differs(f"other samples of {name!r} (or another encoding or max_length)", "those of this call")
    return chosen
