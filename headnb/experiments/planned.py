"""How reliable the changes of a planned study will be, by the scores that its run folder holds of earlier trainings."""

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
    """Reliability (`headnb.stats.reliability`) of each trained task's change with as many samples and runs, in a line.

    Args:
        folder: of the run.
        samples: of a task.
        runs: training runs of a task.
    """
    measured = _measured(folder)
    design = f"{samples} samples and {runs} training run{'' if runs == 1 else 's'} of a task"
    if not measured:
        lacking = "not known before there are scores before and after a training in"
        return f"Reliability of a change with {design}: {lacking} {folder}"
    planned = {task: replace(one, n=samples, R=runs).reliability for task, one in measured.items()}
    known = {task: value for task, value in planned.items() if np.isfinite(value)}
    if not known:
        return f"Reliability of a change with {design}: not known, the last run has too few samples"
    least = min(known, key=lambda task: known[task])
    counts = sorted({(one.n, one.R) for one in measured.values()})
    last = ", ".join(f"{n} samples and {R} run{'' if R == 1 else 's'}" for n, R in counts)
    line = (
        f"Reliability of a change with {design}: {np.median(list(known.values())):.2f} (median of {len(known)} tasks)"
    )
    line += f", least {known[least]:.2f} ({least}), by the variances of the last scores ({last})"
    if any(one.R == 1 for one in measured.values()):
        line += "; what training runs differ in is not in it where one run was scored"
    if known[least] < TARGET_RELIABILITY and (needed := replace(measured[least], n=samples, R=runs).evidence.sentence):
        line += f". {least}: {needed}"
    return line


def _measured(folder: Path) -> dict[str, Components]:
    """Task -> the components of its change, of the tasks whose scores can be read."""
    run, found = Run(folder), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scores of an earlier revision tell variances as well
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
            found[task] = components(stages.after[..., present] - stages.required_before[:, present])
    return found
