"""Set-up of the local cluster's worker processes, which Dask imports into each."""

from __future__ import annotations

import signal


def dask_setup(worker: object) -> None:  # noqa: ARG001  Dask's signature
    """Leave Ctrl-C to the command, which ends its workers: a terminal sends it to every process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
