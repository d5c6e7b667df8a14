"""Difference of two rankings of heads: compares results whose samples cannot be paired, such as two tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import xarray as xr

from headnb.call_checks import check_arguments
from headnb.errors import HeadnbError
from headnb.stats.paired import check_same_heads
from headnb.stats.patterns import HEADS, normalized, pattern
from headnb.stats.results import as_result, is_result
from headnb.stats.scoring_revision import check_same_revision

if TYPE_CHECKING:
    from headnb.stats.labelled import Pattern

RANK_DIFFERENCE = "rank_difference"
RANK_NOTE = (
    "Descriptive: the samples of the two results are not paired, levels are not compared, and no head is tested."
)


@check_arguments
def rank_difference(first: xr.Dataset | xr.DataArray, second: xr.Dataset | xr.DataArray) -> Pattern:
    """Difference of the heads' ranks in two results, `second` minus `first`, such as two tasks of one model.

    Tasks have different losses and their samples cannot be paired, so levels are not comparable, but ranks are. A rank
    is divided by the number of heads (1 for the highest); equal heads have their mean rank. The difference is
    descriptive: no head is tested. To test two results for the same samples, use `headnb.compare`.

    Args:
        first: scores, a pattern, or one task of a study (`study.sel(task="svamp")`).
        second: the same for the other result, with the same layers and heads.

    Returns:
        Differences (layer, head) between -1 and 1; `.heads.grid()` draws them, `.heads.top()` lists the largest.

    Raises:
        HeadnbError: a result has several patterns or is a difference, one is signed and the other is not, or the
            layers or heads differ.

    Example:
        >>> change = headnb.rank_difference(gsm_symbolic, svamp)
        >>> change.heads.top(6)
    """
    one, other = _one_pattern(first), _one_pattern(second)
    check_same_revision(one.attrs, other.attrs)
    kinds = [str(levels.attrs.get("kind", "value")) for levels in (one, other)]
    if kinds[0] != kinds[1] or kinds[0] == "difference":
        raise HeadnbError(f"ranks of these results are not comparable: {kinds[0]} and {kinds[1]} values")
    check_same_heads(one.to_dataset(name="value"), other.to_dataset(name="value"))
    ranks = [normalized(levels, "rank").reset_coords(drop=True) for levels in (one, other)]
    difference = (ranks[1] - ranks[0].assign_coords(ranks[1].coords)).rename(RANK_DIFFERENCE)
    names = {name: _difference_of_names(name, one, other) for name in ("model", "task", "method")}
    kv_heads = one.attrs.get("kv_heads")
    difference.attrs = {
        **{name: text for name, text in names.items() if text},
        **({"kv_heads": kv_heads} if kv_heads is not None and kv_heads == other.attrs.get("kv_heads") else {}),
        "kind": "difference",
        "units": "fraction of heads",
    }
    return cast("Pattern", as_result(difference))


def rank_title(difference: xr.DataArray) -> str:
    """Title of the picture of a rank difference: `smollm2-135m · difference of ranks, svamp − gsm_symbolic`."""
    names = [str(difference.attrs.get(name, "")) for name in ("model", "task")]
    return " · ".join(
        filter(None, (names[0], f"difference of ranks, {names[1]}" if names[1] else "difference of ranks"))
    )


def _one_pattern(result: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """The pattern (layer, head) of scores, of a pattern or of one task of a study."""
    if isinstance(result, xr.DataArray) and "sample" not in result.dims:
        levels = result
    elif isinstance(result, xr.Dataset) and "level" in result:
        levels = result["level"]
    elif isinstance(result, xr.Dataset) and "difference" in result:
        raise HeadnbError("ranks of a comparison are not defined; give the scores or patterns themselves")
    else:
        levels = pattern(cast("xr.Dataset", result))
    levels = levels.squeeze([dim for dim in levels.dims if dim not in HEADS and levels.sizes[dim] == 1])
    if set(levels.dims) != set(HEADS):
        raise HeadnbError(f"select one pattern first with .sel; the dims are {', '.join(map(str, levels.dims))}")
    if not is_result(levels):
        raise HeadnbError("expected scores or patterns, got numbers computed from them")
    return levels.transpose(*HEADS).compute()


def _difference_of_names(name: str, one: xr.DataArray, other: xr.DataArray) -> str:
    """The common value of an attribute, or `second − first` if the two differ."""
    first, second = (
        str(levels.coords[name].item() if name in levels.coords else levels.attrs.get(name, ""))
        for levels in (one, other)
    )
    return first if first == second else f"{second} − {first}"
