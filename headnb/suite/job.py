"""Execution of one notebook on one worker with papermill, and its manifest.

A worker process runs one notebook at a time, because a kernel inherits the environment of the whole process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import subprocess
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from headnb.errors import HeadnbError, first_line
from headnb.scoring.progress_bars import SETTING as PROGRESS_BARS
from headnb.suite import notebooks, records

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headnb.suite.graph import Node

STARTED_TOPIC = "headnb-suite-begins"  # event that a worker logs when it begins a notebook
MAX_ATTEMPTS = 3  # a dead kernel is started again; it may have chosen the same port as another kernel
MARK = "HEADNB_SUITE_NODE"  # environment variable of a kernel: the manifest of its node
SESSION = "HEADNB_SUITE_SESSION"  # environment variable of a kernel: the run of the suite

_job_lock = threading.Lock()
_stopped: set[str] = set()


@dataclass(frozen=True)
class Session:
    """Settings shared by all notebooks of one run of the suite.

    Attributes:
        token: identifies this run among others on the same workers.
        workers: address of a machine -> number of its workers.
        parallel_counts: key of a node -> number of nodes that can run at the same time as it.
        gpus: devices of this machine, one per worker of a local cluster; empty on an external cluster.
        environment: environment variables of the kernels.
    """

    token: str
    workers: Mapping[str, int] = field(default_factory=dict)
    parallel_counts: Mapping[str, int] = field(default_factory=dict)
    gpus: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Outcome of a node in this run of the suite."""

    state: Literal["done", "failed", "blocked", "stopped"]
    seconds: float = 0.0
    error: str = ""


def run_node(node: Node, session: Session, *needed: Outcome) -> Outcome:
    """Run one notebook if all its dependencies are done. A failure is returned as an outcome, never raised."""
    if any(outcome.state != "done" for outcome in needed):
        return Outcome("blocked")
    with _job_lock:
        if session.token in _stopped:
            return Outcome("stopped")
        if records.is_done(node):  # by a worker that died before its outcome was fetched
            return Outcome("done")
        _announce_start(node, session)
        try:
            _kill_leftover_kernels(node)
            return _execute_with_retries(node, session)
        except Exception as error:  # noqa: BLE001  the other notebooks run nevertheless
            return Outcome("failed", error=_error_text(error, node))


def _error_text(error: Exception, node: Node) -> str:
    if isinstance(error, OSError):
        return f"cannot write {node.folder}: {error.strerror or error}"
    return str(error) if isinstance(error, HeadnbError) else f"{type(error).__name__}: {first_line(error)}"


def end_kernels(token: str) -> None:
    """Kill the kernels of a run of the suite on this worker, and start no other notebook of that run."""
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415

    _stopped.add(token)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # hides the expected messages about dead kernels
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.environ().get(SESSION) == token:
                process.kill()


def _execute_with_retries(node: Node, session: Session) -> Outcome:
    from nbclient.exceptions import DeadKernelError  # noqa: PLC0415

    cause = ""
    for _attempt in range(MAX_ATTEMPTS):
        try:
            return _execute(node, session)
        except (DeadKernelError, RuntimeError) as error:  # RuntimeError: the kernel died before it was ready
            cause = str(error)
            if session.token in _stopped:
                return Outcome("stopped")
    message = f"the kernel died {MAX_ATTEMPTS} times ({cause}); out of memory?"
    records.write_manifest(node, "failed", error=message)
    records.end(node)
    return Outcome("failed", error=message)


