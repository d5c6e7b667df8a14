"""Run folders for tests of the report: three or more tasks, two of them trained."""

from __future__ import annotations

import json
from contextlib import nullcontext
from types import MappingProxyType
from typing import TYPE_CHECKING

from headnb import finetune, load_task, scale_heads, score_heads
from headnb.experiments.folder import Run

from paths import FIXTURES
from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PAIRS = [("2 + 3 = ", "5"), ("4 + 4 = ", "8"), ("1 + 6 = ", "7"), ("3 + 3 = ", "6")]


def report_run(
    folder: Path,
    names: Sequence[str],
    *,
    steps: int = 2,
    changed: bool = True,
    model_name: str = "tiny",
    result: Mapping[str, str] = MappingProxyType({}),
) -> Run:
    """A run whose first two tasks are trained and tracked at every step.

    Args:
        folder: the run folder.
        names: names of the tasks.
        steps: updates of each training.
        changed: whether scores differ after training.
        model_name: the model's name in the run's settings.
        result: entries of each training's result.json to replace.
    """
    run, model, tokenizer = Run(folder), tiny_model(), tiny_tokenizer()
    folder.mkdir()
    tasks = {name: load_task(PAIRS, name=name) for name in names}
    for name, task in tasks.items():
        score_heads(model, tokenizer, task, out=run.paths.before(name))
    loss = {name: {"before": 2.0, "after": 1.0} for name in names}
    for trained in names[:2]:
        of_task, track = run.paths.finetuning(trained, 0), {trained: tasks[trained]}
        finetune(tiny_model(), tokenizer, tasks[trained], steps=steps, every=1, track=track, output_dir=of_task)
        with scale_heads(model, {"L0H1": 0.2}) if changed else nullcontext():
            for name, task in tasks.items():
                score_heads(model, tokenizer, task, out=run.paths.after(trained, 0, name))
        about = {"task": trained, "seed": 0, "kind_of_tuning": "full", "steps": steps, "loss": loss, "movement": 0.1}
        (of_task / "result.json").write_text(json.dumps(about | dict(result)))
    settings = json.loads((FIXTURES / "format-1" / "run" / "run.json").read_text())
    run.paths.settings.write_text(json.dumps(settings | {"model": model_name, "tasks": list(names)}))
    return run
