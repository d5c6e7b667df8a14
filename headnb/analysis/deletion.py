"""Deletion curves: rise of the loss when the highest-scored heads are ablated, compared with other heads.

Heads are chosen on one half of the samples, and losses are measured on the other half; measuring on the same samples
would overestimate the effect of the top heads. The top heads are compared, paired by sample, with random heads of the
same layers, since layers differ in their effect, and with the bottom heads of the ranking.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from headnb.analysis.head_choice import check_head_count, format_heads, ranked_heads, shuffled_within_layers
from headnb.analysis.json_values import as_records
from headnb.analysis.result import AnalysisResult
from headnb.call_checks import check_arguments
from headnb.display.charts.chart import Chart, chart_row
from headnb.display.charts.plots import trajectory
from headnb.engine.hooks import find_heads, input_device
from headnb.engine.interventions import mean_outputs
from headnb.engine.losses import find_loss_computer
from headnb.engine.model_contexts import frozen
from headnb.errors import HeadnbError, unknown_name
from headnb.models.checks import model_name
from headnb.models.locks import model_lock
from headnb.scoring.ablation import Replacement, losses_with_heads_replaced
from headnb.scoring.checks import checked_task
from headnb.scoring.progress_bars import counted, with_progress_bar
from headnb.scoring.run import score_heads
from headnb.stats.seeds import seed_of_task
from headnb.stats.significance import crossed_intervals
from headnb.tasks.loading import subset

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.analysis.head_choice import HeadIndex
    from headnb.engine.tokenization import EncodedTask, EncodingName
    from headnb.stats.descriptive import Array
    from headnb.tasks.loading import Task

    Indices = NDArray[np.intp]

REPLACEMENTS = ("zero", "mean")
_REPLACED_BY = {"zero": "zero", "mean": "their mean output"}
CHOICES = ("top", "random", "bottom")
KS = (1, 2, 5, 10, 20, 50)
MIN_TESTED = 2
MIN_SAMPLES = 2 + MIN_TESTED  # two to choose heads, two to test


@dataclass(frozen=True, repr=False)
class DeletionCurve(AnalysisResult):
    """Effect of ablating heads on the loss of samples that were not used to choose the heads.

    Attributes:
        rise: Dataset (replacement, choice, k) of `value`, `low`, `high`: mean rise of the loss in nats with k heads
            ablated: the highest-scored ("top"), the lowest-scored ("bottom"), or random heads of the top heads' layers
            ("random"). Intervals are Student's t over samples; for random heads also over the random rankings.
        difference: Dataset (replacement, choice, k) of `value`, `low`, `high`: rise with the top or bottom heads
            ablated minus the rise with random heads ablated, paired by sample.
        losses: Dataset with `loss` (sample) of the unmodified model, and the `rise` (replacement, removal, k, sample);
            a removal is "top", "bottom" or "random 0", "random 1", ...
        heads: (choice, k), the names of the top and bottom heads, joined by commas.
        method: score method that ranked the heads.
        chosen_on: number of samples behind the ranking.
        level: confidence level of each interval, not corrected for multiple intervals.
    """

    rise: xr.Dataset
    difference: xr.Dataset
    losses: xr.Dataset
    heads: xr.DataArray
    model: str
    task: str
    method: str
    chosen_on: int
    level: float

    @property
    def table(self) -> pd.DataFrame:
        """One row per replacement and k: the rises, and top minus random with its interval."""
        columns = {choice: self.rise["value"].sel(choice=choice, drop=True) for choice in CHOICES}
        paired = self.difference.sel(choice="top", drop=True)
        columns |= {"top - random": paired["value"], "low": paired["low"], "high": paired["high"]}
        return xr.Dataset(columns).to_dataframe().reindex(REPLACEMENTS, level="replacement").dropna(how="all")

    @property
    def verdict(self) -> str:
        """The result in sentences."""
        return " ".join(self._sentence(str(how)) for how in self.difference["replacement"].to_numpy())

    def plot(self) -> Chart:
        """Rise of the loss against the number of ablated heads, one chart per replacement."""
        charts = [
            trajectory(
                self.rise.sel(replacement=how, drop=True).rename(k="heads_removed"),
                along="heads_removed",
                log=True,
                title=f"replaced by {how}",
            )
            for how in self.rise["replacement"].to_numpy()
        ]
        return chart_row(*charts, title=f"rise of the loss (nats): {self._title()}")

    def to_dict(self) -> dict[str, Any]:
        """The result as plain JSON values (NaN as None)."""
        return {
            "model": self.model,
            "task": self.task,
            "method": self.method,
            "chosen_on": self.chosen_on,
            "samples": self.losses.sizes["sample"],
            "level": self.level,
            "rows": as_records(self.table),
            "verdict": self.verdict,
        }

    def _title(self) -> str:
        return (
            f"{self.model} · {self.task} · heads ranked by {self.method} on {self.chosen_on} samples, losses of "
            f"{self.losses.sizes['sample']} other samples"
        )

    def _sentence(self, how: str) -> str:
        top = self.difference.sel(replacement=how, choice="top")
        k, low, high = (top[name].to_numpy() for name in ("k", "low", "high"))
        groups = {
            "is higher than": k[low > 0],
            "is lower than": k[high < 0],
            "does not differ significantly from": k[(low <= 0) & (high >= 0)],
        }
        parts = [f"{words} with random heads at k = {', '.join(map(str, v))}" for words, v in groups.items() if len(v)]
        return (
            f"With the top k heads replaced by {_REPLACED_BY[how]}, the rise of the loss {'; '.join(parts)} (paired, "
            f"{self.losses.sizes['sample']} samples)."
        )


@check_arguments
@with_progress_bar(counted("ablating"))
def deletion_curve(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task | Any,
    by: str | xr.Dataset = "activation",
    *,
    ks: Sequence[int] = KS,
    draws: int = 5,
    replacements: Sequence[str] = REPLACEMENTS,
    batch_tokens: int = 4096,
    max_length: int | None = None,
    encoding: EncodingName = "official",
    level: float = 0.95,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> DeletionCurve:
    """Measure the rise of the loss when the highest-scored heads are ablated, compared with random and bottom heads.

    The cost is one forward pass of each tested sample per replacement and k, for top, bottom and each random ranking.

    Args:
        model: as for `score_heads`; it is not changed.
        tokenizer: its tokenizer; None if the samples are already encoded.
        task: a `Task`, or anything that `load_task` accepts.
        by: a method of `headnb.methods()`, which ranks the heads on half of the samples; the other half is tested. Or
            scores: if they contain no sample of the task, all samples of the task are tested; otherwise half of the
            task's samples are tested, and the scores of all other samples rank the heads.
        ks: numbers of heads to ablate; by default 1, 2, 5, 10, 20 and 50, if the model has more heads.
        draws: number of random rankings; each permutes the heads within every layer.
        replacements: "zero", and "mean": a head's mean output over all tokens of the task.
        batch_tokens: tokens per batch, padding included.
        max_length: truncate longer samples to this number of tokens.
        encoding: as for `score_heads`.
        level: confidence level of the intervals.
        seed: seed of the split, of the random rankings (different for each task) and of the batch order.
        on_progress: called with the number of samples tested and their total; an exception raised in it stops the call.
            None: a progress bar in notebooks and terminals.

    Raises:
        HeadnbError: bad input, fewer than 4 samples (2 with scores of other samples), only scores of tested samples, or
            an error of `score_heads`.
    """
    _check_removals(ks, draws, replacements)
    task, encoded = checked_task(model, tokenizer, task, encoding=encoding, max_length=max_length)
    with model_lock(model):
        scores: xr.Dataset
        if isinstance(by, str):
            choosing, tested = _split_in_half(encoded, seed)
            indices = {key: index for index, key in enumerate(task.ids)}
            half = subset(task, [indices[encoded.ids[place]] for place in choosing])
            settings: dict[str, Any] = {"batch_tokens": batch_tokens, "max_length": max_length, "encoding": encoding}
            scores = score_heads(model, tokenizer, half, method=by, seed=seed, **settings)
        else:
            scores, tested = _disjoint_scores(by, task, encoded, encoding, seed)
        ranking = ranked_heads(scores)
        ks = [k for k in KS if k < len(ranking)] if ks is KS else sorted(set(ks))
        for k in ks:
            check_head_count(k, ranking)
        removals = _Removals(_orders(ranking, draws, seed_of_task(seed, task.name)), ks, replacements)
        rest = _subset(encoded, tested)
        losses = _losses(model, encoded, rest, removals, batch_tokens, seed, on_progress)
    heads = [[",".join(format_heads(removals.orders[which][:k])) for k in ks] for which in ("top", "bottom")]
    return DeletionCurve(
        rise=_intervals(losses["rise"], CHOICES, level),
        difference=_intervals(losses["rise"], ("top", "bottom"), level, minus="random"),
        losses=losses,
        heads=xr.DataArray(heads, {"choice": ["top", "bottom"], "k": ks}, ("choice", "k")),
        model=model_name(model),
        task=task.name,
        method=str(scores.attrs.get("method", "scores")),
        chosen_on=int(scores.sizes.get("sample", len(encoded.ids) - len(rest.ids))),
        level=level,
    )


def _check_removals(ks: Sequence[int], draws: int, replacements: Sequence[str]) -> None:
    for how in replacements:
        if how not in REPLACEMENTS:
            raise unknown_name("replacement", str(how), REPLACEMENTS)
    if len(set(replacements)) < len(replacements):
        raise HeadnbError(f"replacements contains a name twice: {', '.join(replacements)}")
    if not replacements or not ks or draws < 1:
        raise HeadnbError(
            "a deletion curve needs at least one replacement, a number of heads (ks) and one random ranking (draws)"
        )


@dataclass(frozen=True)
class _Removals:
    """The sets of heads to ablate, and their replacements."""

    orders: Mapping[str, list[HeadIndex]]
    """Name -> the order in which heads are ablated."""
    ks: Sequence[int]
    replacements: Sequence[str]

    def sets(self, values: Mapping[str, dict[int, Tensor] | None]) -> list[Replacement]:
        """One `Replacement` per replacement, order and k; `values` has the outputs that replace the heads'."""
        return [
            Replacement(tuple(format_heads(order[:k])), 0.0, values[how])
            for how in self.replacements
            for order in self.orders.values()
            for k in self.ks
        ]

    def by_name(self, rise: Array, samples: Sequence[int | str]) -> xr.DataArray:
        """Rises of the loss, one row per set, reshaped to (replacement, removal, k, sample)."""
        coords = {"replacement": list(self.replacements), "removal": list(self.orders), "k": list(self.ks)}
        shape = (len(self.replacements), len(self.orders), len(self.ks), len(samples))
        return xr.DataArray(rise.reshape(shape), {**coords, "sample": list(samples)}, (*coords, "sample"))


