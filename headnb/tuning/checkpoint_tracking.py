"""`track_checkpoints`: head scores along a training that is over, from the checkpoints that it left.

One model is in memory at a time: adapters are put on one base one after the other, whole models are loaded one after
the other.
"""

from __future__ import annotations

import json
import math
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.call_checks import check_arguments
from headnb.engine.hooks import find_heads
from headnb.errors import HeadnbError
from headnb.hub import user_path
from headnb.models.checks import model_name
from headnb.models.loading import load_model, load_tokenizer_or_none, load_weights, weights_folder, with_adapter
from headnb.models.locks import model_lock
from headnb.models.model_cache import release_memory
from headnb.models.provenance import loadable_name
from headnb.models.restore import restore_model
from headnb.scoring.registry import find_method
from headnb.scoring.run import score_heads
from headnb.stats.scoring_revision import REVISION, SCORING_REVISION, check_revision
from headnb.tuning.checkpoints import Checkpoint, find_checkpoints, moved_weights
from headnb.tuning.movement import Movement
from headnb.tuning.study import STUDY, Study, TrackedStep, read_study
from headnb.tuning.tracking import tracked_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import xarray as xr
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.engine.tokenization import EncodingName
    from headnb.tasks.loading import Task


class TrackingInterrupted(KeyboardInterrupt):
    """Ctrl-C during `track_checkpoints`; `study` holds the checkpoints that were scored until then."""

    def __init__(self, study: xr.Dataset) -> None:
        super().__init__(f"interrupted; {study.sizes.get('step', 0)} steps are scored")
        self.study = study


