"""The report of a run that is too small for some findings, or in which nothing changed."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
from headnb import finetune, load_task, scale_heads, score_heads
from headnb.display.report import UNDECIDED, report
from headnb.experiments.folder import Run
from headnb.experiments.report import contents_of

from paths import FIXTURES
from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

PAIRS = [("2 + 3 = ", "5"), ("4 + 4 = ", "8"), ("1 + 6 = ", "7"), ("3 + 3 = ", "6")]
TASKS = ("sums", "more sums", "other sums")


def small_run(folder: Path, *, steps: int, changed: bool) -> Run:
    """A run of three tasks, two of them trained, tracked at every step; `changed`: scores differ after training."""
    run, model, tokenizer = Run(folder), tiny_model(), tiny_tokenizer()
    folder.mkdir()
    tasks = {name: load_task(PAIRS, name=name) for name in TASKS}
    for name, task in tasks.items():
        score_heads(model, tokenizer, task, out=run.paths.before(name))
    loss = {name: {"before": 2.0, "after": 1.0} for name in tasks}
    for name in TASKS[:2]:
        of_task = run.paths.finetuning(name, 0)
        finetune(
            tiny_model(), tokenizer, tasks[name], steps=steps, every=1, track={name: tasks[name]}, output_dir=of_task
        )
        with scale_heads(model, {"L0H1": 0.2}) if changed else nullcontext():
            for other, task in tasks.items():
                score_heads(model, tokenizer, task, out=run.paths.after(name, 0, other))
        result = {"task": name, "seed": 0, "kind_of_tuning": "full", "steps": steps, "loss": loss, "movement": 0.1}
        (of_task / "result.json").write_text(json.dumps(result))
    settings = json.loads((FIXTURES / "format-1" / "run" / "run.json").read_text())
    run.paths.settings.write_text(json.dumps(settings | {"model": "tiny", "tasks": list(TASKS)}))
    return run


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("changed", [True, False])
@pytest.mark.parametrize("steps", [1, 2])
def test_the_report_says_what_a_small_run_cannot_decide(tmp_path: Path, steps: int, changed: bool) -> None:
    run = small_run(tmp_path / "run", steps=steps, changed=changed)
    contents = contents_of(run, {TASKS[0]: TASKS[1:2]})
    rapid = next(section for section in contents.sections if section.title == "Rapid change")
    assert rapid.finding is not None
    assert rapid.finding.verdict == UNDECIDED
    if steps == 1:
        assert "3 tracked steps" in rapid.finding.reason
    assert "Rapid change" in report(contents, tmp_path / "report.html").read_text(encoding="utf-8")
