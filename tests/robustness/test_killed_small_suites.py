"""Suite of small notebooks, killed at random moments: a kernel, a worker, or the command itself.

A run is killed repeatedly until it ends, so one run gives several cases. Slow: `make robustness`;
tests/suite/test_execution.py kills each of them once.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import psutil
import pytest
from headnb.storage.files import read_json
from headnb.suite import job

from suites import results, write_suite

if TYPE_CHECKING:
    from pathlib import Path

MODEL, TASKS = "smollm2-135m", ("gcd", "lcm")
SEEDS = 8  # training notebooks per task
PATIENCE = 900.0
VICTIMS = {"kernel": 3, "worker": 2, "command": 1}  # process to kill -> weight of the random choice
GIVEN_UP = ("the kernel died 3 times", "its worker died repeatedly")  # killed too often over one notebook


class Run:
    """`headnb suite run` in another process, with two workers."""

    def __init__(self, suite: Path, out: Path) -> None:
        words = ["suite", "run", suite, "--profile", "tiny", "--out", out, "--workers", "2"]
        self.out = out
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from headnb.cli.main import main; main()", *map(str, words)],
            stderr=subprocess.PIPE,
            text=True,
        )

    def kernels(self) -> list[psutil.Process]:
        """Kernels that run a notebook."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.environ().get(job.MARK, "").startswith(str(self.out)):
                    found.append(process)
        return found

    def wait_for_kernels(self) -> list[psutil.Process]:
        """Wait for kernels; return an empty list if the command has ended."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            with contextlib.suppress(psutil.Error):
                if found := self.kernels():
                    return found
            assert time.monotonic() < end, "no notebook began"
            time.sleep(0.1)
        return []

    def done(self) -> dict[Path, int]:
        """Manifests of complete notebooks, with their modification times."""
        manifests = [path for path in self.out.rglob("*.json") if not path.name.startswith(".")]
        return {path: path.stat().st_mtime_ns for path in manifests if read_json(path, "")["state"] == "done"}

    def kill(self, victim: str, moments: random.Random) -> bool:
        """Kill the command, a worker or a kernel; return whether there was one."""
        with contextlib.suppress(psutil.Error, IndexError):
            target = psutil.Process(self.process.pid)
            if victim != "command":
                target = moments.choice(self.kernels())
            if victim == "worker":
                target = target.parent() or target
            target.send_signal(signal.SIGKILL)
            return True
        return False


@pytest.mark.slow
def test_a_suite_killed_at_random_moments_ends_in_the_same_results(tmp_path: Path) -> None:
    cases, moments = 50, random.Random(50)
    seeds = list(range(SEEDS))
    suite = write_suite(tmp_path / "suite", seeds=seeds)
    trained = {f"sft/{task}/seed{seed}/result.txt": f"{MODEL} 1.0 {task} {seed} 21" for task in TASKS for seed in seeds}
    expected = {"start.txt": f"{MODEL} 1.0", "end.txt": "\n".join(trained.values()), **trained}
    drawn = [*VICTIMS, *moments.choices(list(VICTIMS), list(VICTIMS.values()), k=cases)]
    killed, runs, commands = Counter[str](), 0, 0
    while killed.total() < cases:
        run = Run(suite, tmp_path / f"run {runs}")
        commands += 1
        before = run.done()
        while killed.total() < cases and run.wait_for_kernels():
            time.sleep(moments.uniform(0, 2))
            killed[drawn[killed.total()]] += run.kill(drawn[killed.total()], moments)
        _, said = run.process.communicate(timeout=PATIENCE)
        assert before.items() <= run.done().items()  # complete notebooks do not run again
        if run.process.returncode == 0:
            assert results(run.out) == {f"{MODEL}/{name}": text for name, text in expected.items()}
            runs += 1
        else:
            assert run.process.returncode == -signal.SIGKILL or any(words in said for words in GIVEN_UP), said
    while run.process.returncode != 0:  # complete the last run
        run, commands = Run(suite, run.out), commands + 1
        _, said = run.process.communicate(timeout=PATIENCE)
    assert results(run.out) == {f"{MODEL}/{name}": text for name, text in expected.items()}
    print(f"kills of a suite: {killed.total()} tried, {dict(killed)}; {commands} commands, all with the same results")
