"""Imports in a background thread: torch and transformers while the user types, scipy while a model runs.

Two threads that import one package at the same time can deadlock; Python resolves that with an error, or with a module
that is only half there. The rules that avoid it:

- One thread imports entry points in one order. Before each it waits until nobody else imports, that is, until
  `sys.modules` has not grown for a moment.
- Whoever needs one of these packages calls `wait` first: every magic that uses a model, every public function whose
  module is not imported yet, and every cell that imports a package (`headnb.notebook.extension`). Nothing is locked.
- A fork waits too: a child would keep the import locks of a thread that it does not have. At exit the thread ends after
  the entry point that it is importing.

An error is dropped here: importing the module again raises it where the user sees it. The environment variable
HEADNB_BACKGROUND_IMPORTS=0 turns these imports off.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SETTING = "HEADNB_BACKGROUND_IMPORTS"
FOR_SCORING = ("torch", "torch._dynamo", "transformers.modeling_layers", "headnb.scoring.run")
# xarray imports dask at the first array, if it is installed.
FOR_DRAWING = ("scipy.stats", "scipy.optimize.elementwise", "dask.array", "PIL.ImageDraw")
QUIET_SECONDS = 0.1
FORK_SECONDS = 60.0  # a fork inside an import that the thread waits for must not wait forever


class BackgroundImports:
    """A thread that imports modules in order.

    Args:
        names: modules that `wait` waits for.
        then: modules to import afterwards, as long as nobody waits.
    """

    def __init__(self, names: Sequence[str], then: Sequence[str] = ()) -> None:
        self._names, self._then = names, then
        self._needed, self._ending, self._done = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="headnb imports", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait(self, seconds: float = float("inf")) -> None:
        """Wait until the modules are imported; Ctrl-C ends the wait. In the thread itself it returns at once."""
        if threading.current_thread() is self._thread:
            return
        self._needed.set()
        until = time.monotonic() + seconds
        while not self._done.wait(QUIET_SECONDS) and time.monotonic() < until:
            pass  # on Windows Ctrl-C ends short waits only

    def end(self) -> None:
        """Import nothing more, and wait for the entry point that is being imported."""
        self._ending.set()
        self.wait()

    def _run(self) -> None:
        collects = gc.isenabled()
        try:
            for name in (*self._names, *self._then):
                self._wait_until_quiet()
                if self._ending.is_set() or (self._needed.is_set() and name in self._then):
                    return
                gc.disable()  # imports make little garbage; looking for it takes a sixth of their time
                with contextlib.suppress(BaseException):  # the foreground's import raises it again
                    importlib.import_module(name)
                if collects:
                    gc.enable()
        finally:
            self._done.set()

    def _wait_until_quiet(self) -> None:
        loaded = -1
        while loaded != (loaded := len(sys.modules)) and not self._needed.wait(QUIET_SECONDS):
            pass


_started: list[BackgroundImports] = []  # a process has one import system; only the last may still run


def start(names: Sequence[str], then: Sequence[str] = ()) -> None:
    """Import modules in a background thread, after those of an earlier call."""
    wait()
    if os.environ.get(SETTING) == "0" or all(name in sys.modules for name in (*names, *then)):
        return
    if not _started:
        atexit.register(_end)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=lambda: wait(FORK_SECONDS))
    _started[:] = [BackgroundImports(names, then)]
    _started[0].start()


def wait(seconds: float = float("inf")) -> None:
    """Wait until the background thread has imported its modules, if there is one."""
    for imports in _started:
        imports.wait(seconds)


def _end() -> None:
    for imports in _started:
        imports.end()
