"""Replacement of head outputs: O becomes factor * O + value, where value is zero or the head's mean over tokens.

Zero ablation removes two parts of a head's output: the part that varies with the token, and the mean over tokens, which
later layers use like a bias. Mean ablation removes only the part that varies.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from headnb.call_checks import check_arguments
from headnb.engine.batching import collate, plan_batches
from headnb.engine.hooks import find_head, find_heads, head_outputs
from headnb.engine.model_contexts import frozen
from headnb.engine.packing import max_batch_tokens
from headnb.head_names import head_name, parse_heads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from transformers import PreTrainedModel

    from headnb.engine.batching import Batch
    from headnb.engine.layout import HeadLayout
    from headnb.engine.tokenization import EncodedSample


@torch.no_grad()
def mean_outputs(
    model: PreTrainedModel,
    samples: Sequence[EncodedSample],
    layout: HeadLayout,
    run: Callable[[Batch], object],
    batch_tokens: int = 4096,
) -> dict[int, Tensor]:
    """Mean output of each head over all tokens of the samples, including prompt tokens: layer -> (H, D) float64.

    Args:
        model: the model; it is left unchanged.
        samples: samples to average over; every token has the same weight.
        layout: the result of `find_heads(model)`.
        run: runs the model's decoder on one batch.
        batch_tokens: token budget of a batch, padding included.
    """
    sums: dict[int, Tensor] = {}
    batch: Batch

    def add(layer: int, outputs: Tensor) -> Tensor:
        assert batch.token_mask is not None  # noqa: S101  the batch is not packed
        total = outputs[batch.token_mask.to(outputs.device)].sum(0, dtype=torch.float64).cpu()  # (H, D)
        sums[layer] = sums[layer] + total if layer in sums else total
        return outputs

    lengths = np.array([len(sample) for sample in samples])
    plan = plan_batches(lengths, batch_tokens=max_batch_tokens(model, batch_tokens))
    with frozen(model), head_outputs(model, add, layout):
        for indices in plan.batches():
            batch = collate([samples[position] for position in plan.order[indices]])
            run(batch)
    return {layer: total / int(lengths.sum()) for layer, total in sums.items()}


@check_arguments
@contextmanager
def scale_heads(model: PreTrainedModel, factors: Mapping[str, float] | Sequence[str]) -> Iterator[None]:
    """Multiply the outputs of some heads while the context is open: 0.0 ablates a head, 1.0 leaves it unchanged.

    Args:
        model: as for `head_outputs`.
        factors: head name to factor, for example `{"L3H5": 0.0, "L7H1": 2.0}`; or names of heads to ablate, such as
            `grid.selected`.

    Raises:
        HeadnbError: the list of names is empty, a name is not of the form L3H5, or the model has no such head; on exit
            as for `head_outputs`.
    """
    if not isinstance(factors, Mapping):
        factors = {head_name(*pair): 0.0 for pair in parse_heads(factors)}
    with replace_heads(model, factors, find_heads(model)):
        yield


@contextmanager
def replace_heads(
    model: PreTrainedModel,
    factors: Mapping[str, float],
    layout: HeadLayout,
    values: Mapping[int, Tensor] | None = None,
) -> Iterator[None]:
    """Replace the output O of some heads by factor * O + value while the context is open.

    Args:
        model: as for `head_outputs`.
        factors: head name -> factor; 0 replaces the output by the value, 1 adds the value to it.
        layout: the result of `find_heads(model)`.
        values: layer -> (H, D), as `mean_outputs` returns them; None: zeros.

    Raises:
        HeadnbError: the model has no such head; on exit as for `head_outputs`.
    """
    scales: dict[int, Tensor] = {}  # layer -> (H, 1)
    shifts: dict[int, Tensor] = {}  # layer -> (H, D)
    for name, factor in factors.items():
        layer, head = find_head(name, layout)
        scales.setdefault(layer, torch.ones(layout.heads[layer], 1, dtype=torch.float64))[head] = factor
        if values is not None:
            shifts.setdefault(layer, torch.zeros_like(values[layer]))[head] = values[layer][head]

    def transform(layer: int, outputs: Tensor) -> Tensor:
        if layer in scales:
            outputs = outputs * scales[layer].to(outputs)
        return outputs + shifts[layer].to(outputs) if layer in shifts else outputs

    with head_outputs(model, transform, layout, scales):
        yield
