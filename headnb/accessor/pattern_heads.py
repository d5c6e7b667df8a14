"""`.heads` of patterns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import xarray as xr

from headnb.call_checks import check_arguments
from headnb.errors import HeadnbError
from headnb.head_names import head_name, parse_heads
from headnb.stats.results import check_levels, is_signed, trusted_attrs
from headnb.stats.tables import head_table

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from headnb.display.grid import HeadGrid
    from headnb.explorer.explorer import Explorer
    from headnb.stats.descriptive import Array
    from headnb.stats.labelled import Pattern
    from headnb.stats.reliability import Evidence

_Data = TypeVar("_Data", xr.DataArray, xr.Dataset)


@xr.register_dataarray_accessor("heads")  # type: ignore[no-untyped-call]
class PatternHeads:
    """`.heads` of a pattern (layer, head), or of several patterns with leading dims."""

    def __init__(self, pattern: xr.DataArray) -> None:
        self._pattern = pattern

    @check_arguments
    def gini(self) -> float | xr.DataArray:
        """Gini coefficient of the pattern's values; `.heads.gini()` of scores is bias-corrected."""
        from headnb.stats import descriptive  # noqa: PLC0415

        check_levels("the Gini coefficient", signed=is_signed(self._pattern))
        return self._over_heads(descriptive.gini, "gini")

    @check_arguments
    def cv(self) -> float | xr.DataArray:
        """Coefficient of variation of the pattern's values: population standard deviation over mean."""
        from headnb.stats import descriptive  # noqa: PLC0415

        return self._over_heads(descriptive.coefficient_of_variation, "cv")

    @check_arguments
    def kurtosis(self) -> float | xr.DataArray:
        """Excess kurtosis of the pattern's values (population moments)."""
        from headnb.stats import descriptive  # noqa: PLC0415

        return self._over_heads(descriptive.kurtosis, "kurtosis")

    @check_arguments
    def correlation(
        self, other: xr.DataArray | None = None, *, dim: Hashable = "task", kind: str = "pearson"
    ) -> float | xr.DataArray:
        """Correlation with another pattern over common heads; without `other`, of all pairs along `dim`.

        Args:
            other: a pattern, or several with leading dims.
            dim: used only without `other`.
            kind: "pearson" or "spearman".

        Raises:
            HeadnbError: `other` is not a pattern, or the patterns have no heads in common.
        """
        from headnb.stats import descriptive, patterns  # noqa: PLC0415

        if other is None:
            return patterns.correlations(self._pattern, dim, kind)
        if not isinstance(other, xr.DataArray):
            raise HeadnbError(
                f"expected a pattern (DataArray), got {type(other).__name__}; scores.heads.pattern() gives the pattern "
                "of scores, and scores.heads.correlation(other) compares scores"
            )
        one, two = xr.align(_with_head_coords(self._pattern), _with_head_coords(other), join="inner")
        if not one.size:
            raise HeadnbError("these patterns have no heads in common")
        return _float_or_array(
            xr.apply_ufunc(
                lambda a, b: descriptive.correlation(flat(a), flat(b), kind),
                one,
                two,
                input_core_dims=[["layer", "head"], ["layer", "head"]],
            ).rename("correlation")
        )

    @check_arguments
    def reliability(self) -> float:
        """Reliability stored by `.heads.pattern()`: expected correlation with a pattern of as many new samples."""
        return self.evidence().reliability

    @check_arguments
    def evidence(self) -> Evidence:
        """Evidence stored by `.heads.pattern()`: samples, training runs, reliability, and samples needed for 0.9."""
        from headnb.stats.reliability import stored_evidence  # noqa: PLC0415

        return stored_evidence(trusted_attrs(self._pattern))

    @check_arguments
    def top(self, k: int = 10) -> pd.DataFrame:
        """Table by head name of the k heads with the largest absolute values.

        Raises:
            HeadnbError: there are several patterns, or `k` is below 1.
        """
        values = _with_head_coords(self._pattern)
        if several := [str(dim) for dim in values.dims[:-2] if values.sizes[dim] > 1]:
            raise HeadnbError(f"select one pattern first with .sel: there are several along {', '.join(several)}")
        return head_table(xr.Dataset({"value": values.isel(dict.fromkeys(values.dims[:-2], 0), drop=True)}), "value", k)

    def layer_profile(self) -> xr.DataArray:
        """Mean over the heads of each layer: (..., layer)."""
        return _with_head_coords(self._pattern).mean("head", keep_attrs=True)

    def scale_free(self) -> Pattern:
        """The pattern normalised by its mean over heads.

        Raises:
            HeadnbError: the pattern is one of signed scores or a difference, or has negative values.
        """
        from headnb.stats import patterns  # noqa: PLC0415

        return patterns.scale_free(_with_head_coords(self._pattern))

    def normalized(self, how: str) -> Pattern:
        """The pattern normalised by "layer" (L2 norm of each layer) or "max", or converted to "rank"."""
        from headnb.stats import patterns  # noqa: PLC0415

        return patterns.normalized(_with_head_coords(self._pattern), how)

    def select(self, heads: str | Iterable[str]) -> xr.DataArray:
        """Values of named heads, such as `"L3H10,L7H1"`: (..., selected), with the names as coordinate.

        Raises:
            HeadnbError: a name is not valid, or the pattern does not have the head.
        """
        pairs = parse_heads(heads)
        values = _with_head_coords(self._pattern)
        for layer, head in pairs:
            if layer not in values.indexes["layer"] or head not in values.indexes["head"]:
                size = f"{values.sizes['layer']} layers of {values.sizes['head']} heads"
                raise HeadnbError(f"there is no head {head_name(layer, head)}: the pattern has {size}")
        layers, numbers = zip(*pairs, strict=True)
        picked = values.sel(
            layer=xr.DataArray(list(layers), dims="selected"), head=xr.DataArray(list(numbers), dims="selected")
        )
        return picked.assign_coords(selected=[head_name(*pair) for pair in pairs])

    def __getitem__(self, name: str) -> float | xr.DataArray:
        """Value of one head: `pattern.heads["L3H10"]`."""
        return _float_or_array(only_head(self.select(name), name))

    def grid(self, *, title: str = "") -> HeadGrid:
        """Layer x head picture, which can be displayed, printed or saved."""
        from headnb.display.grid import HeadGrid  # noqa: PLC0415

        return HeadGrid.of(self._pattern, title=title)

    @check_arguments
    def plot(
        self, *, ax: Axes | None = None, width: str | None = None, theme: str = "light", title: str = ""
    ) -> Figure:
        """Matplotlib figure of the layer x head grid, for papers.

        It has a colour bar with units, marks on significant heads, and one grid per panel. Colours are those of `grid`.
        Save it with `figure.savefig("heads.pdf")`, or use `.grid().save("heads.pdf")`, which also sets the fonts so
        that text stays text.

            figure = comparison.heads.plot(width="120 mm")

        Args:
            ax: draw in these axes instead of a new figure; for one panel only.
            width: width of the new figure with its unit, such as "120 mm" or "4.7 in". None: 85 mm (a column) for one
                grid of at most 32 heads per layer, otherwise 170 mm. The height follows from the number of layers.
            theme: "light" or "dark".
            title: heading of the new figure. Empty: made from the attributes of the data.

        Returns:
            The figure, which is not registered with pyplot.

        Raises:
            HeadnbError: matplotlib is not installed, or an argument is not valid.
        """
        from headnb.display.plot import figure  # noqa: PLC0415

        return figure(self.grid(title=title).payload, ax=ax, width=width, theme=theme)

    def explore(self) -> Explorer:
        """Explorer widget of the pattern; its selection is shared with Python."""
        from headnb.explorer.explorer import Explorer  # noqa: PLC0415

        return Explorer(results=self._pattern)

    def _over_heads(self, statistic: Any, name: str) -> float | xr.DataArray:
        values = xr.apply_ufunc(
            lambda x: statistic(flat(x)), _with_head_coords(self._pattern), input_core_dims=[["layer", "head"]]
        )
        return _float_or_array(values.rename(name))


def only_head(picked: _Data, name: object) -> _Data:
    """The only head of a selection; raise HeadnbError if there are several."""
    if picked.sizes["selected"] != 1:
        raise HeadnbError(f"{name!r} names {picked.sizes['selected']} heads; use .heads.select for several")
    return picked.isel(selected=0)


def _with_head_coords(pattern: xr.DataArray) -> xr.DataArray:
    """Transpose to (..., layer, head), and add missing layer and head coordinates."""
    if missing := [dim for dim in ("layer", "head") if dim not in pattern.dims]:
        raise HeadnbError(f"not a pattern of heads: it has no dim {' and no dim '.join(missing)}")
    pattern = pattern.compute()  # read Dask chunks once
    numbers = {dim: np.arange(pattern.sizes[dim]) for dim in ("layer", "head") if dim not in pattern.coords}
    return pattern.assign_coords(numbers).transpose(..., "layer", "head")


def flat(values: Array) -> Array:
    """Merge the dims layer and head: (..., L, H) to (..., L * H)."""
    return values.reshape(*values.shape[:-2], -1)


def _float_or_array(values: xr.DataArray) -> float | xr.DataArray:
    return values if values.ndim else float(values)
