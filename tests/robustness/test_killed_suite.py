"""The package's notebooks on a tiny model, killed during training, give the same results as an undisturbed run.

Slow: `make robustness`. test_killed_small_suites.py kills notebooks that need no model.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest
from headnb.experiments.folder import Run
from headnb.suite import job

from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = {
    "tasks": ["gcd", "lcm"],
    "seeds": [0],
    "compositions": {"lcm": ["gcd"]},
    "n": 6,
    "n_beside": 4,
    "max_length": 128,
    "steps": 16,
    "batch_size": 2,
    "track_steps": [0, 4, 10],
    "save_every": 2,
    "answers": 0,
    "without": [
        "mixture_training",
        "mixture",
        "instruction_selection",
        "selective_tuning",
        "methods_agree",
        "continual_training",
        "continual",
        "transfer",
        "fair",
        "fair_timing",
    ],
}
PATIENCE = 900.0


class Suite:
    """`headnb suite run` on the package's notebooks, one at a time, so that all use the same number of threads."""

    def __init__(self, model: Path, out: Path) -> None:
        self.folder = out / model.name
        values = {**SETTINGS, "models": [str(model)]}
        words = ["suite", "run", "--profile", "demo", "--out", str(out), "--workers", "1"]
        self.words = [
            *words,
            *(word for name, value in values.items() for word in ("--set", f"{name}={json.dumps(value)}")),
        ]

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "from headnb.cli.main import main; main()", *self.words]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def kernel(self, training: Path) -> psutil.Process:
        """Wait for a checkpoint in this folder; return the kernel that trains there."""
        end = time.monotonic() + PATIENCE
        while not list(training.glob("trainer/checkpoint-*/trainer_state.json")):
            assert time.monotonic() < end, "no checkpoint was written"
            time.sleep(0.005)
        return next(process for process in psutil.process_iter() if self._works_on(process, training))

    def _works_on(self, process: psutil.Process, training: Path) -> bool:
        task = training.parent.name
        with contextlib.suppress(psutil.Error):
            return f"{task}.seed0.json" in process.environ().get(job.MARK, "")
        return False


def results(run: Run) -> dict[str, np.ndarray]:
    """All results of the notebooks, as arrays."""
    found = {f"before {task}": run.before(task).score.values for task in SETTINGS["tasks"]}
    for trained in SETTINGS["tasks"]:
        found |= {f"{trained} on {e}": run.after(trained, 0, e).score.values for e in SETTINGS["tasks"]}
        study = run.study(trained, 0)
        found |= {f"{trained} {name}": study[name].values for name in ("level", "movement", "train_loss", "step")}
    ((_, shuffled),) = run.shuffled_pairs("lcm")
    return found | {"shuffled": shuffled.score.values}


@pytest.mark.slow
def test_notebooks_killed_while_they_train_end_in_the_same_results(tmp_path: Path) -> None:
    model = tmp_path / "tiny"
    tiny_model().save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    whole, killed = Suite(model, tmp_path / "whole"), Suite(model, tmp_path / "killed")
    undisturbed = whole.start()
    _, said = undisturbed.communicate()
    assert undisturbed.returncode == 0, said
    expected = results(Run(whole.folder))

    process, sft = killed.start(), killed.folder / "sft"
    killed.kernel(sft / "gcd" / "seed0").send_signal(signal.SIGKILL)  # the suite restarts it
    worker = killed.kernel(sft / "lcm" / "seed0").parent()
    assert worker is not None
    worker.send_signal(signal.SIGKILL)  # the suite replaces it
    kernel = killed.kernel(killed.folder / "shuffled" / "lcm" / "seed0")
    process.kill()  # this also ends the scheduler
    process.wait()
    kernel.wait(PATIENCE)  # the kernel ends by itself
    assert not Run(killed.folder).shuffled_pairs("lcm")
    again = killed.start()
    _, said = again.communicate()
    assert again.returncode == 0, said
    assert "6 of 10 notebooks to run" in said

    found = results(Run(killed.folder))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    for finding in ("selectivity", "composition", "rapid_change", "layers"):
        assert Run(killed.folder).findings.numbers(finding) == Run(whole.folder).findings.numbers(finding)
