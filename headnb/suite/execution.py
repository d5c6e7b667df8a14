"""Execution of a graph of notebooks on a Dask cluster: a local one of processes, or an existing one."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections import Counter
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError, first_line, optional_import
from headnb.scoring.dask_scheduler import best_effort
from headnb.suite import job, records
from headnb.suite.cluster_watch import LOST_MESSAGE, RESUME_MESSAGE, ClusterWatch, has_gpu
from headnb.suite.graph import parallel_counts, without_graph
from headnb.suite.job import Outcome, Session
from headnb.tasks.sources import DATA_FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from distributed import Client, Future

    from headnb.suite.graph import Node

    Report = Callable[[Node, Outcome | None], None]  # outcome None: the notebook begins

POLL_SECONDS = 10.0  # wait for a notebook to end, before each check of the cluster


class SuiteInterrupted(KeyboardInterrupt):
    """Ctrl-C during a suite; `outcomes` has the outcomes of the notebooks that ended before."""

    def __init__(self, outcomes: Mapping[str, Outcome]) -> None:
        super().__init__("interrupted")
        self.outcomes = outcomes


def run_suite(
    nodes: Sequence[Node],
    out: Path,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    report: Report | None = None,
) -> dict[str, Outcome]:
    """Run every node that is not done. A failed node blocks only the nodes that depend on it.

    Args:
        nodes: what `build_graph` returned.
        out: the folder of the run folders; it is locked while the suite runs.
        scheduler: address of a Dask scheduler whose workers see the same files. None: a cluster on this machine.
        workers: notebooks at a time on this machine. None: as many as can run at once. At most one per GPU, or one per
            core without a GPU.
        report: called when a notebook begins and when it ends.

    Returns:
        `records.node_id(node)` -> outcome, for the nodes that were not done before.

    Raises:
        HeadnbError: another suite runs in `out`; the scheduler cannot be reached, was lost or has no workers.
        SuiteInterrupted: on Ctrl-C; the running notebooks are stopped.
    """
    with records.suite_lock(out):
        todo = [node for node in nodes if not records.is_done(node)]
        if not todo:
            return {}
        outcomes: dict[str, Outcome] = {}
        with _cluster(scheduler, local_workers(todo, workers)) as (client, gpus):
            session = _session(client, gpus, nodes, local=scheduler is None)
            has_gpus = _has_gpus(client)
            futures = _submit(client, todo, session, has_gpus=has_gpus)
            try:
                _collect(client, futures, session, outcomes, report, ClusterWatch(client, has_gpus))
            except KeyboardInterrupt:
                _stop(client, futures, session)
                raise SuiteInterrupted(outcomes) from None
        return outcomes


def local_workers(nodes: Sequence[Node], workers: int | None) -> int:
    """Number of notebooks that this machine runs at a time; `workers` as for `run_suite`."""
    with optional_import("suite"):
        from dask.system import CPU_COUNT  # noqa: PLC0415  respects cgroup limits and CPU affinity
    most = workers or max(parallel_counts(nodes).values(), default=1)
    return min(most, len(_gpus()) or CPU_COUNT)


@contextlib.contextmanager
def _cluster(scheduler: str | None, workers: int) -> Iterator[tuple[Client, tuple[str, ...]]]:
    """A client, and the GPUs of this machine if the cluster is local: a new one with so many workers."""
    with optional_import("suite"):
        import cryptography  # noqa: F401, PLC0415  for the certificates of the cluster's connections
        from distributed import Client, LocalCluster  # noqa: PLC0415
    for name in logging.root.manager.loggerDict:  # `report` tells the user what is needed
        if name.partition(".")[0] in {"distributed", "asyncio", "tornado"}:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if scheduler is not None:
        try:
            client = Client(scheduler, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise HeadnbError(f"no Dask scheduler answers at {scheduler}: {error}") from error
        with client:
            yield client, ()
        return
    gpus = _gpus()
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            # Any free port for the HTTP server, which runs without a dashboard too: port 8787 may be in use.
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            security=True,  # a scheduler runs any code it receives, so other users of this machine must not connect
            memory_limit=0,
            preload=["headnb.suite.worker"],
            resources={"GPU": 1} if gpus else {},
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client, gpus


def _gpus() -> tuple[str, ...]:
    import torch  # noqa: PLC0415

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return tuple(visible.split(",")[:count]) if visible else tuple(map(str, range(count)))


def _session(client: Client, gpus: tuple[str, ...], nodes: Sequence[Node], *, local: bool) -> Session:
    known = client.scheduler_info(n_workers=-1)["workers"]
    if not local and not known:
        raise HeadnbError("the Dask scheduler has no workers; start some with `dask worker ADDRESS`")
    folder = os.environ.get(DATA_FOLDER)
    return Session(
        token=secrets.token_hex(8),
        workers=Counter(address.rpartition(":")[0] for address in known),
        parallel_counts=parallel_counts(nodes),
        gpus=gpus,
        environment={DATA_FOLDER: os.path.abspath(folder)} if folder else {},  # noqa: PTH100  no links resolved
    )


def _has_gpus(client: Client) -> bool:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return any(has_gpu(worker) for worker in workers)


def _submit(client: Client, todo: Sequence[Node], session: Session, *, has_gpus: bool) -> dict[Future[Any], Node]:
    """Submit a Dask task for each node, with its dependencies."""
    of_node: dict[str, Future[Any]] = {}
    for position, node in enumerate(todo):
        needed = [of_node[name] for name in map(records.node_id, node.after) if name in of_node]
        of_node[records.node_id(node)] = client.submit(
            job.run_node,
            without_graph(node),
            session,
            *needed,
            key=f"{records.node_id(node)}-{session.token}",
            resources={"GPU": 1} if node.gpu and has_gpus else None,
            priority=-position,
            pure=False,
        )
    return {of_node[records.node_id(node)]: node for node in todo}


def _collect(
    client: Client,
    futures: Mapping[Future[Any], Node],
    session: Session,
    outcomes: dict[str, Outcome],
    report: Report | None,
    watch: ClusterWatch,
) -> None:
    notify = report or (lambda node, outcome: None)  # noqa: ARG005
    by_name = {records.node_id(node): node for node in futures.values()}
    client.subscribe_topic(f"{job.STARTED_TOPIC}-{session.token}", lambda event: notify(by_name[event[1]], None))
    remaining = dict(futures)
    while remaining:
        ended = _wait_for_finished(client, remaining)
        if ended:
            watch.record_activity()
        else:
            watch.check(remaining.values())
        for future, result in ended.items():
            node = remaining.pop(future)
            needed = [outcomes.get(records.node_id(other)) for other in node.after]
            blocked = any(other is not None and other.state != "done" for other in needed)
            outcome = result or _failed_outcome(future, blocked=blocked)
            outcomes[records.node_id(node)] = outcome
            notify(node, outcome)


def _wait_for_finished(client: Client, left: Mapping[Future[Any], Node]) -> dict[Future[Any], Outcome | None]:
    """Wait for the next notebooks to end and fetch their outcomes; empty if none ends within `POLL_SECONDS`.

    None ends if notebooks take long, or if a worker hangs, possibly before its result is fetched.

    Raises:
        HeadnbError: the scheduler was lost.
    """
    from distributed import wait  # noqa: PLC0415

    try:
        with client.as_current():
            ended = wait(list(left), timeout=POLL_SECONDS, return_when="FIRST_COMPLETED").done
        return {
            future: future.result(timeout=POLL_SECONDS) if future.status == "finished" else None
            for future in left
            if future in ended
        }
    except CancelledError as error:
        raise HeadnbError(f"{LOST_MESSAGE}; {RESUME_MESSAGE}") from error
    except TimeoutError:
        return {}


def _failed_outcome(future: Future[Any], *, blocked: bool) -> Outcome:
    from distributed import KilledWorker  # noqa: PLC0415

    if blocked:
        return Outcome("blocked")
    error: Any = future.exception()
    died = isinstance(error, KilledWorker)
    return Outcome("failed", error="its worker died repeatedly; out of memory?" if died else first_line(error))


def _stop(client: Client, futures: Mapping[Future[Any], Node], session: Session) -> None:
    """Cancel the waiting notebooks and kill the kernels of the running ones."""
    best_effort(
        lambda: client.cancel(list(futures), force=True),
        lambda: client.run(job.end_kernels, session.token),
    )
