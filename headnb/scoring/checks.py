"""Models and samples that `score_heads` refuses, and the cause of scores that are not finite."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

from headnb.engine.batching import collate
from headnb.engine.hooks import frozen, head_outputs, input_device
from headnb.errors import HeadnbError
from headnb.models.checks import check_weights, is_offloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedModel

    from headnb.engine.tokenization import EncodedSample, EncodedTask


def check_loaded(model: object, tokenizer: object) -> None:
    """Refuse what is not a model with weights, or not a tokenizer."""
    if not isinstance(model, torch.nn.Module) or not hasattr(model, "config"):
        raise HeadnbError(
            f"the first argument is {type(model).__name__}, not a model; load_model(id) gives model and tokenizer"
        )
    if tokenizer is not None and not callable(tokenizer):
        raise HeadnbError(f"the second argument is {type(tokenizer).__name__}, not a tokenizer")
    if any(weight.is_meta for weight in model.parameters()) and not is_offloaded(model):
        raise HeadnbError("the model has no weights: it is on the meta device")


def check_tokens(encoded: EncodedTask, model: PreTrainedModel) -> None:
    """Token ids outside the vocabulary would be a crash on a CPU, and an unusable process on CUDA."""
    vocabulary = model.get_input_embeddings().weight.shape[0]  # type: ignore[index]
    for key, sample in zip(encoded.ids, encoded.samples, strict=True):
        lowest, highest = int(sample.input_ids.min()), int(max(sample.input_ids.max(), sample.labels.max()))
        if lowest < 0 or highest >= vocabulary:
            token = lowest if lowest < 0 else highest
            raise HeadnbError(
                f"sample {key!r} has the token {token}, and the model has {vocabulary}; is this the model's tokenizer?"
            )


def check_left_padding(
    score: Callable[..., tuple[torch.Tensor, torch.Tensor]], samples: Sequence[EncodedSample], dtype: torch.dtype
) -> None:
    """Score the shortest sample, and the longest one that would be padded, with padding on the left and without.

    Some decoders count positions from the row's first place, padding or not (bart), carry a state through the padding
    (recurrent_gemma) or pool over windows of places (deepseek_v4), and no mask keeps their scores right.

    Args:
        score: a `Scorer` that needs no survey: scores (B, L, H) and losses (B,) of a batch.
        samples: what is going to be scored.
        dtype: of the model, which says how much is rounding.

    Raises:
        HeadnbError: the scores differ by more than rounding.
    """
    tolerance = max(1e-3, 32 * torch.finfo(dtype).eps)  # a quarter in bfloat16, where rounding changes experts' routes
    by_length = sorted(samples, key=len)
    longest = by_length[-1]
    shorter = [sample for sample in by_length if len(sample) < len(longest)]
    for sample in shorter[:1] + shorter[1:][-1:]:
        alone, _ = score(collate([sample]), budget=1)
        padded, _ = score(collate([sample, longest], side="left"), budget=1)
        expected, found = alone[0].nan_to_num(), padded[0].nan_to_num()  # (L, H)
        if (found - expected).norm() > tolerance * expected.norm():
            raise HeadnbError("this model gives other scores when padding is on the left; use padding_side='right'")


def explain_not_finite(model: PreTrainedModel, sample: EncodedSample) -> str:
    """What can be said of a sample whose loss or scores are not finite, and what to do: the rest of a sentence.

    Raises:
        HeadnbError: the weights themselves are NaN or infinite (`check_weights`).
    """
    check_weights(model)
    broken: list[int] = []

    def look(layer: int, O: torch.Tensor) -> torch.Tensor:
        if not O.isfinite().all():
            broken.append(layer)
        return O

    ids = torch.from_numpy(sample.input_ids)[None].to(input_device(model))
    short_of_memory = contextlib.suppress(RuntimeError)
    with short_of_memory, torch.no_grad(), frozen(model), head_outputs(model, look, layers=()):
        model(input_ids=ids, use_cache=False)
    where = f"; head outputs are not finite from layer {min(broken)} on" if broken else ""
    if getattr(model, "dtype", None) == torch.float16:
        where += "; float16 ends at 65504: load_model(..., dtype='bfloat16') or 'float32' has room"
    return where
