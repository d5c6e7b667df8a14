"""How long a suite will take and how much memory: measured where a notebook ran before, else from its parameters.

From parameters: tokens times the operations per token and weight (6 in training, 4 in scoring, 2 in generation) over
the rate of this machine's matrix products. Where samples are not at hand, all are taken as long as `max_length`.
"""

from __future__ import annotations

import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headnb.suite import records
from headnb.suite.graph import side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from headnb.suite.graph import Node

START = 20.0  # seconds for a kernel, imports and a model
OPERATIONS = {"train": 6, "score": 4, "generate": 2}  # per weight and token
EFFICIENCY = {"train": 0.5, "score": 0.5, "generate": 0.05}  # of the matrix-product rate; generation waits for memory
BYTES = {"train": 16, "score": 4, "generate": 4}  # per weight, float32; training holds gradients and Adam's moments
BASE_MB = 900  # a kernel with torch, transformers and what a batch needs


@dataclass(frozen=True)
class Estimate:
    """Of one node."""

    seconds: float
    memory_mb: float
    measured: bool
    """Whether it is from an earlier run of this notebook."""


def estimate(nodes: Sequence[Node], rate: float | None = None) -> dict[str, Estimate]:
    """Key of a node -> what it will take.

    Args:
        nodes: the graph.
        rate: operations per second of one notebook; None measures this machine's.
    """
    earlier = {key: _earlier(node) for key, node in ((node.key, node) for node in nodes)}
    found = {}
    for node in nodes:
        alike = [taken for other in nodes if other.notebook == node.notebook for taken in earlier[other.key]]
        if alike:
            same = earlier[node.key] or alike
            found[node.key] = Estimate(
                statistics.median(seconds * _share(node, work) for work, seconds, _ in same),
                max(memory for _, _, memory in same),
                measured=True,
            )
        else:
            rate = rate or matrix_rate()
            found[node.key] = _from_parameters(node, rate)
    return found


def total_seconds(nodes: Sequence[Node], estimates: Mapping[str, Estimate], workers: int) -> float:
    """Until all of `nodes` are done by so many workers: a list schedule, in the order of the graph."""
    free = [0.0] * max(1, workers)
    ends: dict[str, float] = {}
    for node in nodes:
        ready = max((ends.get(needed.key, 0.0) for needed in node.after), default=0.0)
        worker = min(range(len(free)), key=lambda place: max(free[place], ready))
        free[worker] = ends[node.key] = max(free[worker], ready) + estimates[node.key].seconds
    return max(ends.values(), default=0.0)


def peak_memory_mb(nodes: Sequence[Node], estimates: Mapping[str, Estimate], workers: int) -> float:
    """At most, when the largest notebooks that can run at once do."""
    together = side_by_side(nodes)
    largest = sorted((estimates[node.key].memory_mb for node in nodes if together[node.key] > 1), reverse=True)
    single = max((estimates[node.key].memory_mb for node in nodes), default=0.0)
    return max(single, sum(largest[:workers]))


def matrix_rate() -> float:
    """Operations per second of this machine in float32 matrix products (of its first GPU where there is one)."""
    import torch  # noqa: PLC0415

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 4096 if device == "cuda" else 768
    a = torch.randn(size, size, device=device)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        product = a @ a
        product[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def weights_of(model: str) -> float:
    """How many weights a model has: counted in a folder's files, else as its name says; 1e9 where it does not."""
    path = Path(model)
    if path.is_dir():
        from safetensors import safe_open  # noqa: PLC0415

        total = 0.0
        for file in path.glob("*.safetensors"):
            with safe_open(file, framework="np") as weights:
                for name in weights.keys():  # noqa: SIM118  it is no mapping
                    size = 1
                    for length in weights.get_slice(name).get_shape():
                        size *= length
                    total += size
        return total
    said = re.findall(r"(\d+(?:\.\d+)?)([mb])(?![a-z])", model.lower())
    return float(said[-1][0]) * {"m": 1e6, "b": 1e9}[said[-1][1]] if said else 1e9


def _from_parameters(node: Node, rate: float) -> Estimate:
    weights = weights_of(node.model)
    seconds = START
    for kind, tokens in node.work.items():
        seconds += tokens * OPERATIONS[kind] * weights / (rate * EFFICIENCY[kind])
    memory = BASE_MB + max((BYTES[kind] for kind in node.work), default=0) * weights / 2**20
    return Estimate(seconds, memory, measured=False)


def _earlier(node: Node) -> Iterable[tuple[Mapping[str, int], float, float]]:
    """(work, seconds, memory) of the last complete run of this notebook, of whatever settings."""
    manifest = records.read_manifest(node)
    if manifest.get("state") != "done":
        return []
    return [(manifest.get("work", {}), float(manifest["seconds"]), float(manifest.get("memory_mb", 0)))]


def _share(node: Node, work: Mapping[str, int]) -> float:
    """The node's work over that of the earlier run."""
    now = sum(tokens * OPERATIONS[kind] / EFFICIENCY[kind] for kind, tokens in node.work.items())
    then = sum(tokens * OPERATIONS[kind] / EFFICIENCY[kind] for kind, tokens in work.items() if kind in OPERATIONS)
    return now / then if now and then else 1.0
