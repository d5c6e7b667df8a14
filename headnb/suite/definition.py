"""Format of suite.yaml: the notebooks, their dependencies, and the profiles.

    notebooks:
      finetune:
        file: 02_finetune.ipynb       # relative to the folder of suite.yaml
        for: [task, seed]             # one run per task and seed (or target: per complex task), for every model
        after: [patterns]             # required notebooks; those with the same task and seed, if both have them
        uses: [shuffled]              # optional notebooks: run before this one unless the profile excludes them
        writes: ["sft/{task}/seed{seed}"]   # paths in the run folder; removed if written with other settings
        gpu: true                     # reserves a worker's GPU, if the cluster has GPUs
    profiles:
      demo:
        models: [smollm2-135m]
        tasks: [gcd, lcm]
        seeds: [0, 1]
        compositions: {lcm: [gcd]}    # complex task: its basic tasks
        without: [shuffled]           # excluded notebooks; no other notebook may require them
        parameters: {steps: 10}       # passed to every notebook that has a parameter of this name

A notebook also gets run_folder, model, tasks, seeds and compositions if it has parameters of these names, and the task,
seed and target of its run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headnb.call_checks import MAX_TRAINING_SEED, checked_seed
from headnb.errors import HeadnbError, optional_import, unknown_name
from headnb.hub import user_path

AXES = ("task", "seed", "target")
MAX_FILE_BYTES = 2**18
LONGEST_VALUE = 10_000  # characters
MAX_NAME_LENGTH = 80  # characters of a notebook's name
MAX_VALUES = 100_000  # with aliases expanded


@dataclass(frozen=True)
class NotebookEntry:
    """One notebook of the suite; the module docstring explains the fields."""

    name: str
    file: Path
    axes: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    gpu: bool = False


@dataclass(frozen=True)
class Profile:
    """Models, tasks, seeds and parameters with which the notebooks run."""

    name: str
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    compositions: Mapping[str, list[str]] | None = None
    without: tuple[str, ...] = ()
    parameters: Mapping[str, Any] | None = None
    about: str = ""


@dataclass(frozen=True)
class Suite:
    """Notebooks in the order of the file, and one profile."""

    path: Path
    notebooks: Mapping[str, NotebookEntry]
    profile: Profile


def read_suite(path: str | Path, profile: str, settings: Mapping[str, Any] | None = None) -> Suite:
    """Read a suite file and select one of its profiles.

    Args:
        path: the YAML file; the notebooks are in the same folder.
        profile: name of a profile.
        settings: values that replace the profile's: `models`, `tasks`, `seeds`, `compositions`, `without`, or the name
            of a parameter.

    Raises:
        HeadnbError: no such file or profile, invalid YAML, or a key that is unknown, missing or of another type.
    """
    path = user_path(path)
    stored = _mapping(_read_yaml(path), str(path))
    _check_keys(stored, ("notebooks", "profiles", "published"), "key of a suite", str(path))
    where = f"{path.name}: notebook"
    notebooks = {
        (name := _name(key, where)): _notebook(name, _mapping(entry, f"{where} {name}"), path.parent)
        for key, entry in _mapping(stored.get("notebooks"), f"{path.name}: notebooks").items()
    }
    profiles = _mapping(stored.get("profiles"), f"{path.name}: profiles")
    if profile not in profiles:
        raise unknown_name("profile", profile, map(str, profiles))
    chosen = _profile(profile, _mapping(profiles[profile], f"{path.name}: profile {profile}"), path.name)
    return Suite(path, notebooks, _with_settings(chosen, settings or {}))


def _read_yaml(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise HeadnbError(f"{path} is larger than {MAX_FILE_BYTES // 2**10} kB, the limit of a suite file")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise HeadnbError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Plain values of a YAML text; no Python objects are created.

    Raises:
        HeadnbError: invalid YAML, a key given twice in one mapping, or text or expanded aliases above the size limit.
    """
    with optional_import("suite"):
        import yaml  # noqa: PLC0415
    if len(text) > MAX_FILE_BYTES:
        raise HeadnbError(f"{where} is longer than {MAX_FILE_BYTES // 2**10} kB, the limit of a suite file")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        within_limit = _count_values(node, {}) < MAX_VALUES  # before construction, because `<<` copies an alias's value
        values = loader.construct_document(node) if within_limit and node is not None else None
    except Exception as error:  # not only YAMLError: an invalid date is a ValueError, deep nesting a RecursionError
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise HeadnbError(f"{where}{line} is not YAML: {reason:.200}") from error
    if not within_limit:
        raise HeadnbError(f"{where} has more than {MAX_VALUES} values with its aliases expanded")
    return values


