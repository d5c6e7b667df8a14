"""Execution of a suite on a cluster: after any failure or kill, the same command gives the same results."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import dask
import nbformat
import psutil
import pytest
from distributed import Client, KilledWorker
from headnb.errors import HeadnbError
from headnb.suite import cluster_watch, execution, job, records
from headnb.suite.execution import run_suite
from headnb.suite.job import Outcome, Session, run_node

from commands import run
from forks import forked_workers
from suites import graph, results, write_notebook, write_suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from headnb.suite.graph import Node

RUN = "smollm2-135m"
PLACES = [("gcd", 0), ("lcm", 0)]
TRAINED = {f"{RUN}/sft/{task}/seed{seed}/result.txt": f"{RUN} 1.0 {task} {seed} 21" for task, seed in PLACES}
COMPLETE = {f"{RUN}/start.txt": f"{RUN} 1.0", **TRAINED, f"{RUN}/end.txt": "\n".join(TRAINED.values())}
PATIENCE = 900.0  # seconds; the longest wait of a test on a busy machine


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.05)


class Command:
    """`headnb suite run` in a separate process, with a notebook that can be paused."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.gate = folder / "gate"
        self.out = folder / "out"
        self.suite = folder / "suite" / "suite.yaml"
        self.options = options
        self.environment = {"SUITE_TEST_GATE": str(self.gate)}

    def start(self, *, hold: str = "") -> subprocess.Popen[str]:
        """Start the command; the notebook `hold` (such as "gcd0") pauses until `release`."""
        self.gate.mkdir(exist_ok=True)
        for file in self.gate.iterdir():
            file.unlink()
        if hold:
            (self.gate / f"{hold}.wait").touch()
        arguments = ["suite", "run", self.suite, "--profile", "tiny", "--out", self.out, *self.options]
        return subprocess.Popen(
            [sys.executable, "-c", "from headnb.cli.main import main; main()", *map(str, arguments)],
            env={**os.environ, **self.environment},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  a shell's background jobs ignore it
        )

    def kernel(self, held: str) -> psutil.Process:
        """Kernel of the paused notebook; waits until it is paused."""
        here = self.gate / f"{held}.here"
        until(lambda: here.exists() and here.read_text())
        return psutil.Process(int(here.read_text()))

    def release(self, held: str) -> None:
        (self.gate / f"{held}.here").unlink()
        (self.gate / f"{held}.wait").unlink()

    def finish(self) -> str:
        """Run to the end; return its stderr."""
        process = self.start()
        _, stderr = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, stderr
        return stderr


@pytest.fixture(scope="module", autouse=True)
def workers_are_forks() -> Iterator[None]:
    """Workers of this process are; those of a `Command` are new processes."""
    with forked_workers():
        yield


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    write_suite(tmp_path / "suite", seeds=[0])
    yield Command(tmp_path)
    kill_leftovers(tmp_path)


