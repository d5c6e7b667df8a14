"""Expected reliability of a planned study, from the scores of earlier trainings in its run folder."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from headnb.analysis.before_after import read_stages
from headnb.errors import HeadnbError
from headnb.experiments.folder import Run
from headnb.stats.reliability import TARGET_RELIABILITY, components

if TYPE_CHECKING:
    from pathlib import Path

    from headnb.stats.reliability import Components


def planned_reliability(folder: Path, samples: int, runs: int) -> str:
    """One line on the expected reliability (`headnb.stats.reliability`) of the change of each trained task.

    Args:
        folder: run folder.
        samples: planned samples per task.
        runs: planned training runs per task.
    """
    measured = _measured(folder)
    design = f"{samples} samples and {runs} training run{'' if runs == 1 else 's'} per task"
    start = f"Expected reliability of a change with {design}"
    if not measured:
        return f"{start} is not available: {folder} has no scores before and after a training yet"
    planned = {task: replace(estimates, n=samples, R=runs).reliability for task, estimates in measured.items()}
    known = {task: value for task, value in planned.items() if np.isfinite(value)}
    if not known:
        return f"{start} is not available: too few samples in the last run"
    least = min(known, key=lambda task: known[task])
    counts = sorted({(estimates.n, estimates.R) for estimates in measured.values()})
    last = ", ".join(f"{n} samples and {R} run{'' if R == 1 else 's'}" for n, R in counts)
    line = f"{start}: {np.median(list(known.values())):.2f} (median of {len(known)} tasks)"
    line += f", lowest {known[least]:.2f} ({least}), from the variances of the last scores ({last})"
    if any(estimates.R == 1 for estimates in measured.values()):
        line += "; tasks with one run do not include the variance between training runs"
    if known[least] < TARGET_RELIABILITY and (needed := replace(measured[least], n=samples, R=runs).evidence.sentence):
        line += f". {least}: {needed}"
    return line


def _measured(folder: Path) -> dict[str, Components]:
    """Variance components of the change of each task whose scores can be read."""
    run, measured = Run(folder), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scores of an earlier revision are sufficient for variances
        try:
            trained = run.trained
        except HeadnbError:
            return {}
        for task in trained:
            try:
                stages = read_stages(run.pairs(task), task)
            except HeadnbError:
                continue
            present = ~stages.missing
            measured[task] = components(stages.after[..., present] - stages.required_before[:, present])
    return measured