def _losses(
    model: PreTrainedModel,
    encoded: EncodedTask,
    rest: EncodedTask,
    removals: _Removals,
    batch_tokens: int,
    seed: int,
    on_progress: Callable[[int, int], None] | None,
) -> xr.Dataset:
    """`DeletionCurve.losses` of the tested samples `rest`; mean outputs are over all tokens of `encoded`."""
    with frozen(model):
        layout = find_heads(model)
        values: dict[str, dict[int, Tensor] | None] = {"zero": None}
        if "mean" in removals.replacements:
            loss_computer, device = find_loss_computer(model), input_device(model)
            values["mean"] = mean_outputs(
                model, encoded.samples, layout, lambda batch: loss_computer.losses(batch, device), batch_tokens
            )
        sets = [Replacement(()), *removals.sets(values)]
        whole, *without = losses_with_heads_replaced(model, rest, sets, layout, batch_tokens, seed, on_progress)
    rise = removals.by_name(np.array(without) - whole, rest.ids)
    return xr.Dataset({"loss": ("sample", whole), "rise": rise})


def _orders(ranking: list[HeadIndex], draws: int, seed: int) -> dict[str, list[HeadIndex]]:
    """Name -> an order in which heads are ablated."""
    random = np.random.default_rng(seed)
    drawn = {f"random {draw}": shuffled_within_layers(ranking, random) for draw in range(draws)}
    return {"top": ranking, "bottom": ranking[::-1], **drawn}


