"""Text tables of the graph: planned runs, and states."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from headnb.errors import LONGEST_MESSAGE, one_line
from headnb.stats.rounding import format_duration
from headnb.suite import records
from headnb.suite.graph import depths
from headnb.suite.timings import peak_memory_mb, total_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headnb.suite.graph import Node
    from headnb.suite.job import Outcome
    from headnb.suite.records import Record
    from headnb.suite.timings import Timing

SIGNS = {
    "done": "✓",
    "failed": "✗",
    "running": "▶",
    "stopped": "‖",
    "outdated": "~",
    "blocked": "⊘",
    "waiting": "·",
    "ready": "○",
}


def status_table(nodes: Sequence[Node], node_records: Mapping[str, Record]) -> str:
    """One line per node with its state, after its dependencies, and the error of each failed node."""
    states: Counter[str] = Counter(record.state for record in node_records.values())
    lines = [f"{len(nodes)} notebooks: " + ", ".join(f"{states[state]} {state}" for state in SIGNS if states[state])]
    labels, width = _labels(nodes)
    for node, model in _with_models(nodes):
        record = node_records[records.node_id(node)]
        lines += [f"\n{model}"] if model else []
        about: str = record.state
        if record.state in {"done", "failed"} and record.seconds is not None:
            about += f", {format_duration(record.seconds)}"
        if record.state in {"running", "stopped"}:
            about += f" since {one_line(record.manifest.get('began', '?'))}"
        if record.state == "blocked":
            about += f" by {_blocking(node, node_records)}"
        lines.append(f"{SIGNS[record.state]} {labels[node.key]:<{width}}  {about}")
        if record.state == "failed":
            lines.append(f"{'':<{width}}    {one_line(record.error, LONGEST_MESSAGE)}")
    return "\n".join(lines)


def plan_table(
    nodes: Sequence[Node], node_records: Mapping[str, Record], known: Mapping[str, Timing], workers: int
) -> str:
    """One line per node with dependencies, time and memory of earlier runs; then the total."""
    labels, width = _labels(nodes)
    lines = [f"  {'notebook':<{width}}  {'needs':<24}  {'time':>10}  {'memory':>8}"]
    todo = [node for node in nodes if node_records[records.node_id(node)].state != "done"]
    for node, model in _with_models(nodes):
        record = node_records[records.node_id(node)]
        lines += [f"\n{model}"] if model else []
        needs = ", ".join(_summary(node))
        time, memory = "?", "?"
        if record.state == "done":
            time, memory = "done", ""
        elif taken := known.get(node.key):
            time, memory = format_duration(taken.seconds), f"{taken.memory_mb / 1024:.1f} GB"
        lines.append(f"{SIGNS[record.state]} {labels[node.key]:<{width}}  {needs:<24}  {time:>10}  {memory:>8}")
    if not todo:
        return "\n".join([*lines, "\nall done: no notebook to run"])
    timed = [node for node in todo if node.key in known]
    basis = []
    if timed:
        seconds = total_seconds(timed, known, workers)
        memory_gb = peak_memory_mb(timed, known, workers) / 1024
        basis.append(f"about {format_duration(seconds)} and {memory_gb:.1f} GB, from earlier runs")
    if len(timed) < len(todo):
        basis.append(
            f"no timings yet for {len(todo) - len(timed)} of them (recorded in the first run of each notebook)"
        )
    lines.append(f"\n{len(todo)} of {len(nodes)} notebooks to run, {workers} at a time: {'; '.join(basis)}")
    return "\n".join(lines)


def outcome_line(node: Node, outcome: Outcome, done: int, total: int) -> str:
    """Progress line for a notebook that ended."""
    about = f"[{done}/{total}] {SIGNS[outcome.state]} {node.name}: {outcome.state}"
    if outcome.seconds:
        about += f" in {format_duration(outcome.seconds)}"
    return f"{about}: {one_line(outcome.error, LONGEST_MESSAGE)}" if outcome.error else about


def _with_models(nodes: Sequence[Node]) -> list[tuple[Node, str]]:
    """Each node, with the model's name for the first node of the model and "" for the rest."""
    runs = [node.run for node in nodes]
    return [
        (node, "" if index and runs[index - 1] == node.run else one_line(node.model))
        for index, node in enumerate(nodes)
    ]


def _labels(nodes: Sequence[Node]) -> tuple[dict[str, str], int]:
    """Key of a node -> its name, indented by its depth; and the length of the longest."""
    depth = depths(nodes)
    labels = {node.key: "  " * depth[node.key] + node.name for node in nodes}
    return labels, max(map(len, labels.values()))


def _summary(node: Node) -> list[str]:
    """Dependencies of a node by notebook, with a count if there are several."""
    count = Counter(needed.notebook for needed in node.after)
    return [name if number == 1 else f"{number} {name}" for name, number in count.items()]


def _blocking(node: Node, node_records: Mapping[str, Record]) -> str:
    """Names of the failed notebooks that a node depends on, directly or indirectly."""
    failed = [needed.name for needed in node.after if node_records[records.node_id(needed)].state == "failed"]
    deeper = [
        _blocking(needed, node_records)
        for needed in node.after
        if node_records[records.node_id(needed)].state == "blocked"
    ]
    return ", ".join(dict.fromkeys([*failed, *deeper]))
