"""Python in a process of its own with bounds on memory and time: what takes too much fails, and the machine lives."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import Any

GB = 2**30


def run_bounded(
    code: str, *, memory: int = 12 * GB, seconds: int = 60, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """What a process that runs `code` wrote; `seconds` are of its processor, not of the clock."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

    given: dict[str, Any] = {**os.environ, **environment}
    given["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    return subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, check=False, preexec_fn=limit)
