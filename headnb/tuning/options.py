"""Checks of the arguments of `finetune`, and defaults of the trainer's options."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from headnb.call_checks import UnknownKeywordError
from headnb.engine.hooks import input_device
from headnb.errors import HeadnbError, optional_import, unknown_name, warn_user
from headnb.scoring.checks import check_loaded
from headnb.tuning.trackers import TRACKERS

if TYPE_CHECKING:
    from collections.abc import Collection

    from peft import PeftConfig

# Trainer options that arguments of finetune set, or that finetune fixes. Values complete an error message.
RESERVED_OPTIONS = {
    "max_steps": "is called steps here",
    "per_device_train_batch_size": "is called batch_size here",
    "resume_from_checkpoint": "is called resume here",
    "completion_only_loss": "is always true here: the loss covers only the completions, as in scoring",
    "assistant_only_loss": "is not needed here: the loss covers only the completions, as in scoring",
    "dataset_kwargs": "is not needed here: the samples are already encoded",
}


def check_options(chosen: dict[str, Any], own: Collection[str], *, steps: int | None, batch_size: int) -> None:
    """Raise an error for unknown or reserved options and for invalid values.

    Args:
        chosen: trainer options given by the user.
        own: names of finetune's own arguments, for suggestions in errors.
        steps: number of updates; None: determined by the epochs.
        batch_size: samples per update and device.
    """
    with optional_import("train"):
        import peft  # noqa: F401, PLC0415
        import trl  # noqa: PLC0415
    known = {option.name: option for option in dataclasses.fields(trl.SFTConfig) if option.init}  # type: ignore[attr-defined]
    for name, value in chosen.items():
        if name in RESERVED_OPTIONS:
            raise UnknownKeywordError(f"{name} {RESERVED_OPTIONS[name]}")
        if name not in known:
            raise UnknownKeywordError(str(unknown_name("argument of finetune", name, {*known, *own})))
        _check_not_text(name, value, known[name].type)
    counts = {"batch_size": batch_size, "gradient_accumulation_steps": chosen.get("gradient_accumulation_steps", 1)}
    for name, count in (counts if steps is None else counts | {"steps": steps}).items():
        if not isinstance(count, Integral) or count < 1:  # the trainer would accept such values with another meaning
            raise HeadnbError(f"{name} must be a whole number of at least 1, not {count!r}")
    if chosen.get("packing") and chosen.get("packing_strategy") == "wrapped":
        raise HeadnbError("packing_strategy='wrapped' splits samples and lets them attend to each other; omit it")


def _check_not_text(name: str, value: object, annotation: object) -> None:
    """Raise an error for text in a boolean or numeric option: the text "false" would be true."""
    kind = getattr(annotation, "__name__", str(annotation)).removesuffix(" | None")
    if isinstance(value, str) and kind in {"bool", "int", "float"}:
        raise HeadnbError(f"{name} must be of type {kind}, not the text {value!r:.60}")


def check_trackers(report_to: str | list[str] | None, output_dir: object) -> None:
    """Raise an error if a tracker is not installed, or if TensorBoard's files would be deleted with the result."""
    for name in [report_to] if isinstance(report_to, str) else report_to or []:
        if name in TRACKERS and importlib.util.find_spec(name) is None:
            raise HeadnbError(f"report_to={name!r} needs {name}: pip install {name}")
        if name == "tensorboard" and output_dir is None and "TENSORBOARD_LOGGING_DIR" not in os.environ:
            raise HeadnbError(
                "report_to='tensorboard' needs output_dir='FOLDER' (--out FOLDER), the folder of TensorBoard's files"
            )


def check_rate(rate: float | None) -> None:
    """Raise an error for a negative learning rate."""
    if rate is not None and rate < 0:
        raise HeadnbError(f"learning_rate must not be negative, got {rate:g}")


def check_model(model: Any, tokenizer: Any, *, inplace: bool) -> None:
    """Raise an error if the model or tokenizer cannot be fine-tuned. Warn about full tuning in 16 bits."""
    if not isinstance(model, PreTrainedModel):
        if hasattr(model, "peft_config"):
            raise HeadnbError("the model already has adapters; merge them with model.merge_and_unload()")
        raise HeadnbError(
            f"the first argument is {type(model).__name__}, not a model; load_model(id) returns model and tokenizer"
        )
    check_loaded(model, tokenizer)
    if tokenizer is None:
        raise HeadnbError("finetune needs the model's tokenizer")
    if _is_quantized(model):
        if inplace:
            raise HeadnbError("the weights of a quantized model cannot be tuned; omit inplace=True to train adapters")
        if importlib.util.find_spec("bitsandbytes") is None:
            raise HeadnbError("tuning a model in 4 or 8 bits needs bitsandbytes: pip install bitsandbytes")
    elif inplace and model.dtype in {torch.bfloat16, torch.float16}:
        warn_user(
            f"the weights are {str(model.dtype).removeprefix('torch.')}, so most updates of full tuning are rounded to "
            'zero; for mixed precision use load_model(..., dtype="float32") and finetune(..., bf16=True)'
        )


def check_adapters(adapters: PeftConfig | None) -> None:
    """Raise an error for adapters whose initialization changes the model's weights irreversibly."""
    initialization = getattr(adapters, "init_lora_weights", None)
    if isinstance(initialization, str) and initialization.lower().startswith(("olora", "pissa_niter")):
        raise HeadnbError(
            f"init_lora_weights={initialization!r} changes the model's own weights irreversibly; use 'pissa', "
            "'gaussian' or True"
        )


def warn_of_router_loss(model: PreTrainedModel, chosen: dict[str, Any]) -> None:
    """Warn if online scores include the gradient of a mixture-of-experts model's router loss."""
    config, given = model.config.get_text_config(), chosen.get("router_aux_loss_coef")
    weight = getattr(config, "router_aux_loss_coef", 0.0) if given is None else given
    if weight and hasattr(config, "output_router_logits"):
        warn_user(
            "online scores include the gradient of the routers' auxiliary loss; router_aux_loss_coef=0.0 turns it off"
        )


def kind_of_tuning(model: PreTrainedModel, *, inplace: bool, other_adapters: bool) -> str:
    """Value of the attribute `kind_of_tuning`: "full", "qlora", "adapter" or "lora"."""
    if inplace:
        return "full"
    if _is_quantized(model):
        return "qlora"
    return "adapter" if other_adapters else "lora"


def defaults(
    model: PreTrainedModel, every: object, steps: int | None, chosen: dict[str, Any], *, keep: bool
) -> dict[str, Any]:
    """Defaults of the trainer's options: no output, the model's device, and checkpoints if `keep`."""
    device = input_device(model).type
    cuda_bf16 = device == "cuda" and torch.cuda.is_bf16_supported()
    save_steps = int(every) if isinstance(every, Integral) else max(1, (steps or 1000) // 10)
    return {
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # the filter would log 0 for a NaN loss
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device == "cuda",
        "bf16": cuda_bf16 and not chosen.get("fp16"),
        "gradient_checkpointing": device != "cpu",  # costs a third more time; main memory is usually sufficient
        "save_strategy": "steps" if keep else "no",
        "save_steps": save_steps,
        "save_total_limit": 1,
    }


def _is_quantized(model: Any) -> bool:
    return bool(getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False))
