"""What a combination fit shows, in sentences made from its numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from headnb.analysis.composition.design import OTHERS, SHRINKAGE, SHUFFLED_ANSWERS
from headnb.analysis.composition.null_models import PERMUTED
from headnb.stats.reliability import TARGET, Evidence
from headnb.stats.rounding import interval_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headnb.analysis.composition.numbers import FitNumbers

COLLINEAR = 30  # condition number above which weights cannot be told apart (Belsley, Kuh and Welsch 1980)


def judge(fit: FitNumbers) -> tuple[bool, str]:
    """Whether composition is shown, and the sentences that say so or why not."""
    beaten: list[str] = []
    equal: list[str] = []
    worse: list[str] = []
    for name, row in fit.nulls.iterrows():
        if name == PERMUTED:
            (beaten if row["p"] < 1 - fit.level else equal).append(name)
        elif math.isnan(row["low"]):
            equal.append(name)
        elif row["high"] < 0:
            worse.append(name)
        else:
            (beaten if row["low"] > 0 and row["p"] < 1 - fit.level else equal).append(name)
    holds = not equal and not worse and SHRINKAGE in beaten
    return holds, " ".join(_sentences(fit, beaten, equal, worse, holds=holds))


def _sentences(fit: FitNumbers, beaten: list[str], equal: list[str], worse: list[str], *, holds: bool) -> list[str]:
    what = "change" if fit.on == "change" else "pattern"
    together = " + ".join(fit.weights["basic"].values)
    r2 = f"R² {fit.r2:.2f}, {fit.r2_cv:.2f} leaving layers out" + (
        "" if math.isnan(fit.ceiling) else f", at most {fit.ceiling:.2f} with this much noise"
    )
    if holds:
        lines = [f"The {what} of {fit.target} is a combination of {together} ({r2}): better than {_listed(beaten)}."]
    else:
        lines = [f"No composition is shown: {together} fit the {what} of {fit.target} with {r2}."]
    if worse:
        lines.append(f"This does not beat {_listed(_with_r2(fit, worse))}.")
    if SHRINKAGE in worse or SHRINKAGE in equal:
        lines.append(_shrinkage(fit))
    if told := [name for name in equal if name != SHRINKAGE or SHRINKAGE not in worse]:
        lines.append(f"It cannot be told from {_listed(_with_advantage(fit, told))}.")
    if fit.condition > COLLINEAR:
        lines.append(f"The basic tasks are too alike to weigh them apart (condition number {fit.condition:.0f}).")
    if noise := _noise(fit):
        lines.append(noise)
    if single := [str(task) for task, n in fit.samples.to_series().items() if n and fit.runs.sel(task=task) == 1]:
        lines.append(f"Of {_listed(single)} there is one training run: what another would give is in no interval.")
    tested = {SHRINKAGE, OTHERS, SHUFFLED_ANSWERS} - set(fit.nulls.index)
    if tested:
        lines.append(f"Not tested: {_listed(sorted(tested))}.")
    return [line for line in lines if line]


def _shrinkage(fit: FitNumbers) -> str:
    """The shrinkage null in its own words, where its weight has them."""
    if fit.on != "change" or fit.scale_free or fit.form.intercept:
        return ""
    row = fit.nulls.loc[SHRINKAGE]
    return f"That the pattern merely became {1 + row['weight']:.2f} times what it was has R² {row['r2']:.2f}."


def _with_r2(fit: FitNumbers, names: Sequence[str]) -> list[str]:
    return [f"{name} (R² {fit.nulls.loc[name, 'r2']:.2f})" for name in names]


def _with_advantage(fit: FitNumbers, names: Sequence[str]) -> list[str]:
    lines = []
    for name in names:
        row = fit.nulls.loc[name]
        if name == PERMUTED or row["low"] > 0:
            lines.append(f"{name} (p = {row['p']:.2g}{'' if name == PERMUTED else ' over layers'})")
        elif math.isnan(row["low"]):
            lines.append(f"{name} (R² {row['r2']:.2f}; noise too large or not known)")
        else:
            lines.append(f"{name} (advantage {interval_text(row['advantage'], row['low'], row['high'])})")
    return lines


def _noise(fit: FitNumbers) -> str:
    """Of the least reliable pattern below 0.9: what would raise it."""
    known = fit.reliability.dropna("task")
    if not known.size:
        return "Without scores per sample nothing is known about noise."
    task = str(known.idxmin().item())
    least = known.sel(task=task)
    if least >= TARGET:
        return ""
    samples, runs = (int(count.sel(task=task)) for count in (fit.samples, fit.runs))
    needed = [int(least[name]) for name in ("samples_for_090", "runs_for_090")]
    return f"{task}: {Evidence(samples, float(least), needed[0], runs, needed[1]).sentence}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
