"""Processes forked from a server that has imported torch and headnb, so that a test does not wait for the import.

The server starts with the first fork, is shared by all tests of this process, and ends with it. Where the system has no
such server, the processes are new ones.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dask
from IPython.core.interactiveshell import InteractiveShell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PROCESSES = multiprocessing.get_context(METHOD)
PRELOADED = [
    "IPython.core.interactiveshell",
    "bokeh.plotting",
    "datasets",
    "distributed",
    "netCDF4",
    "papermill",
    "peft",
    "transformers.models.llama.modeling_llama",
    "trl.trainer.sft_trainer",
    "headnb.scoring.run",
    "headnb.storage.score_store",
    "headnb.suite.job",
    "headnb.tuning.finetuning",
    "headnb.tuning.result",
    "freeze_garbage",
]
if METHOD == "forkserver":
    PROCESSES.set_forkserver_preload(PRELOADED)


def ensure_running() -> None:
    """Start the server with the modules above, before a library that also forks from it chooses others."""
    if METHOD == "forkserver":
        from multiprocessing import forkserver

        forkserver.ensure_running()


def run_in_ipython(codes: list[str], folder: Path) -> None:
    """Run code in one IPython session in a folder, for a process of its own."""
    os.chdir(folder)
    shell = InteractiveShell.instance()
    for code in codes:
        shell.run_cell(code).raise_error()


def exit_code(function: Callable[..., object], *arguments: Any, seconds: float = 900) -> int | None:
    """Call a function in a new process; returns its exit code, or None after so many seconds."""
    process = PROCESSES.Process(target=function, args=arguments)
    process.start()
    process.join(seconds)
    code = process.exitcode
    process.kill()
    return code


@contextmanager
def forked_workers() -> Iterator[None]:
    """Workers of a Dask cluster that starts meanwhile are forks, too."""
    ensure_running()
    with dask.config.set({"distributed.worker.multiprocessing-method": METHOD}):
        yield


def forked(function: Callable[..., Any], *arguments: Any, seconds: float = 900) -> Any:
    """Call a function in a new process; returns what it returns, and raises what it raises."""
    with ProcessPoolExecutor(1, mp_context=PROCESSES) as pool:
        running = pool.submit(function, *arguments)
        processes = list(pool._processes.values())
        try:
            return running.result(seconds)
        except TimeoutError:
            for process in processes:
                process.kill()
            raise
