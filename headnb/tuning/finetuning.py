"""`finetune`: supervised fine-tuning with TRL's SFTTrainer, with head scores along the way.

Samples are encoded by `encoding` and given to the trainer as token ids and a mask of the completion, so that training
and scoring see the same tokens. The trainer works inside contexts that put the model, random numbers and settings
back, whatever happens.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from headnb.ablation import checked_heads
from headnb.capture import find_heads, frozen, input_device
from headnb.encoding import encode_task
from headnb.errors import HeadnbError, UnknownKeywordError, missing_extra, unknown_name
from headnb.model_checks import model_name
from headnb.scoring.run import context_length, model_lock
from headnb.tasks import Task, known_tasks, load_task
from headnb.tuning.head_slices import head_slices
from headnb.tuning.head_training import SliceTraining, lora_of_slices
from headnb.tuning.tracking import HeadScoreCallback, tracked_tasks
from headnb.tuning.training import TuningProgress, TuningRun, open_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peft import PeftConfig
    from transformers import PreTrainedTokenizerBase

    from headnb.encoding import EncodingName
    from headnb.tuning.tuned import FineTuned

TRACKED = 64  # samples of a tracked task, where none were chosen
MADE = 4096  # samples of a procedural task at the most
ADAPTER_RATE = 2e-4
FULL_RATE = 2e-5
# Options of the trainer that finetune's own arguments decide, or that must be as they are.
DECIDED = {
    "max_steps": "is called steps here",
    "per_device_train_batch_size": "is called batch_size here",
    "resume_from_checkpoint": "is called resume here",
    "completion_only_loss": "is always true here: the loss is that of the completions, as in scoring",
    "assistant_only_loss": "is not needed here: the loss is that of the completions, as in scoring",
    "dataset_kwargs": "is not needed here: the samples are encoded already",
}


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
        max_length: cut longer samples to so many tokens, in training and in scoring.
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
    _check_arguments(training_arguments)
    _check_model(model, tokenizer, inplace=inplace)
    train = _train_task(task, seed, (steps or 0) * batch_size)
    callback = HeadScoreCallback(
        _tracked(task, track, held_out, train, seed),
        tokenizer=tokenizer,
        every=every,
        online=online,
        method=method,
        max_length=max_length,
        encoding=encoding,
    )
    encoded = encode_task(train, tokenizer, encoding=encoding, max_length=max_length, context=context_length(model))
    rate = learning_rate if learning_rate is not None else (FULL_RATE if inplace else ADAPTER_RATE)
    callback.attrs = {
        "model": model_name(model),
        "trained_on": train.name,
        "trained_on_fingerprint": train.fingerprint(),
        "kind_of_tuning": _kind(model, inplace=inplace, other_adapters=peft_config is not None),
        "steps": -1 if steps is None else steps,
        "seed": seed,
        "batch_size": batch_size,
        "learning_rate": rate,
    }
    slices = None
    if heads is not None:
        with model_lock(model), frozen(model):
            layout = find_heads(model)
        chosen = checked_heads(heads, layout)
        slices = head_slices(model, layout, chosen)
        callback.attrs |= {"kind_of_tuning": "heads" if inplace else "lora of heads", "heads": ",".join(chosen)}
    adapters = None if inplace else lora_of_slices(slices, peft_config) if slices else peft_config or _lora()
    kept = tempfile.TemporaryDirectory(prefix="headnb-") if output_dir is None else None
    folder = Path(output_dir or kept.name).expanduser()  # type: ignore[union-attr]
    tracked = {name: tracked.fingerprint() for name, tracked in callback.tasks.items()}
    scoring = {"method": method, "encoding": encoding, "max_length": max_length, "tracked": tracked}
    checkpoint = open_folder(folder, callback.attrs | scoring, resume=resume)
    arguments = {
        **_defaults(model, every, steps, training_arguments, keep=output_dir is not None),
        "learning_rate": rate,
        "seed": seed,
        "max_length": max_length,  # for packing; else the samples are cut already
        **training_arguments,
        "output_dir": str(folder),
        "max_steps": -1 if steps is None else steps,
        "per_device_train_batch_size": batch_size,
        "completion_only_loss": True,
    }
    if training_arguments.get("packing") and max_length is None:
        del arguments["max_length"]  # the trainer's own is the length of a pack
    alone = None if slices is None else SliceTraining(model, slices, inplace=inplace)
    tuning = TuningRun(model, tokenizer, encoded, callback, arguments, folder, checkpoint, kept, alone)
    return tuning.run(adapters, on_progress)


def _kind(model: PreTrainedModel, *, inplace: bool, other_adapters: bool) -> str:
    """What is tuned, in a word."""
    if inplace:
        return "full"
    if _is_quantized(model):
        return "qlora"
    return "adapter" if other_adapters else "lora"


def _lora() -> PeftConfig:
    from peft import LoraConfig  # noqa: PLC0415

    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


def _defaults(
    model: PreTrainedModel, every: object, steps: int | None, chosen: dict[str, Any], *, keep: bool
) -> dict[str, Any]:
    """The trainer's options where the user chose none: quiet, on the model's device, resumable where files are kept."""
    device = input_device(model).type
    cuda_bf16 = device == "cuda" and torch.cuda.is_bf16_supported()
    apart = every if isinstance(every, int) else max(1, (steps or 1000) // 10)
    return {
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device == "cuda",
        "bf16": cuda_bf16 and not chosen.get("fp16"),
        "gradient_checkpointing": device != "cpu",  # a third more work, for memory that main memory has
        "save_strategy": "steps" if keep else "no",
        "save_steps": apart,
        "save_total_limit": 1,
    }


def _check_arguments(chosen: dict[str, Any]) -> None:
    try:
        import peft  # noqa: F401, PLC0415
        import trl  # noqa: PLC0415
    except ImportError as error:
        raise missing_extra(error.name or "trl", "train") from error
    known = {option.name for option in dataclasses.fields(trl.SFTConfig) if option.init}  # type: ignore[attr-defined]
    for name in chosen:
        if name in DECIDED:
            raise UnknownKeywordError(f"{name} {DECIDED[name]}")
        if name not in known:
            own = inspect.signature(finetune).parameters.keys() - {"training_arguments"}
            raise UnknownKeywordError(str(unknown_name("argument of finetune", name, known | own)))


def _check_model(model: Any, tokenizer: Any, *, inplace: bool) -> None:
    if not isinstance(model, PreTrainedModel):
        if hasattr(model, "peft_config"):
            raise HeadnbError("the model has adapters already; model.merge_and_unload() makes them a part of it")
        raise HeadnbError(
            f"the first argument is {type(model).__name__}, not a model; load_model(id) gives model and tokenizer"
        )
    if not callable(tokenizer):
        raise HeadnbError(f"the second argument is {type(tokenizer).__name__}, not the model's tokenizer")
    if _is_quantized(model):
        if inplace:
            raise HeadnbError("the weights of a quantized model cannot be tuned; without inplace=True adapters are")
        if importlib.util.find_spec("bitsandbytes") is None:
            raise HeadnbError("tuning a model in 4 or 8 bits needs bitsandbytes: pip install bitsandbytes")
    elif inplace and model.dtype in {torch.bfloat16, torch.float16}:
        warnings.warn(
            f"the weights are {str(model.dtype).removeprefix('torch.')}, in which most updates of full tuning round to "
            'nothing; load_model(..., dtype="float32") and bf16=True train in mixed precision',
            stacklevel=3,
        )


def _is_quantized(model: Any) -> bool:
    return bool(getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False))


def _train_task(source: Any, seed: int, samples: int) -> Task:
    if isinstance(source, Task):
        return source
    if isinstance(source, str):
        card = known_tasks().get(source)
        endless = card is not None and card.procedural
        return load_task(source, split="train", n=max(1, min(samples, MADE)) if endless else None, seed=seed)
    return load_task(source, split="train")


def _tracked(source: Any, track: Any, held_out: Any, train: Task, seed: int) -> dict[str, Task]:
    """Name -> task, of all that is scored along the way."""

    def named(value: Any) -> Any:
        """A name stands for some samples of its test split."""
        if not isinstance(value, str) or Path(value).is_file():
            return value
        whole = load_task(value, split="test")
        return _some(whole, seed)

    if track is None:
        default = source if isinstance(source, str) else _some(train, seed)
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


def _some(task: Task, seed: int) -> Task:
    return task if len(task) <= TRACKED else load_task(task, n=TRACKED, seed=seed)
