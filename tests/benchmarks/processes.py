"""Child processes of a benchmark that wait for their turn, and what a process knows of its own memory (Linux).

Each method lives in one process for the whole benchmark, so that rounds can go from method to method without loading a
model again, and memory is the method's own.
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
    """This Python with a script that calls `serve`; its first answer is to nothing, when it is ready."""

    def __init__(self, script: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, question: str) -> dict[str, Any]:
        """The answer; {"error": ...} if the process could not give one."""
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
    """Answer the parent's questions, one JSON line each. An exception is an answer too, in one line."""
    with protocol() as answers:
        answer = None
        for question in sys.stdin:
            try:
                answer = answer or prepare()
                found = answer(question.strip())
            except Exception as error:  # noqa: BLE001  whatever a peer raises is what the table says of it
                found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"}
            print(json.dumps(found), file=answers, flush=True)


def protocol() -> IO[str]:
    """Standard output for answers alone: what libraries print goes to standard error from here on."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return _status("VmRSS")


def peak() -> int:
    """Most bytes that it held since the last `forget_peak`."""
    return _status("VmHWM")


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