def _intervals(rise: xr.DataArray, choices: Sequence[str], level: float, minus: str = "") -> xr.Dataset:
    """Means (replacement, choice, k) with intervals of rises (replacement, removal, k, sample).

    If `minus` names a choice, its rises are subtracted, paired by sample.
    """

    def of(choice: str) -> Array:
        """The rises of one choice, one row per ranking: (rankings, sample, replacement, k)."""
        chosen = [name for name in rise["removal"].to_numpy() if str(name).split()[0] == choice]
        return rise.sel(removal=chosen).transpose("removal", "sample", "replacement", "k").to_numpy()

    values = [of(choice) - of(minus) if minus else of(choice) for choice in choices]
    ends = zip(*(crossed_intervals(each, level) for each in values), strict=True)
    dims = ("replacement", "choice", "k")
    coords = {"replacement": rise["replacement"].to_numpy(), "choice": list(choices), "k": rise["k"].to_numpy()}
    columns = dict(zip(("value", "low", "high"), ends, strict=True))
    return xr.Dataset(
        {name: (dims, np.stack(parts, axis=1)) for name, parts in columns.items()},
        coords=coords,
        attrs={"quantity": "rise of the loss", "units": "nats", "level": level},
    )


def _split_in_half(encoded: EncodedTask, seed: int) -> tuple[Indices, Indices]:
    """Positions of the samples that rank the heads, and of the tested samples."""
    n = len(encoded.ids)
    if n < MIN_SAMPLES:
        raise HeadnbError(
            f"a deletion curve needs at least {MIN_SAMPLES} samples, half of them to rank the heads; got {n}"
        )
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])


