"""Logs of experiment trackers, read back from their files; and a stand-in for trackio."""

from __future__ import annotations

import io
import json
from contextvars import ContextVar
from struct import Struct
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Steps = dict[int, dict[str, Any]]  # step -> name -> number or RGB picture

_BLOCK, _CHUNK = 32768, Struct("<IHB")  # a chunk begins with checksum, length and kind


def tensorboard_steps(folder: Path) -> Steps:
    """What TensorBoard reads from the event files in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps: Steps = {}
    for path in folder.rglob("events.out.tfevents*"):
        events = EventAccumulator(str(path), size_guidance={"images": 0})
        events.Reload()
        for name in events.Tags()["scalars"]:
            for event in events.Scalars(name):
                steps.setdefault(event.step, {})[name] = event.value
        for name in events.Tags()["images"]:
            for event in events.Images(name):
                steps.setdefault(event.step, {})[name] = picture_of(event.encoded_image_string)
    return steps


def wandb_steps(folder: Path) -> Steps:
    """The history of the offline runs in a folder."""
    from wandb.proto import wandb_internal_pb2

    steps: Steps = {}
    for path in folder.rglob("run-*.wandb"):
        for data in _leveldb_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            row: dict[str, Any] = {}
            for item in record.history.item:
                name, *part = item.nested_key
                value = json.loads(item.value_json)
                if not part:
                    row[name] = value
                elif part == ["path"]:
                    row[name] = picture_of((path.parent / "files" / value).read_bytes())
            if row:
                steps.setdefault(int(row["train/global_step"]), {}).update(row)
    return steps


def _leveldb_records(log: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: blocks of chunks, and each chunk is a record or a part of one."""
    position, record = 7, b""  # after W&B's header
    while position + _CHUNK.size <= len(log):
        _, length, kind = _CHUNK.unpack_from(log, position)
        position += _CHUNK.size
        record += log[position : position + length]
        position += length
        if kind in {1, 4}:  # a whole record, or its last part
            yield record
            record = b""
        if (left := -position % _BLOCK) < _CHUNK.size:  # too short for another chunk
            position += left


def picture_of(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


class FakeTrackio(SimpleNamespace):
    """The part of trackio that transformers' callback and headnb use; `steps` has what was logged to it.

    As in trackio, `log` needs an open run, and an image is a path, a PIL image or an array of uint8.
    """

    def __init__(self) -> None:
        super().__init__(
            __version__="0.43.0",
            config={},
            steps={},
            context_vars=SimpleNamespace(current_space_id=ContextVar("current_space_id", default=None)),
            open=False,
        )
        self.config = _Config()

    def init(self, **_: Any) -> None:
        self.open = True

    def finish(self) -> None:
        self.open = False

    def log(self, metrics: dict[str, Any], step: int | None = None) -> None:
        if not self.open:
            raise RuntimeError("Call trackio.init() before trackio.log().")
        self.steps.setdefault(metrics["train/global_step"], {}).update(metrics)

    def Image(self, value: np.ndarray, caption: str | None = None) -> np.ndarray:  # noqa: N802  trackio's name
        if value.dtype != np.uint8:
            raise ValueError(f"Invalid value dtype, expected np.uint8, got {value.dtype}")
        return value


class _Config(dict[str, Any]):
    """A run's configuration, whose `update` has an argument that `dict` has not."""

    def update(self, values: dict[str, Any], allow_val_change: bool = False) -> None:  # type: ignore[override]
        super().update(values)
