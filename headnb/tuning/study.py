"""A study: the quantities tracked in one training run, as labelled arrays and on disk.

On disk a study is a folder. Every file is written to a temporary name and then renamed, so that a killed process leaves
only complete files:

    study.nc                             the study: levels, movement, losses
    scores/<task>/step-<step>.nc         scores of every sample
    online/step-<step>.nc                scores of the training batches up to that step
    adapter/                             the adapter, if `finetune` trained one
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import xarray as xr

from headnb.errors import HeadnbError
from headnb.stats.patterns import NOTICES, pattern_units, sample_levels
from headnb.stats.results import MADE_BY, RESULT_ID, as_result
from headnb.stats.scoring_revision import REVISION
from headnb.storage.checksums import report_corruption
from headnb.storage.files import read_dataset, write_dataset
from headnb.tuning.step_statistics import ALPHA, step_statistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headnb.storage.zarr_columns import Attribute

STUDY = "study.nc"
EXACT_MATCH = "exact_match"
MAX_FOLDER_NAME = 255  # characters; file systems allow no more
FOLDER = "head_scores"  # folder of a study in a trainer's output_dir
_SAMPLE_VARIABLES = ("answer_tokens", "batch_answer_tokens", "fingerprint")  # equal at every step
_TASK_ATTRS = {
    "task",
    "task_fingerprint",
    "samples_requested",
    "left_out",
    "truncated",
    "complete",
    "created",
    *NOTICES,
    RESULT_ID,
    MADE_BY,
}


@dataclass(frozen=True)
class TrackedStep:
    """The quantities tracked at one step of a training; step 0 is before fine-tuning."""

    step: int
    scores: Mapping[str, xr.Dataset]
    """Task -> scores (sample, layer, head)."""
    movement: np.ndarray
    """Relative L2 distance of each layer's parameters from step 0, (L,)."""
    samples_seen: float
    """Training samples up to this step; NaN if not recorded."""
    tokens_seen: float
    """Training tokens up to this step; NaN if not recorded."""


