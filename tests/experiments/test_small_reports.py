"""The report of a run that is too small for some findings, or in which nothing changed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from headnb.display.report import UNDECIDED, report
from headnb.experiments.report import contents_of

from report_runs import report_run

if TYPE_CHECKING:
    from pathlib import Path

TASKS = ("sums", "more sums", "other sums")


def test_the_introduction_claims_no_more_runs_than_every_task_has(tmp_path: Path) -> None:
    run = report_run(tmp_path / "run", TASKS)
    shutil.copytree(run.paths.finetuning(TASKS[0], 0), run.paths.finetuning(TASKS[0], 1))
    assert "1 to 2 training runs on each of 2 tasks. Intervals cover samples." in contents_of(run, {}).lead[0]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("changed", [True, False])
@pytest.mark.parametrize("steps", [1, 2])
def test_the_report_says_what_a_small_run_cannot_decide(tmp_path: Path, steps: int, changed: bool) -> None:
    run = report_run(tmp_path / "run", TASKS, steps=steps, changed=changed)
    contents = contents_of(run, {TASKS[0]: TASKS[1:2]})
    rapid = next(section for section in contents.sections if section.title == "Rapid change")
    assert rapid.finding is not None
    assert rapid.finding.verdict == UNDECIDED
    assert "1 training run on each of 2 tasks. Intervals cover samples." in contents.lead[0]
    if steps == 1:
        assert "3 tracked steps" in rapid.finding.reason
    assert "Rapid change" in report(contents, tmp_path / "report.html").read_text(encoding="utf-8")
