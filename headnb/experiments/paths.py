"""Paths of the files in the run folder that the notebooks of one model share.

    run.json                        model, tasks, sampling, maximum length, versions
    before/<task>.zarr              scores of the base model
    before/<task>.answers.nc        answers of the base model
    before/<task>.layers.nc         Gram matrices of its layer representations: see layers.py
    sft/<task>/seed<k>/             one fine-tuning: study.nc, scores/, adapter/, answers.nc, layers.nc
    sft/<task>/seed<k>/after/<evaluated task>.zarr   scores of the fine-tuned model on each task
    shuffled/<task>/seed<k>/        one fine-tuning on shuffled answers: study.nc, after.zarr
    selection/, selective/          instruction selection and selective tuning: see selection_trials.py
    mixture/<target>/seed<k>/       trainings on a mixture of basic tasks, then on the target: <way>.nc
    continual/seed<k>/              one training on all tasks in sequence: stage<i>/<task>.zarr after i tasks
    transfer/<task>.<n>.nc          gradients of a task in the base model: see transfer.py
    findings/<name>.json, .nc       results of the notebooks 03 to 13
    notebooks/                      executed notebooks, if the suite ran them
    report.html

A folder seed<k> also has result.json, written last. Each file is written under a temporary name and then renamed, so a
file is either complete or absent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headnb.storage.files import safe_file_name

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """Paths of a run folder; no file is read or created. `seed` None means the base model."""

    folder: Path

    @property
    def settings(self) -> Path:
        """Settings and versions of the run."""
        return self.folder / "run.json"

    def before(self, task: str) -> Path:
        """Scores of the base model on a task."""
        return self.folder / "before" / f"{safe_file_name(task)}.zarr"

    def answers(self, task: str, seed: int | None = None) -> Path:
        """Answers to a task."""
        return self._model_file("answers.nc", task, seed)

    def layers(self, task: str, seed: int | None = None) -> Path:
        """Representations of a task's samples."""
        return self._model_file("layers.nc", task, seed)

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
        """The folder of the mixture trainings for one target."""
        return self.folder / "mixture" / safe_file_name(target) / f"seed{seed}"

    def continual(self, seed: int) -> Path:
        """The folder of one training on all tasks in sequence."""
        return self.folder / "continual" / f"seed{seed}"

    def stage(self, seed: int, stage: int, task: str) -> Path:
        """Scores on a task after `stage` tasks of a sequence are learned."""
        return self.continual(seed) / f"stage{stage}" / f"{safe_file_name(task)}.zarr"

    def finding(self, name: str, ending: str) -> Path:
        """A finding's numbers ("json") or arrays ("nc")."""
        return self.folder / "findings" / f"{name}.{ending}"

    def _model_file(self, name: str, task: str, seed: int | None) -> Path:
        before = self.folder / "before" / f"{safe_file_name(task)}.{name}"
        return before if seed is None else self.finetuning(task, seed) / name


def complete_seeds(folder: Path) -> tuple[int, ...]:
    """Seeds k for which the folder has seed<k>/result.json, in ascending order."""
    names = (path.parent.name.removeprefix("seed") for path in folder.glob("seed*/result.json"))
    return tuple(sorted(int(seed) for seed in names if seed.isdecimal()))