@dataclass
class Study:
    """Collects tracked steps, and writes them to `folder` if it is given."""

    folder: Path | None = None
    attrs: dict[str, Attribute] = field(default_factory=dict)
    steps: dict[int, TrackedStep] = field(default_factory=dict)
    train_loss: dict[int, float] = field(default_factory=dict)
    """Update -> training loss, as the trainer logs it."""
    online: list[xr.Dataset] = field(default_factory=list)
    """Scores of training batches, one Dataset per write."""
    seen: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Step -> number of training samples and tokens, at tracked steps and checkpoints."""
    _statistics: dict[tuple[int, str], xr.Dataset] = field(default_factory=dict, init=False, repr=False)
    """(step, task) -> `step_statistics`, computed once."""

    def add(self, tracked: TrackedStep) -> None:
        """Add a tracked step, and write its scores."""
        self.steps[tracked.step] = tracked
        self.seen[tracked.step] = (tracked.samples_seen, tracked.tokens_seen)
        for task, scores in tracked.scores.items():
            self._write(_score_path(task, tracked.step), scores)

    def add_online(self, scores: xr.Dataset) -> None:
        """Add scores of training batches, and write them."""
        if scores.sizes["sample"]:
            scores = as_result(scores)
            self.online.append(scores)
            self._write(Path("online") / f"step-{int(scores['step'].max())}.nc", scores)

    def write(self) -> None:
        """Write study.nc."""
        self._write(Path(STUDY), self.dataset())

    def dataset(self) -> xr.Dataset:
        """The study without the samples' scores, as `FineTuned.study` describes it."""
        parts = [self._tracked()] if self.steps else []
        if self.train_loss:
            updates = sorted(self.train_loss)
            losses = [self.train_loss[update] for update in updates]
            parts.append(xr.Dataset({"train_loss": ("update", losses)}, coords={"update": updates}))
        if self.online:
            parts.append(_online_levels(self.online_scores()))
        study = xr.merge(parts, join="outer", compat="no_conflicts", combine_attrs="drop") if parts else xr.Dataset()
        if "level" in study:
            attrs = self._level_attrs()
            study["level"] = as_result(study["level"].assign_attrs(attrs))
            tested = {"kind": "difference", "alpha": ALPHA, "interval_level": 1 - ALPHA}
            study["change"] = as_result(study["change"].assign_attrs(attrs | tested))
        study.attrs = self._provenance() | {"seen": json.dumps(self.seen)}
        return study

    def scores(self) -> dict[str, xr.Dataset]:
        """Task -> scores with a leading dim `step`, with the same samples at each step."""
        tracked = self._tracked_steps()
        tasks = dict.fromkeys(task for step in tracked for task in step.scores)
        return {task: _stack_steps([(step.step, step.scores[task]) for step in tracked]) for task in tasks}

    def online_scores(self) -> xr.Dataset | None:
        """Scores of training batches (sample, layer, head). `step` (sample) is the update that used the sample."""
        if not self.online:
            return None
        scores = xr.concat(self.online, "sample", combine_attrs="override")
        return as_result(scores.assign_coords(sample=np.arange(scores.sizes["sample"])))

    def up_to(self, last: int) -> Study:
        """A copy that contains the steps up to `last`, for a resumed run."""
        parts = [part.isel(sample=np.flatnonzero(part["step"].values <= last)) for part in self.online]
        return replace(
            self,
            steps={step: tracked for step, tracked in self.steps.items() if step <= last},
            train_loss={step: loss for step, loss in self.train_loss.items() if step <= last},
            seen={step: seen for step, seen in self.seen.items() if step <= last},
            online=[part for part in parts if part.sizes["sample"]],
        )

    def remove_files_after(self, step: int) -> None:
        """Remove files of later steps, which an interrupted run wrote before the training was resumed at `step`."""
        if self.folder is not None:
            self.write()  # before the removal: a study.nc that refers to removed files cannot be read
            for path in [*self.folder.glob("online/step-*.nc"), *self.folder.glob("scores/*/step-*.nc")]:
                if _step_of(path) > step:
                    path.unlink()

    def copy_to(self, folder: Path) -> None:
        """Write the study to another folder and replace an existing study."""
        is_own = self.folder is not None and folder.resolve() == self.folder.resolve()
        if (folder / STUDY).exists() and not is_own:
            for name in ("scores", "online"):
                shutil.rmtree(folder / name, ignore_errors=True)
        copy = replace(self, folder=folder, online=[])
        for tracked in self.steps.values():
            copy.add(tracked)
        for scores in self.online:
            copy.add_online(scores)
        copy.write()

    def _tracked(self) -> xr.Dataset:
        """Variables of the tracked steps, with dim `step`."""
        tracked = self._tracked_steps()
        tasks = list(dict.fromkeys(task for step in tracked for task in step.scores))
        variables: dict[str, Any] = {
            "movement": (("step", "layer"), np.stack([step.movement for step in tracked])),
            "samples_seen": ("step", [step.samples_seen for step in tracked]),
            "tokens_seen": ("step", [step.tokens_seen for step in tracked]),
        }
        coords: dict[str, Any] = {
            "step": [step.step for step in tracked],
            "layer": np.arange(variables["movement"][1].shape[1]),
        }
        if tasks:
            levels = [[sample_levels(step.scores[task]).mean("sample") for task in tasks] for step in tracked]
            losses = [[float(step.scores[task]["loss"].mean()) for task in tasks] for step in tracked]
            variables["level"] = (("step", "task", "layer", "head"), np.array(levels))
            variables["eval_loss"] = (("step", "task"), losses)
            coords |= {"task": tasks, "head": levels[0][0]["head"].values}
            if any(EXACT_MATCH in scores for step in tracked for scores in step.scores.values()):
                matches = [[_mean_match(step.scores[task]) for task in tasks] for step in tracked]
                variables[EXACT_MATCH] = (("step", "task"), matches)
        study = xr.Dataset(variables, coords=coords)
        return study.merge(self._changes(tasks)) if tasks else study

    def _changes(self, tasks: list[str]) -> xr.Dataset:
        """The `step_statistics` of every step and task."""
        first, *_ = tracked = self._tracked_steps()
        for step in tracked:
            for task in tasks:
                if (step.step, task) not in self._statistics:
                    self._statistics[step.step, task] = step_statistics(first.scores[task], step.scores[task])
        rows = [
            xr.concat([self._statistics[step.step, task] for task in tasks], xr.Variable("task", tasks))
            for step in tracked
        ]
        return xr.concat(rows, xr.Variable("step", [step.step for step in tracked]))

    def _tracked_steps(self) -> list[TrackedStep]:
        return [self.steps[step] for step in sorted(self.steps)]

    def _first_scores(self) -> xr.Dataset | None:
        return next((scores for tracked in self.steps.values() for scores in tracked.scores.values()), None)

    def _provenance(self) -> dict[str, Any]:
        """Attributes of the scores that apply to all tasks, and the attributes of the training."""
        first = self._first_scores()
        of_scores = {} if first is None else {k: v for k, v in first.attrs.items() if k not in _TASK_ATTRS}
        return of_scores | self.attrs

    def _level_attrs(self) -> dict[str, Any]:
        scores = self._first_scores()
        if scores is None:
            return {}
        names = ["model", "method", "method_label", "loss_reduction", "kv_heads", "dtype", REVISION]
        if len({task for tracked in self.steps.values() for task in tracked.scores}) == 1:
            names += [*NOTICES, "left_out", "truncated"]  # these belong to one task
        kind = "level" if scores.attrs.get("reduction", "mean-abs") == "mean-abs" else "signed"
        attrs = {name: scores.attrs[name] for name in names if name in scores.attrs}
        return attrs | {"kind": kind, "units": pattern_units(scores)}

    def _write(self, name: Path, dataset: xr.Dataset) -> None:
        if self.folder is None:
            return
        write_dataset(self.folder / name, dataset)


