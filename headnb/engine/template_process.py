"""Rendering of chat templates in a separate process, which is killed when a template takes too long.

The process (see `template_worker`) starts with the first template, in about 0.1 s, and renders later templates as well.
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
# The environment variables that the process gets: those that Python needs to start, without access tokens.
_ENVIRONMENT = ("PATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "PYTHONHOME", "TZ")
# Wall-clock limit in seconds. The worker limits its own processor time, which takes longer on a shared processor. On
# systems where it cannot, this is the only limit.
_PATIENCE = 10 * SECONDS if hasattr(signal, "setitimer") else SECONDS


class TemplateRefusedError(Exception):
    """A template failed, or exceeded a limit; the message gives the reason.

    Attributes:
        failed: whether the template itself raised an error.
    """

    def __init__(self, reason: str, *, failed: bool = False) -> None:
        super().__init__(reason)
        self.failed = failed


class _Renderer:
    """A single worker process; calls from several threads run one after the other."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0  # process id of the owner: a fork must not read the answers to its parent

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
                # Also after an interrupt: a late answer must not be read as the next one.
                if not answer.endswith(b"\n"):
                    self._end()
        if not answer.endswith(b"\n"):
            raise TemplateRefusedError(_reason(process.returncode))
        reply = json.loads(answer)
        if "text" not in reply:
            raise TemplateRefusedError(*reply.values(), failed="error" in reply)
        return str(reply["text"])

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
                start_new_session=True,  # an interrupt in the terminal must not reach the worker
            )
        except OSError as error:
            raise HeadnbError(f"cannot start the process that renders chat templates: {error}") from error
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
