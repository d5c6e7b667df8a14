"""Text of durations, and of numbers with intervals, rounded to the digits that the interval supports."""

from __future__ import annotations

import math

NEEDS_MORE_SAMPLES = "needs more samples"
_DIGITS = 3  # significant digits of a value without an interval
_MIN_EXPONENT, _LARGEST = -7, 1e6  # outside this range numbers have an exponent


def interval_text(value: float, low: float = math.nan, high: float = math.nan, sign: str = "") -> str:
    """Format as `0.41 [0.18, 0.64]`; the value alone without an interval; "needs more samples" for a NaN value.

    With `sign` "+", positive numbers have a sign.
    """
    first, *ends = interval_numbers(value, low, high, sign) or [NEEDS_MORE_SAMPLES]
    return f"{first} [{', '.join(ends)}]" if ends else first


def interval_numbers(value: float, low: float = math.nan, high: float = math.nan, sign: str = "") -> list[str]:
    """The value and both ends, rounded to the second digit of the interval's half width; empty for a NaN value.

    If one end is infinite, the distance to the other end is the half width. Without an interval the value has three
    significant digits.
    """
    if math.isnan(value):
        return []
    ends = [] if math.isnan(low) or math.isnan(high) else [low, high]
    widths = [abs(end - value) for end in ends if math.isfinite(end)] if math.isfinite(value) else []
    half = float(f"{sum(widths) / len(widths):.6g}") if widths else 0.0  # 0.09999999999999998 is 0.1
    texts = (_rounded(x, _power(half) - 1, sign) if half > 0 else _significant(x, sign) for x in (value, *ends))
    return [typographic(text) for text in texts]


def fixed(value: float, digits: int = 2, sign: str = "") -> str:
    """A number with this many decimals and a minus sign: `−0.05`."""
    return typographic(f"{round(value, digits) + 0.0:{sign}.{digits}f}")  # no negative zero


def typographic(number: str) -> str:
    """A formatted number with a minus sign (U+2212) in place of the leading hyphen, and a short exponent: `−2.1e-7`."""
    text = number.replace("e-0", "e-").replace("e+0", "e")
    return text.replace("-", "−", 1) if text.startswith("-") else text


def _significant(x: float, sign: str) -> str:
    return f"{x:{sign}#.{_DIGITS}g}".removesuffix(".") if x else "0"


def _rounded(x: float, exponent: int, sign: str) -> str:
    """`x` rounded to a multiple of 10 ** exponent."""
    if math.isinf(x):
        return f"{x:{sign}}"
    x = round(x, -exponent) + 0.0  # no negative zero
    if x and (exponent < _MIN_EXPONENT or abs(x) >= _LARGEST):
        return f"{x:{sign}.{max(0, _power(x) - exponent)}e}"
    return f"{x:{sign}.{max(0, min(-exponent, -_MIN_EXPONENT))}f}"


def _power(x: float) -> int:
    """Power of ten of the first digit: 0 for 1 to 9."""
    return math.floor(math.log10(abs(x))) if x and math.isfinite(x) else 0


def format_duration(seconds: float) -> str:
    """A duration such as `42 s`, `3 min 05 s` or `2 h 10 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
