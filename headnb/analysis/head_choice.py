"""Which heads to train or to take out: the first or the last of a pattern, and random ones of the same layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr

from headnb.call_checks import check_arguments
from headnb.errors import HeadnbError, unknown_name
from headnb.head_names import head_name
from headnb.stats import patterns
from headnb.stats.patterns import HEADS

if TYPE_CHECKING:
    from collections.abc import Iterable

Which: TypeAlias = Literal["top", "bottom", "random"]
HeadIndex: TypeAlias = tuple[int, int]


@check_arguments
def choose_heads(scores: xr.Dataset | xr.DataArray, k: int, *, which: Which = "top", seed: int = 0) -> list[str]:
    """The names of k heads, for `finetune(heads=...)`, `ablate` or `scale_heads`.

    Args:
        scores: what `score_heads` gives, or a pattern (layer, head). The pattern ranks the heads: activation levels
            by size, signed scores such as ablations from the most positive to the most negative.
        k: how many.
        which: "top", from the highest on; "bottom", from the lowest on; or "random": as many heads of each layer as
            the top k has there, any of them, the top ones not excepted.
        seed: of the random heads.

    Returns:
        Names such as "L3H5".

    Raises:
        HeadnbError: not one pattern, an unknown choice, or not so many heads.
    """
    if which not in get_args(Which):
        raise unknown_name("choice of heads", str(which), get_args(Which))
    ranking = ranked_heads(scores)
    check_head_count(k, ranking)
    if which == "random":
        ranking = shuffled_within_layers(ranking, np.random.default_rng(seed))
    return format_heads(ranking[::-1][:k] if which == "bottom" else ranking[:k])


def ranked_heads(scores: xr.Dataset | xr.DataArray) -> list[HeadIndex]:
    """(layer, head) of every head that is not NaN, from the highest value of the pattern to the lowest.

    Raises:
        HeadnbError: there are several patterns, or none.
    """
    pattern = patterns.pattern(scores) if isinstance(scores, xr.Dataset) else scores
    if not isinstance(pattern, xr.DataArray):
        raise HeadnbError(f"heads are chosen by scores or a pattern, not by {type(scores).__name__}")
    if set(pattern.dims) != set(HEADS):
        raise HeadnbError(
            f"choose one pattern (layer, head) first, by .sel; this has {', '.join(map(str, pattern.dims))}"
        )
    pattern = pattern.transpose(*HEADS)
    layers, heads = (pattern.get_index(dim) for dim in HEADS)
    values = pattern.values.ravel()
    order = np.argsort(-values, kind="stable")  # NaN comes last
    return [
        (int(layers[place // len(heads)]), int(heads[place % len(heads)]))
        for place in order[: np.isfinite(values).sum()]
    ]


def shuffled_within_layers(ranking: list[HeadIndex], random: np.random.Generator) -> list[HeadIndex]:
    """The ranking with each layer's heads exchanged among each other at random.

    Its first k have as many heads of each layer as the ranking's first k, for every k; and if it did not matter which
    heads of a layer come first, the ranking would be one of these.
    """
    shuffled: dict[int, list[int]] = {layer: [] for layer, _ in ranking}
    for layer, head in ranking:
        shuffled[layer].append(head)
    for heads in shuffled.values():
        random.shuffle(heads)
    return [(layer, shuffled[layer].pop()) for layer, _ in ranking]


def check_head_count(k: object, ranking: list[HeadIndex]) -> None:
    """Raise HeadnbError unless k of these heads can be chosen."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= len(ranking):
        raise HeadnbError(f"k must be a number of heads from 1 to {len(ranking)}, not {k!r}")


def format_heads(places: Iterable[HeadIndex]) -> list[str]:
    """`L3H5` of each."""
    return [head_name(*place) for place in places]
