"""Validation of a suite before a notebook runs: names, types, tasks and models."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import logging
import os
import re
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError, unknown_name
from headnb.hub import user_path
from headnb.storage.files import check_file_names
from headnb.suite.definition import AXES, CheckedSuite
from headnb.suite.graph import notebooks_without, suite_parameters, topological_order
from headnb.suite.notebooks import notebook_parameters
from headnb.suite.parameters import check_parameter, type_check
from headnb.tasks.files import task_ending, task_parts
from headnb.tasks.harness import PREFIX
from headnb.tasks.sources import DATA_FOLDER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headnb.suite.definition import NotebookEntry, Profile, Suite

SPLITS = ("train", "test")
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


def check_suite(suite: Suite) -> tuple[Suite, CheckedSuite]:
    """Validate a suite against its notebooks, and its profile against the known tasks and models.

    Returns:
        The suite without the notebooks that the profile excludes, with absolute paths (workers have other working
        directories); and the `CheckedSuite`, which covers all notebooks.

    Raises:
        HeadnbError: a cycle; a missing notebook, or one without typed parameters; an unknown parameter or one of
            another type; an unknown task or model; missing samples.
    """
    topological_order(suite.notebooks)
    remaining = notebooks_without(suite.notebooks, suite.profile.without)
    inspected = {name: _inspect(entry) for name, entry in suite.notebooks.items()}
    parameters = {name: {key: kind for key, (kind, _) in typed.items()} for name, typed in inspected.items()}
    for entry in suite.notebooks.values():
        _check_entry(entry, parameters[entry.name])
    profile = _with_absolute_paths(suite.profile)
    _check_parameters(profile, suite.notebooks, parameters)
    _check_names(profile)
    defaults = [typed["n"][1] for typed in inspected.values() if "n" in typed]
    n = (profile.parameters or {}).get("n", next(iter(defaults), None))
    checked = CheckedSuite(
        sources={name: _cells_hash(entry.file) for name, entry in suite.notebooks.items()},
        parameters=parameters,
        samples={task: _samples_hash(task, n) for task in profile.tasks},
        weights={model: _weights_hash(model) for model in profile.models},
    )
    return dataclasses.replace(suite, notebooks=remaining, profile=profile), checked


def _inspect(entry: NotebookEntry) -> dict[str, tuple[str, Any]]:
    """Parameter -> (annotation, default)."""
    if not entry.file.is_file():
        near = [path.name for path in entry.file.parent.glob("*.ipynb")]
        raise HeadnbError(f"notebook {entry.name}: {unknown_name('file', entry.file.name, near)}")
    logging.getLogger("papermill").setLevel(logging.WARNING)
    inspected = notebook_parameters(entry.file)
    if not inspected:
        raise HeadnbError(f"{entry.file.name} has no cell tagged 'parameters', or no parameter in that cell")
    return {name: (_annotation(entry, name, about), _default(about["default"])) for name, about in inspected.items()}


def _annotation(entry: NotebookEntry, name: str, about: Mapping[str, Any]) -> str:
    kind = str(about["inferred_type_name"])
    if kind == "None":
        raise HeadnbError(f"{entry.file.name}: parameter {name} needs a type, such as `{name}: int = ...`")
    type_check(kind, f"{entry.file.name}: parameter {name}")
    return kind


def _default(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


def _check_entry(entry: NotebookEntry, parameters: Mapping[str, str]) -> None:
    for name in entry.axes:
        if name not in parameters:
            raise HeadnbError(
                f"notebook {entry.name} runs for each {name}, but {entry.file.name} has no parameter {name}"
            )
    for path in entry.writes:
        try:
            pieces = list(string.Formatter().parse(path))
        except ValueError as error:
            raise HeadnbError(f"notebook {entry.name}: writes: {path!r:.80} is not a valid pattern: {error}") from error
        for _, part, form, conversion in pieces:
            if part is not None and (form or conversion or part not in entry.axes):
                raise HeadnbError(f"notebook {entry.name}: writes: {unknown_name('field', part, entry.axes)}")


def _check_parameters(
    profile: Profile, notebooks: Mapping[str, NotebookEntry], parameters: Mapping[str, Mapping[str, str]]
) -> None:
    own = {"run_folder": "", **suite_parameters("", profile)}
    settable = {
        name for notebook, known in parameters.items() for name in known if name not in notebooks[notebook].axes
    } - own.keys()
    for name, value in (profile.parameters or {}).items():
        if name in own or (name in AXES and name not in settable):
            raise HeadnbError(
                f"profile {profile.name}: {name} is set by the profile itself, so it cannot be under parameters"
            )
        if name not in settable:
            raise unknown_name("parameter", name, settable)
        for notebook, known in parameters.items():
            if name in known and name not in notebooks[notebook].axes:
                _check_type(name, value, known[name], notebook)
    for notebook, known in parameters.items():
        of_axes = {"task": profile.tasks[0], "seed": profile.seeds[0], "target": profile.tasks[0]}
        given = {**own, **{axis: of_axes[axis] for axis in notebooks[notebook].axes}}
        for name in known.keys() & given.keys():
            _check_type(name, given[name], known[name], notebook)


def _check_type(name: str, value: Any, annotation: str, notebook: str) -> None:
    hint = ""
    if isinstance(value, str) and re.fullmatch(r"\d+e[-+]?\d+", value):  # YAML 1.1 requires a decimal point in a float
        hint = f"YAML reads {value} as text; write {value.replace('e', '.0e')}"
    check_parameter(name, value, annotation, notebook, hint=hint)


def _with_absolute_paths(profile: Profile) -> Profile:
    """Profile with absolute paths of task files and model folders; workers have other working directories."""

    def absolute(name: str) -> str:
        path = user_path(name)
        return str(path.resolve()) if path.exists() and (path.suffix or "/" in name or "\\" in name) else name

    return dataclasses.replace(
        profile,
        models=tuple(map(absolute, profile.models)),
        tasks=tuple(map(absolute, profile.tasks)),
        compositions={
            absolute(task): list(map(absolute, basics)) for task, basics in (profile.compositions or {}).items()
        },
    )


def _check_names(profile: Profile) -> None:
    from headnb.models.registry import known_models  # noqa: PLC0415

    for model in profile.models:
        if not Path(model).exists() and not HUB_ID.fullmatch(model) and model not in known_models():
            raise unknown_name("model", model, known_models())
    for task, basics in (profile.compositions or {}).items():
        for name in (task, *basics):
            if name not in profile.tasks:
                raise HeadnbError(f"compositions: {unknown_name('task of the profile', name, profile.tasks)}")
        if task in basics:
            raise HeadnbError(f"compositions: {task} cannot be its own basic task")
    check_file_names(profile.models, "models")
    check_file_names(profile.tasks, "tasks")


def _samples_hash(task: str, n: int | None) -> str:
    """Hash of the scored samples and of the files with training samples.

    Samples from the hub and of lm_eval are identified by name only, because only the notebooks download them.
    """
    from headnb.tasks.loading import known_tasks, load_task  # noqa: PLC0415
    from headnb.tasks.registry import CARDS  # noqa: PLC0415

    if len(parts := task_parts(task)) > 1:
        return "".join(_samples_hash(part, n) for part in parts)
    local = {split: _local_file(task, split) for split in SPLITS}
    files = [file for file in local.values() if file is not None]
    if not files and (task in CARDS or HUB_ID.fullmatch(task) or task.startswith(PREFIX)):
        return task
    if files and len(files) < len(SPLITS) and task not in CARDS:
        missing = next(split for split, file in local.items() if file is None)
        raise HeadnbError(f"task {task!r} has no {missing} split: found {files[0]}, but no {task}.{missing}.jsonl")
    if not files and task not in known_tasks():
        raise unknown_name("task", task, known_tasks())
    scored = load_task(task, split="test", n=n, seed=0)
    digest = hashlib.blake2b(scored.fingerprint().encode(), digest_size=16)
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _local_file(task: str, split: str) -> Path | None:
    """Path of the file that `load_task` reads for this task; None if it reads none."""
    path = Path(task)
    if task_ending(path.name):
        return path
    folder = os.environ.get(DATA_FOLDER)
    file = Path(folder).expanduser() / f"{task}.{split}.jsonl" if folder else None
    return file if file is not None and file.is_file() else None


def _weights_hash(model: str) -> str:
    """Hash of the names, sizes and times of the files of a local model. Other models are identified by name."""
    path = Path(model)
    if not path.exists():
        return model
    files = sorted(path.glob("*")) if path.is_dir() else [path]
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return hashlib.blake2b(repr(stats).encode(), digest_size=16).hexdigest()


def _cells_hash(notebook: Path) -> str:
    """Hash of the code cells; Markdown, outputs and metadata do not change the results of a notebook."""
    import nbformat  # noqa: PLC0415

    cells = nbformat.read(notebook, as_version=4).cells
    text = repr([cell.source for cell in cells if cell.cell_type == "code"])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
