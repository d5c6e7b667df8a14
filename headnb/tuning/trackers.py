"""Logging of tracked steps to TensorBoard, W&B and trackio.

A tracked step is logged through the writer or the run that the trainer's own callback has opened. headnb opens none and
imports none of these packages. A Trainer gives its callbacks no reference to each other; they are found in the callback
handler that is calling.
"""

from __future__ import annotations

import io
import math
import sys
import traceback
import warnings
from base64 import b64decode
from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.display import html
from headnb.display.payload import payload
from headnb.errors import first_line
from headnb.stats import descriptive
from headnb.tuning.step_statistics import ALPHA
from headnb.tuning.trainer import CallbackHandler, TensorBoardCallback, TrackioCallback, TrainerCallback, WandbCallback

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import xarray as xr
    from numpy.typing import NDArray

TRACKERS = {"tensorboard": "TensorBoard", "wandb": "W&B", "trackio": "trackio"}
"""Value of `report_to` -> name of the tracker, for all trackers that get pictures."""

_CALLBACKS = {TensorBoardCallback: "tensorboard", WandbCallback: "wandb", TrackioCallback: "trackio"}


class TrackerLog:
    """Logs tracked steps. An error of a tracker is a warning, given once for each tracker."""

    def __init__(self) -> None:
        self._failed: set[str] = set()
        self._writer: Any = None
        """TensorBoard's writer, which its callback drops at the end of the training."""

    def log(self, study: Callable[[], xr.Dataset], step: int) -> None:
        """Log a step of the study to the trackers of the Trainer that is calling."""
        trackers = [(tracker, callback) for callback in _running_callbacks() if (tracker := _tracker_of(callback))]
        if not trackers:
            return
        tracked = study()
        numbers, pictures = step_numbers(tracked, step), step_pictures(tracked, step)
        for tracker, callback in trackers:
            try:
                if tracker == "tensorboard":
                    self._to_tensorboard(callback, step, numbers, pictures)
                else:
                    _to_run(sys.modules[tracker], step, numbers, pictures)
            except Exception as error:  # noqa: BLE001  a tracker may raise anything, and must not stop the training
                self._warn(tracker, step, error)

    def _to_tensorboard(
        self, callback: Any, step: int, numbers: Mapping[str, float], pictures: Mapping[str, NDArray[np.uint8]]
    ) -> None:
        self._writer = callback.tb_writer or self._writer
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step)
        for name, picture in pictures.items():
            self._writer.add_image(name, picture, step, dataformats="HWC")
        self._writer.flush()
        if callback.tb_writer is None:  # the training has ended: a closed writer opens another file
            self._writer.close()

    def _warn(self, tracker: str, step: int, error: Exception) -> None:
        if tracker not in self._failed:
            self._failed.add(tracker)
            warnings.warn(
                f"head scores of step {step} were not logged to {TRACKERS[tracker]}: {first_line(error)}", stacklevel=2
            )


def step_numbers(study: xr.Dataset, step: int) -> dict[str, float]:
    """Name -> number of a tracked step, for all numbers that are available; docs/logging.md defines them."""
    at_step, first = study.sel(step=step), study.isel(step=0)
    numbers = {"headnb/movement": float(at_step["movement"].mean())}
    for task in _tasks(study):
        of_task = _numbers_of_task(at_step.sel(task=task), first.sel(task=task))
        numbers |= {f"headnb/{task}/{name}": float(number) for name, number in of_task.items()}
    return {name: number for name, number in numbers.items() if math.isfinite(number)}


def step_pictures(study: xr.Dataset, step: int) -> dict[str, NDArray[np.uint8]]:
    """Name -> RGB picture (height, width, 3) of each task's first step, this step, and their difference."""
    steps = sorted({int(study["step"][0]), step})
    return {f"headnb/{task}/grid": _pixels(study.sel(task=[task], step=steps)) for task in _tasks(study)}


def _numbers_of_task(at_step: xr.Dataset, first: xr.Dataset) -> dict[str, Any]:
    level, change, q_values = at_step["level"], at_step["change"], at_step["change_q_value"]
    numbers: dict[str, Any] = {
        "loss": at_step["eval_loss"],
        "reliability": at_step["level_evidence"].sel(evidence="reliability"),
        "change": abs(change).mean() / abs(first["level"]).mean(),
    }
    if "exact_match" in at_step:
        numbers["exact_match"] = at_step["exact_match"]
    if level.attrs["kind"] == "level":
        numbers["gini"] = descriptive.gini(level.to_numpy().ravel())
    if change.notnull().any():  # changes of one sample have no test
        numbers["significant_heads"] = (q_values < ALPHA).sum()
    return numbers


def _tasks(study: xr.Dataset) -> list[str]:
    tasks: list[str] = study["task"].values.tolist() if "level" in study else []
    return tasks


def _pixels(study: xr.Dataset) -> NDArray[np.uint8]:
    from PIL import Image  # noqa: PLC0415  keeps the import of headnb fast

    return np.asarray(Image.open(io.BytesIO(b64decode(html.picture_png(payload(study))))).convert("RGB"))


def _to_run(library: Any, step: int, numbers: Mapping[str, float], pictures: Mapping[str, NDArray[np.uint8]]) -> None:
    """Log to the open run of W&B or trackio, with the step as `train/global_step`, as their callbacks do."""
    images = {name: library.Image(picture) for name, picture in pictures.items()}
    library.log({**numbers, **images, "train/global_step": step})


def _tracker_of(callback: TrainerCallback) -> str:
    """Value of `report_to` for a tracker's callback; empty for other callbacks."""
    return next((tracker for kind, tracker in _CALLBACKS.items() if isinstance(callback, kind)), "")


def _running_callbacks() -> list[TrainerCallback]:
    """All callbacks of the Trainer that is calling; none outside a Trainer."""
    for frame, _ in traceback.walk_stack(None):
        if isinstance(handler := frame.f_locals.get("self"), CallbackHandler):
            return list(handler.callbacks)
    return []
