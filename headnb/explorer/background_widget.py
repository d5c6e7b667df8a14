"""Widget that runs commands in the background and shows every error as a message, so that the comm stays open."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import traitlets

from headnb.explorer.checked_widget import CheckedWidget, error_text
from headnb.explorer.worker import Stopped, Worker

if TYPE_CHECKING:
    from collections.abc import Callable

_IDLE = {"state": "idle", "job": "", "line": "", "done": 0, "total": 0, "error": "", "note": ""}


class BackgroundWidget(CheckedWidget):
    """Widget with one worker thread, whose state is in `status`.

    Attributes:
        status: state ("idle", "running" or "stopping"), job (what runs), line, done, total, error and note.
    """

    status = traitlets.Dict(_IDLE).tag(sync=True)

    def __init__(self, **given: Any) -> None:
        self._status_lock = threading.RLock()
        self._worker: Worker = getattr(self, "_worker", None) or Worker()
        super().__init__(**given)

    def stop(self) -> None:
        """Stop the background job; its partial results are kept."""
        self._worker.stop()
        with self._status_lock:
            if self.status["state"] == "running":
                self._set_status(state="stopping", line="stopping")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the background job; return False if it has not ended within `timeout` seconds."""
        return self._worker.wait(timeout)

    def close(self) -> None:
        """Stop the background job and close the widget."""
        if hasattr(self, "_worker"):  # `close` is also called after `__init__` failed
            self._worker.stop()
        super().close()

    def _handle_command(self, command: dict[str, Any]) -> None:
        """Run a command of the browser; any exception is shown in the widget."""
        raise NotImplementedError

    def _run_command(self, command: dict[str, Any]) -> None:
        with self._report_errors():
            self._set_status()  # the browser waits for an answer, and the same error twice would not be one
            self._handle_command(command)

    def _show_error(self, text: str) -> None:
        self._set_status(error=text)

    def _run_in_background(self, job: str, line: str, work: Callable[[], str]) -> None:
        """Do `work` in the background, and show the note that it returns.

        Args:
            job: name of the command, which tells the browser where the result will be shown.
            line: what is done, for the reader.
            work: the job.
        """

        def run() -> None:
            note, self.error = "", None
            self._set_status(state="running", job=job, line=line, done=0, total=0)
            try:
                note = work()
            except Stopped:
                note = "stopped"
            except BaseException as failed:  # noqa: BLE001  every error is shown in the widget
                self.error = failed
            with self._status_lock:
                self.status = {**_IDLE, "note": note, "error": error_text(self.error)}

        self._worker.start(run)

    def _set_status(self, **changes: Any) -> None:
        with self._status_lock:
            if self.status["state"] == "stopping":
                changes.pop("line", None)
            self.status = {**self.status, "error": "", "note": "", **changes}