def kill_leftovers(folder: Path) -> None:
    """Kill the processes that a failed test left."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SUITE_TEST_GATE") == str(folder / "gate"):
                process.kill()


def test_a_suite_runs_in_order_and_a_second_time_not_at_all(command: Command) -> None:
    stderr = command.finish()
    assert results(command.out) == COMPLETE
    assert "4 of 4 notebooks to run" in stderr
    assert "[4/4] ✓ end: done" in stderr
    times = {path: path.stat().st_mtime_ns for path in command.out.rglob("*.ipynb")}
    assert sorted(path.name for path in times) == sorted(
        ["start.ipynb", *(f"train.{task}.seed{seed}.ipynb" for task, seed in PLACES), "end.ipynb"]
    )
    manifest = records.read_manifest(graph(command.suite, command.out)[1])
    assert manifest["threads"] >= 1
    assert manifest["memory_mb"] >= 0
    assert run_suite(graph(command.suite, command.out), command.out) == {}
    assert {path: path.stat().st_mtime_ns for path in command.out.rglob("*.ipynb")} == times
    left = [path.name for path in command.out.rglob(".*") if path.name != ".suite.lock"]
    assert left == []


@pytest.mark.long
def test_a_failed_notebook_keeps_its_traceback_and_stops_only_what_needs_it(tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite", seeds=[0])
    path = tmp_path / "suite" / "train.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[4].source += '; assert task != "gcd", "this one fails"'
    nbformat.write(notebook, path)
    nodes = graph(suite, tmp_path / "out")
    outcomes = run_suite(nodes, tmp_path / "out")
    states = {node.name: outcomes[records.node_id(node)].state for node in nodes}
    assert states == {node.name: "done" for node in nodes} | {"train gcd seed 0": "failed", "end": "blocked"}
    failed = records.failed_path(nodes[1])
    error = outcomes[records.node_id(nodes[1])].error
    assert re.search(rf"cell \[\d\], AssertionError: this one fails; see {re.escape(str(failed))}$", error)
    (traceback,) = [
        output
        for cell in nbformat.read(failed, as_version=4).cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    ]
    assert traceback.evalue == "this one fails"
    assert not records.executed_path(nodes[1]).exists()
    write_suite(tmp_path / "suite", seeds=[0])  # repaired
    nodes = graph(suite, tmp_path / "out")
    run_suite(nodes, tmp_path / "out")
    assert results(tmp_path / "out") == COMPLETE
    assert not failed.exists()


@pytest.mark.long
@pytest.mark.parametrize("victim", ["kernel", "worker"])
def test_a_kernel_or_worker_killed_in_the_middle_is_replaced(command: Command, victim: str) -> None:
    process = command.start(hold="lcm0")
    kernel = command.kernel("lcm0")
    worker = kernel.parent()
    assert worker is not None
    command.release("lcm0")
    (kernel if victim == "kernel" else worker).kill()
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    assert results(command.out) == COMPLETE


@pytest.mark.long
def test_a_killed_run_resumes(command: Command) -> None:
    process = command.start(hold="gcd0")
    kernel = command.kernel("gcd0")
    process.kill()
    process.wait()
    kernel.wait(PATIENCE)  # it exits after its parent
    before = {path: path.stat().st_mtime_ns for path in command.out.rglob("*.ipynb")}
    assert f"{RUN}/end.txt" not in results(command.out)
    nodes = graph(command.suite, command.out)
    assert records.records(nodes, running=records.is_running(command.out))[f"{RUN}/train.gcd.seed0"].state == "stopped"
    run_suite(nodes, command.out)
    assert results(command.out) == COMPLETE
    assert all(path.stat().st_mtime_ns == before[path] for path in before if not path.name.startswith("."))


@contextlib.contextmanager
def scheduler_and_worker(command: Command, *options: str) -> Iterator[tuple[str, Any, Any]]:
    """An external cluster: its address, its scheduler and its worker."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dask_command = [sys.executable, "-m", "dask"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": {**os.environ, **command.environment}}
    address = f"tcp://127.0.0.1:{port}"
    host = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    with (
        subprocess.Popen([*dask_command, "scheduler", *host], **quiet) as scheduler,
        subprocess.Popen(
            [*dask_command, "worker", address, "--no-dashboard", "--no-nanny", *options], **quiet
        ) as worker,
    ):
        try:
            with Client(address, timeout=PATIENCE) as client:
                client.wait_for_workers(1)
            yield address, scheduler, worker
        finally:
            worker.kill()
            scheduler.kill()


@pytest.mark.long
def test_a_killed_scheduler_is_one_line_and_a_local_run_resumes(command: Command) -> None:
    # Two threads: the worker must still run only one notebook at a time.
    with scheduler_and_worker(command, "--nthreads", "2") as (address, scheduler, _):
        command.options = ("--scheduler", address)
        process = command.start(hold="gcd0")
        kernel = command.kernel("gcd0")
        scheduler.kill()
        _, stderr = process.communicate(timeout=PATIENCE)
    kernel.wait(PATIENCE)
    assert process.returncode == 1
    assert (
        "headnb: the Dask scheduler was lost; finished notebooks are kept; run the same command again to resume"
        in stderr
    )
    assert "Traceback" not in stderr
    run_suite(graph(command.suite, command.out), command.out)
    assert results(command.out) == COMPLETE


@pytest.mark.long
def test_a_worker_that_hangs_is_replaced(command: Command) -> None:
    command.environment["DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL"] = "10s"  # default: five minutes
    process = command.start(hold="lcm0")
    kernel = command.kernel("lcm0")
    worker = kernel.parent()
    assert worker is not None
    worker.suspend()
    kernel.wait(PATIENCE)  # it exits once its worker is gone
    assert not worker.is_running()
    command.release("lcm0")
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, stderr
    assert results(command.out) == COMPLETE


