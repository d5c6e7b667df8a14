"""Expected time and memory of notebooks, from earlier runs with the same parameters."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, NamedTuple

from headnb.suite import records
from headnb.suite.graph import parallel_counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headnb.suite.graph import Node


class Timing(NamedTuple):
    """Time and peak memory of one run of a notebook."""

    seconds: float
    memory_mb: float


def timings(nodes: Sequence[Node]) -> dict[str, Timing]:
    """Key of a node -> timing of its last complete run, else of the runs of its notebook for other tasks and seeds.

    Several runs are combined as the median time and the maximum memory. Nodes without any such run are omitted.
    """
    own = {node.key: timing for node in nodes if (timing := _last_run(node))}
    estimates = {}
    for node in nodes:
        similar = [own[o.key] for o in nodes if o.key in own and (o.notebook, o.run) == (node.notebook, node.run)]
        if similar:
            seconds, memory_mb = zip(*similar, strict=True)
            estimates[node.key] = own.get(node.key, Timing(statistics.median(seconds), max(memory_mb)))
    return estimates


def total_seconds(nodes: Sequence[Node], known: Mapping[str, Timing], workers: int) -> float:
    """Expected duration of `nodes` with this number of workers: a list schedule in the order of the graph."""
    free = [0.0] * max(1, workers)
    ends: dict[str, float] = {}
    for node in nodes:
        ready = max((ends.get(needed.key, 0.0) for needed in node.after), default=0.0)
        worker = min(range(len(free)), key=lambda index: max(free[index], ready))
        free[worker] = ends[node.key] = max(free[worker], ready) + known[node.key].seconds
    return max(ends.values(), default=0.0)


def peak_memory_mb(nodes: Sequence[Node], known: Mapping[str, Timing], workers: int) -> float:
    """Upper bound of the memory: the largest notebooks that can run at the same time run together."""
    together = parallel_counts(nodes)
    largest = sorted((known[node.key].memory_mb for node in nodes if together[node.key] > 1), reverse=True)
    single = max((known[node.key].memory_mb for node in nodes), default=0.0)
    return max(single, sum(largest[:workers]))


def _last_run(node: Node) -> Timing | None:
    """Timing of the last complete run, if its parameters were the same; the run folder may have another path."""
    manifest = records.read_manifest(node)
    if manifest.get("state") != "done":
        return None
    moved = {"run_folder": node.parameters.get("run_folder")}
    if {**manifest["parameters"], **moved} != {**node.parameters, **moved}:
        return None
    return Timing(float(manifest["seconds"]), float(manifest.get("memory_mb", 0)))
