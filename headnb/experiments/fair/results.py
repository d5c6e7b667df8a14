"""Compact results of the fair experiment: one small file per training, from which every verdict is computed.

Run folders are large. A compact result has the scores of the trained task as means over `GROUPS` groups of equally many
samples. These means have the same mean over samples, and their spread gives the noise of samples, so they take the
place of samples in every analysis. Levels are stored as float16 relative to the mean level of the file's array.

    <folder>/rate.json                       the learning rate, and the held-out losses that chose it
    <folder>/before/<task>.npz               the base model
    <folder>/own/<task>/seed<k>.npz          after training on the task
    <folder>/shuffled/<task>/seed<k>.npz     after training on its prompts with shuffled answers
    <folder>/long/<task>/seed<k>.json        times to half of the change, loss and exact match of one long LoRA training
    <folder>/long/<task>/seed<k>.npz         its levels at every tracked step, as means over `LONG_GROUPS` groups
    <folder>/long_full/...                   the same of full fine-tuning
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from headnb.analysis.trajectories import trajectory
from headnb.atomic_files import atomic_path
from headnb.errors import HeadnbError
from headnb.stats.patterns import sample_levels
from headnb.stats.scoring_revision import REVISION, SCORING_REVISION, check_revision
from headnb.storage.checksums import report_corruption
from headnb.storage.files import read_json, safe_file_name, write_json
from headnb.tuning.study import EXACT_MATCH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from headnb.experiments.fair.design import Tuning
    from headnb.tuning.result import FineTuned

Kind = Literal["own", "shuffled"]
KINDS: tuple[Kind, Kind] = ("own", "shuffled")
LONG: dict[Tuning, str] = {"lora": "long", "full": "long_full"}
"""Kind of tuning -> folder of its long trainings."""
GROUPS = 16
LONG_GROUPS = 8
BESIDE_GROUPS = 2  # of the tasks that a model was not trained on
_META = "meta"


@dataclass(frozen=True)
class FairResults:
    """The compact results in a folder."""

    folder: Path

    def path(self, kind: str, task: str, seed: int | None = None) -> Path:
        """Path of one result; the base model has no seed. Of a long training: its numbers."""
        name = safe_file_name(task)
        ending = "json" if kind in LONG.values() else "npz"
        return self.folder / kind / (f"{name}.npz" if seed is None else f"{name}/seed{seed}.{ending}")

    def before(self, task: str) -> xr.Dataset:
        """Scores of the base model, one "sample" per group."""
        return self._scores("before", task, None)

    def after(self, kind: Kind, task: str, seed: int) -> xr.Dataset:
        """Scores after a training, one "sample" per group."""
        return self._scores(kind, task, seed)

    def seeds(self, kind: str, task: str) -> tuple[int, ...]:
        """Seeds of the complete trainings."""
        path = self.path(kind, task, 0)
        paths = path.parent.glob(f"seed*{path.suffix}")
        return tuple(sorted(int(path.stem.removeprefix("seed")) for path in paths))

    def paired_seeds(self, task: str) -> tuple[int, ...]:
        """Seeds of which the trainings on own and on shuffled answers are both complete."""
        return tuple(seed for seed in self.seeds("own", task) if self.path("shuffled", task, seed).exists())

    def pairs(self, kind: Kind, task: str) -> list[tuple[xr.Dataset, xr.Dataset]]:
        """(before, after) of the trainings with `paired_seeds`, for `fit_combination` and other analyses."""
        return [(self.before(task), self.after(kind, task, seed)) for seed in self.paired_seeds(task)]

    def check_steps(self, steps: int) -> None:
        """Raise HeadnbError if a training has another length, because it belongs to another study."""
        for kind in KINDS:
            for path in sorted(self.folder.glob(f"{kind}/*/seed*.npz")):
                if (found := self._read_file(path)[1].get("steps", steps)) != steps:
                    raise HeadnbError(f"{path} has {found} steps, and the trainings of this study have {steps}")

    def is_scored_on(self, trained: str, evaluated: str) -> bool:
        """Whether every model that was trained on own answers of a task is scored on another task, or on the same."""
        scored = (self.meta("own", trained, seed).get("evaluated", []) for seed in self.seeds("own", trained))
        return trained == evaluated or all(evaluated in tasks for tasks in scored)

    def beside(self, task: str, seed: int, evaluated: str) -> xr.Dataset:
        """Scores on another task of the model trained on `task`."""
        arrays, meta = self._read("own", task, seed)
        row = meta["evaluated"].index(evaluated)
        levels = arrays["beside_level"][row] * arrays["beside_scale"][row]
        return _as_scores(levels, arrays["beside_loss"][row], evaluated)

    def long_levels(self, tuning: Tuning, task: str, seed: int) -> np.ndarray | None:
        """Levels of a long training (step, group, layer, head); None if it was made before levels were kept."""
        path = self.path(LONG[tuning], task, seed).with_suffix(".npz")
        if not path.exists():
            return None
        arrays, _ = self._read_file(path)
        levels: np.ndarray = arrays["level"] * arrays["scale"]
        return levels

    def meta(self, kind: str, task: str, seed: int | None) -> dict[str, Any]:
        """Settings, counts and numbers of one result."""
        return self._read(kind, task, seed)[1]

    def write(self, kind: str, task: str, seed: int | None, result: Compact) -> Path:
        """Write one result and return its path."""
        path = self.path(kind, task, seed).with_suffix(".npz")
        meta = {REVISION: SCORING_REVISION, "task": task, "seed": seed, **result.meta}
        with atomic_path(path, make_folder=True) as draft, draft.open("wb") as file:
            np.savez_compressed(file, **{_META: np.array(json.dumps(meta)), **result.arrays})  # type: ignore[arg-type]
        return path

    def _scores(self, kind: str, task: str, seed: int | None) -> xr.Dataset:
        arrays, _ = self._read(kind, task, seed)
        return _as_scores(arrays["level"] * arrays["scale"], arrays["loss"], task)

    def _read(self, kind: str, task: str, seed: int | None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        return self._read_file(self.path(kind, task, seed))

    def _read_file(self, path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        if not path.exists():
            raise HeadnbError(f"{path} does not exist; run the suite with the profile of this study")
        with report_corruption(path), np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
            meta = json.loads(str(arrays.pop(_META)))
        check_revision(path, meta, {REVISION: SCORING_REVISION}, "a compact result")
        return {name: array.astype(np.float64) for name, array in arrays.items()}, meta


@dataclass(frozen=True)
class Compact:
    """Content of one compact file."""

    arrays: Mapping[str, np.ndarray]
    meta: Mapping[str, Any] = field(default_factory=dict)


def grouped(scores: xr.Dataset, groups: int = GROUPS) -> xr.Dataset:
    """Means of levels and losses over groups of equally many consecutive samples, as scores with one sample per group.

    Raises:
        HeadnbError: the number of samples is not a multiple of `groups`.
    """
    levels = sample_levels(scores).transpose("sample", "layer", "head").to_numpy()
    if len(levels) % groups:
        raise HeadnbError(f"{len(levels)} samples cannot be split into {groups} groups of equal size")
    means = levels.reshape(groups, -1, *levels.shape[1:]).mean(axis=1)
    losses = scores["loss"].to_numpy().reshape(groups, -1).mean(axis=1)
    return _as_scores(means, losses, str(scores.attrs.get("task", "")))


def compact_scores(scores: xr.Dataset) -> Compact:
    """Compact result of the scores of one model on one task."""
    of_groups = grouped(scores)
    level, scale = _rounded(of_groups["score"].to_numpy())
    arrays = {"level": level, "scale": scale, "loss": of_groups["loss"].to_numpy().astype(np.float32)}
    return Compact(arrays, {"samples": scores.sizes["sample"], "model": str(scores.attrs.get("model", ""))})


def compact_tuned(after: xr.Dataset, beside: Mapping[str, xr.Dataset], tuned: FineTuned, task: str) -> Compact:
    """Compact result of a training on a task's own answers.

    Args:
        after: scores of the trained task after the training.
        beside: other task -> scores of its first samples after the training; may be empty.
        tuned: result of the training; what was tracked of the trained task is kept.
        task: the trained task.
    """
    result = compact_scores(after)
    others = [grouped(scores, BESIDE_GROUPS) for scores in beside.values()]
    rounded = [_rounded(scores["score"].to_numpy()) for scores in others]
    arrays = {
        "beside_level": np.array([level for level, _ in rounded]),
        "beside_scale": np.array([scale for _, scale in rounded]),
        "beside_loss": np.array([scores["loss"].to_numpy() for scores in others], dtype=np.float32),
    }
    result = Compact({**result.arrays, **arrays}, {**result.meta, "evaluated": list(beside)})
    return _with_tracked(result, tuned, task) if task in tuned.scores else result


def _with_tracked(result: Compact, tuned: FineTuned, task: str) -> Compact:
    levels, scale = _rounded(tuned.study["level"].sel(task=task).to_numpy())
    tracked = _tracked(tuned, task)
    meta = {
        "tracked_steps": tracked.pop("step"),
        **{f"tracked_{name}": values for name, values in tracked.items()},
        "movement": tuned.study["movement"].mean("layer").to_numpy().round(8).tolist(),
        "half": half_times(tuned, task, (int(tuned.study["step"][-1]),)),
    }
    return Compact({**result.arrays, "tracked_level": levels, "tracked_scale": scale}, {**result.meta, **meta})


def _tracked(tuned: FineTuned, task: str) -> dict[str, list[float]]:
    """`step`, `loss` and, if answers were compared, `exact_match` of the tracked task."""
    study = tuned.study.sel(task=task)
    names = {"step": "step", "loss": "eval_loss", EXACT_MATCH: EXACT_MATCH}
    return {name: study[of].to_numpy().round(6).tolist() for name, of in names.items() if of in study.variables}


def half_times(tuned: FineTuned, task: str, lengths: Sequence[int]) -> list[dict[str, float]]:
    """Steps to half of the change for prefixes of a training; the rate is constant, so a prefix is a shorter training.

    Returns:
        One row for each `length`: the half-time `pattern` of the scale-free pattern with its interval over samples,
        `pattern_low` and `pattern_high`, and that of the `loss`. NaN where there is no change beyond noise.
    """
    rows = []
    for length in lengths:
        study = tuned.study.sel(step=slice(0, length))
        scores = {task: tuned.scores[task].sel(step=slice(0, length))}
        course = trajectory(study, scores, task=task, scale_free=True)
        half = course.half
        row = {"pattern": half.value, "pattern_low": half.low, "pattern_high": half.high, "loss": course.half_loss}
        rows.append({"length": length, **row})
    return rows


def write_long(
    results: FairResults, task: str, seed: int, tuned: FineTuned, lengths: Sequence[int], settings: Mapping[str, Any]
) -> Path:
    """Write the half-times of a long training's prefixes, and what was tracked at each step.

    Args:
        results: compact results.
        task: the trained task.
        seed: seed of the training.
        tuned: result of the training.
        lengths: lengths of the prefixes in steps.
        settings: settings of the training; `tuning` is the kind of tuning.
    """
    kind = LONG[settings["tuning"]]
    scores = tuned.scores[task]
    level, scale = _rounded(np.stack([grouped(one, LONG_GROUPS)["score"].to_numpy() for one in _steps_of(scores)]))
    results.write(kind, task, seed, Compact({"level": level, "scale": scale}, settings))
    about = {**settings, "task": task, "seed": seed}
    numbers = {**about, "prefixes": half_times(tuned, task, lengths), "tracked": _tracked(tuned, task)}
    return write_json(results.path(kind, task, seed), numbers)


def read_long(results: FairResults, task: str, seed: int, tuning: Tuning = "lora") -> list[dict[str, float]]:
    """The half-times that `write_long` wrote."""
    stored = _long(results, task, seed, tuning)
    return [{key: np.nan if x is None else float(x) for key, x in row.items()} for row in stored["prefixes"]]


def read_tracked(results: FairResults, task: str, seed: int, tuning: Tuning = "lora") -> dict[str, list[float]]:
    """What `write_long` tracked: `step`, `loss` and, if answers were compared, `exact_match`; empty if not kept."""
    tracked: dict[str, list[float]] = _long(results, task, seed, tuning).get("tracked", {})
    return tracked


def _long(results: FairResults, task: str, seed: int, tuning: Tuning) -> dict[str, Any]:
    return read_json(results.path(LONG[tuning], task, seed), "15_fair_timing")


def _steps_of(scores: xr.Dataset) -> list[xr.Dataset]:
    return [scores.isel(step=index) for index in range(scores.sizes["step"])]


def _rounded(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels as float16 relative to their mean, and the mean."""
    scale = float(levels.mean())
    return (levels / scale).astype(np.float16), np.array(scale)


def _as_scores(levels: np.ndarray, losses: np.ndarray, task: str) -> xr.Dataset:
    attrs = {"task": task, "method": "activation", "reduction": "mean-abs", "loss_reduction": "sample-mean"}
    groups, layers, heads = levels.shape
    coords = {"sample": range(groups), "layer": range(layers), "head": range(heads)}
    variables = {"score": (("sample", "layer", "head"), levels), "loss": ("sample", losses)}
    return xr.Dataset(variables, coords, {**attrs, REVISION: SCORING_REVISION})
