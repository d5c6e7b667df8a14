"""What `finetune` refuses before it begins, and the trainer's options where the user chose none."""

from __future__ import annotations

import dataclasses
import importlib.util
import warnings
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from headnb.call_checks import UnknownKeywordError
from headnb.engine.hooks import input_device
from headnb.errors import HeadnbError, optional_import, unknown_name

if TYPE_CHECKING:
    from collections.abc import Collection

    from peft import PeftConfig

# Options of the trainer that finetune's own arguments decide, or that must be as they are.
RESERVED_OPTIONS = {
    "max_steps": "is called steps here",
    "per_device_train_batch_size": "is called batch_size here",
    "resume_from_checkpoint": "is called resume here",
    "completion_only_loss": "is always true here: the loss is that of the completions, as in scoring",
    "assistant_only_loss": "is not needed here: the loss is that of the completions, as in scoring",
    "dataset_kwargs": "is not needed here: the samples are encoded already",
}


def check_options(chosen: dict[str, Any], own: Collection[str], *, steps: int | None, batch_size: int) -> None:
    """Refuse what the trainer does not know, and what it would understand in another way.

    Args:
        chosen: options of the trainer.
        own: the names of finetune's own arguments, among which a misspelled one may be.
        steps: updates; None for as many as the epochs make.
        batch_size: samples of an update.
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
        if not isinstance(count, Integral) or count < 1:  # the trainer takes no steps for epochs, and 0 for one step
            raise HeadnbError(f"{name} is a whole number from 1 on, not {count!r}")
    if chosen.get("packing") and chosen.get("packing_strategy") == "wrapped":
        raise HeadnbError("packing_strategy='wrapped' cuts samples and lets them attend to each other; leave it out")


def _check_not_text(name: str, value: object, annotation: object) -> None:
    """Refuse text where a trainer's option is a truth value or a number; "false" would be true."""
    kind = getattr(annotation, "__name__", str(annotation)).removesuffix(" | None")
    if isinstance(value, str) and kind in {"bool", "int", "float"}:
        raise HeadnbError(f"{name} must be of type {kind}, not the text {value!r:.60}")


def check_rate(rate: float | None) -> None:
    """Refuse a learning rate that an optimizer refuses."""
    if rate is not None and rate < 0:
        raise HeadnbError(f"learning_rate must not be negative, got {rate:g}")


def check_model(model: Any, tokenizer: Any, *, inplace: bool) -> None:
    """Refuse what is no model that can be tuned so."""
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
            stacklevel=4,
        )


def check_adapters(adapters: PeftConfig | None) -> None:
    """Refuse adapters that rewrite the model's own weights for good, or cannot be put on the model again."""
    begin = getattr(adapters, "init_lora_weights", None)
    if isinstance(begin, str) and begin.lower().startswith(("olora", "pissa_niter")):
        raise HeadnbError(
            f"init_lora_weights={begin!r} takes a part out of the model's own weights that is not found again "
            "afterwards; 'pissa', 'gaussian' or True can be put on and off"
        )


def warn_of_router_loss(model: PreTrainedModel, chosen: dict[str, Any]) -> None:
    """The trainer adds an auxiliary loss of a mixture's routers, and online scores then hold its gradient, too."""
    config, given = model.config.get_text_config(), chosen.get("router_aux_loss_coef")
    weight = getattr(config, "router_aux_loss_coef", 0.0) if given is None else given
    if weight and hasattr(config, "output_router_logits"):
        warnings.warn(
            "online scores hold a share of the routers' auxiliary loss; router_aux_loss_coef=0.0 trains without it",
            stacklevel=4,
        )


def kind_of_tuning(model: PreTrainedModel, *, inplace: bool, other_adapters: bool) -> str:
    """What is tuned, in a word."""
    if inplace:
        return "full"
    if _is_quantized(model):
        return "qlora"
    return "adapter" if other_adapters else "lora"


def defaults(
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
        "logging_nan_inf_filter": False,  # which reports 0 for a loss that is NaN
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device == "cuda",
        "bf16": cuda_bf16 and not chosen.get("fp16"),
        "gradient_checkpointing": device != "cpu",  # a third more work, for memory that main memory has
        "save_strategy": "steps" if keep else "no",
        "save_steps": apart,
        "save_total_limit": 1,
    }


def _is_quantized(model: Any) -> bool:
    return bool(getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False))
