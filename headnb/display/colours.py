"""Colours of values on one scale for all panels, safe for colour-blind readers, on light and dark pages.

Levels are drawn in opaque viridis. Differences are drawn with a hue for the sign and an opacity for the size. A
difference of zero is therefore transparent and shows the page's background in every theme.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np

from headnb.display.constants import DRAWING

_LEVELS = DRAWING["levels"]
BINS = len(_LEVELS)
RISE, FALL = DRAWING["rise"], DRAWING["fall"]
# Colours of lines and points: distinguishable with any kind of colour blindness, visible on white and on black.
SERIES = (FALL, RISE, "#06b371", "#d89505", "#7f57e9", "#c3519b", "#6d6d6d")


class Paint(NamedTuple):
    """A colour and its opacity."""

    colour: str
    opacity: float = 1.0


def shared_scale(values: np.ndarray, kind: Kind) -> tuple[float, float]:
    """Ends (low, high) of the colour scale for all finite `values` of a picture.

    Zero is the lower end for levels and the middle for signed values and differences. Where a few heads far exceed all
    other heads, the scale ends at the 99.5th percentile, since otherwise only these heads would be visible. The
    picture marks the end of the scale and counts the heads off scale.
    """
    sizes = np.abs(values[np.isfinite(values)])
    if sizes.size == 0 or sizes.max() < DRAWING["smallest_scale"]:
        high = 1.0
    else:
        largest, usual = float(sizes.max()), float(np.quantile(sizes, DRAWING["scale_quantile"]))
        high = largest if largest <= DRAWING["scale_excess"] * usual or usual == 0 else usual
    high = _rounded_up(high)
    return (0.0 if kind == "level" else -high), high


def paint(value: float, scale: tuple[float, float]) -> Paint:
    """The colour of one value, in BINS steps; values off scale get the colour of the scale's end."""
    low, high = scale
    if low < 0:
        share = min(abs(value) / high, 1.0)
        return Paint(RISE if value > 0 else FALL, round(round(share * BINS) / BINS, 2))
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    return Paint(_LEVELS[round(share * (BINS - 1))])


def palette(scale: tuple[float, float]) -> list[Paint]:
    """The colours of all bins of a scale, from its low to its high end."""
    low, high = scale
    return [paint(value, scale) for value in np.linspace(low, high, _last_bin(low) + 1).tolist()]


def bins(values: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """The index in `palette` of each value; that of NaN has no meaning."""
    low, high = scale
    shares = np.clip((np.nan_to_num(values) - low) / (high - low), 0, 1)
    indices: np.ndarray = np.rint(shares * _last_bin(low)).astype(np.uint8)
    return indices


def _last_bin(low: float) -> int:
    return 2 * BINS if low < 0 else BINS - 1


def ticks(low: float, high: float, count: int) -> list[float]:
    """At most `count` + 1 round numbers from `low` to `high`, spaced by 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{index * step:.6g}") for index in range(first, last + 1)]


def _rounded_up(value: float) -> float:
    """Round up to three significant digits, so that the largest value stays on the scale."""
    power = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.ceil(value / power - 1e-9) * power:.3g}")


Kind = Literal["level", "signed", "difference"]
