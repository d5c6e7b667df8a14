"""Child processes of a benchmark that answer requests, and the memory use of the current process (Linux).

Each method runs in one process for the whole benchmark. Rounds can alternate between methods without reloading a model,
and each memory measurement belongs to one method.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Worker:
    """A Python process that runs a script that calls `serve`."""

    def __init__(self, script: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, question: str) -> dict[str, Any]:
        """The answer to a question; {"error": ...} if the process cannot answer."""
        try:
            print(question, file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"error": f"the process ended with code {self._process.wait()}"}

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def serve(prepare: Callable[[], Callable[[str], dict[str, Any]]]) -> None:
    """Answer each question of the parent with one JSON line. `prepare` runs at the first question.

    An exception is answered as {"error": ...}.
    """
    with protocol() as answers:
        answer = None
        for question in sys.stdin:
            try:
                answer = answer or prepare()
                found = answer(question.strip())
            except Exception as error:  # noqa: BLE001  the table shows every error of a peer
                found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"}
            print(json.dumps(found), file=answers, flush=True)


def protocol() -> IO[str]:
    """Standard output, reserved for answers. Output of libraries is redirected to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def resident() -> int:
    """Current resident memory of this process, in bytes."""
    return _status("VmRSS")


def peak() -> int:
    """Peak resident memory since the last `forget_peak`, in bytes."""
    return _status("VmHWM")


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
