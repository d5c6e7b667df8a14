"""One head's attention on one sample, as the message that the explorer draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from headnb.scoring.attention import HeadAttention

MAX_TOKENS = 1024  # 8 MB for the two matrices


def to_message(attention: HeadAttention) -> dict[str, Any]:
    """What the explorer draws: plain values, and the matrices as float32 in the order of rows.

    Raises:
        HeadnbError: the sample is too long to be sent and drawn entry by entry.
    """
    length = len(attention.tokens)
    if length > MAX_TOKENS:
        raise HeadnbError(f"sample {attention.sample!r} has {length} tokens; the attention view shows {MAX_TOKENS}")
    return {
        "head": attention.head,
        "sample": str(attention.sample),
        "tokens": list(attention.tokens),
        "answer": attention.answer.astype(int).tolist(),
        "score": attention.score,
        "loss": attention.loss,
        "weights": np.ascontiguousarray(attention.weights, dtype="<f4").tobytes(),
        "products": np.ascontiguousarray(attention.products, dtype="<f4").tobytes(),
    }
