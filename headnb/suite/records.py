"""What became of a node: its manifest, written last, beside the executed notebook.

<stem>.ipynb            executed, complete
<stem>.failed.ipynb     executed up to the cell that failed, with its traceback
<stem>.json             manifest: key, state, parameters, versions, when, where, how long, how much memory
.<stem>.begun.json      there while a notebook runs, and after it was killed
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
    """The state of a node.

    "done": nothing to do. "failed": the notebook failed, or its kernel died. "running". "stopped": killed or
    interrupted in the middle. "outdated": done with other settings, sources or versions. "blocked": a notebook it
    needs failed. "waiting": for others. "ready": could run now.
    """

    state: State
    manifest: Mapping[str, Any]
    """What is known of the last run of this notebook, of whatever settings; empty if there was none."""

    @property
    def seconds(self) -> float | None:
        """How long the last run took."""
        return self.manifest.get("seconds")

    @property
    def error(self) -> str:
        """Why it failed, or by what it is blocked."""
        return str(self.manifest.get("error", ""))


def executed_path(node: Node) -> Path:
    """Where the executed notebook is when it is complete."""
    return node.folder / f"{node.stem}.ipynb"


def failed_path(node: Node) -> Path:
    """Where the executed notebook is when a cell failed."""
    return node.folder / f"{node.stem}.failed.ipynb"


def draft_path(node: Node) -> Path:
    """Where the notebook is while it runs."""
    return node.folder / f".{node.stem}.running.ipynb"


def manifest_path(node: Node) -> Path:
    """Where the manifest is."""
    return node.folder / f"{node.stem}.json"


def running_path(node: Node) -> Path:
    """The file that is there while the notebook runs."""
    return node.folder / f".{node.stem}.begun.json"


def read_manifest(node: Node) -> dict[str, Any]:
    """The node's manifest; empty if there is none that can be read."""
    return _read(manifest_path(node))


def write_manifest(node: Node, state: State, **facts: Any) -> dict[str, Any]:
    """Write the manifest; returns it."""
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
    """Whether the node's results are there and made with just these settings."""
    manifest = read_manifest(node)
    made = (executed_path(node), *node.writes)
    return manifest.get("state") == "done" and manifest.get("key") == node.key and all(map(Path.exists, made))


def begin(node: Node, facts: Mapping[str, Any]) -> None:
    """Mark that the node runs; what was made with other settings is removed, what was begun with these is kept.

    Results of unknown origin stay too: the notebook itself refuses what does not fit.
    """
    made_with = _read(running_path(node)).get("key") or read_manifest(node).get("key")
    if made_with not in {None, node.key}:
        for path in node.writes:
            _remove(path)
    write_json(running_path(node), {"key": node.key, **facts})
    for path in (manifest_path(node), executed_path(node), failed_path(node), draft_path(node)):
        _remove(path)


def end(node: Node) -> None:
    """Take the mark of `begin` away."""
    _remove(running_path(node))


def records(nodes: Sequence[Node], *, running: bool) -> dict[str, Record]:
    """The state of every node, by `node.run` and name.

    Args:
        nodes: the graph.
        running: whether a suite is at work on them, so that what is begun runs and was not killed.
    """
    found: dict[str, Record] = {}
    for node in nodes:
        found[node_id(node)] = _record(node, [found[node_id(needed)] for needed in node.after], running=running)
    return found


def node_id(node: Node) -> str:
    """A name of the node that no other node of the graph has."""
    return f"{node.run.name}/{node.stem}"


def _record(node: Node, needed: list[Record], *, running: bool) -> Record:
    manifest = read_manifest(node)
    begun = _read(running_path(node))
    waits: State = "waiting"
    if is_done(node):
        return Record("done", manifest)
    if begun.get("key") == node.key:
        return Record("running" if running else "stopped", begun)
    if manifest.get("state") == "failed" and manifest.get("key") == node.key:
        return Record("failed", manifest)
    if any(record.state in {"failed", "blocked"} for record in needed):
        waits = "blocked"
    elif manifest:
        waits = "outdated"
    elif all(record.state == "done" for record in needed):
        waits = "ready"
    return Record(waits, manifest)


@contextlib.contextmanager
def suite_lock(out: Path) -> Iterator[None]:
    """Hold the folder, so that two suites never write to it at once; the lock goes with the process.

    Raises:
        HeadnbError: another suite is at work there, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415

    lock = FileLock(out / ".suite.lock")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise HeadnbError(f"a suite is running in {out} already; `headnb suite status` shows it") from None
    except OSError as error:
        raise HeadnbError(f"cannot write to {out}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def is_running(out: Path) -> bool:
    """Whether a suite is at work in this folder."""
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
