"""Asking a Dask scheduler that may never answer: it hangs, or its machine is gone without a word."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

SHUTDOWN_SECONDS = 10.0  # seconds that a cluster which is left may take for what it is still told


def call_scheduler(client: Client, what: str, patience: float) -> Any:
    """What one of the scheduler's own calls ("ncores", "identity") returns.

    Raises:
        TimeoutError: no answer for `patience` seconds.
        OSError: the scheduler, or the client, is gone; TimeoutError is one, too.
    """
    scheduler = client.scheduler
    if scheduler is None or client.status != "running":
        raise OSError("the client is closed")
    return client.sync(getattr(scheduler, what), callback_timeout=patience)


def best_effort(*calls: Callable[[], object]) -> None:
    """Make these calls, one after another, without waiting for long and without an error where they fail."""

    def make() -> None:
        for call in calls:
            with contextlib.suppress(Exception):  # a cluster that is gone has nothing left to be told
                call()

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    thread.join(SHUTDOWN_SECONDS)
