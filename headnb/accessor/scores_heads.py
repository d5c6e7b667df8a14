"""`.heads` of scores and comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import xarray as xr

from headnb.accessor.pattern_heads import PatternHeads, flat, only_head
from headnb.call_checks import check_arguments
from headnb.stats.results import check_levels, is_signed, trusted_attrs
from headnb.stats.tables import head_table
from headnb.storage.saving_methods import SavingMethods

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.display.grid import HeadGrid
    from headnb.explorer.explorer import Explorer
    from headnb.stats.estimates import Estimate
    from headnb.stats.labelled import Pattern, Scores
    from headnb.stats.reliability import Evidence


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
        """Expected correlation with a pattern of as many new samples (and training runs, if there are several)."""
        return self.evidence().reliability

    @check_arguments
    def interval(self, level: float = 0.95, seed: int = 0) -> xr.Dataset:
        """Mean of each head over samples, with its confidence interval: `value`, `low`, `high` (layer, head)."""
        from headnb.stats.score_statistics import head_intervals  # noqa: PLC0415

        return head_intervals(self._dataset, level, seed)

    @check_arguments
    def gini(self, level: float = 0.95, seed: int = 0) -> Estimate:
        """Bias-corrected Gini coefficient (estimate for unlimited samples), with its interval."""
        check_levels("the Gini coefficient", signed=is_signed(self._dataset))
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
            HeadnbError: not scores of samples, layers or heads differ, or a common id belongs to different samples.
        """
        from headnb.stats import jackknife, paired, patterns  # noqa: PLC0415
        from headnb.stats.score_statistics import samples_of  # noqa: PLC0415

        patterns.sample_levels(other)
        same_task = self._dataset.attrs.get("task") == other.attrs.get("task")
        ids, other_ids = (scores.indexes.get("sample", []) for scores in (self._dataset, other))
        same_samples = same_task and not set(ids).isdisjoint(other_ids)
        if same_samples:
            one, two = (flat(levels.values) for levels in paired.paired_levels(self._dataset, other))
        else:
            one, two = samples_of(self._dataset), samples_of(other)
            paired.check_same_heads(self._dataset, other)
        return jackknife.correlation(one, two, paired=same_samples, level=level, seed=seed)

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
        if is_signed(self._dataset):
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
        """The pattern normalised by its mean over heads.

        Raises:
            HeadnbError: the scores are signed.
        """
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
        return only_head(self.select(name), name)

    def grid(self, *, title: str = "") -> HeadGrid:
        """Layer x head picture of the pattern or of the comparison, with intervals."""
        from headnb.display.grid import HeadGrid  # noqa: PLC0415

        return HeadGrid.of(self._dataset, title=title)

    @check_arguments
    def plot(
        self, *, ax: Axes | None = None, width: str | None = None, theme: str = "light", title: str = ""
    ) -> Figure:
        """Matplotlib figure of the pattern or of the comparison, for papers: see `PatternHeads.plot`."""
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
        the samples' texts and attention, and can ablate heads. `options`, only with a model, are `seed`,
        `batch_tokens`, `max_length`, `encoding` and `loss` of `headnb.explore`.
        """
        from headnb.explorer.explorer import Explorer  # noqa: PLC0415
        from headnb.explorer.task_sources import TaskSources  # noqa: PLC0415

        tasks = TaskSources({str(self._dataset.attrs.get("task", "")): task}) if task is not None else None
        return Explorer(model, tokenizer, tasks, results=self._dataset, **options)

    @property
    def _is_comparison(self) -> bool:
        return "difference" in self._dataset
