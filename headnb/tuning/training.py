"""One run of TRL's SFTTrainer, in contexts that put the model, random numbers and settings back, whatever happens."""

# ruff: noqa: ARG002  callbacks of a Trainer have the arguments that it calls them with
from __future__ import annotations

import contextlib
import copy
import logging
import math
import shutil
import time
import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from headnb import hub
from headnb.errors import HeadnbError
from headnb.models.locks import model_lock
from headnb.models.provenance import record_base
from headnb.models.restore import restore_model, restore_random_state
from headnb.models.torch_settings import default_torch_settings
from headnb.tasks.samples import IGNORED
from headnb.tuning.result import FineTuned, tuned_result
from headnb.tuning.run_folder import STATE, step_of
from headnb.tuning.study import FOLDER, read_study
from headnb.tuning.tracking import train_losses
from headnb.tuning.trainer import PrinterCallback, Trainer, TrainerCallback, TrainerState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import xarray as xr
    from peft import PeftConfig
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerControl, TrainingArguments

    from headnb.engine.tokenization import EncodedTask
    from headnb.tuning.head_training import SliceTraining
    from headnb.tuning.tracking import HeadScoreCallback


@dataclass(frozen=True)
class TuningProgress:
    """How far a fine-tuning is."""

    step: int
    """Updates done, those of an earlier run that is resumed included."""
    total: int
    seconds: float
    """Since this run began."""
    seconds_left: float | None
    """None before the first update."""
    train_loss: float
    """Of the last update; NaN before it."""
    tracked: bool
    """Whether tasks were scored since the last report: the study has something new."""
    study: Callable[[], xr.Dataset]
    """What is tracked so far, as `FineTuned.study`."""
    scores: Callable[[], dict[str, xr.Dataset]]
    """As `FineTuned.scores`."""


class TuningInterrupted(KeyboardInterrupt):
    """Ctrl-C during `finetune`; `result` holds what was trained and tracked until then, `step` is the last update."""

    def __init__(self, result: FineTuned, step: int) -> None:
        super().__init__(f"interrupted; {step} steps are done")
        self.result = result
        self.step = step


@dataclass
class TuningRun:
    """One run of the trainer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    encoded: EncodedTask
    callback: HeadScoreCallback
    arguments: dict[str, Any]
    folder: Path
    checkpoint: Path | None
    temporary_folder: Any
    slices: SliceTraining | None = None
    """What alone is trained; None: all that can be."""

    def run(self, adapters: PeftConfig | None, on_progress: Callable[[TuningProgress], None] | None) -> FineTuned:
        interrupted = False
        with (
            _quiet(offline=not self.arguments.get("push_to_hub")),
            default_torch_settings(),
            torch.enable_grad(),
            model_lock(self.model),
            restore_random_state(),
            restore_model(self.model, weights=adapters is not None),
        ):
            own = list(self.model.parameters()) if adapters is not None else []
            if self.slices is not None:
                self.slices.prepare()
            trainer = self._trainer(adapters, on_progress)
            with _restore_weights(own), self.slices.running(trainer) if self.slices else contextlib.nullcontext():
                self.callback.attrs["trained_parameters"] = self._count(trainer.model)
                try:
                    self._train(trainer)
                except KeyboardInterrupt:
                    interrupted = True
                except torch.OutOfMemoryError as error:
                    raise HeadnbError(
                        f"memory is too small for {self.arguments['per_device_train_batch_size']} samples at a time; a "
                        "smaller batch_size with gradient_accumulation_steps, gradient_checkpointing=True or a shorter "
                        "max_length need less"
                    ) from error
                finally:
                    self.callback.close()
                adapter = None if adapters is None else self._save_adapter(trainer)
        result = tuned_result(self.callback.collected, adapter, self.temporary_folder, self.model)
        if interrupted:
            if self.callback.collected.steps:
                self.callback.collected.write()  # how far the adapter beside it is
            raise TuningInterrupted(result, trainer.state.global_step)
        return result

    def _count(self, model: nn.Module) -> int:
        """How many numbers are trained."""
        found = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        return found - (self.slices.frozen_count if self.slices is not None else 0)

    def _train(self, trainer: Any) -> None:
        if self.checkpoint is None:
            trainer.train()
            return
        before = TrainerState.load_from_json(str(self.checkpoint / STATE))
        if before.max_steps <= step_of(self.checkpoint):  # a Trainer would do one step more
            trainer._load_from_checkpoint(str(self.checkpoint))  # noqa: SLF001  the only way to load and not train
            self.callback.collected = study = read_study(self.folder / FOLDER)
            # A run that was killed behind its last checkpoint did not write its last loss any more.
            study.train_loss = train_losses(before)
            if trainer.is_world_process_zero():
                study.write()
            return
        trainer.train(resume_from_checkpoint=str(self.checkpoint))

    def _trainer(self, adapters: PeftConfig | None, on_progress: Callable[[TuningProgress], None] | None) -> Any:
        from datasets import Dataset  # noqa: PLC0415
        from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]  # noqa: PLC0415

        report = [] if on_progress is None else [_ProgressReporter(on_progress, self.callback)]
        try:
            trainer: Any = SFTTrainer(
                model=self.model,
                args=SFTConfig(**self.arguments),
                train_dataset=Dataset.from_list(_rows(self.encoded)),
                processing_class=copy.deepcopy(self.tokenizer),  # it gets a padding token if it has none
                peft_config=copy.deepcopy(adapters),
                callbacks=[self.callback, *report],
            )
        except (ValueError, TypeError, ImportError) as error:
            raise HeadnbError(f"the trainer refuses this: {error}") from error
        trainer.remove_callback(PrinterCallback)
        self.callback.log = partial(Trainer.log, trainer)
        trainer._load_from_checkpoint = partial(_load_in_same_dtype, trainer, trainer._load_from_checkpoint)  # noqa: SLF001
        return trainer

    def _save_adapter(self, trainer: Any) -> Path:
        """The adapter's folder, written beside its place and moved there."""
        place, draft = self.folder / "adapter", self.folder / ".adapter.draft"
        if trainer.is_world_process_zero():
            try:
                trainer.model.save_pretrained(str(draft))
                record_base(trainer.model, draft)
                shutil.rmtree(place, ignore_errors=True)
                draft.replace(place)
            except OSError as error:
                raise HeadnbError(f"the adapter cannot be written to {place}: {error.strerror or error}") from error
        return place


