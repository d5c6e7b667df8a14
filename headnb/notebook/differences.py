"""Comparison of two results, paired or by ranks, for `%headdiff` and `headnb compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headnb.errors import HeadnbError
from headnb.notebook.arguments import short_names
from headnb.storage.remote import shown_url

if TYPE_CHECKING:
    import xarray as xr

    from headnb.display.grid import HeadGrid


def change_between(
    before: xr.Dataset, after: xr.Dataset, words: tuple[str, str], *, alpha: float, scale_free: bool, title: str = ""
) -> tuple[xr.Dataset | xr.DataArray, HeadGrid]:
    """The comparison of two results, and its grid, whose title says which is subtracted from which.

    Scores of one task are compared sample by sample (`headnb.compare`). Samples of two tasks cannot be paired: their
    heads' ranks are compared (`headnb.rank_difference`).

    Args:
        before: scores to subtract.
        after: scores to subtract them from.
        words: what the user typed for `before` and `after`.
        alpha: as in `headnb.compare`.
        scale_free: as in `headnb.compare`.
        title: replaces the title.

    Raises:
        HeadnbError: as for the two functions, or `scale_free` with two tasks.
    """
    from headnb.display.grid import HeadGrid  # noqa: PLC0415
    from headnb.stats.paired import compare  # noqa: PLC0415
    from headnb.stats.rank_differences import rank_difference, rank_title  # noqa: PLC0415

    if before.attrs.get("task") != after.attrs.get("task"):
        if scale_free:
            raise HeadnbError("--scale-free applies to scores of one task; across tasks, ranks are compared")
        ranks = rank_difference(before, after)
        return ranks, HeadGrid.of(ranks, title=title or rank_title(ranks))
    change = compare(before, after, alpha=alpha, scale_free=scale_free)
    grid = HeadGrid.of(change, title=title)
    if title:
        return change, grid
    subtracted, minuend = short_names(words) if len(set(short_names(words))) > 1 else map(shown_url, words)
    return change, HeadGrid({**grid.payload, "title": f"{grid.payload['title']} · {minuend} − {subtracted}"})
