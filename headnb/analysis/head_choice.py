"""Choice of heads to train or ablate: the top or bottom heads of a pattern, or random heads of the same layers."""

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
    """Choose k heads by name, for `finetune(heads=...)`, `ablate` or `scale_heads`.

    Args:
        scores: scores from `score_heads`, or a pattern (layer, head). The pattern ranks the heads: activation levels
            by size, signed scores such as ablations from the most positive to the most negative.
        k: number of heads.
        which: "top", the highest values; "bottom", the lowest values; or "random", random heads, as many in each layer
            as the top k has there. The random heads may include top heads.
        seed: seed of the random heads.

    Returns:
        Names such as "L3H5".

    Raises:
        HeadnbError: not exactly one pattern, an unknown choice, or fewer than k heads.
    """
    if which not in get_args(Which):
        raise unknown_name("choice of heads", str(which), get_args(Which))
    ranking = ranked_heads(scores)
    check_head_count(k, ranking)
    if which == "random":
        ranking = shuffled_within_layers(ranking, np.random.default_rng(seed))
    return format_heads(ranking[::-1][:k] if which == "bottom" else ranking[:k])


def ranked_heads(scores: xr.Dataset | xr.DataArray) -> list[HeadIndex]:
    """(layer, head) of every head with a finite value, from the highest to the lowest value of the pattern.

    Raises:
        HeadnbError: several patterns, or none.
    """
    pattern = patterns.pattern(scores) if isinstance(scores, xr.Dataset) else scores
    if not isinstance(pattern, xr.DataArray):
        raise HeadnbError(f"expected scores or a pattern to choose heads by, not {type(scores).__name__}")
    if set(pattern.dims) != set(HEADS):
        raise HeadnbError(
            f"select one pattern (layer, head) first, with .sel; got the dims {', '.join(map(str, pattern.dims))}"
        )
    pattern = pattern.transpose(*HEADS)
    layers, heads = (pattern.get_index(dim) for dim in HEADS)
    values = pattern.values.ravel()
    order = np.argsort(-values, kind="stable")
    return [
        (int(layers[place // len(heads)]), int(heads[place % len(heads)]))
        for place in order[np.isfinite(values[order])]
    ]


def shuffled_within_layers(ranking: list[HeadIndex], random: np.random.Generator) -> list[HeadIndex]:
    """The ranking with the heads permuted at random within each layer.

    For every k, its first k heads have as many heads of each layer as the first k of the ranking. Under the null
    hypothesis that order within a layer is arbitrary, the ranking itself is one such permutation.
    """
    shuffled: dict[int, list[int]] = {layer: [] for layer, _ in ranking}
    for layer, head in ranking:
        shuffled[layer].append(head)
    for heads in shuffled.values():
        random.shuffle(heads)
    return [(layer, shuffled[layer].pop()) for layer, _ in ranking]


def check_head_count(k: object, ranking: list[HeadIndex]) -> None:
    """Raise HeadnbError unless k is a whole number from 1 to the number of heads."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= len(ranking):
        raise HeadnbError(f"k must be a number of heads from 1 to {len(ranking)}, not {k!r}")


def format_heads(places: Iterable[HeadIndex]) -> list[str]:
    """Names of the heads, such as `L3H5`."""
    return [head_name(*place) for place in places]
