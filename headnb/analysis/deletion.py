"""Deletion curves: how the loss rises without the heads that a score puts first, against others.

Heads are chosen on one half of the samples, and losses are taken on the other half: on the samples that chose them the
first heads would look better than they are. They are compared, sample by sample, with random heads of the same layers,
since a layer's place alone says much, and with the last heads of the ranking.
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
from headnb.call_checks import check_arguments, checked_level
from headnb.display.charts.chart import Chart, chart_row
from headnb.display.charts.plots import trajectory
from headnb.engine.hooks import find_heads, frozen, input_device
from headnb.engine.interventions import mean_outputs
from headnb.engine.losses import find_loss_computer
from headnb.engine.tokenization import encode_task
from headnb.errors import HeadnbError, unknown_name
from headnb.models.checks import context_length, model_name
from headnb.models.locks import model_lock
from headnb.scoring.ablation import Replacement, losses_with_heads_replaced
from headnb.scoring.run import score_heads
from headnb.stats.seeds import seed_of_task
from headnb.stats.significance import crossed_intervals
from headnb.tasks.loading import Task, load_task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd  # type: ignore[import-untyped]  # xarray brings it
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headnb.analysis.head_choice import HeadIndex
    from headnb.engine.tokenization import EncodedTask, EncodingName
    from headnb.stats.descriptive import Array

    Indices = NDArray[np.intp]

REPLACEMENTS = ("zero", "mean")
CHOICES = ("top", "random", "bottom")
KS = (1, 2, 5, 10, 20, 50)
MIN_SAMPLES = 4  # samples: two choose, two test


@dataclass(frozen=True, repr=False)
class DeletionCurve(AnalysisResult):
    """What removing heads does to the loss of samples that did not choose them.

    Attributes:
        rise: Dataset (replacement, choice, k) of `value`, `low`, `high`: the mean rise of the loss in nats without the
            k heads of the highest scores ("top"), of the lowest ("bottom"), or with as many random heads of the top's
            layers ("random"). Intervals are Student's t over samples; of random heads also over the draws.
        difference: Dataset (replacement, choice, k) of the same: paired by sample, the rise without the top or bottom
            heads less that without random ones.
        losses: Dataset with `loss` (sample) of the whole model, and its `rise` (replacement, removal, k, sample), where
            a removal is "top", "bottom" or "random 0", "random 1", ...
        heads: (choice, k), the names of the top and bottom heads, joined by commas.
        method: what chose them. `chosen_on`: how many samples did.
        level: of the intervals, each by itself.
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
        """A row for each replacement and k: rises, and the top's less random with its interval."""
        columns = {choice: self.rise["value"].sel(choice=choice, drop=True) for choice in CHOICES}
        paired = self.difference.sel(choice="top", drop=True)
        columns |= {"top - random": paired["value"], "low": paired["low"], "high": paired["high"]}
        return xr.Dataset(columns).to_dataframe().reindex(REPLACEMENTS, level="replacement").dropna(how="all")

    @property
    def verdict(self) -> str:
        """What the numbers show, in sentences."""
        return " ".join(self._sentence(str(how)) for how in self.difference["replacement"].to_numpy())

    def plot(self) -> Chart:
        """The rise of the loss against the number of heads removed, by zero and by their means."""
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
        """The numbers as plain JSON values (NaN as None)."""
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
            f"{self.model} · {self.task} · heads by {self.method} on {self.chosen_on} samples, losses on "
            f"{self.losses.sizes['sample']} others"
        )

    def _sentence(self, how: str) -> str:
        top = self.difference.sel(replacement=how, choice="top")
        found = {
            "hurts more than": top["k"].to_numpy()[top["low"].to_numpy() > 0],
            "hurts less than": top["k"].to_numpy()[top["high"].to_numpy() < 0],
            "cannot be told from": top["k"].to_numpy()[(top["low"].to_numpy() <= 0) & (top["high"].to_numpy() >= 0)],
        }
        said = [f"{words} random heads at k = {', '.join(map(str, ks))}" for words, ks in found.items() if len(ks)]
        return f"Replaced by {how}, removing the top k {'; '.join(said)}."


