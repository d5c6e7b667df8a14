"""One run of TRL's SFTTrainer. Contexts restore the model, the random state and the settings, also after an error."""

from __future__ import annotations

import contextlib
import copy
import logging
import shutil
import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from headnb import hub
from headnb.errors import HeadnbError
from headnb.models.half_precision import float32_products
from headnb.models.locks import model_lock
from headnb.models.provenance import record_base
from headnb.models.restore import restore_model, restore_random_state
from headnb.models.torch_settings import default_torch_settings
from headnb.tasks.row_values import IGNORED
from headnb.tuning.answer_losses import answer_losses_only
from headnb.tuning.progress import ProgressReporter
from headnb.tuning.result import FineTuned, tuned_result
from headnb.tuning.run_folder import STATE, step_of
from headnb.tuning.study import FOLDER, read_study
from headnb.tuning.trackers import TRACKERS
from headnb.tuning.tracking import train_losses
from headnb.tuning.trainer import PrinterCallback, Trainer, TrainerState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from peft import PeftConfig
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.engine.tokenization import EncodedTask
    from headnb.tuning.head_training import SliceTraining
    from headnb.tuning.progress import TuningProgress
    from headnb.tuning.tracking import HeadScoreCallback


class TuningInterrupted(KeyboardInterrupt):
    """Ctrl-C during `finetune`. `result` is the result of the finished updates, `step` their number."""

    def __init__(self, result: FineTuned, step: int) -> None:
        super().__init__(f"interrupted after {step} steps")
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
    """The trained slices of selected heads; None: no selection."""

    def run(self, adapters: PeftConfig | None, on_progress: Callable[[TuningProgress], None] | None) -> FineTuned:
        interrupted = False
        with (
            _quiet(offline=not any(map(self.arguments.get, ("push_to_hub", "trackio_space_id")))),
            default_torch_settings(),
            float32_products(self.model),
            torch.enable_grad(),
            model_lock(self.model),
            restore_random_state(),
            restore_model(self.model, weights=adapters is not None),
            answer_losses_only(),
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
                        f"out of memory with batch_size {self.arguments['per_device_train_batch_size']}; use a smaller "
                        "batch_size with gradient_accumulation_steps, gradient_checkpointing=True, or a smaller "
                        "max_length"
                    ) from error
                finally:
                    self.callback.close()
                adapter = None if adapters is None else self._save_adapter(trainer)
        result = tuned_result(self.callback.collected, adapter, self.temporary_folder, self.model)
        if interrupted:
            if self.callback.collected.steps:
                self.callback.collected.write()  # records the step of the saved adapter
            raise TuningInterrupted(result, trainer.state.global_step)
        return result

    @property
    def _samples_of_update(self) -> int:
        accumulated = int(self.arguments.get("gradient_accumulation_steps", 1))
        return int(self.arguments["per_device_train_batch_size"]) * accumulated

    def _count(self, model: nn.Module) -> int:
        """Number of trained parameters."""
        trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        return trainable - (self.slices.frozen_count if self.slices is not None else 0)

    def _train(self, trainer: Any) -> None:
        if self.checkpoint is None:
            trainer.train()
            return
        state = TrainerState.load_from_json(str(self.checkpoint / STATE))
        if state.max_steps <= step_of(self.checkpoint):  # a Trainer would do one more step
            trainer._load_from_checkpoint(str(self.checkpoint))  # noqa: SLF001  loads without training
            self.callback.collected = study = read_study(self.folder / FOLDER)
            # The study lacks the last loss if the run was killed after its last checkpoint.
            study.train_loss = train_losses(state)
            if trainer.is_world_process_zero():
                study.write()
            return
        trainer.train(resume_from_checkpoint=str(self.checkpoint))

    def _trainer(self, adapters: PeftConfig | None, on_progress: Callable[[TuningProgress], None] | None) -> Any:
        from datasets import Dataset  # noqa: PLC0415
        from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]  # noqa: PLC0415

        report = [] if on_progress is None else [ProgressReporter(on_progress, self.callback, self._samples_of_update)]
        try:
            trainer: Any = SFTTrainer(
                model=self.model,
                args=SFTConfig(**self.arguments),
                train_dataset=Dataset.from_list(_rows(self.encoded)),
                processing_class=copy.deepcopy(self.tokenizer),  # the trainer may add a padding token
                peft_config=copy.deepcopy(adapters),
                callbacks=[self.callback, *report],
            )
        except (ValueError, TypeError, ImportError) as error:
            raise HeadnbError(f"SFTTrainer raised an error: {error}") from error
        trainer.remove_callback(PrinterCallback)
        if set(trainer.args.report_to) - TRACKERS.keys():  # other trackers get the numbers only
            self.callback.log = partial(Trainer.log, trainer)
        trainer._load_from_checkpoint = partial(_load_in_same_dtype, trainer, trainer._load_from_checkpoint)  # noqa: SLF001
        return trainer

    def _save_adapter(self, trainer: Any) -> Path:
        """Save the adapter under a temporary name, rename the folder, and return its path."""
        folder, draft = self.folder / "adapter", self.folder / ".adapter.draft"
        if trainer.is_world_process_zero():
            try:
                trainer.model.save_pretrained(str(draft))
                record_base(trainer.model, draft)
                shutil.rmtree(folder, ignore_errors=True)
                draft.replace(folder)
            except OSError as error:
                raise HeadnbError(f"the adapter cannot be written to {folder}: {error.strerror or error}") from error
        return folder


