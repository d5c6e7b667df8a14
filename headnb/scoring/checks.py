"""Checks of the models, tokenizers and samples given to a call, and the diagnosis of scores that are not finite."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from headnb.call_checks import check_arguments
from headnb.engine.batching import collate
from headnb.engine.hooks import head_outputs, input_device
from headnb.engine.model_contexts import frozen
from headnb.engine.tokenization import EncodedTask, encode_task
from headnb.errors import HeadnbError
from headnb.models.checks import check_weights, context_length, is_offloaded
from headnb.tasks.loading import Task, load_task

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedModel

    from headnb.engine.tokenization import EncodedSample, EncodingName


class CheckedTask(NamedTuple):
    """A task whose samples are encoded for a model and checked against it."""

    task: Task
    encoded: EncodedTask


@check_arguments
def checked_task(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: CheckedTask | Task | Any,
    *,
    encoding: EncodingName = "official",
    max_length: int | None = None,
) -> CheckedTask:
    """Check model and tokenizer, load the task, encode its samples and check their tokens.

    Args:
        model: as for `score_heads`.
        tokenizer: as for `score_heads`.
        task: a `Task`, or anything that `load_task` accepts; a checked task is returned unchanged.
        encoding: as for `score_heads`.
        max_length: as for `score_heads`.

    Raises:
        HeadnbError: as for `check_loaded`, `load_task`, `encode_task` and `check_tokens`.
    """
    if isinstance(task, CheckedTask):
        return task
    check_loaded(model, tokenizer)
    task = task if isinstance(task, Task) else load_task(task)
    encoded = encode_task(task, tokenizer, encoding=encoding, max_length=max_length, context=context_length(model))
    check_tokens(encoded, model)
    return CheckedTask(task, encoded)


def check_loaded(model: object, tokenizer: object) -> None:
    """Raise HeadnbError if the first argument is not a model with weights, or the second is not a tokenizer or None."""
    if not (isinstance(model, torch.nn.Module) and hasattr(model, "config") and hasattr(model, "get_input_embeddings")):
        raise HeadnbError(
            f"the first argument is {type(model).__name__}, not a model; load_model(id) returns model and tokenizer"
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase | None):
        inside = "; give its attribute tokenizer" if hasattr(tokenizer, "tokenizer") else ""
        raise HeadnbError(f"the second argument is {type(tokenizer).__name__}, not a tokenizer{inside}")
    if any(weight.is_meta for weight in model.parameters()) and not is_offloaded(model):
        raise HeadnbError("the model has no weights: it is on the meta device")


def check_tokens(encoded: EncodedTask, model: PreTrainedModel) -> None:
    """Raise HeadnbError for token ids outside the vocabulary: they crash a CPU run and break a CUDA process."""
    vocabulary = model.get_input_embeddings().weight.shape[0]  # type: ignore[index]
    for sample_id, sample in zip(encoded.ids, encoded.samples, strict=True):
        lowest, highest = int(sample.input_ids.min()), int(max(sample.input_ids.max(), sample.labels.max()))
        if lowest < 0 or highest >= vocabulary:
            token = lowest if lowest < 0 else highest
            raise HeadnbError(
                f"sample {sample_id!r} has token id {token}, but the model's vocabulary has {vocabulary} tokens; check "
                "that the tokenizer belongs to the model"
            )


def check_left_padding(
    score: Callable[..., tuple[torch.Tensor, torch.Tensor]], samples: Sequence[EncodedSample], dtype: torch.dtype
) -> None:
    """Check on two samples that padding on the left does not change the scores.

    The samples are the shortest one and the longest one that would be padded. Some decoders count positions from the
    start of the row including padding (bart), carry a state through padding (recurrent_gemma), or pool over windows of
    positions (deepseek_v4). No attention mask corrects their scores.

    Args:
        score: a `Scorer` without `prepare`: scores (B, L, H) and losses (B,) of a batch.
        samples: the samples to be scored.
        dtype: dtype of the model, which determines the rounding error.

    Raises:
        HeadnbError: the scores differ by more than rounding.
    """
    tolerance = max(1e-3, 32 * torch.finfo(dtype).eps)  # 0.25 in bfloat16, where rounding changes the choice of experts
    by_length = sorted(samples, key=len)
    longest = by_length[-1]
    shorter = [sample for sample in by_length if len(sample) < len(longest)]
    for sample in shorter[:1] + shorter[1:][-1:]:
        alone, _ = score(collate([sample]), budget=1)
        padded, _ = score(collate([sample, longest], side="left"), budget=1)
        expected, actual = alone[0].nan_to_num(), padded[0].nan_to_num()  # (L, H)
        if (actual - expected).norm() > tolerance * expected.norm():
            raise HeadnbError("padding on the left changes the scores of this model; use padding_side='right'")


def explain_not_finite(model: PreTrainedModel, sample: EncodedSample) -> str:
    """Locate where a sample's values stop being finite, and give advice; continues an error message, may be empty.

    Raises:
        HeadnbError: weights of the model are NaN or infinite (`check_weights`).
    """
    check_weights(model)
    broken: list[int] = []

    def check(layer: int, O: torch.Tensor) -> torch.Tensor:
        if not O.isfinite().all():
            broken.append(layer)
        return O

    ids = torch.from_numpy(sample.input_ids)[None].to(input_device(model))
    ignore_out_of_memory = contextlib.suppress(RuntimeError)
    with ignore_out_of_memory, torch.no_grad(), frozen(model), head_outputs(model, check, layers=()):
        model(input_ids=ids, use_cache=False)
    where = f"; head outputs are not finite from layer {min(broken)} on" if broken else ""
    if getattr(model, "dtype", None) == torch.float16:
        where += "; float16 overflows above 65504: use load_model(..., dtype='bfloat16') or 'float32'"
    return where