def _execute(node: Node, session: Session) -> Outcome:
    """Execute a notebook once and write its manifest.

    Raises:
        DeadKernelError, RuntimeError: the kernel died.
        OSError, HeadnbError: a file cannot be written.
    """
    threads = _threads(node, session)
    facts: dict[str, Any] = {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores" + (", one GPU" if session.gpus else ""),
        "threads": threads,
    }
    node.folder.mkdir(parents=True, exist_ok=True)
    records.begin(node, facts)
    began = time.monotonic()
    draft = records.draft_path(node)
    error = ""
    with _environment(_kernel_environment(node, session, threads)), _peak_memory() as peak:
        try:
            notebooks.run_notebook(node.source, draft, node.parameters, progress=False)
        except HeadnbError as failure:
            error = str(failure).replace(str(draft), str(records.failed_path(node)))
    facts |= {"seconds": round(time.monotonic() - began, 1), "memory_mb": round(max(peak) / 2**20)}
    if error and draft.exists():
        draft.replace(records.failed_path(node))
    if not error and (missing := [str(path) for path in node.writes if not path.exists()]):
        error = f"{node.source.name} ended without writing {', '.join(missing)}"
    if not error:
        draft.replace(records.executed_path(node))
    state: Literal["done", "failed"] = "failed" if error else "done"
    records.write_manifest(node, state, **facts, versions=_versions(), **({"error": error} if error else {}))
    records.end(node)
    return Outcome(state, facts["seconds"], error)


def _kernel_environment(node: Node, session: Session, threads: int) -> dict[str, str]:
    """Environment of a kernel. Dask sets one thread per worker, which kernels would inherit."""
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    device = {"CUDA_VISIBLE_DEVICES": session.gpus[_worker_number() % len(session.gpus)]} if session.gpus else {}
    mark = {MARK: str(records.manifest_path(node)), SESSION: session.token}
    return {**session.environment, **counts, **device, **mark, PROGRESS_BARS: "0"}


def _threads(node: Node, session: Session) -> int:
    """Cores of this machine divided by the number of notebooks that can run on it at the same time."""
    from dask.system import CPU_COUNT  # noqa: PLC0415  respects cgroup limits and CPU affinity

    worker = _worker()
    host = worker.address.rpartition(":")[0] if worker is not None else ""
    return max(1, CPU_COUNT // min(session.workers.get(host, 1), session.parallel_counts.get(node.key, 1)))


def _worker() -> Any:
    from distributed import get_worker  # noqa: PLC0415

    try:
        return get_worker()
    except ValueError:  # not on a worker
        return None


def _worker_number() -> int:
    name = str(getattr(_worker(), "name", 0))
    return int(name) if name.isdigit() else 0


def _announce_start(node: Node, session: Session) -> None:
    if (worker := _worker()) is not None:
        worker.log_event(f"{STARTED_TOPIC}-{session.token}", records.node_id(node))


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and restore them on exit."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _peak_memory(every: float = 1.0) -> Iterator[list[int]]:
    """Sample the memory of this process's children (the kernel and its children), in bytes."""
    import psutil  # noqa: PLC0415

    peak, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(every):
            total = 0
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    total += child.memory_info().rss
            peak.append(total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _kill_leftover_kernels(node: Node, patience: float = 3.0) -> None:
    """Kill a kernel that a killed worker left on this node, so that two kernels never write to the same files.

    A kernel normally exits by itself within a second after its worker is gone.
    """
    import psutil  # noqa: PLC0415

    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == str(records.manifest_path(node)):
                left.append(process)
    _, alive = psutil.wait_procs(left, timeout=patience)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=patience)


def _versions() -> dict[str, str]:
    import importlib.metadata  # noqa: PLC0415

    names = ("headnb", "torch", "transformers", "trl", "peft", "papermill")
    installed = {name: _version(name, importlib.metadata) for name in names}
    versions = {"python": platform.python_version(), **installed, "commit": _commit()}
    return {name: version for name, version in versions.items() if version}


def _commit() -> str | None:
    """Commit (with "-dirty" after changes) of the clone that headnb runs from; None if there is no clone."""
    git = ["git", "-C", str(notebooks.notebooks_folder().parent)]
    tracked = [*git, "ls-files", "--error-unmatch", "headnb/__init__.py"]  # fails if the clone is of another project
    describe = [*git, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    output = ""
    for command in (tracked, describe):
        try:
            output = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S603
        except (OSError, subprocess.SubprocessError):
            return None
    return output.strip()


def _version(name: str, metadata: Any) -> str | None:
    try:
        return str(metadata.version(name))
    except metadata.PackageNotFoundError:
        return None