def shorten_timeout(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """One timeout of seconds instead of minutes; on a busy machine, several short ones would race."""
    monkeypatch.setattr(execution, "POLL_SECONDS", 1.0)
    monkeypatch.setattr(cluster_watch, name, 3.0)


@pytest.mark.long
def test_a_hanging_only_worker_is_one_line_that_names_the_remaining_notebooks(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_timeout(monkeypatch, "TIMEOUT_SECONDS")
    monkeypatch.setenv("SUITE_TEST_GATE", str(command.gate))
    command.environment["DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL"] = "6s"
    nodes = graph(command.suite, command.out)
    with scheduler_and_worker(command, "--nthreads", "1") as (address, _, worker):

        def hang(node: Node, outcome: Outcome | None) -> None:
            if outcome is None and node.name == "train gcd seed 0":
                os.kill(worker.pid, signal.SIGSTOP)

        with pytest.raises(HeadnbError) as given_up:
            run_suite(nodes, command.out, scheduler=address, report=hang)
    message = str(given_up.value)
    assert message.startswith("the Dask cluster has had no workers for 0.05 minutes; remaining: ")
    # The notebook that ended last may still be listed.
    expected = (
        "train gcd seed 0, train lcm seed 0, end; finished notebooks are kept; run the same command again to resume"
    )
    assert message.endswith(expected)
    run_suite(nodes, command.out)
    assert results(command.out) == COMPLETE


@pytest.mark.long
def test_a_hanging_scheduler_is_one_line_and_a_local_run_resumes(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_timeout(monkeypatch, "ANSWER_SECONDS")
    monkeypatch.setenv("SUITE_TEST_GATE", str(command.gate))
    nodes = graph(command.suite, command.out)
    with scheduler_and_worker(command, "--nthreads", "1") as (address, scheduler, _):

        def hang(node: Node, outcome: Outcome | None) -> None:
            if outcome is None and node.name == "train gcd seed 0":
                os.kill(scheduler.pid, signal.SIGSTOP)

        with pytest.raises(HeadnbError, match=r"has not answered for .* minutes; finished notebooks are kept"):
            run_suite(nodes, command.out, scheduler=address, report=hang)
    run_suite(nodes, command.out)
    assert results(command.out) == COMPLETE


def test_gpu_notebooks_do_not_wait_forever_for_workers_without_a_gpu(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_timeout(monkeypatch, "TIMEOUT_SECONDS")
    nodes = [dataclasses.replace(node, gpu="train" in node.name) for node in graph(command.suite, command.out)]
    with scheduler_and_worker(command, "--nthreads", "1", "--resources", "GPU=1") as (address, _, worker):
        other = [sys.executable, "-m", "dask", "worker", address, "--no-dashboard", "--no-nanny", "--nthreads", "1"]
        with (
            subprocess.Popen(other, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as without,
            Client(address) as client,
        ):
            client.wait_for_workers(2)

            def end(node: Node, outcome: Outcome | None) -> None:
                if outcome is not None and node.name == "start":
                    worker.kill()

            try:
                with pytest.raises(HeadnbError) as given_up:
                    run_suite(nodes, command.out, scheduler=address, report=end)
            finally:
                without.kill()
    assert str(given_up.value).startswith(
        "the Dask cluster has had no workers for the remaining notebooks for 0.05 minutes; remaining: "
    )


def test_a_local_cluster_listens_on_loopback_only_and_uses_tls() -> None:
    with execution._cluster(None, 1) as (client, _):
        client.wait_for_workers(1)
        this = psutil.Process()
        listening = {
            connection.laddr.ip
            for process in (this, *this.children(recursive=True))
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        assert client.scheduler.address.startswith("tls://")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # distributed warns that a port of its own is in use
            with execution._cluster(None, 1):
                pass


@pytest.mark.long
def test_ctrl_c_ends_the_kernels_and_says_how_to_resume(command: Command) -> None:
    process = command.start(hold="gcd0")
    kernel = command.kernel("gcd0")
    os.killpg(process.pid, signal.SIGINT)  # like a terminal: to the command and to its workers
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "interrupted; " in stderr
    assert "run the same command again to resume" in stderr
    assert "Traceback" not in stderr
    assert not kernel.is_running()
    run_suite(graph(command.suite, command.out), command.out)
    assert results(command.out) == COMPLETE


def test_a_second_suite_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    nodes = graph(write_suite(tmp_path / "suite"), tmp_path / "out")
    with records.suite_lock(tmp_path / "out"):
        assert records.is_running(tmp_path / "out")
        with pytest.raises(HeadnbError, match=r"already running in"):
            run_suite(nodes, tmp_path / "out")
    assert not records.is_running(tmp_path / "out")


def test_no_scheduler_is_one_line(tmp_path: Path) -> None:
    nodes = graph(write_suite(tmp_path / "suite"), tmp_path / "out")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(HeadnbError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"),
    ):
        run_suite(nodes, tmp_path / "out", scheduler="tcp://127.0.0.1:1")


@pytest.mark.parametrize(
    ("gpus", "cores", "asked", "expected"),
    [((), 16, None, 4), ((), 2, None, 2), (("0", "1", "2"), 16, None, 3), ((), 2, 8, 2), (("0", "1"), 1, 1, 1)],
)
def test_the_plan_counts_the_workers_that_a_run_starts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gpus: tuple[str, ...],
    cores: int,
    asked: int | None,
    expected: int,
) -> None:
    """Four notebooks can run at once."""
    suite = write_suite(tmp_path / "suite")
    started: list[int] = []

    def cluster(n_workers: int, **_: object) -> None:
        started.append(n_workers)
        raise HeadnbError("no cluster in this test")

    monkeypatch.setattr(execution, "_gpus", lambda: gpus)
    monkeypatch.setattr("dask.system.CPU_COUNT", cores)
    monkeypatch.setattr("distributed.LocalCluster", cluster)
    with pytest.raises(HeadnbError, match="no cluster"):
        run_suite(graph(suite, tmp_path / "out"), tmp_path / "out", workers=asked)
    workers = ("--workers", asked) if asked else ()
    assert run(monkeypatch, "suite", "plan", suite, "--profile", "tiny", "--out", tmp_path / "out", *workers) == 0
    assert started == [expected]
    assert f"6 of 6 notebooks to run, {expected} at a time" in capsys.readouterr().out


def test_a_full_disk_is_an_outcome_and_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first, *_) = graph(write_suite(tmp_path / "suite"), tmp_path / "out")
    written = job.records.write_manifest

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("papermill.execute.write_ipynb", full)
    outcome = run_node(first, Session("here"))
    assert outcome == Outcome("failed", error=f"cannot write {first.folder}: No space left on device")
    monkeypatch.undo()
    monkeypatch.setattr(job.records, "write_manifest", full)
    assert run_node(first, Session("here")).state == "failed"
    assert not records.is_done(first)
    monkeypatch.setattr(job.records, "write_manifest", written)
    assert run_node(first, Session("here")).state == "done"
    assert records.is_done(first)


def test_a_notebook_that_does_not_write_what_it_should_has_failed(tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite")
    write_notebook(tmp_path / "suite" / "start.ipynb", 'run_folder: str = ""', "1 + 1")
    (first, *_) = graph(suite, tmp_path / "out")
    assert "ended without writing" in run_node(first, Session("here")).error


def test_a_kernel_that_always_dies_is_a_failure(tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite")
    write_notebook(tmp_path / "suite" / "start.ipynb", 'run_folder: str = ""', "import os; os._exit(1)")
    (first, *_) = graph(suite, tmp_path / "out")
    outcome = run_node(first, Session("here"))
    assert outcome.state == "failed"
    assert "the kernel died 3 times" in outcome.error
    assert records.records([first], running=False)[records.node_id(first)].state == "failed"


def test_any_other_error_of_a_notebook_is_an_outcome_with_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_args: object, **_kwargs: object) -> None:
        raise ValueError("no cell 3\nin this notebook")

    (first, *_) = graph(write_suite(tmp_path / "suite"), tmp_path / "out")
    monkeypatch.setattr(job.notebooks, "run_notebook", fails)
    assert run_node(first, Session("here")) == Outcome("failed", error="ValueError: no cell 3")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KilledWorker("gcd", None, 3), "its worker died repeatedly; out of memory?"),
        (ValueError("cannot load the task\nat all"), "cannot load the task"),
    ],
)
def test_only_a_killed_worker_is_said_to_have_died(error: Exception, said: str) -> None:
    future: Any = SimpleNamespace(exception=lambda: error)
    assert execution._failed_outcome(future, blocked=False) == Outcome("failed", error=said)


def test_a_node_with_a_failed_dependency_is_blocked(tmp_path: Path) -> None:
    (first, *_) = graph(write_suite(tmp_path / "suite"), tmp_path / "out")
    assert run_node(first, Session("here"), Outcome("done"), Outcome("failed")).state == "blocked"
    assert not (tmp_path / "out").exists()