def _is_same_task(scores: xr.Dataset, task: Task, encoded: EncodedTask, encoding: str) -> bool:
    """Whether equal ids denote equal samples. All lists in memory are named "samples", so the name is not enough.

    Truncation and another encoding change fingerprints, not ids; then the name decides.
    """
    if scores.attrs.get("task") != task.name:
        return False
    if scores.attrs.get("truncated") or encoded.truncated or scores.attrs.get("encoding", encoding) != encoding:
        return True
    known = dict(zip(encoded.ids, encoded.fingerprints.tolist(), strict=True))
    scored = zip(scores["sample"].to_numpy().tolist(), scores["fingerprint"].to_numpy().tolist(), strict=True)
    return all(known.get(key, print_) == print_ for key, print_ in scored)


def _disjoint_scores(
    scores: xr.Dataset, task: Task, encoded: EncodedTask, encoding: str, seed: int
) -> tuple[xr.Dataset, Indices]:
    """Scores of samples that are not tested, and the positions of the tested samples."""
    if not isinstance(scores, xr.Dataset) or "fingerprint" not in scores or "sample" not in scores.dims:
        raise HeadnbError("by must be the name of a method or per-sample scores as score_heads returns them")
    same_task = _is_same_task(scores, task, encoded, encoding)
    ids = set(scores["sample"].to_numpy().tolist()) if same_task else set()
    prints = set(scores["fingerprint"].to_numpy().tolist())
    scored = [
        key in ids or int(print_) in prints for key, print_ in zip(encoded.ids, encoded.fingerprints, strict=True)
    ]
    if not any(scored):
        if (n := len(encoded.ids)) < MIN_TESTED:
            raise HeadnbError(f"a deletion curve needs at least {MIN_TESTED} tested samples; the task has {n}")
        return scores, np.arange(n)
    _, tested = _split_in_half(encoded, seed)
    taken = {encoded.ids[place] for place in tested} if same_task else set()
    tested_prints = set(encoded.fingerprints[tested].tolist())
    left = [
        key not in taken and print_ not in tested_prints
        for key, print_ in zip(
            scores["sample"].to_numpy().tolist(), scores["fingerprint"].to_numpy().tolist(), strict=True
        )
    ]
    if not any(left):
        raise HeadnbError("all scored samples are also tested; score more samples, or pass the name of a method")
    return scores.isel(sample=np.flatnonzero(left)), tested


def _subset(encoded: EncodedTask, places: Indices) -> EncodedTask:
    return dataclasses.replace(
        encoded,
        samples=tuple(encoded.samples[place] for place in places),
        ids=tuple(encoded.ids[place] for place in places),
    )
