"""One notebook on one worker: executed with papermill, its fate written down.

A worker process runs one notebook at a time: the working directory and the environment that a kernel inherits belong
to the whole process.
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

from headnb.errors import HeadnbError
from headnb.suite import notebooks, records

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headnb.suite.graph import Node

STARTED_TOPIC = "headnb-suite-begins"  # topic of the event that a worker sends when it begins a notebook
MAX_ATTEMPTS = 3  # a kernel that dies is started again: two that choose the same ports at once cannot both live
MARK = "HEADNB_SUITE_NODE"  # in the environment of a kernel: what it works on
SESSION = "HEADNB_SUITE_SESSION"  # and for which run of the suite

_job_lock = threading.Lock()
_stopped: set[str] = set()


@dataclass(frozen=True)
class Session:
    """What is the same for all notebooks of one run of the suite.

    Attributes:
        token: tells this run from others on the same workers.
        workers: how many workers share a machine: its address -> number.
        parallel_counts: key of a node -> how many can run at once with it.
        gpus: the devices of this machine, one for each worker of a local cluster; empty on a cluster of others.
        environment: set for the kernels.
    """

    token: str
    workers: Mapping[str, int] = field(default_factory=dict)
    parallel_counts: Mapping[str, int] = field(default_factory=dict)
    gpus: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of a node in this run."""

    state: Literal["done", "failed", "blocked", "stopped"]
    seconds: float = 0.0
    error: str = ""


def run_node(node: Node, session: Session, *needed: Outcome) -> Outcome:
    """Run one notebook, if all that it needs is done. It never raises: what fails is an outcome."""
    if any(outcome.state != "done" for outcome in needed):
        return Outcome("blocked")
    with _job_lock:
        if session.token in _stopped:
            return Outcome("stopped")
        if records.is_done(node):  # by a worker that died before its answer was fetched
            return Outcome("done")
        _announce_start(node, session)
        try:
            _kill_leftover_kernels(node)
            return _execute_with_retries(node, session)
        except OSError as error:
            return Outcome("failed", error=f"cannot write {node.folder}: {error.strerror or error}")
        except HeadnbError as error:
            return Outcome("failed", error=str(error))


def end_kernels(token: str) -> None:
    """End the notebooks that a run of the suite has on this worker, and begin no other of it."""
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415

    _stopped.add(token)
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # that a kernel died is no news here
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.environ().get(SESSION) == token:
                process.kill()


def _execute_with_retries(node: Node, session: Session) -> Outcome:
    from nbclient.exceptions import DeadKernelError  # noqa: PLC0415

    died = ""
    for _attempt in range(MAX_ATTEMPTS):
        try:
            return _execute(node, session)
        except (DeadKernelError, RuntimeError) as error:  # RuntimeError: it died before it could say anything
            died = str(error)
            if session.token in _stopped:
                return Outcome("stopped")
    gave_up = f"the kernel died {MAX_ATTEMPTS} times ({died}); out of memory?"
    records.write_manifest(node, "failed", error=gave_up)
    records.end(node)
    return Outcome("failed", error=gave_up)


def _execute(node: Node, session: Session) -> Outcome:
    """One attempt.

    Raises:
        DeadKernelError, RuntimeError: the kernel died.
        OSError, HeadnbError: nothing can be written.
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
    """What a kernel inherits. Dask's nannies set one thread for each worker, which kernels would keep."""
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    device = {"CUDA_VISIBLE_DEVICES": session.gpus[_worker_number() % len(session.gpus)]} if session.gpus else {}
    mark = {MARK: str(records.manifest_path(node)), SESSION: session.token}
    return {**session.environment, **counts, **device, **mark}


def _threads(node: Node, session: Session) -> int:
    """A fair share of this machine's cores, of as many notebooks as can run here at once."""
    from dask.system import CPU_COUNT  # noqa: PLC0415  of this process's cgroup and affinity

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
    """Bytes that this process's children, the kernel and what it starts, hold: sampled."""
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
    """End the kernel that a killed worker may have left on this node: two must never write to one place.

    A kernel notices by itself, within a second, that its worker is gone.
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
    found = {"python": platform.python_version(), **installed, "commit": _commit()}
    return {name: version for name, version in found.items() if version}


def _commit() -> str | None:
    """Of the clone that headnb runs from, and whether files in it differ; None where it is installed without one."""
    git = ["git", "-C", str(notebooks.notebooks_folder().parent)]
    tracked = [*git, "ls-files", "--error-unmatch", "headnb/__init__.py"]  # the clone may be somebody else's
    describe = [*git, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    said = ""
    for words in (tracked, describe):
        try:
            said = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S603
        except (OSError, subprocess.SubprocessError):
            return None
    return said.strip()


def _version(name: str, metadata: Any) -> str | None:
    try:
        return str(metadata.version(name))
    except metadata.PackageNotFoundError:
        return None
