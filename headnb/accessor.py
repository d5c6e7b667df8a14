"""`.heads` accessors of xarray objects: statistics, selection and pictures of scores, comparisons and patterns.

`import headnb` imports this module, so it imports the modules that compute only when a method is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr

from headnb.call_checks import check_arguments
from headnb.errors import HeadnbError
from headnb.head_names import head_name, parse_heads
from headnb.stats.results import trusted_attrs
from headnb.stats.tables import head_table
from headnb.storage.saving_methods import SavingMethods

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.display.grid import HeadGrid
    from headnb.explorer.explorer import Explorer
    from headnb.explorer.grid_widget import HeadGridWidget
    from headnb.stats.descriptive import Array
    from headnb.stats.estimates import Estimate
    from headnb.stats.labelled import Pattern, Scores
    from headnb.stats.reliability import Evidence


@check_arguments
def grid(
    data: object, *, title: str | None = None, roles: xr.Dataset | None = None, live: bool = False
) -> HeadGrid | HeadGridWidget:
    """Layer x head picture of results or of any matrix.

    Args:
        data: a pattern, scores, a comparison, a study, a saved grid, a matrix of layers x heads (numpy, torch, pandas,
            nested lists), a mapping from panel titles to any of these, or a list of results, each titled by its task
            (or model, or method, whichever tells them apart). Several panels have one colour scale. Numbers that are
            not results of headnb are drawn as plain values.
        title: of the picture. None: made from the attributes of the data.
        roles: mark the heads that have these roles (`headnb.head_roles`).
        live: return a widget whose selection is a value in Python (`.selected`, `.on_select`, `.link`) instead of the
            picture.

    Raises:
        HeadnbError: the data cannot be drawn, or the roles are of other heads.

    Example:
        >>> grid = headnb.grid(scores, live=True)  # display it and select heads
        >>> headnb.ablate(model, tokenizer, task, grid.selected)
    """
    from headnb.display.grid import HeadGrid  # noqa: PLC0415

    picture = HeadGrid.of(data, title=title or "")
    if roles is not None:
        picture = picture.with_roles(roles)
    if not live:
        return picture
    from headnb.explorer.grid_widget import HeadGridWidget  # noqa: PLC0415

    return HeadGridWidget(picture)


@xr.register_dataarray_accessor("heads")  # type: ignore[no-untyped-call]
class PatternHeads:
    """`.heads` of a pattern (layer, head), or of several patterns with leading dims."""

    def __init__(self, pattern: xr.DataArray) -> None:
        self._pattern = pattern

    @check_arguments
    def gini(self) -> float | xr.DataArray:
        """Gini coefficient of the pattern's values; `.heads.gini()` of scores is bias-corrected."""
        from headnb.stats import descriptive  # noqa: PLC0415

        _check_levels(
            self._pattern.attrs.get("kind", "level") in {"level", "value"} and not bool((self._pattern < 0).any())
        )
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
            HeadnbError: the patterns have no heads in common.
        """
        from headnb.stats import descriptive, patterns  # noqa: PLC0415

        if other is None:
            return patterns.correlations(self._pattern, dim, kind)
        one, two = xr.align(_with_head_coords(self._pattern), _with_head_coords(other), join="inner")
        if not one.size:
            raise HeadnbError("these patterns have no heads in common")
        return _float_or_array(
            xr.apply_ufunc(
                lambda a, b: descriptive.correlation(_flat(a), _flat(b), kind),
                one,
                two,
                input_core_dims=[["layer", "head"], ["layer", "head"]],
            ).rename("correlation")
        )

    @check_arguments
    def reliability(self) -> float:
        """Reliability stored by `.heads.pattern()`: expected correlation with a pattern of equally many new samples."""
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
        """The pattern normalised by its mean over heads."""
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
        picked = self.select(name)
        if picked.sizes["selected"] != 1:
            raise HeadnbError(f"{name!r} names {picked.sizes['selected']} heads; use .heads.select for several")
        return _float_or_array(picked.isel(selected=0))

    def grid(self, *, title: str = "") -> HeadGrid:
        """Layer x head picture, which can be displayed, printed or saved."""
        from headnb.display.grid import HeadGrid  # noqa: PLC0415

        return HeadGrid.of(self._pattern, title=title)

    @check_arguments
    def plot(
        self, *, ax: Axes | None = None, width: str | None = None, theme: str = "light", title: str = ""
    ) -> Figure:
        """Figure of the layer x head grid by matplotlib, for papers.

        It has a colour bar with units, marks of significant heads, and one grid per panel. Colours are those of `grid`.
        Save it with `figure.savefig("heads.pdf")`, or use `.grid().save("heads.pdf")`, which also sets fonts so that
        text in the file is text.

            figure = comparison.heads.plot(width="120 mm")

        Args:
            ax: draw in these axes instead of a new figure; only one panel.
            width: width of the new figure with its unit, such as "120 mm" or "4.7 in". None: 85 mm (a column) for one
                grid of at most 32 heads per layer, otherwise 170 mm. The height follows from the number of layers.
            theme: "light" or "dark".
            title: heading of the new figure; empty: made from the attributes of the data.

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
            lambda x: statistic(_flat(x)), _with_head_coords(self._pattern), input_core_dims=[["layer", "head"]]
        )
        return _float_or_array(values.rename(name))


