"""Descriptive results of the fair experiment (docs/experiment.md): concentration, specificity, and kinds of tuning.

They have no verdict. Models are scored on the first `BESIDE_SAMPLES` scored samples of every other task, so specificity
compares all patterns on these samples. Their compact results have two groups each, too few for a noise correction or an
interval of the relative change; the permutation tests are over training runs.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING, NamedTuple

import xarray as xr

from headnb.analysis.task_selectivity import selectivity
from headnb.analysis.task_specificity import MIN_TASKS, specificity
from headnb.experiments.fair.results import BESIDE_GROUPS, GROUPS, KINDS, LONG, grouped, read_tracked
from headnb.stats.jackknife import correlation
from headnb.stats.rounding import interval_text
from headnb.stats.significance import t_intervals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headnb.analysis.task_specificity import Specificity
    from headnb.experiments.fair.design import Tuning
    from headnb.experiments.fair.results import FairResults
    from headnb.stats.descriptive import Array

BESIDE_SAMPLES = 24  # `n_beside` of the profile `fair`


class ConcentrationChange(NamedTuple):
    """Concentration of one task's patterns."""

    own: xr.Dataset
    """Before training and change, by training on own answers: `headnb.selectivity(...).concentration`."""
    shuffled: xr.Dataset
    """The same by training on shuffled answers."""
    difference: xr.Dataset
    """Change by own minus change by shuffled answers (statistic), with Student's t interval over seeds."""


def concentration_changes(results: FairResults, tasks: Sequence[str]) -> dict[str, ConcentrationChange]:
    """Concentration of every task with a complete pair of trainings."""
    changes = {}
    for task in tasks:
        if not (seeds := results.paired_seeds(task)):
            continue
        before = results.before(task)
        own, shuffled = ([results.after(kind, task, seed) for seed in seeds] for kind in KINDS)
        pairs = zip(shuffled, own, strict=True)
        runs = xr.concat([_concentration(*pair).sel(stage="change", drop=True)["value"] for pair in pairs], "seed")
        ends = t_intervals(runs.transpose("seed", "statistic").to_numpy())
        difference = xr.Dataset(
            {name: ("statistic", end) for name, end in zip(("value", "low", "high"), ends, strict=True)},
            {"statistic": runs["statistic"]},
        )
        changes[task] = ConcentrationChange(_concentration(before, own), _concentration(before, shuffled), difference)
    return changes


def concentration_rows(results: FairResults, tasks: Sequence[str]) -> list[list[str]]:
    """Task, statistic, its value before training, its change by own and by shuffled answers, own minus shuffled.

    Intervals of values and changes are those of `headnb.selectivity`; that of the difference is Student's t over seeds.
    """
    return [
        [
            task,
            statistic,
            _text(change.own.sel(statistic=statistic, stage="before")),
            _text(change.own.sel(statistic=statistic, stage="change")),
            _text(change.shuffled.sel(statistic=statistic, stage="change")),
            _text(change.difference.sel(statistic=statistic)),
        ]
        for task, change in concentration_changes(results, tasks).items()
        for statistic in change.difference["statistic"].to_numpy().astype(str)
    ]


def specificity_of(results: FairResults, tasks: Sequence[str]) -> Specificity | None:
    """Specificity of the models trained on own answers; None below two trained tasks, or without scores on other tasks.

    A task is evaluated only if its groups of samples end after `BESIDE_SAMPLES` (not so for the concatenation).
    """
    trained = [task for task in tasks if results.seeds("own", task)]
    sizes = {task: results.meta("before", task, None)["samples"] for task in trained}
    evaluated = [task for task in trained if BESIDE_SAMPLES * GROUPS % (BESIDE_GROUPS * sizes[task]) == 0]
    evaluated = [task for task in evaluated if all(results.is_scored_on(other, task) for other in trained)]
    if len(trained) < MIN_TASKS or not evaluated:
        return None

    def first(scores: xr.Dataset, task: str) -> xr.Dataset:
        return grouped(scores.isel(sample=slice(BESIDE_SAMPLES * GROUPS // sizes[task])), BESIDE_GROUPS)

    def after(task: str, seed: int, other: str) -> xr.Dataset:
        own = task == other
        return first(results.after("own", task, seed), task) if own else results.beside(task, seed, other)

    return specificity(
        {other: first(results.before(other), other) for other in evaluated},
        {
            task: {other: [after(task, seed, other) for seed in results.seeds("own", task)] for other in evaluated}
            for task in trained
        },
    )


class TuningAgreement(NamedTuple):
    """Agreement of the changes at one step of long trainings of a task, as noise-corrected correlations over heads."""

    step: int
    lora: list[float]
    """Every pair of two LoRA trainings."""
    full: list[float]
    """Every pair of two full fine-tunings."""
    across: list[float]
    """Every pair of a LoRA training and a full fine-tuning."""


def tuning_agreements(results: FairResults, task: str) -> list[TuningAgreement]:
    """Agreement of LoRA and full fine-tuning at every tracked step after the first; empty without both kinds.

    The change is that of the scale-free pattern since the first step. All trainings are scored on the same samples.
    """
    changes: dict[Tuning, list[Array]] = {
        tuning: [
            _scale_free_change(levels)
            for seed in results.seeds(LONG[tuning], task)
            if (levels := results.long_levels(tuning, task, seed)) is not None
        ]
        for tuning in LONG
    }
    if not all(changes.values()):
        return []
    steps = read_tracked(results, task, results.seeds(LONG["full"], task)[0], "full")["step"]

    def agreement(pair: Sequence[Array], index: int) -> float:
        one, other = (change[index] for change in pair)
        return correlation(one, other, paired=True).value

    return [
        TuningAgreement(
            int(step),
            [agreement(pair, index) for pair in combinations(changes["lora"], 2)],
            [agreement(pair, index) for pair in combinations(changes["full"], 2)],
            [agreement(pair, index) for pair in product(changes["lora"], changes["full"])],
        )
        for index, step in enumerate(steps)
        if index
    ]


def _scale_free_change(levels: Array) -> Array:
    """(step, group, layer, head) levels -> (step, group, heads) change since the first step."""
    pattern = levels.reshape(*levels.shape[:2], -1)
    pattern = pattern / pattern.mean(axis=-1, keepdims=True)
    change: Array = pattern - pattern[0]
    return change


def _concentration(before: xr.Dataset, after: xr.Dataset | list[xr.Dataset]) -> xr.Dataset:
    return selectivity({"": before}, {"": after}).concentration.isel(task=0)


def _text(estimate: xr.Dataset) -> str:
    value, low, high = (float(estimate[name]) for name in ("value", "low", "high"))
    return interval_text(value, low, high)
