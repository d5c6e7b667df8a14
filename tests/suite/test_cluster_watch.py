"""When a suite raises an error about its cluster, with a simulated clock and cluster."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from headnb.errors import HeadnbError
from headnb.suite import cluster_watch
from headnb.suite.cluster_watch import TIMEOUT_SECONDS, ClusterWatch

from suites import graph, write_suite

if TYPE_CHECKING:
    from pathlib import Path

CPU: dict[str, Any] = {"status": "running", "resources": {}}
GPU: dict[str, Any] = {"status": "running", "resources": {"GPU": 1}}
PAUSED = GPU | {"status": "paused"}


class Cluster:
    """Simulated workers and clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.workers: list[dict[str, Any]] = [GPU]
        self.now = 0.0
        monkeypatch.setattr(cluster_watch, "call_scheduler", lambda *_: {"workers": dict(enumerate(self.workers))})
        monkeypatch.setattr(cluster_watch.time, "monotonic", lambda: self.now)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def nodes_of(folder: Path, *, gpu: bool):
    return [dataclasses.replace(node, gpu=gpu) for node in graph(write_suite(folder / "suite"), folder / "out")]


def test_the_timeout_begins_when_the_last_notebook_ended(cluster: Cluster, tmp_path: Path):
    nodes = nodes_of(tmp_path, gpu=False)
    watch = ClusterWatch(None, need_gpu=False, last_active=0.0)
    for _ in range(100):
        cluster.now += TIMEOUT_SECONDS / 10
        watch.record_activity()
    cluster.workers = []
    cluster.now += TIMEOUT_SECONDS - 1
    watch.check(nodes)
    cluster.now += 2
    with pytest.raises(HeadnbError, match="no workers for 10 minutes; remaining: start, train gcd seed 0"):
        watch.check(nodes)


@pytest.mark.parametrize(
    ("workers", "gpu", "waits"),
    [
        ([CPU], False, True),
        ([CPU], True, False),
        ([CPU | {"resources": {"GPU": 0}}], True, False),
        ([CPU, GPU], True, True),
        ([PAUSED], True, False),
        ([PAUSED | {"metrics": {"executing": 1}}], True, True),  # it finishes its notebook
    ],
)
def test_it_waits_while_a_worker_can_run_a_remaining_notebook(
    cluster: Cluster, tmp_path: Path, workers: list[dict[str, Any]], gpu: bool, waits: bool
):
    nodes = nodes_of(tmp_path, gpu=gpu)
    watch = ClusterWatch(None, need_gpu=True, last_active=0.0)
    cluster.workers = workers
    cluster.now = 2 * TIMEOUT_SECONDS
    if waits:
        watch.check(nodes)
    else:
        with pytest.raises(HeadnbError, match="no workers for the remaining notebooks for 10 minutes"):
            watch.check(nodes)


def test_notebooks_with_unfinished_dependencies_do_not_count(cluster: Cluster, tmp_path: Path):
    first, *dependents = nodes_of(tmp_path, gpu=False)
    watch = ClusterWatch(None, need_gpu=True, last_active=0.0)
    cluster.workers = [CPU]
    cluster.now = 2 * TIMEOUT_SECONDS
    with pytest.raises(
        HeadnbError, match="no workers for the remaining notebooks"
    ):  # the dependents do not need a GPU, but wait for the first
        watch.check([dataclasses.replace(first, gpu=True), *dependents])
