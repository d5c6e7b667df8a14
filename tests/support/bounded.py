"""Python code in a separate process with limits of memory and time."""

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
    """Run `code` in a limited process and return its output; `seconds` limits processor time, not wall-clock time."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))

    env: dict[str, Any] = {**os.environ, **environment}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=False, preexec_fn=limit)
