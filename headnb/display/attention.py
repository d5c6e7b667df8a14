"""The attention view: one sample's tokens, shaded by what a head makes of them, and its matrices for the explorer."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from headnb.display.colours import paint
from headnb.display.html import CARD_STYLE
from headnb.display.text import number
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from headnb.scoring.attention import HeadAttention

MOST_TOKENS = 1024  # 8 MB for the two matrices
_WORTH = "more of this weight would raise the loss (orange) or lower it (blue)"


def as_message(attention: HeadAttention) -> dict[str, Any]:
    """What the explorer draws: plain values, and the matrices as float32 in the order of rows.

    Raises:
        HeadnbError: the sample is too long to be sent and drawn entry by entry.
    """
    length = len(attention.tokens)
    if length > MOST_TOKENS:
        raise HeadnbError(f"sample {attention.sample!r} has {length} tokens; the attention view shows {MOST_TOKENS}")
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


def as_html(attention: HeadAttention) -> str:
    """The tokens twice, without script: how much the answer's predictions look at each, and what that is worth.

    A token is predicted at the position before it, so the rows that count are those before the answer's tokens.
    """
    predicting = np.flatnonzero(attention.answer[1:])
    looked_at, worth = attention.weights[predicting].mean(0), attention.products.sum(0)  # (T,), (T,)
    return (
        f'<div style="{CARD_STYLE}"><b>{escape(attention.head)}</b> on sample {escape(repr(attention.sample))}: '
        f"score {number(attention.score)} nats, loss {number(attention.loss)} nats"
        f"{_shaded('Attention weight A of each token, mean over the predictions of the answer', attention, looked_at)}"
        f"{_shaded(f'A · dL/dA, sum over queries: {_WORTH}', attention, worth)}"
        f'<div style="opacity:.75">Tokens of the answer are underlined.</div></div>'
    )


def _shaded(caption: str, attention: HeadAttention, values: np.ndarray) -> str:
    """One token a span, its background as strong as its share of the largest value."""
    largest = float(np.abs(values).max()) or 1.0
    spans = []
    for token, value, answer in zip(attention.tokens, values.tolist(), attention.answer, strict=True):
        shade = paint(value, (-largest, largest))
        alpha = round(255 * 0.8 * shade.opacity)
        line = "border-bottom:2px solid;" if answer else ""
        spans.append(
            f'<span title="{number(value)}" style="{line}background:{shade.colour}{alpha:02x}">{escape(token)}</span>'
        )
    return (
        f'<div style="margin-top:8px;opacity:.75">{escape(caption)}</div>'
        f'<div style="white-space:pre-wrap;font-family:monospace;line-height:1.7">{"".join(spans)}</div>'
    )