def _load_in_same_dtype(trainer: Any, load: Callable[..., None], *arguments: Any) -> None:
    """Load a checkpoint without a change of dtype: peft loads an adapter in bfloat16 (QLoRA) as float32."""
    trained = {name: weight.dtype for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    load(*arguments)
    for name, dtype in trained.items():
        weight = trainer.model.get_parameter(name)
        weight.data = weight.data.to(dtype)


def _rows(encoded: EncodedTask) -> list[dict[str, list[int]]]:
    """Rows for SFTTrainer: token ids, and a mask that is 1 for tokens of the completion."""
    for key, sample in zip(encoded.ids, encoded.samples, strict=True):
        answer = sample.labels != IGNORED
        if (sample.labels[answer] != sample.input_ids[answer]).any():
            raise HeadnbError(f"labels of sample {key!r} differ from its input_ids; such labels cannot be trained")
    return [
        {"input_ids": sample.input_ids.tolist(), "completion_mask": (sample.labels != IGNORED).astype(int).tolist()}
        for sample in encoded.samples
    ]


@contextlib.contextmanager
def _restore_weights(weights: list[nn.Parameter]) -> Iterator[None]:
    """Restore the trainable weights on exit. An adapter configuration may train biases of the model."""
    trained = [(weight, weight.detach().clone()) for weight in weights if weight.requires_grad]
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, before in trained:
                weight.copy_(before)


@contextlib.contextmanager
def _quiet(*, offline: bool) -> Iterator[None]:
    """Suppress warnings, logs and progress bars of the training libraries, and their calls to the hub if `offline`."""
    import datasets  # noqa: PLC0415
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    loggers = [logging.getLogger(name) for name in ("trl", "peft", "accelerate")]
    levels = [logger.level for logger in loggers]
    verbosity, bars_disabled = transformers_logging.get_verbosity(), datasets.are_progress_bars_disabled()
    with warnings.catch_warnings(), hub.offline() if offline else contextlib.nullcontext():
        warnings.filterwarnings("ignore", module=r"(trl|transformers|peft|accelerate|torch|datasets)\b")
        try:
            transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
            datasets.disable_progress_bars()
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, before in zip(loggers, levels, strict=True):
                logger.setLevel(before)
            transformers_logging.set_verbosity(verbosity)
            if not bars_disabled:
                datasets.enable_progress_bars()
