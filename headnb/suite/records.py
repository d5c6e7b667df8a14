"""State of a node: the files next to its executed notebook.

<stem>.ipynb            executed notebook, complete
<stem>.failed.ipynb     executed up to the cell that failed, with its traceback
<stem>.json             manifest, written last: key, state, parameters, versions, start, hardware, time, memory
.<stem>.begun.json      exists while a notebook runs, and after it was killed
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from headnb.errors import HeadnbError
from headnb.storage.files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from headnb.suite.graph import Node

State: TypeAlias = Literal["done", "failed", "running", "stopped", "outdated", "blocked", "waiting", "ready"]
FORMAT = 1


@dataclass(frozen=True)
class Record:
    """State of a node.

    "done": results are complete. "failed": a cell failed, or the kernel died. "running". "stopped": killed or
    interrupted. "outdated": run with other settings, sources or versions. "blocked": a dependency failed. "waiting":
    a dependency is not done. "ready": all dependencies are done.
    """

    state: State
    manifest: Mapping[str, Any]
    """Manifest of the last run of this notebook with any settings; empty if there was none."""

    @property
    def seconds(self) -> float | None:
        """Duration of the last run in seconds."""
        return self.manifest.get("seconds")

    @property
    def error(self) -> str:
        """Error of the last run; empty if there was none."""
        return str(self.manifest.get("error", ""))


def executed_path(node: Node) -> Path:
    """Path of the executed notebook after all cells have run."""
    return node.folder / f"{node.stem}.ipynb"


def failed_path(node: Node) -> Path:
    """Path of the executed notebook after a cell failed."""
    return node.folder / f"{node.stem}.failed.ipynb"


def draft_path(node: Node) -> Path:
    """Path of the notebook while it runs."""
    return node.folder / f".{node.stem}.running.ipynb"


def manifest_path(node: Node) -> Path:
    """Path of the manifest."""
    return node.folder / f"{node.stem}.json"


def running_path(node: Node) -> Path:
    """Path of the file that exists while the notebook runs."""
    return node.folder / f".{node.stem}.begun.json"


def read_manifest(node: Node) -> dict[str, Any]:
    """Manifest of a node; empty if it is missing or unreadable."""
    return _read(manifest_path(node))


def write_manifest(node: Node, state: State, **facts: Any) -> dict[str, Any]:
    """Write the manifest and return it."""
    manifest = {
        "format": FORMAT,
        "node": node.name,
        "notebook": node.source.name,
        "key": node.key,
        "state": state,
        "parameters": dict(node.parameters),
        **facts,
    }
    write_json(manifest_path(node), manifest)
    return manifest


def is_done(node: Node) -> bool:
    """Whether all results of the node exist and have its key."""
    manifest = read_manifest(node)
    results = (executed_path(node), *node.writes)
    return manifest.get("state") == "done" and manifest.get("key") == node.key and all(map(Path.exists, results))


def begin(node: Node, facts: Mapping[str, Any]) -> None:
    """Mark the node as running. Results with another key are removed; partial results with the same key are kept.

    Results without a manifest are also kept; the notebook itself checks whether they fit.
    """
    previous_key = _read(running_path(node)).get("key") or read_manifest(node).get("key")
    if previous_key not in {None, node.key}:
        for path in node.writes:
            _remove(path)
    write_json(running_path(node), {"key": node.key, **facts})
    for path in (manifest_path(node), executed_path(node), failed_path(node), draft_path(node)):
        _remove(path)


def end(node: Node) -> None:
    """Remove the file that `begin` wrote."""
    _remove(running_path(node))


def records(nodes: Sequence[Node], *, running: bool) -> dict[str, Record]:
    """State of every node, by `node_id`.

    Args:
        nodes: the graph.
        running: whether a suite runs in the folder; then a begun node is "running", otherwise "stopped".
    """
    states: dict[str, Record] = {}
    for node in nodes:
        states[node_id(node)] = _record(node, [states[node_id(needed)] for needed in node.after], running=running)
    return states


def node_id(node: Node) -> str:
    """Unique name of a node in the graph."""
    return f"{node.run.name}/{node.stem}"


def _record(node: Node, needed: list[Record], *, running: bool) -> Record:
    manifest = read_manifest(node)
    begun = _read(running_path(node))
    state: State = "waiting"
    if is_done(node):
        return Record("done", manifest)
    if begun.get("key") == node.key:
        return Record("running" if running else "stopped", begun)
    if manifest.get("state") == "failed" and manifest.get("key") == node.key:
        return Record("failed", manifest)
    if any(record.state in {"failed", "blocked"} for record in needed):
        state = "blocked"
    elif manifest:
        state = "outdated"
    elif all(record.state == "done" for record in needed):
        state = "ready"
    return Record(state, manifest)


@contextlib.contextmanager
def suite_lock(out: Path) -> Iterator[None]:
    """Lock the folder, so that two suites never write to it at the same time; the lock ends with the process.

    Raises:
        HeadnbError: another suite runs there, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415

    lock = FileLock(out / ".suite.lock")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise HeadnbError(f"a suite is already running in {out}; `headnb suite status` shows its progress") from None
    except OSError as error:
        raise HeadnbError(f"cannot write to {out}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def is_running(out: Path) -> bool:
    """Whether a suite runs in this folder."""
    if not (out / ".suite.lock").exists():
        return False
    try:
        with suite_lock(out):
            return False
    except HeadnbError:
        return True


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, "")
    except HeadnbError:
        return {}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