@check_arguments
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
    """How the loss rises when the heads of the highest scores are removed, against random and the lowest ones.

    The cost is a forward pass of each tested sample for every k, replacement, and for top, bottom and each draw.

    Args:
        model: as for `score_heads`; it is left as it was.
        tokenizer: its tokenizer; None if the samples are encoded already.
        task: a `Task`, or anything that `load_task` accepts.
        by: a method of `headnb.methods()`: half of the samples are scored by it and choose, the other half tests. Or
            scores: of other samples than the task's, which then all test; else half of the task's samples test, and
            the scores of the rest choose.
        ks: how many heads are removed; by default those of 1, 2, 5, 10, 20, 50 that are not all heads.
        draws: of random heads: each is one ranking, with the heads of every layer exchanged at random.
        replacements: "zero", and "mean": a head's mean output over all tokens of the task.
        batch_tokens: tokens of a batch, padding included.
        max_length: cut longer samples to so many tokens.
        encoding: as for `score_heads`.
        level: of the intervals.
        seed: of the halves, the draws (others for each task) and the order of work.
        on_progress: called with the number of samples tested and their total; raising in it stops the work.

    Raises:
        HeadnbError: bad input, fewer than 4 samples, scores that no other samples than the tested ones made, or what
            `score_heads` says.
    """
    level = checked_level(level)
    _check_removals(ks, draws, replacements)
    task = task if isinstance(task, Task) else load_task(task)
    encoded = encode_task(task, tokenizer, encoding=encoding, max_length=max_length, context=context_length(model))
    with model_lock(model):
        scores: xr.Dataset
        if isinstance(by, str):
            choosing, tested = _split_in_half(encoded, seed)
            half = _task_subset(task, [encoded.ids[place] for place in choosing])
            settings: dict[str, Any] = {"batch_tokens": batch_tokens, "max_length": max_length, "encoding": encoding}
            scores = score_heads(model, tokenizer, half, method=by, seed=seed, **settings)
        else:
            scores, tested = _disjoint_scores(by, task, encoded, seed)
        ranking = ranked_heads(scores)
        ks = [k for k in KS if k < len(ranking)] if ks is KS else sorted(set(ks))
        for k in ks:
            check_head_count(k, ranking)
        removals = _Removals(_orders(ranking, draws, seed_of_task(seed, task.name)), ks, replacements)
        rest = _subset(encoded, tested)
        found = _losses(model, encoded, rest, removals, batch_tokens, seed, on_progress)
    heads = [[",".join(format_heads(removals.orders[which][:k])) for k in ks] for which in ("top", "bottom")]
    return DeletionCurve(
        rise=_intervals(found["rise"], CHOICES, level),
        difference=_intervals(found["rise"], ("top", "bottom"), level, less="random"),
        losses=found,
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
    if not replacements or not ks or draws < 1:
        raise HeadnbError(
            "a deletion curve needs a replacement, a number of heads and at least one draw of random heads"
        )


@dataclass(frozen=True)
class _Removals:
    """Which heads are removed, and how."""

    orders: Mapping[str, list[HeadIndex]]
    """Name -> the order in which heads are removed."""
    ks: Sequence[int]
    replacements: Sequence[str]

    def sets(self, values: Mapping[str, dict[int, Tensor] | None]) -> list[Replacement]:
        """All of them, by replacement, order and k; `values` is what each replacement puts in a head's place."""
        return [
            Replacement(tuple(format_heads(order[:k])), 0.0, values[how])
            for how in self.replacements
            for order in self.orders.values()
            for k in self.ks
        ]

    def by_name(self, rise: Array, samples: Sequence[int | str]) -> xr.DataArray:
        """Rises of the loss, one row a set, as (replacement, removal, k, sample)."""
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
    """What `DeletionCurve.losses` is, of the tested samples `rest`; means are over all tokens of `encoded`."""
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
    """Name -> an order in which heads are removed."""
    random = np.random.default_rng(seed)
    drawn = {f"random {draw}": shuffled_within_layers(ranking, random) for draw in range(draws)}
    return {"top": ranking, "bottom": ranking[::-1], **drawn}


def _intervals(rise: xr.DataArray, choices: Sequence[str], level: float, less: str = "") -> xr.Dataset:
    """Means with intervals (replacement, choice, k) of rises (replacement, removal, k, sample)."""

    def of(choice: str) -> Array:
        """Of every draw: (draws, sample, replacement, k)."""
        chosen = [name for name in rise["removal"].to_numpy() if str(name).split()[0] == choice]
        return rise.sel(removal=chosen).transpose("removal", "sample", "replacement", "k").to_numpy()

    values = [of(choice) - of(less) if less else of(choice) for choice in choices]
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
    """Places of the samples that choose, and of those that test."""
    n = len(encoded.ids)
    if n < MIN_SAMPLES:
        raise HeadnbError(
            f"a deletion curve needs at least {MIN_SAMPLES} samples, half of them to choose heads; got {n}"
        )
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])


def _disjoint_scores(scores: xr.Dataset, task: Task, encoded: EncodedTask, seed: int) -> tuple[xr.Dataset, Indices]:
    """Scores of other samples than the tested ones, and the places of the latter."""
    if not isinstance(scores, xr.Dataset) or "fingerprint" not in scores or "sample" not in scores.dims:
        raise HeadnbError("heads are chosen by a method's name or by scores of samples, as score_heads gives them")
    same_task = scores.attrs.get("task") == task.name  # cut to another length a sample has another fingerprint
    ids = set(scores["sample"].to_numpy().tolist()) if same_task else set()
    prints = set(scores["fingerprint"].to_numpy().tolist())
    scored = [
        key in ids or int(print_) in prints for key, print_ in zip(encoded.ids, encoded.fingerprints, strict=True)
    ]
    if not any(scored):
        return scores, np.arange(len(encoded.ids))
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
        raise HeadnbError("these scores are all of samples that are tested on; score more samples, or name the method")
    return scores.isel(sample=np.flatnonzero(left)), tested


def _subset(encoded: EncodedTask, places: Indices) -> EncodedTask:
    return dataclasses.replace(
        encoded,
        samples=tuple(encoded.samples[place] for place in places),
        ids=tuple(encoded.ids[place] for place in places),
    )


def _task_subset(task: Task, ids: Sequence[int | str]) -> Task:
    samples = dict(zip(task.ids, task.samples, strict=True))
    return Task(task.name, tuple(samples[key] for key in ids), tuple(ids), task.source)
