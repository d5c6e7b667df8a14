"""Many numbers in little room: a panel's values as half-precision numbers in base64, a third of what JSON takes.

    {"float16": "AEAAPA==", "factor": 0.0009765625, "heads": 2}

Each is a little-endian IEEE half times `factor`, a power of two that uses the halves' range: three significant digits.
NaN is a head that does not exist. In Python: `np.frombuffer(base64.b64decode(text), "<f2") * factor`.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import TypedDict

import numpy as np

_MAX_POWER = 15  # 2**15 is the largest power of two below the largest half


class Compact(TypedDict):
    """Values layer after layer, `heads` a layer."""

    float16: str
    factor: float
    heads: int


def scale_factor(values: np.ndarray) -> float:
    """The power of two that brings the largest of the values to the top of the halves' range."""
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    return 2.0 ** (math.ceil(math.log2(largest)) - _MAX_POWER) if largest > 1e-90 else 1.0


def compress_values(values: np.ndarray, factor: float) -> Compact:
    """A (layer, head) array of numbers in little room."""
    halves = (values / factor).astype("<f2")
    return {"float16": base64.b64encode(halves.tobytes()).decode(), "factor": factor, "heads": values.shape[-1]}


def decompress_values(found: Compact) -> np.ndarray:
    """The (layer, head) array. Raises ValueError for what is no base64 of whole numbers or whole layers."""
    try:
        halves = np.frombuffer(base64.b64decode(found["float16"], validate=True), "<f2")
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    return halves.astype(float).reshape(-1, found["heads"]) * found["factor"]
