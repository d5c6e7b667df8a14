"""One node for each notebook, model, task and seed, what it depends on, and the hash that says whether it is done.

The key of a node covers the notebook's cells, its parameters, what it reads (samples and weights), the versions of
headnb, of scores and of findings, and the keys of the nodes before it. Where the run folder lies does not count, so a
finished suite may be moved.
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
from headnb.suite.definition import SUITE_PARAMETERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from headnb.suite.definition import CheckedSuite, NotebookEntry, Profile, Suite


@dataclass(frozen=True)
class Node:
    """One notebook to run.

    Attributes:
        name: for people: `finetune gsm8k seed 0`.
        notebook: name of the notebook in the suite.
        source: the notebook's file.
        run: the model's run folder.
        stem: what its files are called.
        parameters: everything it is given.
        key: 32 hex digits, no other node's; what was made under another key is made again.
        after: the nodes it needs.
        writes: what it makes, in the run folder.
        gpu: whether it takes a GPU.
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
        """The model it is about."""
        return str(self.parameters.get("model", self.run.name))

    @property
    def folder(self) -> Path:
        """Where the executed notebook lies."""
        return self.run / "notebooks"


def planned_designs(nodes: Sequence[Node]) -> dict[Path, tuple[int, int]]:
    """Run folder -> samples and training runs of a task, of the folders whose notebooks are given both."""
    found = {}
    for run in dict.fromkeys(node.run for node in nodes):
        given = [node.parameters for node in nodes if node.run == run]
        samples = [int(each["n"]) for each in given if "n" in each]
        seeds = {each["seed"] for each in given if "seed" in each}
        if samples and seeds:
            found[run] = samples[0], len(seeds)
    return found


def topological_order(notebooks: Mapping[str, NotebookEntry]) -> list[NotebookEntry]:
    """The notebooks, each behind those it depends on.

    Raises:
        HeadnbError: one depends on an unknown notebook, or on itself by a cycle, which is named.
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
                raise unknown_name(f"notebook after: which {name} runs", needed, notebooks)
            visit(needed)
        path.pop()
        ordered.append(entry)

    for name in notebooks:
        visit(name)
    return ordered


def notebooks_without(notebooks: Mapping[str, NotebookEntry], without: Sequence[str]) -> dict[str, NotebookEntry]:
    """The notebooks that are run where `without` are not; none of them uses one of those any more.

    Raises:
        HeadnbError: an unknown notebook, one that is run needs what one of `without` writes, or nothing is run.
    """
    for name in without:
        if name not in notebooks:
            raise HeadnbError(f"without: {unknown_name('notebook', name, notebooks)}")
    kept = {
        name: dataclasses.replace(entry, uses=tuple(used for used in entry.uses if used not in without))
        for name, entry in notebooks.items()
        if name not in without
    }
    for name, entry in kept.items():
        if lacking := [needed for needed in entry.after if needed in without]:
            raise HeadnbError(f"without: {name} needs what {lacking[0]} writes; leave out both or neither")
    if not kept:
        raise HeadnbError("without: all notebooks are left out")
    return kept


def build_graph(suite: Suite, checked: CheckedSuite, out: Path) -> list[Node]:
    """Every node of the suite in an order that respects dependencies: model by model.

    Args:
        suite: what `read_suite` returned.
        checked: what `check_suite` found about it.
        out: the folder that holds a run folder for each model.
    """
    nodes: list[Node] = []
    for model in suite.profile.models:
        of_notebook: dict[str, list[tuple[dict[str, Any], Node]]] = {}
        for entry in topological_order(suite.notebooks):
            of_notebook[entry.name] = [
                (place, _node(entry, model, place, suite.profile, checked, out, of_notebook))
                for place in _axis_values(entry, suite.profile)
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
    place: dict[str, Any],
    profile: Profile,
    checked: CheckedSuite,
    out: Path,
    of_notebook: Mapping[str, list[tuple[dict[str, Any], Node]]],
) -> Node:
    after = tuple(
        node
        for needed in (*entry.after, *entry.uses)
        for other, node in of_notebook[needed]
        if all(other[axis] == value for axis, value in place.items() if axis in other)
    )
    parameters = node_parameters(entry, model, place, profile, checked)
    run = out / safe_file_name(model)
    parts = {axis: safe_file_name(str(value)) for axis, value in place.items()}
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
        [entry.name, *(f"seed {value}" if axis == "seed" else str(value) for axis, value in place.items())]
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
    entry: NotebookEntry, model: str, place: Mapping[str, Any], profile: Profile, checked: CheckedSuite
) -> dict[str, Any]:
    """What a notebook is given, the run folder apart: of what there is, what it has parameters for."""
    given = {**(profile.parameters or {}), **suite_parameters(model, profile), **place}
    return {name: value for name, value in given.items() if name in checked.parameters[entry.name]}


def suite_parameters(model: str, profile: Profile) -> dict[str, Any]:
    """The parameters that come from the suite itself (see `definition.SUITE_PARAMETERS`), the run folder apart."""
    own = {
        "model": model,
        "tasks": list(profile.tasks),
        "seeds": list(profile.seeds),
        "compositions": dict(profile.compositions or {}),
    }
    assert {"run_folder", *own} == set(SUITE_PARAMETERS)  # noqa: S101
    return own


def parallel_counts(nodes: Sequence[Node]) -> dict[str, int]:
    """Key of a node -> how many nodes, itself included, are as deep in the graph: they can run at once."""
    depth: dict[str, int] = {}
    for node in nodes:
        depth[node.key] = 1 + max((depth.get(needed.key, 0) for needed in node.after), default=0)
    count = Counter(depth.values())
    return {key: count[level] for key, level in depth.items()}


def without_graph(node: Node) -> Node:
    """The node for a worker, which needs no other nodes."""
    return dataclasses.replace(node, after=())
