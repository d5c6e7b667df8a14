"""Check that the remaining notebooks can still run on a Dask cluster."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headnb.errors import HeadnbError
from headnb.scoring.dask_scheduler import call_scheduler
from headnb.suite import records

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from distributed import Client

    from headnb.suite.graph import Node

TIMEOUT_SECONDS = 600.0  # without a worker that can run a remaining notebook
ANSWER_SECONDS = 600.0  # without an answer of the scheduler

LOST_MESSAGE = "the Dask scheduler was lost"
RESUME_MESSAGE = "finished notebooks are kept; run the same command again to resume"


@dataclass
class ClusterWatch:
    """Periodic check of a cluster; raises once no remaining notebook can run.

    A notebook may take hours, so there is no time limit for notebooks. Dask itself removes a worker that hangs (after
    `worker-ttl`) and, on a local cluster, starts it again.
    """

    client: Client
    need_gpu: bool  # whether notebooks with `gpu: true` need a worker with a GPU
    last_active: float = field(default_factory=time.monotonic)  # last time at which a remaining notebook could run

    def record_activity(self) -> None:
        """Restart the timeout; call this when a notebook has ended."""
        self.last_active = time.monotonic()

    def check(self, left: Collection[Node]) -> None:
        """Ask the scheduler for its workers; call this when no notebook has ended for some time.

        Args:
            left: the remaining notebooks.

        Raises:
            HeadnbError: the scheduler was lost or has not answered for `ANSWER_SECONDS`, or no worker could run any
                remaining notebook for `TIMEOUT_SECONDS`.
        """
        workers = self._workers()
        waiting = {records.node_id(node) for node in left}
        ready = [node for node in left if waiting.isdisjoint(map(records.node_id, node.after))]
        if any(self._runs(worker, node) for worker in workers.values() for node in ready):
            self.record_activity()
        elif time.monotonic() - self.last_active > TIMEOUT_SECONDS:
            kind = "workers for the remaining notebooks" if workers else "workers"
            problem = f"the Dask cluster has had no {kind} for {TIMEOUT_SECONDS / 60:.3g} minutes"
            raise HeadnbError(f"{problem}; remaining: {_node_names(left)}; {RESUME_MESSAGE}")

    def _workers(self) -> Mapping[str, Any]:
        try:
            workers: dict[str, Any] = call_scheduler(self.client, "identity", ANSWER_SECONDS)["workers"]
        except TimeoutError as error:
            problem = f"the Dask scheduler has not answered for {ANSWER_SECONDS / 60:.3g} minutes"
            raise HeadnbError(f"{problem}; {RESUME_MESSAGE}") from error
        except (OSError, CancelledError) as error:
            raise HeadnbError(f"{LOST_MESSAGE}; {RESUME_MESSAGE}") from error
        return workers

    def _runs(self, worker: Mapping[str, Any], node: Node) -> bool:
        """Whether a worker can run this notebook. A paused worker still finishes its current notebook."""
        active = worker["status"] == "running" or bool(worker.get("metrics", {}).get("executing"))
        return active and (has_gpu(worker) or not (node.gpu and self.need_gpu))


def has_gpu(worker: Mapping[str, Any]) -> bool:
    """Whether a worker (in the scheduler's description) was started with a GPU resource."""
    return bool(worker.get("resources", {}).get("GPU", 0) >= 1)


def _node_names(nodes: Iterable[Node]) -> str:
    names = [node.name for node in nodes]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
