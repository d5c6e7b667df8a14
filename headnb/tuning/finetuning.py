"""`finetune`: supervised fine-tuning with TRL's SFTTrainer, with head scores tracked during the training.

Samples are encoded by headnb. The trainer receives token ids and a mask of the completion, so that training and scoring
use the same tokens. Context managers restore the model, the random state and the settings, also after an error.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headnb.call_checks import MAX_TRAINING_SEED, check_arguments, checked_seed
from headnb.engine.hooks import find_heads
from headnb.engine.model_contexts import frozen
from headnb.engine.packing import check_packed_training
from headnb.errors import HeadnbError, warn_user
from headnb.hub import user_path
from headnb.models.checks import model_name
from headnb.models.fingerprint import weights_fingerprint
from headnb.models.locks import model_lock
from headnb.scoring.ablation import checked_heads
from headnb.scoring.checks import checked_task
from headnb.scoring.progress_bars import Shown, with_progress_bar
from headnb.stats.scoring_revision import REVISION, SCORING_REVISION
from headnb.storage.locks import write_lock
from headnb.tasks.loading import Task, is_endless, load_task
from headnb.tuning.budget import BUDGET, subsample
from headnb.tuning.head_slices import head_slices
from headnb.tuning.head_training import SliceTraining, lora_of_slices
from headnb.tuning.options import (
    check_adapters,
    check_model,
    check_options,
    check_rate,
    check_trackers,
    defaults,
    kind_of_tuning,
    warn_of_router_loss,
)
from headnb.tuning.run_folder import BASE, began_with_other_weights, open_folder, training_settings
from headnb.tuning.tracked_answers import ANSWER_TOKENS
from headnb.tuning.tracked_tasks import tracked_tasks
from headnb.tuning.tracking import HeadScoreCallback
from headnb.tuning.training import TuningRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.engine.tokenization import EncodedTask, EncodingName
    from headnb.tuning.head_slices import HeadSlice
    from headnb.tuning.progress import TuningProgress
    from headnb.tuning.result import FineTuned

TRACKED_SAMPLES = 64  # default number of samples of a tracked task
MAX_PROCEDURAL_SAMPLES = 4096  # maximum number of samples of a procedural task
MIN_PACK_TOKENS = 1024  # minimum length of a row of packed samples
ADAPTER_RATE = 2e-4
FULL_RATE = 2e-5


def _tuned(progress: TuningProgress) -> Shown:
    return Shown(progress.step, progress.total, progress.activity, "steps", progress.tracking)


@check_arguments
@with_progress_bar(_tuned)
def finetune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task | Any,
    *,
    steps: int | None = 200,
    track: object = None,
    every: int | Iterable[int] | None = None,
    samples: int | None = None,
    budget: float | None = None,
    online: bool = False,
    inplace: bool = False,
    held_out: Task | Any = None,
    output_dir: str | Path | None = None,
    resume: bool = False,
    seed: int = 0,
    batch_size: int = 8,
    learning_rate: float | None = None,
    max_length: int | None = None,
    encoding: EncodingName = "official",
    method: str = "activation",
    answers: int = 0,
    max_new_tokens: int = ANSWER_TOKENS,
    peft_config: PeftConfig | None = None,
    heads: str | Iterable[str] | None = None,
    on_progress: Callable[[TuningProgress], None] | None = None,
    **training_arguments: Any,
) -> FineTuned:
    """Fine-tune a model on a task, and track how its head scores change.

    The default trains LoRA adapters and leaves the weights of `model` bitwise unchanged. A model that was loaded in 4
    bits is trained in the same way (QLoRA).

    Args:
        model: a causal decoder without adapters.
        tokenizer: the model's tokenizer.
        task: a `Task`, or anything that `load_task` accepts; a name stands for the task's train split.
        steps: number of updates. None: `num_train_epochs` determines it.
        track: tasks that are scored during training: a task, a list or tuple of tasks, or name -> task. A name stands
            for at most 64 samples of the task's test split (more if `samples` is more); a `Task`, a file or samples for
            all of their samples. None: `held_out` if given; else `task`, of which at most 64 samples are tracked, from
            memory, a file or a name. []: no tracked tasks.
        every: number of steps between two tracked steps, or a list of tracked steps such as [0, 1, 2, 5, 10]. The last
            step is always tracked. None: chosen by `budget`.
        samples: number of samples of each tracked task, a random subset. None: all that `track` stands for if `every`
            is given without `budget`, else chosen by `budget`. A resumed training keeps the samples of its first call.
        budget: maximum tracking time as a share of the training time; default 0.25, unless `every` is given. It
            determines `every` and `samples` where they are not given, from the measured time of a scored batch and of a
            training step; a line before training, also in `study.attrs["tracking"]`, states the choice and its cost.
            Step 0 and the last step are always tracked, with at least 8 samples.
        online: also score the training batches, in the backward pass of the training.
        inplace: train all weights of `model` itself.
        held_out: a task that is not trained on; it is tracked too, with its loss.
        output_dir: folder for checkpoints, the adapter and the study. None: a temporary folder that is deleted with the
            result.
        resume: resume from the last checkpoint in `output_dir`; without a checkpoint the training starts at step 0.
        seed: seed of the adapter's initial weights, the sample order, and dropout.
        batch_size: samples per update and device; `gradient_accumulation_steps` multiplies it.
        learning_rate: default: 2e-4 for adapters, 2e-5 for `inplace`.
        max_length: truncate longer samples to this many tokens, in training and in scoring. Samples that lose all
            answer tokens are left out. `study.attrs` counts both: `train_truncated` and `train_left_out`.
        encoding: as for `score_heads`.
        method: score method of the tracked tasks, one of `methods()`.
        answers: at every tracked step, generate answers to so many samples of each tracked task and compare them with
            the expected ones (`evaluate`), for `study["exact_match"]`. `budget` does not contain the time for this.
        max_new_tokens: maximum number of generated tokens of one answer.
        peft_config: the adapter. Default: LoRA of rank 16 on all linear layers.
        heads: train only these heads: "L3H5,L7H1", or the result of `choose_heads`. The trained slices are those of the
            query and output projections, and those of key/value heads whose query heads are all selected. With
            `inplace=True` all other weights stay bitwise unchanged; otherwise the LoRA is zero outside the slices.
        on_progress: called with a `TuningProgress` before the first update, after every update, and before and after
            each scored batch of a tracked task. None: a progress bar in notebooks and terminals.
        **training_arguments: any option of TRL's SFTConfig or transformers' TrainingArguments. `report_to` ("none" by
            default) may be "tensorboard", "wandb" or "trackio", which also receive numbers and the grid of every
            tracked step (docs/logging.md).

    Raises:
        HeadnbError: the input is invalid, an option is unknown (the error names the nearest option), an optional
            dependency is missing, memory is insufficient, or `output_dir` contains another fine-tuning.
        TuningInterrupted: on Ctrl-C; it contains the result of the finished steps.
    """
    own = inspect.signature(finetune).parameters.keys() - {"training_arguments"}
    check_options(training_arguments, own, steps=steps, batch_size=batch_size)
    check_trackers(training_arguments.get("report_to"), output_dir)
    check_rate(learning_rate)
    checked_seed(seed, most=MAX_TRAINING_SEED)
    check_model(model, tokenizer, inplace=inplace)
    check_adapters(peft_config)
    settings = _Settings(
        model,
        steps=None if steps is None else int(steps),
        batch_size=int(batch_size),
        learning_rate=learning_rate if learning_rate is not None else (FULL_RATE if inplace else ADAPTER_RATE),
        max_length=max_length,
        seed=seed,
        inplace=inplace,
        peft_config=peft_config,
        trainer=training_arguments,
    )

    train = _train_task(task, seed, settings.samples)
    scoring: dict[str, Any] = {"method": method, "encoding": encoding, "max_length": max_length}
    tracked = _tracked_tasks(task, track, held_out, train, seed, max(samples or 0, TRACKED_SAMPLES))
    budget = BUDGET if budget is None and every is None and tracked else budget
    counts: dict[str, Any] = {"every": every, "samples": samples, "budget": budget}
    asked: dict[str, Any] = {"answers": answers, "max_new_tokens": max_new_tokens}
    callback = HeadScoreCallback(tracked, tokenizer=tokenizer, online=online, **counts, **asked, **scoring)
    encoded = checked_task(model, tokenizer, train, encoding=encoding, max_length=max_length).encoded

    settings.check_packing()
    if online:
        warn_of_router_loss(model, training_arguments)
    chosen, slices = _slices_of_heads(model, heads)
    adapters = settings.adapters(slices)
    callback.attrs = settings.attributes(train, chosen)

    temporary_folder = tempfile.TemporaryDirectory(prefix="headnb-") if output_dir is None else None
    folder = user_path(output_dir or temporary_folder.name)  # type: ignore[union-attr]
    record = settings.record(callback, scoring, adapters)
    callback.attrs |= {"train_left_out": len(encoded.left_out), "train_truncated": encoded.truncated}
    with _folder_lock(folder, needed=output_dir is not None):
        checkpoint = open_folder(folder, record, resume=resume, inplace=inplace)
        if checkpoint is not None and began_with_other_weights(folder, record):
            warn_user(
                "the resumed training started from other weights than the model has now; movement is not available"
            )
            callback.forget_movement()
        arguments = settings.trainer_arguments(encoded, folder, every, keep=output_dir is not None)
        selected = None if slices is None else SliceTraining(model, slices, inplace=inplace)
        tuning = TuningRun(
            model, tokenizer, encoded, callback, arguments, folder, checkpoint, temporary_folder, selected
        )
        return tuning.run(adapters, on_progress)


def _folder_lock(folder: Path, *, needed: bool) -> AbstractContextManager[None]:
    """Lock that permits one fine-tuning per folder. Processes of a distributed training share the lock of rank 0."""
    first = os.environ.get("RANK", "0") == "0"
    return write_lock(folder, "a fine-tuning") if first and needed else contextlib.nullcontext()


@dataclass(frozen=True)
class _Settings:
    """Checked arguments of `finetune`, with defaults filled in."""

    model: PreTrainedModel
    steps: int | None
    batch_size: int
    learning_rate: float
    max_length: int | None
    seed: int
    inplace: bool
    peft_config: PeftConfig | None
    trainer: dict[str, Any]
    """Trainer options given by the user."""

    @property
    def samples(self) -> int | None:
        """Number of samples used by all updates; None if `num_train_epochs` determines it."""
        of_update = self.batch_size * self.trainer.get("gradient_accumulation_steps", 1)
        return None if self.steps is None else self.steps * of_update

    def check_packing(self) -> None:
        """Raise an error if samples are packed and the model cannot separate packed samples."""
        if self.trainer.get("packing") or self.trainer.get("padding_free"):
            with model_lock(self.model):
                check_packed_training(self.model)

    def adapters(self, slices: list[HeadSlice] | None) -> PeftConfig | None:
        """Configuration of the trained adapters; None if the model's own weights are trained."""
        if self.inplace:
            return None
        return lora_of_slices(slices, self.peft_config) if slices else self.peft_config or _lora()

    def attributes(self, train: Task, heads: list[str]) -> dict[str, Any]:
        """Attributes of the study: model, task and training settings."""
        kind = kind_of_tuning(self.model, inplace=self.inplace, other_adapters=self.peft_config is not None)
        of_heads = {"kind_of_tuning": "heads" if self.inplace else "lora of heads", "heads": ",".join(heads)}
        return {
            "model": model_name(self.model),
            "trained_on": train.name,
            "trained_on_fingerprint": train.fingerprint(),
            "kind_of_tuning": kind,
            "steps": -1 if self.steps is None else self.steps,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
        } | (of_heads if heads else {})

    def record(
        self, callback: HeadScoreCallback, scoring: dict[str, Any], adapters: PeftConfig | None
    ) -> dict[str, Any]:
        """Settings stored in `output_dir`, which identify this fine-tuning."""
        tracked = {name: task.fingerprint() for name, task in callback.tasks.items()}
        with model_lock(self.model):  # another run may have added adapters to the model
            base = weights_fingerprint(self.model)
        about = {REVISION: SCORING_REVISION, **scoring, **callback.answers.settings, "tracked": tracked}
        return callback.attrs | about | training_settings(adapters, self.trainer) | {BASE: base}

    def trainer_arguments(self, encoded: EncodedTask, folder: Path, every: object, *, keep: bool) -> dict[str, Any]:
        """The arguments of TRL's SFTConfig."""
        arguments = {
            **defaults(self.model, every, self.steps, self.trainer, keep=keep),
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "max_length": self.max_length,  # used for packing only: the samples are already truncated
            **self.trainer,
            "output_dir": str(folder),
            "max_steps": -1 if self.steps is None else self.steps,
            "per_device_train_batch_size": self.batch_size,
            "completion_only_loss": True,
        }
        if self.trainer.get("packing"):  # length of a packed row; the trainer would truncate longer samples
            arguments["max_length"] = self.max_length or max(MIN_PACK_TOKENS, int(encoded.lengths.max()))
        return arguments


