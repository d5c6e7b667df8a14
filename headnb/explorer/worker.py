"""Worker thread that runs one job at a time and can be stopped.

The kernel receives no comm messages while a cell runs. A widget's long jobs run in this thread, so that the kernel
stays free to receive Stop.
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
    """Raised in a job that should stop; a KeyboardInterrupt, so that runs store their partial results."""


class Worker:
    """Runs one job at a time, each in a new thread."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, job: Callable[[], None]) -> None:
        """Run a job in the background; it must not raise.

        Raises:
            HeadnbError: another job is running.
        """
        with self._lock:
            if self.busy:
                raise HeadnbError("another job is already running; stop it or wait until it ends")
            self._stop.clear()
            # The context tells ipykernel to which cell the thread's output belongs.
            context = contextvars.copy_context()
            self._thread = threading.Thread(target=context.run, args=(job,), daemon=True, name="headnb explorer")
            self._thread.start()

    def stop(self) -> None:
        """Request that the job stops at its next `check`."""
        self._stop.set()

    def check(self) -> None:
        """Raise `Stopped` if the job should stop; the job calls this."""
        if self._stop.is_set():
            raise Stopped

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the job to end; return False if it has not ended within `timeout` seconds."""
        if self._thread is not None:
            self._thread.join(timeout)
        return not self.busy

    @contextmanager
    def use_model(self, model: PreTrainedModel, layout: HeadLayout) -> Iterator[None]:
        """Lock the model for a job, and check for Stop in every layer of the forward and backward pass."""
        from headnb.engine.hooks import head_outputs  # noqa: PLC0415  loads torch
        from headnb.models.locks import model_lock  # noqa: PLC0415

        def check_layer(_: int, outputs: Tensor) -> Tensor:
            self.check()
            if outputs.requires_grad:
                outputs.register_hook(lambda _: self.check())  # type: ignore[no-untyped-call]
            return outputs

        lock = model_lock(model)
        while not lock.acquire(timeout=0.1):  # a cell may be scoring the same model
            self.check()
        try:
            with head_outputs(model, check_layer, layout, ()):
                yield
        finally:
            lock.release()
