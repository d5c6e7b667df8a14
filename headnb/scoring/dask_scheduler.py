"""Calls to a Dask scheduler that may not answer, because it hangs or its machine is gone."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

SHUTDOWN_SECONDS = 10.0  # limit for the last calls to a cluster


def call_scheduler(client: Client, what: str, patience: float) -> Any:
    """The result of one of the scheduler's own calls ("ncores", "identity").

    Raises:
        TimeoutError: no answer for `patience` seconds.
        OSError: the scheduler or the client is gone (TimeoutError is a subclass).
    """
    scheduler = client.scheduler
    if scheduler is None or client.status != "running":
        raise OSError("the client is closed")
    return client.sync(getattr(scheduler, what), callback_timeout=patience)


def best_effort(*calls: Callable[[], object]) -> None:
    """Make these calls in order, ignore their errors, and wait for at most SHUTDOWN_SECONDS."""

    def make() -> None:
        for call in calls:
            with contextlib.suppress(Exception):  # the cluster may be gone
                call()

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    thread.join(SHUTDOWN_SECONDS)
