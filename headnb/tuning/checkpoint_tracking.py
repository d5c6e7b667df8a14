"""`track_checkpoints`: head scores of the saved checkpoints of a finished training.

One model is in memory at a time. Full models are loaded in turn. Adapters are applied to one base model: LoRA adapters
of equal configuration wrap it once, and each checkpoint only loads its factors.
"""

from __future__ import annotations

import json
import math
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.call_checks import check_arguments
from headnb.engine.hooks import find_heads
from headnb.errors import HeadnbError, first_line, warn_user
from headnb.hub import user_path
from headnb.models.checks import model_name
from headnb.models.loading import load_model, load_tokenizer_or_none, load_weights, weights_folder, with_adapter
from headnb.models.locks import model_lock
from headnb.models.model_cache import release_memory
from headnb.models.provenance import adapter_config, loadable_name
from headnb.models.restore import restore_model
from headnb.scoring.progress_bars import counted, with_progress_bar
from headnb.scoring.registry import find_method
from headnb.scoring.run import score_heads
from headnb.stats.scoring_revision import REVISION, SCORING_REVISION, check_revision
from headnb.tuning.checkpoints import Checkpoint, find_checkpoints, moved_weights
from headnb.tuning.movement import Movement, layer_finder
from headnb.tuning.study import STUDY, Study, TrackedStep, read_study
from headnb.tuning.tracked_tasks import tracked_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import xarray as xr
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.engine.tokenization import EncodingName
    from headnb.tasks.loading import Task


class TrackingInterrupted(KeyboardInterrupt):
    """Ctrl-C during `track_checkpoints`; `study` contains the checkpoints scored before the interrupt."""

    def __init__(self, study: xr.Dataset) -> None:
        super().__init__(f"interrupted after {study.sizes.get('step', 0)} scored steps")
        self.study = study


@check_arguments
@with_progress_bar(counted("scoring", "checkpoints"))
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
    """Score tasks with every checkpoint of a finished training run. Checkpoints are full models or PEFT adapters.

    Any trainer may have written the checkpoints.

    Args:
        checkpoints: a pattern such as "runs/checkpoint-*", a trainer's output_dir, or a list of these. Checkpoints are
            sorted by step.
        task: a task (a `Task` or anything that `load_task` accepts), a list of tasks, or name -> task.
        base: the model before fine-tuning, which is step 0. Adapters name their base model. Checkpoints of full models
            have no step 0 unless `base` is given. A loaded model is not changed.
        tokenizer: default: the tokenizer of the checkpoints, else that of the base model.
        out: folder for the scores of each checkpoint. Run the same call again to resume. `open_study` reads the folder,
            with the scores of every sample.
        method: one of `methods()`.
        batch_tokens: as for `score_heads`.
        max_length: as for `score_heads`.
        encoding: as for `score_heads`.
        device: as for `load_model`.
        dtype: as for `load_model`.
        on_progress: called with the number of finished checkpoints and their total, both including the base model. An
            exception raised in it stops the call. None: a progress bar in notebooks and terminals.

    Returns:
        A study like `finetune(...).study`: `level` (step, task, layer, head), `eval_loss` (step, task) and `movement`
        (step, layer). Movement is relative to the base model; without a base model, to the first checkpoint. It is NaN,
        with a warning, if the weights of `base` are not available. If the trainer did not record them, `tokens_seen` is
        NaN and `train_loss` is missing. `samples_seen` is NaN, because trainers do not record it.

    Raises:
        HeadnbError: there are no checkpoints, they are of different runs, the base model is missing or does not fit,
            the task is invalid, or `out` contains a different study.
        TrackingInterrupted: on Ctrl-C; it contains the finished checkpoints.
    """
    saved = find_checkpoints(checkpoints)
    find_method(method, of_samples=True)
    tasks = tracked_tasks(task)
    scoring = {"method": method, "batch_tokens": batch_tokens, "max_length": max_length, "encoding": encoding}

    models = _CheckpointModels(saved, base, tokenizer, device, dtype)
    study = _open_study(out, _settings(models, tasks, scoring), models)
    with_base = models.has_base and saved[0].step > 0
    with models.base_restored:
        _score_checkpoints(study, models, [None, *saved] if with_base else saved, tasks, scoring, on_progress)
    return study.dataset()


