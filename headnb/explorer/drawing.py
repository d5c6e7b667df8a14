"""`headnb.grid`: results and matrices as a picture or a live grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headnb.call_checks import check_arguments
from headnb.display.grid import HeadGrid

if TYPE_CHECKING:
    import xarray as xr

    from headnb.explorer.grid_widget import HeadGridWidget


@check_arguments
def grid(
    data: object, *, title: str | None = None, roles: xr.Dataset | None = None, live: bool = False
) -> HeadGrid | HeadGridWidget:
    """Draw results, or any matrix, as a layer x head picture.

    Args:
        data: a pattern, scores, a comparison, a study, a grid or the path of a saved one (`.heads.json`), a matrix of
            layers x heads (numpy, torch, pandas, nested lists), a mapping from panel titles to any of these, or a list
            of results, each titled by its task (or model, or method, whichever distinguishes them). Several panels
            share one colour scale. Numbers that are not results of headnb are drawn as plain values.
        title: title of the picture. None: that of a saved grid, else made from the attributes of the data.
        roles: mark the heads that have these roles (`headnb.head_roles`).
        live: return a widget instead of a picture; Python can read its selection (`.selected`, `.on_select`, `.link`).

    Raises:
        HeadnbError: the data cannot be drawn, the file is not a head grid, or the roles are of other heads.

    Example:
        >>> grid = headnb.grid(scores, live=True)  # display it and select heads
        >>> headnb.ablate(model, tokenizer, task, grid.selected)
    """
    picture = HeadGrid.of(HeadGrid.open(data) if isinstance(data, (str, Path)) else data, title=title or "")
    if roles is not None:
        picture = picture.with_roles(roles)
    if not live:
        return picture
    from headnb.explorer.grid_widget import HeadGridWidget  # noqa: PLC0415  loads ipywidgets

    return HeadGridWidget(picture)
