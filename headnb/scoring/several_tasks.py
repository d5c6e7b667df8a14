"""`score_tasks`: score one model on several tasks, into one study of patterns with the dimension `task`."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import xarray as xr

from headnb.call_checks import UnknownKeywordError, check_arguments
from headnb.display.panel_statistics import score_statistics
from headnb.errors import HeadnbError, unknown_name
from headnb.scoring.checks import checked_task
from headnb.scoring.progress import ScoringInterrupted
from headnb.scoring.progress_bars import Shown, with_progress_bar
from headnb.scoring.run import check_settings, score_heads
from headnb.stats.patterns import NOTICES, pattern
from headnb.stats.reliability import Evidence
from headnb.stats.results import as_result, method_label
from headnb.stats.score_statistics import head_intervals
from headnb.storage.files import check_file_names, safe_file_name
from headnb.storage.method_results import MethodResults
from headnb.storage.method_tables import folder_of_stores
from headnb.tasks.loading import Task, load_task
from headnb.tasks.samples import read_row
from headnb.tasks.sources import is_source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.scoring.progress import Progress

_INTERVAL_LEVEL = 0.95
_EVIDENCE = Evidence()._asdict()
# Attributes of one task's scores that become coordinates of the study, with the value of a task without them.
_TASK_ATTRS = {"complete": 1, "samples_requested": 0, **dict.fromkeys(("left_out", "truncated", *NOTICES), 0)}


@dataclass(frozen=True)
class TasksProgress:
    """Progress of `score_tasks`."""

    tasks: tuple[Task, ...]
    finished: Mapping[str, xr.Dataset | MethodResults]
    """Scores of the tasks before the current one, by name."""
    current: Progress
    """Progress of the current task."""

    @property
    def task(self) -> Task:
        """The task that is being scored."""
        return self.tasks[len(self.finished)]


class TasksInterrupted(ScoringInterrupted):
    """Ctrl-C during `score_tasks`; `scores` is the study of the tasks and samples that are scored."""

    def __init__(
        self,
        tasks: Sequence[Task],
        finished: Mapping[str, xr.Dataset | MethodResults],
        stopped: KeyboardInterrupt,
    ) -> None:
        scored, self.done, words = dict(finished), sum(map(_samples, finished.values())), []
        if isinstance(stopped, ScoringInterrupted):  # within the passes over the current task
            current = tasks[len(finished)].name
            words.append(f"{current}: {stopped.words}")
            self.done += stopped.done
            if stopped.done:
                scored[current] = stopped.scores
        if left := [task.name for task in tasks if task.name not in scored]:
            words.append(f"not started: {', '.join(left)}")
        self.words = "; ".join(words)
        self.scores = _study(scored) if scored else xr.Dataset()
        KeyboardInterrupt.__init__(self, f"interrupted; {self.words}")


def _scored_tasks(progress: TasksProgress) -> Shown:
    current = progress.current
    return Shown(current.done, current.total, f"scoring {progress.task.name}", current.unit)


@check_arguments
@with_progress_bar(_scored_tasks)
def score_tasks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    tasks: Mapping[str, object] | Sequence[object],
    *,
    out: str | Path | None = None,
    on_progress: Callable[[TasksProgress], None] | None = None,
    **options: Any,
) -> xr.Dataset | MethodResults:
    """Score every attention head of a model on several tasks.

    Args:
        model: as for `score_heads`.
        tokenizer: as for `score_heads`.
        tasks: tasks or anything that `load_task` accepts, as a mapping from names or as a list; or one `Task`, name or
            path. All are loaded, encoded and checked before the first one is scored.
        out: a folder with one store for the scores of each task, `NAME.zarr`, which `open_scores` opens; run the same
            call again to resume. None: per-sample scores are not kept.
        on_progress: called with a `TasksProgress` before the first batch of each task and after each batch. None: a
            progress bar in notebooks and terminals.
        options: other arguments of `score_heads`, the same for all tasks. With a list as `method`, the study of each
            method is returned in `MethodResults`, and `out` has a folder for each task.

    Returns:
        A study: `level` (task, layer, head), the pattern of each task, and its 95 % interval `low` and `high`, if the
        method scores samples. Coordinates along `task` are the number of samples and the reliability.
        `study.heads.grid()` draws all tasks on one colour scale, `study.sel(task="svamp")` is one task.

    Raises:
        HeadnbError: as for `load_task` and `score_heads`, two tasks have the same name, or `out` is a store of scores.
        TasksInterrupted: on Ctrl-C; its `scores` is the study so far.
    """
    known = inspect.signature(score_heads).parameters.keys() - {"task"} | {"tasks"}
    for name in options.keys() - known:
        raise UnknownKeywordError(str(unknown_name("argument of score_tasks", name, known)))
    check_settings(**_named(options, *inspect.signature(check_settings).parameters))
    chosen = named_tasks(tasks)
    several_methods = not isinstance(options.get("method", ""), str)
    stores = _stores(out, chosen, "" if several_methods else ".zarr")
    finished: dict[str, xr.Dataset | MethodResults] = {}

    def report(progress: Progress) -> None:
        if on_progress is not None:
            on_progress(TasksProgress(chosen, dict(finished), progress))

    try:
        encoding = _named(options, "encoding", "max_length")
        checked = [checked_task(model, tokenizer, task, **encoding) for task in chosen]
        for one, store in zip(checked, stores, strict=True):
            finished[one.task.name] = score_heads(model, tokenizer, one, out=store, on_progress=report, **options)
    except KeyboardInterrupt as stopped:
        raise TasksInterrupted(chosen, finished, stopped) from None
    return _study(finished)


def _named(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Those of the options that have one of the names."""
    return {name: options[name] for name in names if name in options}


