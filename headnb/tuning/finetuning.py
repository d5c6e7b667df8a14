"""`finetune`: supervised fine-tuning with TRL's SFTTrainer, with head scores along the way.

Samples are encoded by `encoding` and given to the trainer as token ids and a mask of the completion, so that training
and scoring see the same tokens. The trainer works inside contexts that put the model, random numbers and settings
back, whatever happens.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headnb.call_checks import MAX_TRAINING_SEED, check_arguments, checked_seed
from headnb.engine.hooks import find_heads, frozen
from headnb.engine.packing import check_packed_training
from headnb.engine.tokenization import encode_task
from headnb.errors import HeadnbError
from headnb.hub import user_path
from headnb.models.checks import context_length, model_name
from headnb.models.fingerprint import weights_fingerprint
from headnb.models.locks import model_lock
from headnb.scoring.ablation import checked_heads
from headnb.stats.scoring_revision import REVISION, SCORING_REVISION
from headnb.storage.locks import write_lock
from headnb.tasks.loading import Task, known_tasks, load_task
from headnb.tuning.head_slices import head_slices
from headnb.tuning.head_training import SliceTraining, lora_of_slices
from headnb.tuning.options import (
    check_adapters,
    check_model,
    check_options,
    check_rate,
    defaults,
    kind_of_tuning,
    warn_of_router_loss,
)
from headnb.tuning.run_folder import BASE, began_with_other_weights, open_folder, training_settings
from headnb.tuning.tracking import HeadScoreCallback, tracked_tasks
from headnb.tuning.training import TuningProgress, TuningRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.engine.tokenization import EncodedTask, EncodingName
    from headnb.tuning.head_slices import HeadSlice
    from headnb.tuning.result import FineTuned

TRACKED_SAMPLES = 64  # samples of a tracked task, where none were chosen
MAX_PROCEDURAL_SAMPLES = 4096  # samples of a procedural task at the most
MIN_PACK_TOKENS = 1024  # tokens of a row of packed samples at least
ADAPTER_RATE = 2e-4
FULL_RATE = 2e-5


@check_arguments
def finetune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task | Any,
    *,
    steps: int | None = 200,
    track: object = None,
    every: int | Iterable[int] = 20,
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
    peft_config: PeftConfig | None = None,
    heads: str | Iterable[str] | None = None,
    on_progress: Callable[[TuningProgress], None] | None = None,
    **training_arguments: Any,
) -> FineTuned:
    """Fine-tune a model on a task, and track what happens to its heads.

    By default LoRA adapters are trained, and the model is afterwards as it was, bit for bit. A model that was loaded
    in 4 bits is trained the same way (QLoRA).

    Args:
        model: a causal decoder without adapters.
        tokenizer: its tokenizer.
        task: a `Task`, or anything that `load_task` accepts; a name stands for its train split.
        steps: updates. None: as many as `num_train_epochs` makes.
        track: what is scored along the way: a task, a list, or name -> task; a name stands for 64 samples of its
            test split. None: `held_out`, or else `task` itself. [] tracks nothing.
        every: so many steps apart, or the steps themselves: [0, 1, 2, 5, 10]. The last step is always tracked.
        online: score the training batches too, in the training's own backward pass.
        inplace: tune all weights of `model` itself.
        held_out: a task that is not trained on; it is tracked too, with its loss.
        output_dir: for checkpoints, the adapter and what is tracked. None: a folder that goes with the result.
        resume: go on from the last checkpoint in `output_dir`, or begin if there is none.
        seed: of adapters, order of samples, and dropout.
        batch_size: samples of an update on each device; `gradient_accumulation_steps` multiplies them.
        learning_rate: 2e-4 for adapters and 2e-5 for all weights, unless given.
        max_length: cut longer samples to so many tokens, in training and in scoring. Those without an answer token
            then are left out; how many is in `study.attrs`: `train_left_out` and `train_truncated`.
        encoding: as for `score_heads`.
        method: what is tracked, one of `methods()`.
        peft_config: of other adapters than LoRA of rank 16 on all linear layers.
        heads: tune these heads alone, "L3H5,L7H1" or what `choose_heads` gives: their slices of the query and output
            projections, and a key/value head's if all heads that share it are chosen. With `inplace=True` all other
            weights keep every bit; without, the adapter is a LoRA that is zero outside the slices.
        on_progress: called with a `TuningProgress` before the first update and after each.
        **training_arguments: any option of TRL's SFTConfig or transformers' TrainingArguments.

    Raises:
        HeadnbError: bad input, an unknown option (the nearest is named), an extra that is missing, memory that is too
            small, or an `output_dir` that holds another fine-tuning.
        TuningInterrupted: on Ctrl-C; it holds what was trained and tracked.
    """
    own = inspect.signature(finetune).parameters.keys() - {"training_arguments"}
    check_options(training_arguments, own, steps=steps, batch_size=batch_size)
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
    tracked = _tracked_tasks(task, track, held_out, train, seed)
    callback = HeadScoreCallback(tracked, tokenizer=tokenizer, every=every, online=online, **scoring)
    encoded = encode_task(train, tokenizer, encoding=encoding, max_length=max_length, context=context_length(model))

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
            warnings.warn("the model's weights are tuned already: movement from here on is not known", stacklevel=3)
            callback.forget_movement()
        arguments = settings.trainer_arguments(encoded, folder, every, keep=output_dir is not None)
        alone = None if slices is None else SliceTraining(model, slices, inplace=inplace)
        tuning = TuningRun(model, tokenizer, encoded, callback, arguments, folder, checkpoint, temporary_folder, alone)
        return tuning.run(adapters, on_progress)


def _folder_lock(folder: Path, *, needed: bool) -> AbstractContextManager[None]:
    """One fine-tuning at a time in a folder; the processes that a launcher starts for one training share its lock."""
    first = os.environ.get("RANK", "0") == "0"
    return write_lock(folder, "a fine-tuning") if first and needed else contextlib.nullcontext()


@dataclass(frozen=True)
class _Settings:
    """How a model is tuned: what `finetune` was asked for, checked and with its defaults."""

    model: PreTrainedModel
    steps: int | None
    batch_size: int
    learning_rate: float
    max_length: int | None
    seed: int
    inplace: bool
    peft_config: PeftConfig | None
    trainer: dict[str, Any]
    """Options of the trainer that were given."""

    @property
    def samples(self) -> int | None:
        """How many the updates use; None where epochs decide."""
        of_update = self.batch_size * self.trainer.get("gradient_accumulation_steps", 1)
        return None if self.steps is None else self.steps * of_update

    def check_packing(self) -> None:
        """Refuse packed samples where the model cannot keep them apart."""
        if self.trainer.get("packing") or self.trainer.get("padding_free"):
            with model_lock(self.model):
                check_packed_training(self.model)

    def adapters(self, slices: list[HeadSlice] | None) -> PeftConfig | None:
        """The adapters that are trained; None where the model's own weights are."""
        if self.inplace:
            return None
        return lora_of_slices(slices, self.peft_config) if slices else self.peft_config or _lora()

    def attributes(self, train: Task, heads: list[str]) -> dict[str, Any]:
        """Attributes of the study: what is trained on what, and how."""
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
        """What `output_dir` keeps, to tell this fine-tuning from another one."""
        tracked = {name: task.fingerprint() for name, task in callback.tasks.items()}
        with model_lock(self.model):  # another run may have put adapters into it
            base = weights_fingerprint(self.model)
        about = {REVISION: SCORING_REVISION, **scoring, "tracked": tracked}
        return callback.attrs | about | training_settings(adapters, self.trainer) | {BASE: base}

    def trainer_arguments(self, encoded: EncodedTask, folder: Path, every: object, *, keep: bool) -> dict[str, Any]:
        """The arguments of TRL's SFTConfig."""
        arguments = {
            **defaults(self.model, every, self.steps, self.trainer, keep=keep),
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "max_length": self.max_length,  # for packing; else the samples are cut already
            **self.trainer,
            "output_dir": str(folder),
            "max_steps": -1 if self.steps is None else self.steps,
            "per_device_train_batch_size": self.batch_size,
            "completion_only_loss": True,
        }
        if self.trainer.get("packing"):  # the length of a pack, to which longer samples would be cut
            arguments["max_length"] = self.max_length or max(MIN_PACK_TOKENS, int(encoded.lengths.max()))
        return arguments