def _count_values(node: Any, known: dict[int, int]) -> int:
    """Number of values of a YAML node with aliases expanded; at least `MAX_VALUES` if the node contains itself.

    Raises:
        ValueError: a value is too long (parsing a number with colons takes quadratic time), or a mapping has a key
            twice, of which YAML would silently use the last value.
    """
    if not isinstance(getattr(node, "value", None), list):
        if node is not None and len(node.value) > LONGEST_VALUE:
            raise ValueError(f"a value has more than {LONGEST_VALUE} characters")
        return 1
    if id(node) not in known:
        known[id(node)] = MAX_VALUES
        _check_keys_are_unique(node)
        parts = [part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(_count_values(part, known) for part in parts)
    return known[id(node)]


def _check_keys_are_unique(node: Any) -> None:
    keys = [str(entry[0].value) for entry in node.value if isinstance(entry, tuple)]
    twice = next((key for index, key in enumerate(keys) if key in keys[:index]), None)
    if twice is not None:
        raise ValueError(f"the key {twice!r:.60} is given twice")


def _notebook(name: str, entry: Mapping[str, Any], folder: Path) -> NotebookEntry:
    where = f"notebook {name}"
    _check_keys(entry, ("file", "for", "after", "uses", "writes", "gpu"), f"key of {where}", where)
    file = _require_type(entry.get("file"), str, f"{where}: file")
    _check_inside(file, f"{where}: file", "in the folder of the suite")
    axes = _distinct_names(entry.get("for", []), f"{where}: for")
    for axis in axes:
        if axis not in AXES:
            raise unknown_name(f"value in for: of {where}", axis, AXES)
    writes = _distinct_names(entry.get("writes", []), f"{where}: writes")
    for path in writes:
        _check_inside(path, f"{where}: writes", "inside the run folder")
    return NotebookEntry(
        name,
        folder / file,
        axes,
        _distinct_names(entry.get("after", []), f"{where}: after"),
        _distinct_names(entry.get("uses", []), f"{where}: uses"),
        writes,
        _require_type(entry.get("gpu", False), bool, f"{where}: gpu"),
    )


def _name(key: Any, where: str) -> str:
    """Name of a notebook; printable, because errors show it."""
    name = str(key)
    if not name.isprintable() or not 0 < len(name) <= MAX_NAME_LENGTH:
        raise HeadnbError(f"{where} name {name!r:.60} must have 1 to {MAX_NAME_LENGTH} printable characters")
    return name


def _check_inside(name: str, where: str, inside: str) -> None:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise HeadnbError(f"{where} is {name!r:.80}, which is not {inside}")


def _profile(name: str, entry: Mapping[str, Any], file: str) -> Profile:
    where = f"{file}: profile {name}"
    known = ("models", "tasks", "seeds", "compositions", "without", "parameters", "about")
    _check_keys(entry, known, f"key of profile {name}", where)
    for part in ("models", "tasks"):
        if not entry.get(part):
            raise HeadnbError(f"{where} has no {part}")
    return Profile(
        name,
        models=_distinct_names(entry["models"], f"{where}: models"),
        tasks=_distinct_names(entry["tasks"], f"{where}: tasks"),
        seeds=_seeds(entry.get("seeds", [0]), where),
        compositions=_compositions(entry.get("compositions", {}), where),
        without=_distinct_names(entry.get("without", []), f"{where}: without"),
        parameters={str(key): value for key, value in _mapping(entry.get("parameters", {}), where).items()},
        about=_require_type(entry.get("about", ""), str, f"{where}: about"),
    )


def _with_settings(profile: Profile, settings: Mapping[str, Any]) -> Profile:
    """The profile with the settings of the user, which take precedence."""
    parts: dict[str, Any] = {}
    parameters = dict(profile.parameters or {})
    for name, value in settings.items():
        where = "setting"
        if name in {"models", "tasks", "without"}:
            parts[name] = _distinct_names(value if isinstance(value, list) else [value], f"{where}: {name}")
        elif name == "seeds":
            parts[name] = _seeds(value if isinstance(value, list) else [value], where)
        elif name == "compositions":
            parts[name] = _compositions(value, where)
        else:
            parameters[name] = value
    if "tasks" in parts and "compositions" not in parts:
        tasks = set(parts["tasks"])
        parts["compositions"] = {
            task: basics for task, basics in (profile.compositions or {}).items() if {task, *basics} <= tasks
        }
    return replace(profile, parameters=parameters, **parts)


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    seeds = _require_type(value, list, f"{where}: seeds")
    if not seeds:
        raise HeadnbError(f"{where}: seeds must be a list of whole numbers such as [0, 1, 2], not {value!r:.60}")
    checked = (checked_seed(seed, f"{where}: each of seeds", MAX_TRAINING_SEED) for seed in seeds)
    return _distinct(tuple(checked), f"{where}: seeds")


def _compositions(value: Any, where: str) -> dict[str, list[str]]:
    return {
        str(task): list(_distinct_names(basics, f"{where}: compositions of {task!r:.60}"))
        for task, basics in _mapping(value, f"{where}: compositions").items()
    }


def _distinct_names(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise HeadnbError(f"{where} must be a list of names, not {value!r:.60}")
    return _distinct(tuple(value), where)


def _distinct(values: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    twice = next((value for index, value in enumerate(values) if value in values[:index]), None)
    if twice is not None:
        raise HeadnbError(f"{where} lists {twice!r} twice")
    return values


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise HeadnbError(f"{where} must be a mapping of names to values, not {value!r:.60}")
    return value


def _require_type(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        raise HeadnbError(f"{where} must be of type {kind.__name__}, not {value!r:.60}")
    return value


def _check_keys(entry: Mapping[str, Any], known: tuple[str, ...], kind: str, where: str) -> None:
    for key in entry:
        if key not in known:
            raise HeadnbError(f"{where}: {unknown_name(kind, str(key), known)}")


@dataclass(frozen=True)
class CheckedSuite:
    """Facts about a suite that the check collects.

    Attributes:
        sources: notebook -> hash of its cells.
        parameters: notebook -> {parameter: annotation}.
        samples: task -> hash of its samples, or its name.
        weights: model -> hash of its weights' files, or its name.
    """

    sources: Mapping[str, str]
    parameters: Mapping[str, Mapping[str, str]]
    samples: Mapping[str, str]
    weights: Mapping[str, str]

    def inputs_of(self, model: str, parameters: Mapping[str, Any]) -> dict[str, str]:
        """Hashes of the inputs outside the run folder of a node with these parameters."""
        tasks = [*parameters.get("tasks", []), parameters.get("task"), parameters.get("target")]
        return {task: self.samples[task] for task in tasks if task in self.samples} | {model: self.weights[model]}
