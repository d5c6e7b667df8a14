"""Compact values of a panel: float16 numbers in base64, a third of the size of JSON numbers.

    {"float16": "AEAAPA==", "factor": 0.0009765625, "heads": 2}

A value is a little-endian float16 times `factor`, a power of two that uses the float16 range: three significant digits.
NaN marks a head that does not exist. To decode: `np.frombuffer(base64.b64decode(text), "<f2") * factor`.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import TypedDict

import numpy as np

_MAX_POWER = 15  # 2**15 is the largest power of two that float16 holds


class Compact(TypedDict):
    """Values in layer order, with `heads` values per layer."""

    float16: str
    factor: float
    heads: int


def scale_factor(values: np.ndarray) -> float:
    """The power of two that scales the largest absolute value to the top of the float16 range."""
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    return 2.0 ** (math.ceil(math.log2(largest)) - _MAX_POWER) if largest > 1e-90 else 1.0


def compress_values(values: np.ndarray, factor: float) -> Compact:
    """Encode a (layer, head) array."""
    halves = (values / factor).astype("<f2")
    return {"float16": base64.b64encode(halves.tobytes()).decode(), "factor": factor, "heads": values.shape[-1]}


def decompress_values(compact: Compact) -> np.ndarray:
    """Decode the (layer, head) array. Raises ValueError if the text is not base64 of complete layers of float16."""
    try:
        halves = np.frombuffer(base64.b64decode(compact["float16"], validate=True), "<f2")
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    return halves.astype(float).reshape(-1, compact["heads"]) * compact["factor"]