@check_arguments
def track_checkpoints(
    checkpoints: str | Path | Sequence[str | Path],
    task: object,
    *,
    base: str | Path | PreTrainedModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    out: str | Path | None = None,
    method: str = "activation",
    batch_tokens: int = 4096,
    max_length: int | None = None,
    encoding: EncodingName = "official",
    device: str = "auto",
    dtype: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Score tasks with every checkpoint of a finished training, of any trainer: whole models or PEFT adapters.

    Args:
        checkpoints: a pattern such as "runs/checkpoint-*", a trainer's output_dir, or several of them. Their order is
            that of their steps.
        task: a task (a `Task` or anything that `load_task` accepts), a list of tasks, or name -> task.
        base: the model that was trained: step 0. Adapters say which it was; for whole models it is left out unless it
            is named. A model that is loaded already is left as it is.
        tokenizer: by default that of the checkpoints, or else of the base.
        out: a folder to write each checkpoint's scores to: the same call again goes on behind the last one, and
            `open_study` reads it, with the scores of every sample.
        method: one of `methods()`.
        batch_tokens: as for `score_heads`.
        max_length: as for `score_heads`.
        encoding: as for `score_heads`.
        device: as for `load_model`.
        dtype: as for `load_model`.
        on_progress: called with the number of checkpoints done (the base is one) and their total; raising in it stops
            the work.

    Returns:
        What `finetune(...).study` is: `level` (step, task, layer, head), `eval_loss` (step, task), `movement` (step,
        layer) from the base, or from the first checkpoint where the base's files are not at hand; `tokens_seen` and
        `train_loss` as far as the trainer noted them; `samples_seen`, which trainers do not note, is NaN.

    Raises:
        HeadnbError: no checkpoints, a mixture of runs, a base that is missing or another one, a bad task, or an `out`
            that holds something else.
        TrackingInterrupted: on Ctrl-C; it holds the checkpoints that are done.
    """
    found = find_checkpoints(checkpoints)
    find_method(method, of_samples=True)
    tasks = tracked_tasks(task)
    models = _CheckpointModels(found, base, tokenizer, device, dtype)
    wanted: list[Checkpoint | None] = [None] if models.has_base and found[0].step else []
    wanted += found
    settings = {
        "model": models.name,
        "kind_of_tuning": "adapter" if found[0].is_adapter else "full",
        "method": method,
        "encoding": encoding,
        "max_length": -1 if max_length is None else max_length,
        REVISION: SCORING_REVISION,
        "tracked": json.dumps({name: each.fingerprint() for name, each in tasks.items()}),
    }
    study = _study(out, settings, found)
    scoring = {"method": method, "batch_tokens": batch_tokens, "max_length": max_length, "encoding": encoding}
    try:
        for done, checkpoint in enumerate(wanted):
            if (0 if checkpoint is None else checkpoint.step) in study.steps:
                continue

            def tick(_: object, done: int = done) -> None:
                if on_progress is not None:
                    on_progress(done, len(wanted))

            tick(None)
            study.add(_score(models, checkpoint, tasks, {**scoring, "on_progress": tick}))
            study.write()
    except KeyboardInterrupt:
        raise TrackingInterrupted(study.dataset()) from None
    if on_progress is not None:
        on_progress(len(wanted), len(wanted))
    return study.dataset()


def _study(out: str | Path | None, settings: dict[str, Any], found: list[Checkpoint]) -> Study:
    """A new study, or the one in `out` if it is of the same."""
    folder = None if out is None else user_path(out)
    stamps = {str(checkpoint.step): checkpoint.file_signature for checkpoint in found}
    study = Study(folder)
    if folder is not None and (folder / STUDY).is_file():
        study = read_study(folder)
        check_revision(folder, study.attrs, settings, "a study")
        differ = [
            f"{name} {study.attrs.get(name)!r:.80}, not {value!r:.80}"
            for name, value in settings.items()
            if study.attrs.get(name) != value
        ]
        if differ:
            raise HeadnbError(f"{folder} holds a study with {'; '.join(differ)}; choose another `out` or remove it")
        stored = json.loads(str(study.attrs["checkpoints"]))
        if changed := [step for step in map(str, study.steps) if step != "0" and stored.get(step) != stamps.get(step)]:
            raise HeadnbError(f"{folder} holds step {changed[0]} of other weights than these; choose another `out`")
    study.attrs |= {**settings, "checkpoints": json.dumps(stamps), "steps_done": found[-1].step}
    study.train_loss = found[-1].train_loss
    return study


def _score(
    models: _CheckpointModels, checkpoint: Checkpoint | None, tasks: dict[str, Task], scoring: dict[str, Any]
) -> TrackedStep:
    with models.at(checkpoint) as (model, tokenizer):
        scores = {name: score_heads(model, tokenizer, task, **scoring) for name, task in tasks.items()}
        movement = models.movement(model, checkpoint)
    tokens = 0.0 if checkpoint is None else checkpoint.tokens_seen
    return TrackedStep(0 if checkpoint is None else checkpoint.step, scores, movement, math.nan, tokens)


@dataclass
class _CheckpointModels:
    """The base and the checkpoints as models, one at a time."""

    found: list[Checkpoint]
    base: str | Path | PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase | None
    device: str
    dtype: str
    _resident: PreTrainedModel | None = None  # the base of adapters

    @property
    def of_adapters(self) -> bool:
        return self.found[0].is_adapter

    @property
    def has_base(self) -> bool:
        return self.base is not None or self.of_adapters

    @property
    def name(self) -> str:
        """What the study calls the model."""
        if isinstance(self.base, (str, Path)) or self.base is None:
            source = str(self.base or self.found[0].base[0]) or self.found[0].folder.resolve().parent.name
            return Path(source).name if Path(source).is_dir() else source
        return model_name(self.base)

    @contextmanager
    def at(self, checkpoint: Checkpoint | None) -> Iterator[tuple[PreTrainedModel, PreTrainedTokenizerBase | None]]:
        """The model of a checkpoint, or the base, and the tokenizer, which is the same for all."""
        release_memory()
        tokenizer = self._find_tokenizer()
        if checkpoint is None:
            yield self._load_base(), tokenizer
        elif checkpoint.is_adapter:
            base = self._load_base()
            with model_lock(base), restore_model(base), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                adapted, _ = with_adapter(base, tokenizer, str(checkpoint.folder.resolve()), trainable=True)
                yield adapted.eval(), tokenizer
        else:
            yield load_weights(checkpoint.folder, self.device, self.dtype), tokenizer

    def movement(self, model: PreTrainedModel, checkpoint: Checkpoint | None) -> np.ndarray:
        """How far each layer moved, (L,). An adapter is spent by it."""
        layout = find_heads(model)
        if checkpoint is None:
            return np.zeros(len(layout.heads))
        if not checkpoint.is_adapter:
            return moved_weights(self._origin(), checkpoint.folder, len(layout.heads))
        distance = Movement(model, layout)
        for name, factor in model.named_parameters():
            if "lora_B" in name:  # without it the weights are the base's
                factor.data.zero_()
        return distance.measure()

    def _load_base(self) -> PreTrainedModel:
        if not isinstance(self.base, (str, Path, NoneType)):
            return self.base
        if self._resident is not None:
            return self._resident
        folder, (named, revision) = self.found[0].folder, self.found[0].base
        source = self.base or named
        if not source:
            raise HeadnbError(f"{folder} does not say which model it adapts; base= names it")
        try:
            model, tokenizer = load_model(
                source, device=self.device, dtype=self.dtype, revision=None if self.base is not None else revision
            )
        except HeadnbError as error:
            if self.base is not None:
                raise
            raise HeadnbError(
                f"{folder} adapts {source!r}, which cannot be loaded ({error}); base= names it"
            ) from error
        self.tokenizer = self.tokenizer or tokenizer
        if self.of_adapters:
            self._resident = model
        return model

    def _find_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The one given, else that of the checkpoints, else the base's."""
        if self.tokenizer is None:
            self.tokenizer = load_tokenizer_or_none(str(self.found[-1].folder))
        if self.tokenizer is None and self.has_base:
            self._load_base()
        return self.tokenizer

    def _origin(self) -> Path:
        """The folder with the weights that movement is measured from."""
        source = str(self.base) if isinstance(self.base, (str, Path)) else loadable_name(self.base)
        folder = weights_folder(source) if source else None
        return folder or self.found[0].folder
