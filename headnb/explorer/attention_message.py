"""Message with one head's attention on one sample, for the explorer's front end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from headnb.scoring.attention import HeadAttention

MAX_TOKENS = 1024  # 8 MB for the two matrices


def to_message(attention: HeadAttention) -> dict[str, Any]:
    """Convert attention to plain values, and its matrices to float32 bytes in row-major order.

    Raises:
        HeadnbError: the sample has more than `MAX_TOKENS` tokens.
    """
    length = len(attention.tokens)
    if length > MAX_TOKENS:
        raise HeadnbError(
            f"sample {attention.sample!r} has {length} tokens; the attention view shows at most {MAX_TOKENS}"
        )
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
