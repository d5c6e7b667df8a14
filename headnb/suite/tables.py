"""The graph as text: what would run, and what became of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from headnb.errors import LONGEST_MESSAGE, one_line
from headnb.suite import records
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


def status_table(nodes: Sequence[Node], found: Mapping[str, Record]) -> str:
    """Every node with its state, behind what it needs, and where a traceback lies."""
    states: Counter[str] = Counter(record.state for record in found.values())
    lines = [f"{len(nodes)} notebooks: " + ", ".join(f"{states[state]} {state}" for state in SIGNS if states[state])]
    width = max(len(_indented(node)) for node in nodes)
    for node, model in _with_models(nodes):
        record = found[records.node_id(node)]
        lines += [f"\n{model}"] if model else []
        about: str = record.state
        if record.state in {"done", "failed"} and record.seconds is not None:
            about += f", {duration(record.seconds)}"
        if record.state in {"running", "stopped"}:
            about += f" since {one_line(record.manifest.get('began', '?'))}"
        if record.state == "blocked":
            about += f" by {_blocking(node, found)}"
        lines.append(f"{SIGNS[record.state]} {_indented(node):<{width}}  {about}")
        if record.state == "failed":
            lines.append(f"{'':<{width}}    {one_line(record.error, LONGEST_MESSAGE)}")
    return "\n".join(lines)


def plan_table(nodes: Sequence[Node], found: Mapping[str, Record], known: Mapping[str, Timing], workers: int) -> str:
    """Every node with what it needs and what it took in earlier runs, and the sum."""
    width = max(len(_indented(node)) for node in nodes)
    lines = [f"  {'notebook':<{width}}  {'needs':<24}  {'time':>10}  {'memory':>8}"]
    todo = [node for node in nodes if found[records.node_id(node)].state != "done"]
    for node, model in _with_models(nodes):
        record = found[records.node_id(node)]
        lines += [f"\n{model}"] if model else []
        needs = ", ".join(_summary(node))
        time, memory = "?", "?"
        if record.state == "done":
            time, memory = "done", ""
        elif taken := known.get(node.key):
            time, memory = duration(taken.seconds), f"{taken.memory_mb / 1024:.1f} GB"
        lines.append(f"{SIGNS[record.state]} {_indented(node):<{width}}  {needs:<24}  {time:>10}  {memory:>8}")
    if not todo:
        return "\n".join([*lines, "\nall done: nothing would run"])
    timed = [node for node in todo if node.key in known]
    basis = []
    if timed:
        seconds = total_seconds(timed, known, workers)
        memory_gb = peak_memory_mb(timed, known, workers) / 1024
        basis.append(f"about {duration(seconds)} and {memory_gb:.1f} GB by earlier runs")
    if len(timed) < len(todo):
        basis.append(f"no timings yet of {len(todo) - len(timed)} (they come with the first run of each notebook)")
    lines.append(f"\n{len(todo)} of {len(nodes)} notebooks would run, {workers} at a time: {'; '.join(basis)}")
    return "\n".join(lines)


def outcome_line(node: Node, outcome: Outcome, done: int, total: int) -> str:
    """One notebook's end, while the suite runs."""
    about = f"[{done}/{total}] {SIGNS[outcome.state]} {node.name}: {outcome.state}"
    if outcome.seconds:
        about += f" in {duration(outcome.seconds)}"
    return f"{about}: {one_line(outcome.error, LONGEST_MESSAGE)}" if outcome.error else about


def duration(seconds: float) -> str:
    """`8 s`, `4 min 03 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _with_models(nodes: Sequence[Node]) -> list[tuple[Node, str]]:
    """Each node, with the model's name at the first of its nodes."""
    runs = [node.run for node in nodes]
    return [
        (node, "" if place and runs[place - 1] == node.run else one_line(node.model))
        for place, node in enumerate(nodes)
    ]


def _indented(node: Node) -> str:
    return "  " * _depth(node) + node.name


def _depth(node: Node) -> int:
    return 1 + max(map(_depth, node.after)) if node.after else 0


def _summary(node: Node) -> list[str]:
    """What a node needs: one is named, several of one notebook are counted."""
    count = Counter(needed.notebook for needed in node.after)
    return [name if number == 1 else f"{number} {name}" for name, number in count.items()]


def _blocking(node: Node, found: Mapping[str, Record]) -> str:
    """The failed notebooks that a node waits for, directly or not."""
    failed = [needed.name for needed in node.after if found[records.node_id(needed)].state == "failed"]
    deeper = [_blocking(needed, found) for needed in node.after if found[records.node_id(needed)].state == "blocked"]
    return ", ".join(dict.fromkeys([*failed, *deeper]))
