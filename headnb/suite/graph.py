"""Dependency graph with one node for each notebook, model, task and seed.

The key of a node is a hash of the notebook's cells, its parameters, its inputs (samples and weights), the versions of
headnb, of scores and of findings, and the keys of the nodes that it depends on. A node is done if its results have the
same key. The path of the run folder is not part of the key, so a finished suite can be moved.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

from headnb._version import __version__
from headnb.errors import HeadnbError, one_line, unknown_name
from headnb.stats.findings_revision import FINDINGS_KEY, FINDINGS_REVISION
from headnb.stats.scoring_revision import REVISION, SCORING_REVISION
from headnb.storage.files import safe_file_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from headnb.suite.definition import CheckedSuite, NotebookEntry, Profile, Suite


@dataclass(frozen=True)
class Node:
    """One notebook to run.

    Attributes:
        name: readable name such as `finetune gsm8k seed 0`.
        notebook: name of the notebook in the suite.
        source: the notebook's file.
        run: the model's run folder.
        stem: stem of the file names of the executed notebook and its manifest.
        parameters: parameters passed to the notebook.
        key: unique hash of 32 hex digits; results with another key are recomputed.
        after: nodes that it depends on.
        writes: paths of its results in the run folder.
        gpu: whether it needs a GPU.
    """

    name: str
    notebook: str
    source: Path
    run: Path
    stem: str
    parameters: Mapping[str, Any]
    key: str
    after: tuple[Node, ...] = field(repr=False)
    writes: tuple[Path, ...]
    gpu: bool

    @property
    def model(self) -> str:
        """The model of this node."""
        return str(self.parameters.get("model", self.run.name))

    @property
    def folder(self) -> Path:
        """Folder of the executed notebook."""
        return self.run / "notebooks"


def planned_designs(nodes: Sequence[Node]) -> dict[Path, tuple[int, int]]:
    """Run folder -> (samples, training runs) per task, for the run folders whose notebooks have both parameters."""
    designs = {}
    for run in dict.fromkeys(node.run for node in nodes):
        parameters = [node.parameters for node in nodes if node.run == run]
        samples = [int(of_node["n"]) for of_node in parameters if "n" in of_node]
        seeds = {of_node["seed"] for of_node in parameters if "seed" in of_node}
        if samples and seeds:
            designs[run] = samples[0], len(seeds)
    return designs


def topological_order(notebooks: Mapping[str, NotebookEntry]) -> list[NotebookEntry]:
    """Notebooks in an order in which each comes after its dependencies.

    Raises:
        HeadnbError: a dependency on an unknown notebook, or a cycle, which the message shows.
    """
    ordered: list[NotebookEntry] = []
    path: list[str] = []

    def visit(name: str) -> None:
        if name in path:
            cycle = [*path[path.index(name) :], name]
            raise HeadnbError(f"the notebooks depend on each other in a cycle: {' after '.join(cycle)}")
        if any(entry.name == name for entry in ordered):
            return
        path.append(name)
        entry = notebooks[name]
        for needed in (*entry.after, *entry.uses):
            if needed not in notebooks:
                raise unknown_name(f"dependency of notebook {name}", needed, notebooks)
            visit(needed)
        path.pop()
        ordered.append(entry)

    for name in notebooks:
        visit(name)
    return ordered


def notebooks_without(notebooks: Mapping[str, NotebookEntry], without: Sequence[str]) -> dict[str, NotebookEntry]:
    """Notebooks without those in `without`, which are also removed from `uses` of the rest.

    Raises:
        HeadnbError: an unknown notebook, a remaining notebook that requires an excluded one, or no notebook left.
    """
    for name in without:
        if name not in notebooks:
            raise HeadnbError(f"without: {unknown_name('notebook', name, notebooks)}")
    remaining = {
        name: dataclasses.replace(entry, uses=tuple(used for used in entry.uses if used not in without))
        for name, entry in notebooks.items()
        if name not in without
    }
    for name, entry in remaining.items():
        if excluded := [needed for needed in entry.after if needed in without]:
            raise HeadnbError(f"without: {name} requires {excluded[0]}; exclude both or neither")
    if not remaining:
        raise HeadnbError("without: excludes every notebook")
    return remaining


def build_graph(suite: Suite, checked: CheckedSuite, out: Path) -> list[Node]:
    """All nodes of the suite, model by model, each after its dependencies.

    Args:
        suite: the suite that `check_suite` returned.
        checked: the facts that `check_suite` returned.
        out: parent folder of the run folders, one per model.
    """
    nodes: list[Node] = []
    for model in suite.profile.models:
        of_notebook: dict[str, list[tuple[dict[str, Any], Node]]] = {}
        for entry in topological_order(suite.notebooks):
            of_notebook[entry.name] = [
                (values, _node(entry, model, values, suite.profile, checked, out, of_notebook))
                for values in _axis_values(entry, suite.profile)
            ]
            nodes += [node for _, node in of_notebook[entry.name]]
    return nodes


def _axis_values(entry: NotebookEntry, profile: Profile) -> list[dict[str, Any]]:
    values: dict[str, Sequence[Any]] = {
        "task": profile.tasks,
        "seed": profile.seeds,
        "target": tuple(profile.compositions or {}),
    }
    return [dict(zip(entry.axes, chosen, strict=True)) for chosen in product(*(values[axis] for axis in entry.axes))]


def _node(
    entry: NotebookEntry,
    model: str,
    axis_values: dict[str, Any],
    profile: Profile,
    checked: CheckedSuite,
    out: Path,
    of_notebook: Mapping[str, list[tuple[dict[str, Any], Node]]],
) -> Node:
    after = tuple(
        node
        for needed in (*entry.after, *entry.uses)
        for other, node in of_notebook[needed]
        if all(other[axis] == value for axis, value in axis_values.items() if axis in other)
    )
    parameters = node_parameters(entry, model, axis_values, profile, checked)
    run = out / safe_file_name(model)
    parts = {axis: safe_file_name(str(value)) for axis, value in axis_values.items()}
    identity = {
        "notebook": entry.name,
        "source": checked.sources[entry.name],
        "parameters": parameters,
        "inputs": checked.inputs_of(model, parameters),
        "headnb": __version__,
        REVISION: SCORING_REVISION,
        "after": [node.key for node in after],
    }
    if any(path.startswith("findings/") for path in entry.writes):
        identity[FINDINGS_KEY] = FINDINGS_REVISION
    digest = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16).hexdigest()
    label = " ".join(
        [entry.name, *(f"seed {value}" if axis == "seed" else str(value) for axis, value in axis_values.items())]
    )
    return Node(
        name=one_line(label),
        notebook=entry.name,
        source=entry.file.resolve(),
        run=run,
        stem=".".join([entry.file.stem, *(f"seed{part}" if axis == "seed" else part for axis, part in parts.items())]),
        parameters=parameters | ({"run_folder": str(run)} if "run_folder" in checked.parameters[entry.name] else {}),
        key=digest,
        after=after,
        writes=tuple(run / path.format(**parts) for path in entry.writes),
        gpu=entry.gpu,
    )


def node_parameters(
    entry: NotebookEntry, model: str, axis_values: Mapping[str, Any], profile: Profile, checked: CheckedSuite
) -> dict[str, Any]:
    """Values for the parameters that a notebook has, without the run folder."""
    available = {**(profile.parameters or {}), **suite_parameters(model, profile), **axis_values}
    return {name: value for name, value in available.items() if name in checked.parameters[entry.name]}


def suite_parameters(model: str, profile: Profile) -> dict[str, Any]:
    """The parameters that the suite itself sets, except run_folder."""
    return {
        "model": model,
        "tasks": list(profile.tasks),
        "seeds": list(profile.seeds),
        "compositions": dict(profile.compositions or {}),
    }


def depths(nodes: Sequence[Node]) -> dict[str, int]:
    """Key of a node -> length of the longest chain of these nodes that it depends on; 0 without any."""
    depth: dict[str, int] = {}
    for node in nodes:
        depth[node.key] = max((1 + depth[needed.key] for needed in node.after if needed.key in depth), default=0)
    return depth


def parallel_counts(nodes: Sequence[Node]) -> dict[str, int]:
    """Key of a node -> number of nodes (including itself) at the same depth, which can run at the same time."""
    depth = depths(nodes)
    count = Counter(depth.values())
    return {key: count[level] for key, level in depth.items()}


def without_graph(node: Node) -> Node:
    """Copy of a node without its dependencies, to send to a worker."""
    return dataclasses.replace(node, after=())
