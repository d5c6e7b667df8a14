"""How long notebooks take and how much memory, as far as they have run with the same parameters."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

from headnb.suite import records
from headnb.suite.graph import parallel_counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headnb.suite.graph import Node


class Timing(NamedTuple):
    """Of one run of a notebook."""

    seconds: float
    memory_mb: float


def timings(nodes: Sequence[Node]) -> dict[str, Timing]:
    """Key of a node -> what its last complete run took, or runs of its notebook for other tasks and seeds.

    Nodes without such a run are left out. Of several runs: the median time and the largest memory.
    """
    own = {node.key: timing for node in nodes if (timing := _last_run(node))}
    found = {}
    for node in nodes:
        alike = [own[o.key] for o in nodes if o.key in own and (o.notebook, o.run) == (node.notebook, node.run)]
        if alike:
            seconds, memory_mb = zip(*alike, strict=True)
            found[node.key] = own.get(node.key, Timing(statistics.median(seconds), max(memory_mb)))
    return found


def total_seconds(nodes: Sequence[Node], known: Mapping[str, Timing], workers: int) -> float:
    """Until all of `nodes` are done by so many workers: a list schedule, in the order of the graph."""
    free = [0.0] * max(1, workers)
    ends: dict[str, float] = {}
    for node in nodes:
        ready = max((ends.get(needed.key, 0.0) for needed in node.after), default=0.0)
        worker = min(range(len(free)), key=lambda place: max(free[place], ready))
        free[worker] = ends[node.key] = max(free[worker], ready) + known[node.key].seconds
    return max(ends.values(), default=0.0)


def peak_memory_mb(nodes: Sequence[Node], known: Mapping[str, Timing], workers: int) -> float:
    """At most, when the largest notebooks that can run at once do."""
    together = parallel_counts(nodes)
    largest = sorted((known[node.key].memory_mb for node in nodes if together[node.key] > 1), reverse=True)
    single = max((known[node.key].memory_mb for node in nodes), default=0.0)
    return max(single, sum(largest[:workers]))


def _last_run(node: Node) -> Timing | None:
    """Of the node's last complete run, if it had the same parameters; the run folder may have been moved since."""
    manifest = records.read_manifest(node)
    if manifest.get("state") != "done":
        return None
    moved = {"run_folder": node.parameters.get("run_folder")}
    if {**manifest["parameters"], **moved} != {**node.parameters, **moved}:
        return None
    return Timing(float(manifest["seconds"]), float(manifest.get("memory_mb", 0)))