@xr.register_dataset_accessor("heads")  # type: ignore[no-untyped-call]
class ScoresHeads(SavingMethods):
    """`.heads` of scores (a Dataset with `score` per sample) and of comparisons (a Dataset with `difference`)."""

    def pattern(self, normalize: str | None = None) -> Pattern:
        """Pattern (layer, head): mean over samples of |score|, or of the signed score, as the method declares.

        The pattern of a comparison is its difference, that of a study its `level`, with the study's leading dims.

        Args:
            normalize: None, "layer" (L2 norm of each layer), "max" or "rank".
        """
        from headnb.stats import patterns  # noqa: PLC0415

        if self._is_comparison:
            stored = self._dataset["difference"].assign_attrs(self._dataset.attrs)
        elif "level" in self._dataset:
            stored = self._dataset["level"]
        else:
            return patterns.pattern(self._dataset, normalize)
        return cast("Pattern", stored) if normalize is None else patterns.normalized(stored, normalize)

    @check_arguments
    def evidence(self) -> Evidence:
        """Evidence for the pattern: samples, training runs, reliability, and samples or runs needed for 0.9."""
        from headnb.stats import patterns, reliability  # noqa: PLC0415

        attrs = trusted_attrs(self._dataset)
        return reliability.stored_evidence(attrs) if self._is_comparison else patterns.evidence(self._dataset)

    @check_arguments
    def reliability(self) -> float:
        """Expected correlation with a pattern of equally many new samples (and training runs, if there are several)."""
        return self.evidence().reliability

    @check_arguments
    def interval(self, level: float = 0.95, seed: int = 0) -> xr.Dataset:
        """Mean of each head over samples, with its confidence interval: `value`, `low`, `high` (layer, head)."""
        from headnb.stats.score_statistics import head_intervals  # noqa: PLC0415

        return head_intervals(self._dataset, level, seed)

    @check_arguments
    def gini(self, level: float = 0.95, seed: int = 0) -> Estimate:
        """Bias-corrected Gini coefficient (estimate for unlimited samples), with its interval."""
        _check_levels(not self._is_signed)
        return self._concentration("gini", level, seed)

    @check_arguments
    def cv(self, level: float = 0.95, seed: int = 0) -> Estimate:
        """Bias-corrected coefficient of variation (estimate for unlimited samples), with its interval."""
        return self._concentration("cv", level, seed)

    @check_arguments
    def kurtosis(self, level: float = 0.95, seed: int = 0) -> Estimate:
        """Bias-corrected excess kurtosis (estimate for unlimited samples), with its interval."""
        return self._concentration("kurtosis", level, seed)

    def _concentration(self, name: str, level: float, seed: int) -> Estimate:
        from headnb.stats.score_statistics import CONCENTRATION, samples_of  # noqa: PLC0415

        return CONCENTRATION[name].of_samples(samples_of(self._dataset), level, seed)

    @check_arguments
    def correlation(self, other: xr.Dataset, level: float = 0.95, seed: int = 0) -> Estimate:
        """Noise-corrected correlation of two patterns (estimate for unlimited samples), with its interval.

        Scores of the same task with common sample ids (such as before and after fine-tuning) are paired by id. All
        other scores are treated as independent.

        Raises:
            HeadnbError: layers or heads differ, or a common id belongs to different samples.
        """
        from headnb.stats import jackknife, patterns  # noqa: PLC0415
        from headnb.stats.score_statistics import samples_of  # noqa: PLC0415

        patterns.sample_levels(other)
        same_task = self._dataset.attrs.get("task") == other.attrs.get("task")
        paired = same_task and bool(self._dataset.indexes["sample"].isin(other.indexes["sample"]).any())
        if paired:
            one, two = (_flat(levels.values) for levels in patterns.paired_levels(self._dataset, other))
        else:
            one, two = samples_of(self._dataset), samples_of(other)
            patterns.check_same_heads(self._dataset, other)
        return jackknife.correlation(one, two, paired=paired, level=level, seed=seed)

    @check_arguments
    def top(self, k: int = 10, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """Table by head name of the k strongest heads, with intervals of their values and ranks.

        For signed scores there are no ranks. For a comparison: the k largest differences, with interval, q-value and
        significance. For scores without samples, such as head roles: the k strongest heads of each role.
        """
        if self._is_comparison or "sample" not in self._dataset.dims:
            return head_table(self._dataset, "difference" if self._is_comparison else "score", k)
        from headnb.stats import significance  # noqa: PLC0415
        from headnb.stats.score_statistics import samples_of  # noqa: PLC0415

        means = self.interval(level, seed)
        table = head_table(means, "value", k)
        if self._is_signed:
            return table
        flat_indices = [
            int(means.indexes["layer"].get_loc(layer)) * means.sizes["head"] + int(means.indexes["head"].get_loc(head))
            for layer, head in zip(table["layer"], table["head"], strict=True)
        ]
        ranks = significance.rank_intervals(samples_of(self._dataset), flat_indices, level, seed=seed)
        return table.assign(rank_low=ranks[:, 0], rank_high=ranks[:, 1])

    def layer_profile(self) -> xr.DataArray:
        """Mean of the pattern over the heads of each layer: (layer)."""
        return PatternHeads(self.pattern()).layer_profile()

    def scale_free(self) -> xr.DataArray:
        """The pattern normalised by its mean over heads."""
        return PatternHeads(self.pattern()).scale_free()

    @check_arguments
    def with_loss(self, loss: str, batch_size: int = 4) -> Scores:
        """Rescale the scores to the loss "sample-mean", "batch-mean" (batches of the paper's script) or "sum"."""
        from headnb.stats import patterns  # noqa: PLC0415

        return patterns.with_loss(self._dataset, loss, batch_size)

    def select(self, heads: str | Iterable[str]) -> xr.Dataset:
        """Select named heads, such as `"L3H10,L7H1"`, in every variable with heads: (..., selected)."""
        return self._dataset.map(
            lambda v: PatternHeads(v).select(heads) if {"layer", "head"} <= set(v.dims) else v, keep_attrs=True
        )

    def __getitem__(self, name: str) -> xr.Dataset:
        """Select one head: its scores of all samples, or its values in a comparison."""
        return self.select(name).isel(selected=0)

    def grid(self, *, title: str = "") -> HeadGrid:
        """Layer x head picture of the pattern or of the comparison, with intervals."""
        from headnb.display.grid import HeadGrid  # noqa: PLC0415

        return HeadGrid.of(self._dataset, title=title)

    @check_arguments
    def plot(
        self, *, ax: Axes | None = None, width: str | None = None, theme: str = "light", title: str = ""
    ) -> Figure:
        """Figure of the pattern or of the comparison by matplotlib, for papers: see `PatternHeads.plot`."""
        from headnb.display.plot import figure  # noqa: PLC0415

        return figure(self.grid(title=title).payload, ax=ax, width=width, theme=theme)

    def explore(
        self,
        model: PreTrainedModel | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        task: object = None,
        **options: Any,
    ) -> Explorer:
        """Explorer widget of these scores, with each head's histogram and strongest samples.

        With the model, its tokenizer and the scored task (anything that `load_task` accepts), the widget also shows
        the samples' texts and attention, and can ablate heads. `options` are those of `headnb.explore`.
        """
        from headnb.explorer.explorer import Explorer  # noqa: PLC0415
        from headnb.explorer.task_sources import TaskSources  # noqa: PLC0415

        tasks = TaskSources({str(self._dataset.attrs.get("task", "")): task}) if task is not None else None
        return Explorer(model, tokenizer, tasks, results=self._dataset, **options)

    @property
    def _is_comparison(self) -> bool:
        return "difference" in self._dataset

    @property
    def _is_signed(self) -> bool:
        from headnb.stats.score_statistics import is_signed  # noqa: PLC0415

        return is_signed(self._dataset)


def _check_levels(are_levels: bool) -> None:
    """Raise HeadnbError for signed scores and differences, even if all values are positive."""
    if not are_levels:
        raise HeadnbError("Gini is defined on activation levels (>= 0), not on signed scores or differences")


def _with_head_coords(pattern: xr.DataArray) -> xr.DataArray:
    """Transpose to (..., layer, head), and add missing layer and head coordinates."""
    if missing := [dim for dim in ("layer", "head") if dim not in pattern.dims]:
        raise HeadnbError(f"not a pattern of heads: it has no dim {' and no dim '.join(missing)}")
    pattern = pattern.compute()  # read Dask chunks once
    numbers = {dim: np.arange(pattern.sizes[dim]) for dim in ("layer", "head") if dim not in pattern.coords}
    return pattern.assign_coords(numbers).transpose(..., "layer", "head")


def _flat(values: Array) -> Array:
    return values.reshape(*values.shape[:-2], -1)


def _float_or_array(values: xr.DataArray) -> float | xr.DataArray:
    return values if values.ndim else float(values)
