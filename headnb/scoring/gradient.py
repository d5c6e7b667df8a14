"""Gradient scores of attention heads, from one forward pass and one backward pass through the activations.

For sample x, layer l and head h: A (Tq, Tk) are the attention weights, V (Tk, D) the values, O = A V (Tq, D) is the
head's output, and L(x) is the loss, the mean cross-entropy over the answer tokens of x.

    activation    s[x, l, h] = sum over q, k of A[q, k] * dL(x)/dA[q, k]
                             = sum over q, d of O[q, d] * dL(x)/dO[q, d]
    taylor-token  s[x, l, h] = sum over q of | sum over d of O[q, d] * dL(x)/dO[q, d] |

The two forms of `activation` are equal because dL/dA = (dL/dO) V^T. The code uses the form in O, so it never computes
an attention matrix. `one_pass` describes the pass.

Sources: arXiv 2409.15820 (activation level); Michel et al. 2019 (gradient of a gate at 1, and the per-token form).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headnb.scoring.one_pass import PassScorer, Recorder, pass_scorer

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

    from headnb.engine.batching import Batch


def token_products(O: Tensor, dO: Tensor) -> Tensor:
    """sum_d O * dO, (B, T, H), from O and dO = dL/dO, each (B, T, H, D); summed in float32 or float64.

    Products of bfloat16 numbers are exact in float32.
    """
    wide = torch.promote_types(O.dtype, torch.float32)
    products: Tensor = torch.linalg.vecdot(O.to(wide), dO.to(wide))
    return products


def activation(products: Tensor) -> Tensor:
    """s = sum_q sum_d O * dO, (B, H), from the token products (B, T, H)."""
    return products.sum(1)


def taylor_token(products: Tensor) -> Tensor:
    """s = sum_q | sum_d O * dO |, (B, H), from the token products (B, T, H)."""
    return products.abs().sum(1)


def gradient_recorder(reduce: Callable[[Tensor], Tensor]) -> Recorder:
    """The recorder of `activation` or `taylor_token`."""
    return Recorder("gradient", _measure, partial(_reduce_samples, reduce))


def gradient_scorer(model: PreTrainedModel, reduce: Callable[[Tensor], Tensor]) -> PassScorer:
    """Create a scorer for a model; `reduce` is `activation` or `taylor_token`.

    Raises:
        HeadnbError: as for `pass_scorer`.
    """
    return pass_scorer(model, gradient_recorder(reduce))


def _measure(O: Tensor, dO: Tensor, batch: Batch) -> Tensor:
    del batch
    return token_products(O, dO)


def _reduce_samples(reduce: Callable[[Tensor], Tensor], products: Tensor, batch: Batch) -> Tensor:
    """s (B, H) of one layer. A packed batch has one row (1, N, H), which is split into its samples."""
    if batch.lengths is None:
        return reduce(products)
    return torch.cat([reduce(sample) for sample in torch.split(products, list(batch.lengths), 1)])  # B of (1, H)