def _load_in_same_dtype(trainer: Any, load: Callable[..., None], *where: Any) -> None:
    """A checkpoint's weights as they were trained: an adapter in bfloat16 (QLoRA) comes back from peft in float32."""
    trained = {name: weight.dtype for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    load(*where)
    for name, dtype in trained.items():
        weight = trainer.model.get_parameter(name)
        weight.data = weight.data.to(dtype)


class _ProgressReporter(TrainerCallback):
    """Tells how far a training is."""

    def __init__(self, report: Callable[[TuningProgress], None], callback: HeadScoreCallback) -> None:
        self._report, self._callback = report, callback
        self._began, self._first = time.perf_counter(), 0
        self._loss = math.nan
        self._tracked: set[int] = set()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._began, self._first = time.perf_counter(), state.global_step
        self._report_progress(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not control.should_log:  # else the loss is about to be known
            self._report_progress(state)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        if "loss" in (logs := given.get("logs") or {}):
            self._loss = float(logs["loss"])
            self._report_progress(state)

    def _report_progress(self, state: TrainerState) -> None:
        seconds, done = time.perf_counter() - self._began, state.global_step - self._first
        tracked = set(self._callback.collected.steps)
        self._report(
            TuningProgress(
                step=state.global_step,
                total=state.max_steps,
                seconds=seconds,
                seconds_left=seconds / done * (state.max_steps - state.global_step) if done else None,
                train_loss=self._loss,
                tracked=tracked != self._tracked,
                study=lambda: self._callback.study,
                scores=lambda: self._callback.scores,
            )
        )
        self._tracked = tracked


def _rows(encoded: EncodedTask) -> list[dict[str, list[int]]]:
    """What SFTTrainer takes as it is: token ids, and 1 where a token is part of the completion."""
    for key, sample in zip(encoded.ids, encoded.samples, strict=True):
        answer = sample.labels != IGNORED
        if (sample.labels[answer] != sample.input_ids[answer]).any():
            raise HeadnbError(f"the labels of sample {key!r} are other tokens than its input_ids; that is not trained")
    return [
        {"input_ids": sample.input_ids.tolist(), "completion_mask": (sample.labels != IGNORED).astype(int).tolist()}
        for sample in encoded.samples
    ]


@contextlib.contextmanager
def _restore_weights(weights: list[nn.Parameter]) -> Iterator[None]:
    """Those of the weights that are trained in place (adapters may be configured to train biases) are put back."""
    trained = [(weight, weight.detach().clone()) for weight in weights if weight.requires_grad]
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, before in trained:
                weight.copy_(before)


@contextlib.contextmanager
def _quiet(*, offline: bool) -> Iterator[None]:
    """Without the reports and bars of the libraries that train, and without their calls to the hub."""
    import datasets  # noqa: PLC0415
    from transformers.utils import logging as reports  # noqa: PLC0415

    loggers = [logging.getLogger(name) for name in ("trl", "peft", "accelerate")]
    levels = [logger.level for logger in loggers]
    level, bars = reports.get_verbosity(), datasets.are_progress_bars_disabled()
    with warnings.catch_warnings(), hub.offline() if offline else contextlib.nullcontext():
        warnings.filterwarnings("ignore", module=r"(trl|transformers|peft|accelerate|torch|datasets)\b")
        try:
            reports.set_verbosity_error()  # type: ignore[no-untyped-call]
            datasets.disable_progress_bars()
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, before in zip(loggers, levels, strict=True):
                logger.setLevel(before)
            reports.set_verbosity(level)
            if not bars:
                datasets.enable_progress_bars()
