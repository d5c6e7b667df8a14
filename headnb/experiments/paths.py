"""Where everything lies in the run folder that the notebooks of one model share.

    run.json                        model, tasks, how their samples are drawn and cut, versions
    before/<task>.zarr              scores of the model as it came
    before/<task>.answers.nc        what it answers
    before/<task>.layers.nc         what it makes of the samples in each layer: see layers.py
    sft/<task>/seed<k>/             one fine-tuning: study.nc, scores/, adapter/, answers.nc, layers.nc
    sft/<task>/seed<k>/after/<evaluated task>.zarr
    shuffled/<task>/seed<k>/        one on answers that belong to other questions: study.nc, after.zarr
    selection/, selective/          what chosen instructions and heads are worth: see selection_trials.py
    mixture/<target>/seed<k>/       ones that begin with a mixture of basic tasks: <way>.nc
    continual/seed<k>/              one on all tasks in turn: stage<i>/<task>.zarr, the scores after i tasks are learned
    findings/<name>.json, .nc       what the notebooks from 03 on found
    notebooks/                      the executed notebooks, where the suite ran them
    report.html

A folder seed<k> also has result.json, written last. Each file is written beside its place and moved there, so it is
whole or not there at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headnb.storage.files import safe_file_name

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """The paths of a run folder; nothing is read or made. `seed` None is the model as it came."""

    folder: Path

    @property
    def settings(self) -> Path:
        """The settings and versions of the run."""
        return self.folder / "run.json"

    def before(self, task: str) -> Path:
        """Scores of the model as it came."""
        return self.folder / "before" / f"{safe_file_name(task)}.zarr"

    def answers(self, task: str, seed: int | None = None) -> Path:
        """Answers to a task."""
        return self._beside_scores("answers.nc", task, seed)

    def layers(self, task: str, seed: int | None = None) -> Path:
        """Representations of a task's samples."""
        return self._beside_scores("layers.nc", task, seed)

    def finetuning(self, trained: str, seed: int) -> Path:
        """The folder of one fine-tuning."""
        return self.folder / "sft" / safe_file_name(trained) / f"seed{seed}"

    def after(self, trained: str, seed: int, evaluated: str) -> Path:
        """Scores of a fine-tuned model on a task."""
        return self.finetuning(trained, seed) / "after" / f"{safe_file_name(evaluated)}.zarr"

    def shuffled(self, task: str, seed: int) -> Path:
        """The folder of one fine-tuning on shuffled answers."""
        return self.folder / "shuffled" / safe_file_name(task) / f"seed{seed}"

    def mixture(self, target: str, seed: int) -> Path:
        """The folder of the trainings of one target on mixtures."""
        return self.folder / "mixture" / safe_file_name(target) / f"seed{seed}"

    def continual(self, seed: int) -> Path:
        """The folder of one sequence of tasks."""
        return self.folder / "continual" / f"seed{seed}"

    def stage(self, seed: int, stage: int, task: str) -> Path:
        """Scores of a task after `stage` tasks of a sequence are learned."""
        return self.continual(seed) / f"stage{stage}" / f"{safe_file_name(task)}.zarr"

    def finding(self, name: str, ending: str) -> Path:
        """A finding's numbers ("json") or arrays ("nc")."""
        return self.folder / "findings" / f"{name}.{ending}"

    def _beside_scores(self, name: str, task: str, seed: int | None) -> Path:
        before = self.folder / "before" / f"{safe_file_name(task)}.{name}"
        return before if seed is None else self.finetuning(task, seed) / name


def complete_seeds(folder: Path) -> tuple[int, ...]:
    """The seeds k of which a folder has seed<k>/result.json, in order."""
    named = (path.parent.name.removeprefix("seed") for path in folder.glob("seed*/result.json"))
    return tuple(sorted(int(seed) for seed in named if seed.isdecimal()))
