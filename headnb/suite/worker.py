"""Set-up of the worker processes of the local cluster; Dask imports this module in each worker."""

from __future__ import annotations

import signal


def dask_setup(worker: object) -> None:  # noqa: ARG001  Dask's signature
    """Ignore Ctrl-C, which a terminal sends to every process; the command stops its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
