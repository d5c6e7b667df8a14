"""Comparison of two results, paired or by ranks, for `%headdiff` and `headnb compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headnb.errors import HeadnbError

if TYPE_CHECKING:
    import xarray as xr


def change_between(
    before: xr.Dataset, after: xr.Dataset, *, alpha: float, scale_free: bool
) -> tuple[xr.Dataset | xr.DataArray, str]:
    """The comparison of two results, and the title of its picture if it differs from the usual one.

    Scores of one task are compared sample by sample (`headnb.compare`). Samples of two tasks cannot be paired: their
    heads' ranks are compared (`headnb.rank_difference`).

    Raises:
        HeadnbError: as for the two functions, or `scale_free` with two tasks.
    """
    from headnb.stats.patterns import compare  # noqa: PLC0415
    from headnb.stats.rank_differences import rank_difference, rank_title  # noqa: PLC0415

    if before.attrs.get("task") == after.attrs.get("task"):
        return compare(before, after, alpha=alpha, scale_free=scale_free), ""
    if scale_free:
        raise HeadnbError("--scale-free applies to scores of one task; across tasks, ranks are compared")
    change = rank_difference(before, after)
    return change, rank_title(change)