def _slices_of_heads(
    model: PreTrainedModel, heads: str | Iterable[str] | None
) -> tuple[list[str], list[HeadSlice] | None]:
    """The heads that are tuned alone, and their slices of the weights; None: all weights are tuned."""
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
    """The task to train on; of a procedural one as many `samples` as are used, but not more than are worth making."""
    if isinstance(source, Task):
        return source
    if isinstance(source, str):
        card = known_tasks().get(source)
        if card is None or not card.procedural:
            return load_task(source, split="train", seed=seed)
        if samples is None:
            raise HeadnbError(f"{source} has no end, so there are no epochs of it; steps= says how many updates to do")
        return load_task(source, split="train", n=min(samples, MAX_PROCEDURAL_SAMPLES), seed=seed)
    return load_task(source, split="train")


def _tracked_tasks(source: Any, track: Any, held_out: Any, train: Task, seed: int) -> dict[str, Task]:
    """Name -> task, of all that is scored along the way."""

    def named(value: Any) -> Any:
        """A name stands for some samples of its test split."""
        if not isinstance(value, str) or Path(value).is_file():
            return value
        whole = load_task(value, split="test")
        return _subsample(whole, seed)

    if track is None:
        default = source if isinstance(source, str) else _subsample(train, seed)
        tasks = {} if held_out is not None else tracked_tasks(named(default))
    elif isinstance(track, Mapping):
        tasks = tracked_tasks({name: named(task) for name, task in track.items()})
    elif isinstance(track, list):
        tasks = tracked_tasks([named(task) for task in track])
    else:
        tasks = tracked_tasks(named(track))
    if held_out is not None:
        (task,) = tracked_tasks(named(held_out)).values()
        tasks |= {task.name if task.name not in tasks else f"{task.name} (held out)": task}
    return tasks


def _subsample(task: Task, seed: int) -> Task:
    return task if len(task) <= TRACKED_SAMPLES else load_task(task, n=TRACKED_SAMPLES, seed=seed)