def _samples(scores: xr.Dataset | MethodResults) -> int:
    """Number of scored samples; 1 for a method without samples."""
    first = next(iter(scores.values())) if isinstance(scores, MethodResults) else scores
    return int(first.sizes.get("sample", 1))


def _study(scored: Mapping[str, xr.Dataset | MethodResults]) -> xr.Dataset | MethodResults:
    """The study of the tasks, or that of each method."""
    first = next(iter(scored.values()))
    if isinstance(first, MethodResults):
        by_task = cast("Mapping[str, MethodResults]", scored)
        return MethodResults({name: task_study({task: of[name] for task, of in by_task.items()}) for name in first})
    return task_study(cast("Mapping[str, xr.Dataset]", scored))


def named_tasks(tasks: Mapping[str, object] | Sequence[object]) -> tuple[Task, ...]:
    """Load tasks, each with a name of its own: the mapping's key, or else the task's own name.

    Raises:
        HeadnbError: no task, samples in place of tasks, two tasks with the same name, or as for `load_task`.
    """
    loaded: list[Task] = []
    if isinstance(tasks, (str, Path, Task)):
        tasks = [tasks]
    is_list = isinstance(tasks, (list, tuple))
    if any(map(_is_sample, tasks)) if is_list else is_source(tasks) and not isinstance(tasks, Mapping):
        raise HeadnbError(
            "these are the samples of one task: use score_heads(model, tokenizer, samples), or tasks={'name': samples}"
        )
    sources = tasks.items() if isinstance(tasks, Mapping) else [(None, source) for source in tasks]
    for name, source in sources:
        task = source if isinstance(source, Task) else load_task(source)
        loaded.append(task if name is None else dataclasses.replace(task, name=name))
    if not loaded:
        raise HeadnbError("give at least one task")
    names = [task.name for task in loaded]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise HeadnbError(f"two tasks are called {repeated[0]!r}; give names: {{'first': ..., 'second': ...}}")
    return tuple(loaded)


def _is_sample(source: object) -> bool:
    """Whether this is one sample, not a source of samples."""
    try:
        read_row(source, "")
    except HeadnbError:
        return False
    return True


def task_study(scored: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """The study of several tasks' scores by name, as `score_tasks` returns it."""
    results = list(scored.values())
    patterns: list[xr.DataArray] = [pattern(scores) for scores in results]
    columns: dict[str, list[xr.DataArray]] = {"level": patterns}
    if all("sample" in scores.dims for scores in results):
        bounds = [head_intervals(scores, _INTERVAL_LEVEL) for scores in results]
        columns |= {end: [interval[end] for interval in bounds] for end in ("low", "high")}
    joined = {name: xr.concat(arrays, "task", combine_attrs="drop") for name, arrays in columns.items()}
    facts = {name: [levels.attrs.get(name, unknown) for levels in patterns] for name, unknown in _EVIDENCE.items()}
    for name, usual in _TASK_ATTRS.items():
        values = [scores.attrs.get(name, usual) for scores in results]
        if any(value != usual for value in values):
            facts[name] = values
    facts["statistics"] = [
        json.dumps(score_statistics(scores)) if levels.attrs["kind"] == "level" and "sample" in scores.dims else ""
        for scores, levels in zip(results, patterns, strict=True)
    ]
    coords = {"task": list(scored), **{name: ("task", values) for name, values in facts.items()}}
    attrs = _common_attrs(patterns)
    study = xr.Dataset(joined, attrs=attrs | {"interval_level": _INTERVAL_LEVEL}).assign_coords(coords)
    study["level"].attrs = attrs | {"quantity": method_label(attrs)}
    return as_result(study)


def _common_attrs(patterns: Sequence[xr.DataArray]) -> dict[str, Any]:
    """Attributes that are equal in all patterns, without those of one task."""
    first, *others = [levels.attrs for levels in patterns]
    own = {"task", *_EVIDENCE, *_TASK_ATTRS}
    shared = {name for name in first if name not in own and all(attrs.get(name) == first[name] for attrs in others)}
    return {name: value for name, value in first.items() if name in shared}


def _stores(out: str | Path | None, tasks: Sequence[Task], ending: str) -> list[Path | None]:
    """The store of each task in the folder `out`; without an ending, a folder for the stores of its methods.

    Raises:
        HeadnbError: `out` is itself a store, or two tasks would have the same store.
    """
    if out is None:
        return [None] * len(tasks)
    folder = folder_of_stores(out, "task")
    check_file_names([task.name for task in tasks], "tasks")
    return [folder / f"{safe_file_name(task.name)}{ending}" for task in tasks]
