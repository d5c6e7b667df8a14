"""One thread beside the notebook's own, which does one job at a time and hears when it should stop.

A comm's messages wait while a cell runs. So a widget's long work is done here, and the kernel stays free to hear Stop.
"""

from __future__ import annotations

import contextvars
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor
    from transformers import PreTrainedModel

    from headnb.engine.layout import HeadLayout


class Stopped(KeyboardInterrupt):
    """The job was told to stop: what Ctrl-C is in a cell, so that runs keep what they have."""


class Worker:
    """Runs jobs, each in a thread of its own, one at a time."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """A job runs, and it is not the one that asks."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, job: Callable[[], None]) -> None:
        """Run a job in the background; it must not raise.

        Raises:
            HeadnbError: another one is running.
        """
        with self._lock:
            if self.busy:
                raise HeadnbError("something is being computed already; stop it first, or wait")
            self._stop.clear()
            # The context says which cell's output the thread's messages belong to.
            context = contextvars.copy_context()
            self._thread = threading.Thread(target=context.run, args=(job,), daemon=True, name="headnb explorer")
            self._thread.start()

    def stop(self) -> None:
        """Tell the job to stop; it does so at the next `check`."""
        self._stop.set()

    def check(self) -> None:
        """Called by the job: raises `Stopped` if it should stop."""
        if self._stop.is_set():
            raise Stopped

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the job to end; false if it did not within `timeout` seconds."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.busy

    @contextmanager
    def use_model(self, model: PreTrainedModel, layout: HeadLayout) -> Iterator[None]:
        """Take the model for a job, and hear Stop in every layer, forward and backward, not only between batches."""
        from headnb.engine.hooks import head_outputs  # noqa: PLC0415  loads torch
        from headnb.models.locks import model_lock  # noqa: PLC0415

        def listen(_: int, outputs: Tensor) -> Tensor:
            self.check()
            if outputs.requires_grad:
                outputs.register_hook(lambda _: self.check())  # type: ignore[no-untyped-call]
            return outputs

        lock = model_lock(model)
        while not lock.acquire(timeout=0.1):  # a cell may be scoring the same model
            self.check()
        try:
            with head_outputs(model, listen, layout, ()):
                yield
        finally:
            lock.release()
