"""`compare_adapter`: the effect of an adapter on the head scores, without a second copy of the model."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from headnb.call_checks import check_arguments
from headnb.engine.losses import find_loss_computer
from headnb.errors import HeadnbError
from headnb.models.checks import model_name
from headnb.models.locks import model_lock
from headnb.models.restore import restore_model
from headnb.scoring.progress_bars import scored, with_progress_bar
from headnb.scoring.run import score_heads
from headnb.stats.paired import compare
from headnb.tasks.loading import Task, load_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import xarray as xr
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.engine.tokenization import EncodingName
    from headnb.scoring.progress import Progress
    from headnb.stats.labelled import Scores


@check_arguments
@with_progress_bar(scored)
def compare_adapter(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task | Any,
    *,
    alpha: float = 0.05,
    scale_free: bool = False,
    method: str = "activation",
    batch_tokens: int = 4096,
    max_length: int | None = None,
    encoding: EncodingName = "official",
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> Scores:
    """Score a model with and without its active adapters, and compare the scores.

    Args:
        model: a model wrapped by peft, or with adapters added by transformers. It is not changed.
        tokenizer: the model's tokenizer; None if the samples are already encoded.
        task: a `Task`, or anything that `load_task` accepts.
        alpha: as for `compare`.
        scale_free: as for `compare`.
        method: as for `score_heads`.
        batch_tokens: as for `score_heads`.
        max_length: as for `score_heads`.
        encoding: as for `score_heads`.
        seed: seed of the batch order and of the random numbers of `compare`.
        on_progress: as for `score_heads`, which runs twice: first without the adapters. None: a progress bar in
            notebooks and terminals.

    Returns:
        The result of `compare(before, after)`. `before` is the model without its adapters.

    Raises:
        HeadnbError: there is no adapter, or the adapters are disabled or merged into the weights. Also every error of
            `score_heads`, for example for adapters that add tokens to the samples (prompt tuning, p-tuning).
    """
    adapters = _active_adapters(model)
    task = task if isinstance(task, Task) else load_task(task)

    def scored() -> xr.Dataset:
        return score_heads(
            model,
            tokenizer,
            task,
            method=method,
            batch_tokens=batch_tokens,
            max_length=max_length,
            encoding=encoding,
            seed=seed,
            on_progress=on_progress,
        )

    with model_lock(model):
        find_loss_computer(model)  # raises early if the model cannot be scored with its adapters
        with restore_model(model), _without_adapters(model):
            before = scored()
        after = scored()
    name = getattr(model, "headnb_adapter", "")
    bare = model_name(model).removesuffix(f" + {name}")
    before.attrs["model"], after.attrs["model"] = bare, f"{bare} + {name or ' + '.join(adapters)}"
    return compare(before, after, alpha=alpha, seed=seed, scale_free=scale_free)


def _active_adapters(model: PreTrainedModel) -> list[str]:
    """Names of the active adapters.

    Raises:
        HeadnbError: there is no adapter, or no adapter that can be disabled.
    """
    layers: list[Any] = [
        module for module in model.modules() if hasattr(module, "active_adapters") and hasattr(module, "merged")
    ]
    if not layers and getattr(model, "peft_config", None):  # a peft wrapper without adapter layers
        return _active_outside_layers(model)
    if not layers:
        raise HeadnbError(f"{model_name(model)} has no adapter to compare; load_model(id, adapter=...) adds one")
    if any(layer.merged for layer in layers):
        raise HeadnbError("the adapter is merged into the weights; undo this with model.unmerge_adapter()")
    if any(getattr(config, "bias", "none") != "none" for config in getattr(model, "peft_config", {}).values()):
        raise HeadnbError(
            "the adapter replaced biases of the model, so the base model cannot be restored from it; "
            "load the base model separately and use compare(before, after)"
        )
    if disabled := sum(bool(layer.disable_adapters) for layer in layers):
        some = "" if disabled == len(layers) else f" in {disabled} of {len(layers)} layers"
        raise HeadnbError(f"the adapters are disabled{some}; enable them first")
    return list(dict.fromkeys(name for layer in layers for name in layer.active_adapters))


def _active_outside_layers(model: Any) -> list[str]:
    """The active adapter of a type without adapter layers: prefix tuning, LLaMA-Adapter."""
    if getattr(model, "_adapters_disabled", False):
        raise HeadnbError("the adapter is disabled; enable it first")
    return [model.active_adapter]


@contextmanager
def _without_adapters(model: Any) -> Iterator[None]:
    """Disable the adapters inside the context. `restore_model` restores the gradient flags that peft changes."""
    if hasattr(model, "disable_adapter"):  # peft's wrapper
        with model.disable_adapter():
            yield
    else:  # transformers' own integration
        model.disable_adapters()
        try:
            yield
        finally:
            model.enable_adapters()