def read_study(folder: Path) -> Study:
    """Read the study in a folder.

    Raises:
        HeadnbError: there is no study, or it is damaged.
    """
    if not (folder / STUDY).is_file():
        raise HeadnbError(f"there is no study in {folder}: {STUDY} is missing")
    stored = read_dataset(folder / STUDY)
    with report_corruption(folder / STUDY):
        return _study_of(folder, stored)


def _study_of(folder: Path, stored: xr.Dataset) -> Study:
    attrs = {name: value for name, value in stored.attrs.items() if name not in {RESULT_ID, MADE_BY}}
    seen = {int(step): tuple(counts) for step, counts in json.loads(attrs.pop("seen", "{}")).items()}
    study = Study(folder, attrs, seen=seen)
    if "train_loss" in stored:
        losses = stored["train_loss"].dropna("update")
        study.train_loss = dict(zip(losses["update"].values.tolist(), losses.values.tolist(), strict=True))
    tasks = stored["task"].values.tolist() if "task" in stored.dims else []
    for step in stored["step"].values.tolist() if "step" in stored.dims else []:
        at_step = stored.sel(step=step)
        scores = {task: read_dataset(folder / _score_path(task, step)) for task in tasks}
        counts = (float(at_step["samples_seen"]), float(at_step["tokens_seen"]))
        study.steps[step] = TrackedStep(step, scores, at_step["movement"].values, *counts)
    parts = sorted((folder / "online").glob("step-*.nc"), key=_step_of)
    study.online = [read_dataset(path) for path in parts]
    return study


def _mean_match(scores: xr.Dataset) -> float:
    """Fraction of the compared answers that match; NaN without any."""
    return float(scores[EXACT_MATCH].mean()) if EXACT_MATCH in scores else np.nan


def _step_of(path: Path) -> int:
    return int(path.stem.partition("-")[2])


def _score_path(task: str, step: int) -> Path:
    folder = quote(task, safe=" ")
    if len(folder) > MAX_FOLDER_NAME:  # shorter names keep their folder, so that stored studies are read
        digest = hashlib.blake2b(task.encode(), digest_size=8).hexdigest()
        folder = f"{folder[: MAX_FOLDER_NAME - 17]}-{digest}"
    return Path("scores") / folder / f"step-{step}.nc"


def _stack_steps(scores: Iterable[tuple[int, xr.Dataset]]) -> xr.Dataset:
    """Scores of the same samples at several steps, (step, sample, layer, head)."""
    steps, parts = zip(*scores, strict=True)
    changing = [part[[name for name in ("score", "loss", EXACT_MATCH) if name in part]] for part in parts]
    stacked: xr.Dataset = xr.concat(
        changing, xr.DataArray(list(steps), dims="step", name="step"), combine_attrs="override"
    )
    stacked = stacked.assign({name: parts[0][name] for name in _SAMPLE_VARIABLES if name in parts[0]})
    stacked.attrs = {name: value for name, value in parts[0].attrs.items() if name != "model_fingerprint"}
    return as_result(stacked)


def _online_levels(scores: xr.Dataset | None) -> xr.Dataset:
    """Mean level over the samples of each update, (update, layer, head)."""
    if scores is None:
        return xr.Dataset()
    levels = sample_levels(scores).groupby("step").mean().rename(step="update")
    return xr.Dataset({"online_level": levels.transpose("update", "layer", "head")})
