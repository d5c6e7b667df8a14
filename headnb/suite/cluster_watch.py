"""Whether the notebooks that are left on a Dask cluster can still run."""

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

TIMEOUT_SECONDS = 600.0  # seconds in which the scheduler does not answer, or no worker can run what is left

LOST_MESSAGE = "the Dask scheduler was lost"
RESUME_MESSAGE = "what is done is kept, and the same command goes on"


@dataclass
class ClusterWatch:
    """Looks at a cluster from time to time, and gives up where nothing can come any more.

    A notebook may take hours, so no bound of time on notebooks tells that. A worker that hangs is one that Dask itself
    removes after a while (its `worker-ttl`), and starts again where it can.
    """

    client: Client
    need_gpu: bool  # whether those that take a GPU wait for a worker that has one
    last_active: float = field(default_factory=time.monotonic)  # when it was last seen that what is left can run

    def record_activity(self) -> None:
        """A notebook has ended: the cluster need not be asked."""
        self.last_active = time.monotonic()

    def check(self, left: Collection[Node]) -> None:
        """Ask the scheduler for its workers, where no notebook ends.

        Args:
            left: notebooks that have not ended.

        Raises:
            HeadnbError: the scheduler was lost or does not answer, or no worker could run any of them
                for `TIMEOUT_SECONDS`.
        """
        workers = self._workers()
        waiting = {records.node_id(node) for node in left}
        ready = [node for node in left if waiting.isdisjoint(map(records.node_id, node.after))]
        if any(self._runs(worker, node) for worker in workers.values() for node in ready):
            self.record_activity()
        elif time.monotonic() - self.last_active > TIMEOUT_SECONDS:
            kind = "workers that take what is left" if workers else "workers"
            what = f"the Dask cluster has had no {kind} for {TIMEOUT_SECONDS / 60:.3g} minutes"
            raise HeadnbError(f"{what}; missing: {_node_names(left)}; {RESUME_MESSAGE}")

    def _workers(self) -> Mapping[str, Any]:
        try:
            workers: dict[str, Any] = call_scheduler(self.client, "identity", TIMEOUT_SECONDS)["workers"]
        except TimeoutError as error:
            what = f"the Dask scheduler has not answered for {TIMEOUT_SECONDS / 60:.3g} minutes"
            raise HeadnbError(f"{what}; {RESUME_MESSAGE}") from error
        except (OSError, CancelledError) as error:
            raise HeadnbError(f"{LOST_MESSAGE}; {RESUME_MESSAGE}") from error
        return workers

    def _runs(self, worker: Mapping[str, Any], node: Node) -> bool:
        """Whether a worker may be running this notebook, or may take it: a paused one ends what it runs."""
        at_work = worker["status"] == "running" or bool(worker.get("metrics", {}).get("executing"))
        return at_work and (has_gpu(worker) or not (node.gpu and self.need_gpu))


def has_gpu(worker: Mapping[str, Any]) -> bool:
    """Whether a worker, as the scheduler describes it, was started with a GPU among its resources."""
    return bool(worker.get("resources", {}).get("GPU", 0) >= 1)


def _node_names(nodes: Iterable[Node]) -> str:
    names = [node.name for node in nodes]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
