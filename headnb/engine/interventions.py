"""Heads whose output is replaced: O becomes factor * O + value, the value being zero or the head's mean over tokens.

A head that is set to zero takes away what it adds to every token alike, a bias that later layers count on, together
with what it does for the token at hand. Its mean in place of it leaves the former and takes the latter.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from headnb.engine.batching import collate, plan_batches
from headnb.engine.hooks import find_head, frozen, head_outputs
from headnb.engine.packing import max_batch_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

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
    """Each head's mean output over all tokens of the samples, those of prompts included: layer -> (H, D) float64.

    Args:
        model: it is left as it was.
        samples: whose tokens are averaged over, each token counting once.
        layout: what `find_heads(model)` gave.
        run: has the model's decoder see one batch.
        batch_tokens: tokens of a batch, padding included.
    """
    sums: dict[int, Tensor] = {}
    is_token = torch.empty(0)  # (B, T) bool: not padding

    def add(layer: int, outputs: Tensor) -> Tensor:
        total = outputs[is_token.to(outputs.device)].sum(0, dtype=torch.float64).cpu()  # (H, D)
        sums[layer] = sums[layer] + total if layer in sums else total
        return outputs

    lengths = np.array([len(sample) for sample in samples])
    plan = plan_batches(lengths, batch_tokens=max_batch_tokens(model, batch_tokens))
    with frozen(model), head_outputs(model, add, layout):
        for places in plan.batches():
            positions = plan.order[places]
            batch = collate([samples[position] for position in positions])
            is_token = torch.arange(batch.input_ids.shape[1]) < torch.from_numpy(lengths[positions])[:, None]
            run(batch)
    return {layer: total / int(lengths.sum()) for layer, total in sums.items()}


@contextmanager
def replace_heads(
    model: PreTrainedModel,
    heads: Iterable[str],
    layout: HeadLayout,
    factor: float = 0.0,
    values: Mapping[int, Tensor] | None = None,
) -> Iterator[None]:
    """While the context is open each of the heads gives factor * O + value in place of its output O.

    Args:
        model: as for `head_outputs`.
        heads: their names.
        layout: what `find_heads(model)` gave.
        factor: 0 replaces the output, 1 keeps it beside the value.
        values: layer -> (H, D), as `mean_outputs` gives them; None: zeros.

    Raises:
        HeadnbError: the model has no such head; on exit as for `head_outputs`.
    """
    scales: dict[int, Tensor] = {}  # layer -> (H, 1)
    shifts: dict[int, Tensor] = {}  # layer -> (H, D)
    for name in heads:
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
