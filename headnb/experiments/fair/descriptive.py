"""Descriptive results of the fair experiment (docs/experiment.md, section 5): concentration and specificity.

They have no verdict. Models are scored on the first `BESIDE_SAMPLES` scored samples of every other task, so specificity
compares all patterns on these samples. Their compact results have two groups each, too few for a noise correction or an
interval of the relative change; the permutation tests are over training runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from headnb.analysis.task_selectivity import selectivity
from headnb.analysis.task_specificity import MIN_TASKS, specificity
from headnb.experiments.fair.results import BESIDE_GROUPS, GROUPS, KINDS, grouped
from headnb.stats.rounding import interval_text
from headnb.stats.significance import t_intervals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headnb.analysis.task_specificity import Specificity
    from headnb.experiments.fair.results import FairResults

BESIDE_SAMPLES = 24  # `n_beside` of the profile `fair`


def concentration_rows(results: FairResults, tasks: Sequence[str]) -> list[list[str]]:
    """Task, statistic, its value before training, its change by own and by shuffled answers, own minus shuffled.

    Intervals of values and changes are those of `headnb.selectivity`; that of the difference is Student's t over seeds.
    """
    rows = []
    for task in tasks:
        if not (seeds := results.paired_seeds(task)):
            continue
        before = results.before(task)
        own, shuffled = ([results.after(kind, task, seed) for seed in seeds] for kind in KINDS)
        of_own, of_shuffled = (_concentration(before, after) for after in (own, shuffled))
        pairs = zip(shuffled, own, strict=True)
        runs = xr.concat([_concentration(*pair).sel(stage="change")["value"] for pair in pairs], "seed")
        ends = t_intervals(runs.transpose("seed", "statistic").to_numpy())
        for statistic, value, low, high in zip(runs["statistic"].to_numpy(), *ends, strict=True):
            cells = ((of_own, "before"), (of_own, "change"), (of_shuffled, "change"))
            texts = [_text(of.sel(statistic=statistic, stage=stage)) for of, stage in cells]
            rows.append([task, str(statistic), *texts, interval_text(float(value), float(low), float(high))])
    return rows


def specificity_of(results: FairResults, tasks: Sequence[str]) -> Specificity | None:
    """Specificity of the models trained on own answers; None below two trained tasks.

    A task is evaluated only if its groups of samples end after `BESIDE_SAMPLES` (not so for the concatenation).
    """
    trained = [task for task in tasks if results.seeds("own", task)]
    sizes = {task: results.meta("before", task, None)["samples"] for task in trained}
    evaluated = [task for task in trained if BESIDE_SAMPLES * GROUPS % (BESIDE_GROUPS * sizes[task]) == 0]
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


def _concentration(before: xr.Dataset, after: xr.Dataset | list[xr.Dataset]) -> xr.Dataset:
    return selectivity({"": before}, {"": after}).concentration.isel(task=0)


def _text(estimate: xr.Dataset) -> str:
    value, low, high = (float(estimate[name]) for name in ("value", "low", "high"))
    return interval_text(value, low, high)
