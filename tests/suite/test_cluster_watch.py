"""When a suite gives up a cluster, by a clock and a cluster made up."""

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
    """Its workers now, and the time."""

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


def test_patience_begins_when_the_last_notebook_ended(cluster: Cluster, tmp_path: Path):
    nodes = nodes_of(tmp_path, gpu=False)
    watching = ClusterWatch(None, need_gpu=False, last_active=0.0)
    for _ in range(100):
        cluster.now += TIMEOUT_SECONDS / 10
        watching.record_activity()
    cluster.workers = []
    cluster.now += TIMEOUT_SECONDS - 1
    watching.check(nodes)
    cluster.now += 2
    with pytest.raises(HeadnbError, match="no workers for 10 minutes; missing: start, train gcd seed 0"):
        watching.check(nodes)


@pytest.mark.parametrize(
    ("workers", "gpu", "waits"),
    [
        ([CPU], False, True),
        ([CPU], True, False),
        ([CPU | {"resources": {"GPU": 0}}], True, False),
        ([CPU, GPU], True, True),
        ([PAUSED], True, False),
        ([PAUSED | {"metrics": {"executing": 1}}], True, True),  # it ends what it runs
    ],
)
def test_it_waits_for_as_long_as_a_worker_can_run_what_is_left(
    cluster: Cluster, tmp_path: Path, workers: list[dict[str, Any]], gpu: bool, waits: bool
):
    nodes = nodes_of(tmp_path, gpu=gpu)
    watching = ClusterWatch(None, need_gpu=True, last_active=0.0)
    cluster.workers = workers
    cluster.now = 2 * TIMEOUT_SECONDS
    if waits:
        watching.check(nodes)
    else:
        with pytest.raises(HeadnbError, match="no workers that take what is left for 10 minutes"):
            watching.check(nodes)


def test_what_waits_for_others_does_not_count(cluster: Cluster, tmp_path: Path):
    first, *others = nodes_of(tmp_path, gpu=False)
    watching = ClusterWatch(None, need_gpu=True, last_active=0.0)
    cluster.workers = [CPU]
    cluster.now = 2 * TIMEOUT_SECONDS
    with pytest.raises(HeadnbError, match="no workers that take what is left"):  # the others could run, but need it
        watching.check([dataclasses.replace(first, gpu=True), *others])