def _slices_of_heads(
    model: PreTrainedModel, heads: str | Iterable[str] | None
) -> tuple[list[str], list[HeadSlice] | None]:
    """Names of the selected heads and their slices of the weights; ([], None) without a selection."""
    if heads is None:
        return [], None
    with model_lock(model), frozen(model):
        layout = find_heads(model)
    chosen = checked_heads(heads, layout)
    return chosen, head_slices(model, layout, chosen)


def _lora() -> PeftConfig:
    from peft import LoraConfig  # noqa: PLC0415

    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def _train_task(source: Any, seed: int, samples: int | None) -> Task:
    """The task to train on. A procedural task gets the `samples` that are used, at most `MAX_PROCEDURAL_SAMPLES`."""
    if isinstance(source, Task):
        return source
    if not is_endless(source):
        return load_task(source, split="train", seed=seed)
    if samples is None:
        raise HeadnbError(f"{source} generates unlimited samples, so it has no epochs; give the updates with steps=")
    return load_task(source, split="train", n=min(samples, MAX_PROCEDURAL_SAMPLES), seed=seed)


def _tracked_tasks(source: Any, track: Any, held_out: Any, train: Task, seed: int, most: int) -> dict[str, Task]:
    """Name -> task, for all tasks that are scored during the training."""

    def is_name(value: Any) -> bool:
        return isinstance(value, str) and not user_path(value).is_file()

    def named(value: Any) -> Any:
        """Replace a task name by a random subset of the task's test split."""
        if not is_name(value):
            return value
        test_split = load_task(value, split="test")
        return subsample(test_split, most, seed)

    if track is None:
        default = source if is_name(source) else subsample(train, most, seed)
        tasks = {} if held_out is not None else tracked_tasks(named(default))
    elif isinstance(track, Mapping):
        tasks = tracked_tasks({name: named(task) for name, task in track.items()})
    elif isinstance(track, (list, tuple)):
        tasks = tracked_tasks([named(task) for task in track])
    else:
        tasks = tracked_tasks(named(track))
    if held_out is not None:
        given = list(tracked_tasks(named(held_out)).values())
        if len(given) != 1:
            raise HeadnbError(f"held_out must be one task, not {len(given)}; track other tasks with track=[...]")
        (task,) = given
        tasks |= {task.name if task.name not in tasks else f"{task.name} (held out)": task}
    return tasks
