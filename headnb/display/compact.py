"""Compact matrices of a panel: binary numbers in base64 instead of lists of JSON numbers.

    {"float16": "AEAAPA==", "factor": 0.0009765625, "heads": 2}

A value is a little-endian number times `factor`, a power of two that uses the range of float16. NaN marks a head that
does not exist. float16 keeps three significant digits and float32 seven; uint8 holds marks, with factor 1. To decode:
`np.frombuffer(base64.b64decode(text), "<f2") * factor`.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import Literal, NotRequired, TypedDict, cast

import numpy as np

_MAX_POWER = 15  # 2**15 is the largest power of two that float16 holds
NumberType = Literal["float16", "float32", "uint8"]
_TYPES: dict[NumberType, str] = {"float16": "<f2", "float32": "<f4", "uint8": "<u1"}


class Compact(TypedDict):
    """Numbers of one type in layer order, with `heads` numbers per layer."""

    float16: NotRequired[str]
    float32: NotRequired[str]
    uint8: NotRequired[str]
    factor: float
    heads: int


def scale_factor(values: np.ndarray) -> float:
    """The power of two that scales the largest absolute value to the top of the float16 range."""
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    return 2.0 ** (math.ceil(math.log2(largest)) - _MAX_POWER) if largest > 1e-90 else 1.0


def compress_values(values: np.ndarray, factor: float, kind: NumberType = "float16") -> Compact:
    """Encode a (layer, head) array as numbers that are multiplied by `factor`."""
    numbers = (values / factor).astype(_TYPES[kind])
    encoded = base64.b64encode(numbers.tobytes()).decode()
    return cast("Compact", {kind: encoded, "factor": factor, "heads": values.shape[-1]})


def decompress_values(compact: Compact) -> np.ndarray:
    """Decode the (layer, head) array. Raises ValueError if the text is not base64 of complete layers of numbers."""
    kind = next(kind for kind in _TYPES if kind in compact)
    try:
        numbers = np.frombuffer(base64.b64decode(compact[kind], validate=True), _TYPES[kind])
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    values = numbers.astype(float) * compact["factor"]
    if kind == "float32":  # the decimal number that was rounded to float32
        values = np.array([float(f"{value:.7g}") for value in values.tolist()])
    return values.reshape(-1, compact["heads"])
