"""Chat templates rendered in a process beside this one, which is ended when one takes too long: see `template_worker`.

The process is begun with the first template (a tenth of a second) and answers the next ones as well.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headnb.engine.template_worker import SECONDS
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORKER = Path(__file__).with_name("template_worker.py")
# Of the environment the process gets what Python needs to start, and no tokens.
_ENVIRONMENT = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "PYTHONHOME", "TZ")
# A processor that is shared with others gives a rendering its seconds later; where the worker has no limit, this is it.
_PATIENCE = 10 * SECONDS if hasattr(signal, "setitimer") else SECONDS


class TemplateRefusedError(Exception):
    """A template failed, or took more than it may; the text says what.

    Attributes:
        failed: by an error of its own.
    """

    def __init__(self, reason: str, *, failed: bool = False) -> None:
        super().__init__(reason)
        self.failed = failed


class _Renderer:
    """One process; calls of several threads take turns."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # a fork of this process must not read another's answers

    def render(self, template: str, variables: Mapping[str, Any]) -> str:
        line = json.dumps({"template": template, "variables": variables}).encode() + b"\n"
        with self._turn:
            process = self._running()
            overdue = threading.Timer(_PATIENCE, process.kill)
            overdue.daemon = True
            overdue.start()
            answer = b""
            try:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(line)  # type: ignore[union-attr]
                    process.stdin.flush()  # type: ignore[union-attr]
                    answer = process.stdout.readline()  # type: ignore[union-attr]
            finally:
                overdue.cancel()
                if not answer.endswith(b"\n"):  # an interrupt, too: what comes later is no answer to the next question
                    self._end()
        if not answer.endswith(b"\n"):
            raise TemplateRefusedError(_reason(process.returncode))
        found = json.loads(answer)
        if "text" not in found:
            raise TemplateRefusedError(*found.values(), failed="error" in found)
        return str(found["text"])

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        try:
            self._process = subprocess.Popen(  # noqa: S603  a file of headnb
                [sys.executable, "-P", str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # an interrupt of the terminal is this process's alone
            )
        except OSError as error:
            raise HeadnbError(f"cannot start a process to render chat templates in: {error}") from error
        self._owner = os.getpid()
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _reason(code: int) -> str:
    if code == -getattr(signal, "SIGPROF", 0) or code == -getattr(signal, "SIGKILL", 9):
        return f"it takes more than {SECONDS:.0f} s"
    return f"the process that renders it ended with code {code}"


render_apart = _Renderer().render
