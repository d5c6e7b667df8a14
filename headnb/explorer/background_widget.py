"""A widget that takes commands and works in the background: whatever goes wrong is words in it, never a lost comm."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import anywidget
import traitlets

from headnb.errors import HeadnbError
from headnb.explorer.worker import Stopped, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_IDLE = {"state": "idle", "line": "", "done": 0, "total": 0, "error": "", "note": ""}


class BackgroundWidget(anywidget.AnyWidget):
    """Has one worker thread, and says in `status` what it does.

    Attributes:
        status: state ("idle", "running" or "stopping"), line, done, total, error and note.
        error: the exception behind the last error message, for a closer look.
        browser_traits: the traits that a browser may change.
    """

    browser_traits: ClassVar[tuple[str, ...]] = ()
    status = traitlets.Dict(_IDLE).tag(sync=True)

    def __init__(self, **given: Any) -> None:
        self.error: BaseException | None = None
        self._status_lock = threading.RLock()
        self._worker: Worker = getattr(self, "_worker", None) or Worker()
        super().__init__(**given)
        self.on_msg(self._on_message)

    def stop(self) -> None:
        """Stop what runs in the background; what is done by then is kept."""
        self._worker.stop()
        with self._status_lock:
            if self.status["state"] == "running":
                self._set_status(state="stopping", line="stopping")

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for what runs in the background; false if it did not end within `timeout` seconds."""
        return self._worker.wait(timeout)

    def close(self) -> None:
        """Stop the work and take the widget away."""
        if hasattr(self, "_worker"):  # closed also when making it failed
            self._worker.stop()
        super().close()

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """What the browser changed. What is refused is a message there, and it gets the old value back."""
        changes = {name: value for name, value in sync_data.items() if name in self.browser_traits}
        accepted = False
        with self._report_errors():
            super().set_state(changes)
            accepted = True
        if not accepted:
            self.send_state(list(changes))

    def _handle_command(self, command: dict[str, Any]) -> None:
        """Do what the browser asks for. Raises what is wrong with it."""
        raise NotImplementedError

    def _on_message(self, _: object, content: object, __: object) -> None:
        with self._report_errors():
            self._handle_command(content if isinstance(content, dict) else {})

    @contextmanager
    def _report_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  whatever a browser sent, it is to be seen there
            self.error = error
            self._set_status(error=_error_text(error))

    def _run_in_background(self, line: str, work: Callable[[], str]) -> None:
        """Do `work` in the background; what it returns is the note shown at its end."""

        def job() -> None:
            note, self.error = "", None
            self._set_status(state="running", line=line, done=0, total=0)
            try:
                note = work()
            except Stopped:
                note = "stopped"
            except BaseException as failed:  # noqa: BLE001  whatever it is, it is to be seen in the widget
                self.error = failed
            with self._status_lock:
                self.status = {**_IDLE, "note": note, "error": _error_text(self.error)}

        self._worker.start(job)

    def _set_status(self, **changes: Any) -> None:
        with self._status_lock:
            if self.status["state"] == "stopping":
                changes.pop("line", None)
            self.status = {**self.status, "error": "", "note": "", **changes}


def _error_text(error: BaseException | None) -> str:
    if error is None:
        return ""
    return str(error) if isinstance(error, HeadnbError) else f"{type(error).__name__}: {error}"
