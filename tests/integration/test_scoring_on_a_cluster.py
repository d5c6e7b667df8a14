"""Scores from the workers of a Dask cluster equal those of one process, also if a worker dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import dask
import headnb
import numpy as np
import psutil
import pytest
import torch
from distributed import Client, LocalCluster
from headnb.errors import HeadnbError
from headnb.scoring import workers
from headnb.scoring.model_transfer import SerializedModel
from headnb.scoring.progress import ScoringInterrupted

from forks import forked_workers
from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TASK = headnb.load_task([(f"{a} + {b} =", f" {a + b}") for a in range(12) for b in range(15)])


@pytest.fixture(scope="module", autouse=True)
def workers_are_forks() -> Iterator[None]:
    with forked_workers():
        yield


@pytest.fixture(scope="module")
def processes() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def threads() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


def stop_after(done: int, stop: Callable[[], object]) -> Callable[[headnb.scoring.Progress], None]:
    """An `on_progress` that calls `stop` once, when more than `done` samples are scored."""
    stopped: list[int] = []

    def on_progress(progress: headnb.scoring.Progress) -> None:
        if progress.done > done and not stopped:
            stopped.append(progress.done)
            stop()

    return on_progress


@contextmanager
def scheduler_and_worker() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Address and process of a scheduler with one worker."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    host, port = ["--host", "127.0.0.1"], ["--port", address.rpartition(":")[2]]
    command = [sys.executable, "-m", "dask"]
    scheduler = subprocess.Popen([*command, "scheduler", *host, *port, "--no-dashboard"], **quiet)
    worker = subprocess.Popen([*command, "worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny"], **quiet)
    try:
        yield address, scheduler
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()


def scores(model: Any = None, **settings: Any):
    return headnb.score_heads(model or tiny_model(), tiny_tokenizer(), TASK, batch_tokens=64, **settings)


def assert_same(found: Any, expected: Any) -> None:
    assert found.sample.values.tolist() == expected.sample.values.tolist()
    np.testing.assert_allclose(found.score, expected.score, rtol=1e-5, atol=1e-5 * float(abs(expected.score).max()))
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-5)


@pytest.mark.parametrize("method", ["activation", "taylor-token", "entropy"])
def test_workers_score_as_one_process_does(processes: Client, method: str):
    assert_same(scores(method=method, client=processes), scores(method=method))


def test_a_model_in_bfloat16_reaches_the_workers_with_its_weights_tied(processes: Client):
    model = tiny_model(dtype=torch.bfloat16, tie_word_embeddings=True)
    assert_same(scores(model, client=processes), scores(model))
    sent = processes.scatter(SerializedModel.of(model), broadcast=True, hash=False)
    tied = processes.submit(lambda one: one.model.lm_head.weight is one.model.model.embed_tokens.weight, sent)
    assert tied.result()


def test_workers_that_only_the_scheduler_reaches_get_the_model_from_it(
    processes: Client, monkeypatch: pytest.MonkeyPatch
):
    scatter, asked = Client.scatter, []

    def unreachable(self: Client, *args: Any, direct: bool, **settings: Any) -> Any:
        asked.append(direct)
        if direct:
            raise OSError("timed out trying to connect")
        return scatter(self, *args, direct=direct, **settings)

    monkeypatch.setattr(Client, "scatter", unreachable)
    assert_same(scores(client=processes), scores())
    assert asked == [True, False]


def test_a_worker_that_is_killed_costs_no_sample(processes: Client, tmp_path: Path):
    killed = []

    def kill(progress: headnb.scoring.Progress) -> None:
        if progress.done > 20 and not killed:
            killed.extend(processes.run(os.getpid).values())
            os.kill(killed[0], signal.SIGKILL)

    found = scores(client=processes, on_progress=kill, out=tmp_path / "x.zarr")
    assert killed
    assert found.attrs["complete"]
    assert_same(found, scores())
    assert_same(headnb.open_scores(tmp_path / "x.zarr"), scores())


@pytest.mark.long
def test_a_killed_single_worker_is_waited_for_until_it_is_replaced(tmp_path: Path):
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        (pid,) = client.run(os.getpid).values()
        kill = stop_after(20, lambda: os.kill(pid, signal.SIGKILL))
        found = scores(client=client, on_progress=kill, out=tmp_path / "x.zarr")
        assert pid not in client.run(os.getpid).values()
    assert_same(found, scores())


def test_a_cluster_without_workers_is_one_line(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "STARTUP_SECONDS", 0.2)
    with LocalCluster(n_workers=0, dashboard_address=":0") as cluster, Client(cluster) as client:
        with pytest.raises(HeadnbError, match="the cluster of client= has no workers"):
            scores(client=client)
        monkeypatch.setattr(workers, "STARTUP_SECONDS", 300.0)
        cluster.scale(1)  # the worker starts while the call waits
        assert_same(scores(client=client), scores())


@pytest.mark.long
def test_a_worker_that_hangs_costs_no_sample(tmp_path: Path):
    out = tmp_path / "x.zarr"
    with (
        dask.config.set({"distributed.scheduler.worker-ttl": "10s"}),  # default: 5 minutes
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        cluster.scheduler.worker_ttl = 600.0  # at first: a worker that imports torch may not respond for long either
        hanging = psutil.Process(next(iter(client.run(os.getpid).values())))

        def hang() -> None:
            hanging.suspend()
            cluster.scheduler.worker_ttl = 10.0

        found = scores(client=client, on_progress=stop_after(20, hang), out=out)
        assert hanging.pid not in client.run(os.getpid).values()
    assert_same(found, scores())


def test_hanging_workers_end_the_call_and_the_same_call_resumes(
    processes: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, settings = tmp_path / "x.zarr", {"client": processes}
    with monkeypatch.context() as patch, ExitStack() as woken:
        hanging = [psutil.Process(pid) for pid in processes.run(os.getpid).values()]

        def hang() -> None:
            patch.setattr(workers, "TIMEOUT_SECONDS", 3.0)
            for process in hanging:
                woken.callback(process.resume)
                process.suspend()

        with pytest.raises(HeadnbError) as given_up:
            scores(**settings, on_progress=stop_after(20, hang), out=out)
    kept = headnb.open_scores(out).sizes["sample"]
    assert 20 < kept < len(TASK)
    assert str(given_up.value) == (
        f"no batch came back from the workers in 0.05 minutes; {len(TASK) - kept} of {len(TASK)} samples are not "
        "scored; the scored ones are saved: run the same call with a new client to resume"
    )
    assert_same(scores(**settings, out=out), scores())


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_scheduler_that_is_lost_or_hangs_is_one_line_and_a_new_client_resumes(
    threads: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
):
    out = tmp_path / "x.zarr"
    with scheduler_and_worker() as (address, scheduler), Client(address) as client:
        client.wait_for_workers(1)

        def stop() -> None:
            monkeypatch.setattr(workers, "TIMEOUT_SECONDS", 3.0)
            scheduler.send_signal(how)

        with pytest.raises(HeadnbError) as lost:
            scores(client=client, on_progress=stop_after(20, stop), out=out)
        scheduler.kill()
    kept = headnb.open_scores(out).sizes["sample"]
    assert 20 < kept < len(TASK)
    assert str(lost.value) == (
        "the Dask scheduler, or every worker that held the model, was lost or hangs; "
        f"{len(TASK) - kept} of {len(TASK)} samples are not scored; the scored ones are saved: "
        "run the same call with a new client to resume"
    )
    assert_same(scores(client=threads, out=out), scores())


def test_a_client_that_is_closed_is_one_line(threads: Client):
    closed = Client(threads.scheduler.address)
    closed.close()
    with pytest.raises(HeadnbError, match="was lost or hangs; 180 of 180 samples are not scored"):
        scores(client=closed)


def test_workers_that_share_a_process_each_score_with_their_own_copy():
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        assert_same(scores(client=client), scores())


def test_an_interrupt_keeps_scored_samples_and_one_process_resumes(threads: Client, tmp_path: Path):
    def stop(progress: headnb.scoring.Progress) -> None:
        if progress.done > 20:
            raise KeyboardInterrupt

    with pytest.raises(ScoringInterrupted) as stopped:
        scores(client=threads, on_progress=stop, out=tmp_path / "x.zarr")
    assert 20 < stopped.value.done < len(TASK)
    assert_same(scores(out=tmp_path / "x.zarr"), scores())


def test_memory_that_runs_out_on_a_worker_makes_batches_smaller(threads: Client):
    model = tiny_model()
    limit = 40

    def refuse(module: Any, arguments: Any, keywords: Any) -> None:
        tokens = keywords.get("input_ids", arguments[0] if arguments else torch.zeros(0)).numel()
        if tokens > limit:
            raise torch.OutOfMemoryError(f"out of memory: {tokens} tokens")

    expected = scores()
    hook = model.model.embed_tokens.register_forward_pre_hook(
        lambda module, arguments: refuse(module, arguments, {}), with_kwargs=False
    )
    messages = []
    found = scores(model, client=threads, on_progress=lambda progress: messages.append(progress.message))
    hook.remove()
    assert_same(found, expected)
    assert any("continuing with" in message for message in messages)


def test_until_works_on_a_cluster(threads: Client):
    found = scores(client=threads, until=0.3)
    assert 64 <= found.sizes["sample"] < len(TASK)


def test_an_error_on_a_worker_is_raised_as_in_one_process(threads: Client):
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].self_attn.q_proj.weight[0, 0] = float("nan")
    with pytest.raises(HeadnbError) as alone:
        scores(model)
    with pytest.raises(HeadnbError) as there:
        scores(model, client=threads)
    assert str(there.value) == str(alone.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "gates"}, "gates is fitted to all samples"),
        ({"method": "ablate-mean"}, "ablate-mean needs a first pass"),
        ({"client": "tcp://127.0.0.1:1"}, "must be a synchronous distributed.Client"),
    ],
)
def test_methods_that_cannot_be_distributed_are_refused(threads: Client, settings: dict[str, Any], words: str):
    with pytest.raises(HeadnbError, match=words):
        scores(**{"client": threads, **settings})