def _settings(models: _CheckpointModels, tasks: dict[str, Task], scoring: dict[str, Any]) -> dict[str, Any]:
    """Settings that must be equal in two calls that write to the same folder."""
    return {
        "model": models.name,
        "kind_of_tuning": "adapter" if models.of_adapters else "full",
        "method": scoring["method"],
        "encoding": scoring["encoding"],
        "max_length": -1 if scoring["max_length"] is None else scoring["max_length"],
        REVISION: SCORING_REVISION,
        "tracked": json.dumps({name: task.fingerprint() for name, task in tasks.items()}),
    }


def _score_checkpoints(
    study: Study,
    models: _CheckpointModels,
    checkpoints: Sequence[Checkpoint | None],
    tasks: dict[str, Task],
    scoring: dict[str, Any],
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Score the checkpoints (None: the base model) that the study does not contain, and add them to it."""

    def report(done: int) -> None:
        if on_progress is not None:
            on_progress(done, len(checkpoints))

    try:
        for done, checkpoint in enumerate(checkpoints):
            if (0 if checkpoint is None else checkpoint.step) in study.steps:
                continue

            def report_batch(_: object, done: int = done) -> None:
                report(done)

            report(done)
            study.add(_score(models, checkpoint, tasks, {**scoring, "on_progress": report_batch}))
            study.write()
    except KeyboardInterrupt:
        raise TrackingInterrupted(study.dataset()) from None
    report(len(checkpoints))


def _open_study(out: str | Path | None, settings: dict[str, Any], models: _CheckpointModels) -> Study:
    """A new study, or the study in `out` if its settings and the weights of its checkpoints are the same."""
    folder, checkpoints = None if out is None else user_path(out), models.checkpoints
    signatures = {str(checkpoint.step): checkpoint.file_signature for checkpoint in checkpoints}
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
            raise HeadnbError(f"{folder} contains a study with {'; '.join(differ)}; choose another `out` or remove it")
        stored = json.loads(str(study.attrs["checkpoints"]))
        listed = [step for step in map(str, study.steps) if step in signatures]
        if changed := [step for step in listed if stored.get(step) != signatures[step]]:
            raise HeadnbError(f"{folder} contains scores of step {changed[0]} with other weights; choose another `out`")
        first = min(study.steps, default=checkpoints[0].step)
        if not models.has_base and first != checkpoints[0].step:
            raise HeadnbError(
                f"{folder} contains movement from the checkpoint of step {first}, but the first one given is step "
                f"{checkpoints[0].step}; give the same first checkpoint, or choose another `out`"
            )
        signatures = stored | signatures  # scored checkpoints that were deleted since then stay in the study
    last = max(checkpoints[-1].step, *study.steps, 0)
    study.attrs |= {**settings, "checkpoints": json.dumps(signatures), "steps_done": last}
    study.train_loss |= checkpoints[-1].train_loss
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
    """Loads the base model and the checkpoints, one at a time."""

    checkpoints: list[Checkpoint]
    base: str | Path | PreTrainedModel | None
    tokenizer: PreTrainedTokenizerBase | None
    device: str
    dtype: str
    base_restored: ExitStack = field(default_factory=ExitStack)
    """Context that removes the adapters from the base model on exit."""
    _adapter_base: PreTrainedModel | None = None  # the loaded base model of the adapters
    _wrapped: Any = None  # the base model with the adapter of the current checkpoint
    _config: dict[str, Any] | None = None  # its configuration, if checkpoints with the same one can share it
    _distance: Movement | None = None  # from the base model to the wrapped one

    @property
    def of_adapters(self) -> bool:
        return self.checkpoints[0].is_adapter

    @property
    def has_base(self) -> bool:
        return self.base is not None or self.of_adapters

    @property
    def name(self) -> str:
        """Name of the model in the study."""
        if isinstance(self.base, (str, Path)) or self.base is None:
            source = str(self.base or self.checkpoints[0].base[0]) or self.checkpoints[0].folder.resolve().parent.name
            return Path(source).name if Path(source).is_dir() else source
        return model_name(self.base)

    @contextmanager
    def at(self, checkpoint: Checkpoint | None) -> Iterator[tuple[PreTrainedModel, PreTrainedTokenizerBase | None]]:
        """The model of a checkpoint (None: the base model), and the tokenizer, which all checkpoints share."""
        tokenizer = self._find_tokenizer()
        if checkpoint is None:
            yield self._load_base(), tokenizer
        elif checkpoint.is_adapter:
            yield self._adapted(checkpoint), tokenizer
        else:
            release_memory()
            yield load_weights(checkpoint.folder, self.device, self.dtype), tokenizer

    def _adapted(self, checkpoint: Checkpoint) -> Any:
        """The base model with the adapter of a checkpoint, until the next call or the end of `base_restored`."""
        folder, config = checkpoint.folder.resolve(), _plain_lora(checkpoint.folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._wrapped is None or config is None or config != self._config:
                self._wrapped = self._distance = None
                self.base_restored.close()
                base = self._load_base()
                self.base_restored.enter_context(model_lock(base))
                self.base_restored.enter_context(restore_model(base))
                self._wrapped, _ = with_adapter(base, self.tokenizer, str(folder), trainable=True)
                self._config = config
            else:
                _load_factors(self._wrapped, folder)
        return self._wrapped.eval()

    def movement(self, model: PreTrainedModel, checkpoint: Checkpoint | None) -> np.ndarray:
        """Relative parameter distance of each layer from the base model, (L,)."""
        layout = find_heads(model)
        if checkpoint is None:
            return np.zeros(len(layout.heads))
        if not checkpoint.is_adapter:
            origin = self._origin()
            if origin is None:
                warn_user(f"the weights of {self.name} cannot be read one at a time; movement is not available")
                return np.full(len(layout.heads), np.nan)
            return moved_weights(origin, checkpoint.folder, layer_finder(model, layout), len(layout.heads))
        if self._distance is None:
            self._distance = Movement(model, layout, from_base=True)
        return self._distance.measure()

    def _load_base(self) -> PreTrainedModel:
        if not isinstance(self.base, (str, Path, NoneType)):
            return self.base
        if self._adapter_base is not None:
            return self._adapter_base
        folder, (named, revision) = self.checkpoints[0].folder, self.checkpoints[0].base
        source = self.base or named
        if not source:
            raise HeadnbError(f"{folder} does not name its base model; give it with base=")
        try:
            model, tokenizer = load_model(
                source, device=self.device, dtype=self.dtype, revision=None if self.base is not None else revision
            )
        except HeadnbError as error:
            if self.base is not None:
                raise
            raise HeadnbError(
                f"{folder} adapts {source!r}, which cannot be loaded ({error}); give the base model with base="
            ) from error
        self.tokenizer = self.tokenizer or tokenizer
        if self.of_adapters:
            self._adapter_base = model
        return model

    def _find_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The given tokenizer, else that of the checkpoints, else that of the base model."""
        if self.tokenizer is None:
            self.tokenizer = load_tokenizer_or_none(str(self.checkpoints[-1].folder))
        if self.tokenizer is None and self.has_base:
            self._load_base()
        return self.tokenizer

    def _origin(self) -> Path | PreTrainedModel | None:
        """The weights that movement is relative to: a folder, or a loaded model without files. None: not available."""
        if self.base is None:
            return self.checkpoints[0].folder
        if isinstance(self.base, (str, Path)):
            return weights_folder(str(self.base))
        source = loadable_name(self.base)
        return (weights_folder(source) if source else None) or self.base


def _plain_lora(folder: Path) -> dict[str, Any] | None:
    """The configuration of a LoRA adapter that is its factors alone; None if it also changes weights of the model."""
    config = {
        name: sorted(map(str, value)) if isinstance(value, list) else value
        for name, value in adapter_config(folder).items()
    }
    others = ("modules_to_save", "trainable_token_indices", "target_parameters", "corda_config", "eva_config")
    plain = config.get("peft_type") == "LORA" and config.get("bias", "none") == "none"
    plain = plain and config.get("init_lora_weights", True) in (True, False, "gaussian")
    return config if plain and not any(map(config.get, others)) else None


def _load_factors(wrapped: Any, folder: Path) -> None:
    """Load the LoRA factors in `folder` into a model that has an adapter of the same configuration."""
    try:
        missing = wrapped.load_adapter(str(folder), wrapped.active_adapter, is_trainable=True).missing_keys
    except (RuntimeError, ValueError, KeyError) as error:
        raise HeadnbError(f"the adapter {folder} does not fit {model_name(wrapped)}: {first_line(error)}") from error
    if missing:  # they would keep the values of the checkpoint before
        raise HeadnbError(f"the adapter {folder} has no weights {missing[0]}")
    wrapped.headnb_adapter = folder.name
