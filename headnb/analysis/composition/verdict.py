"""Verdict of a combination fit and its evidence, as sentences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from headnb.analysis.composition.design import SHRINKAGE
from headnb.analysis.composition.evidence import COLLINEAR, MIN_RELIABILITY
from headnb.stats.reliability import TARGET_RELIABILITY, Evidence
from headnb.stats.rounding import fixed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headnb.analysis.composition.evidence import Comparison, CompositionEvidence, Limit
    from headnb.analysis.composition.fit_data import FitData

UNCENTRED = "uncentred: high without composition"


def fit_verdict(fit: FitData) -> str:
    """The evidence for composition, then the fit and its noise."""
    lines = (describe_evidence(fit.evidence), _r_squared(fit), _shrinkage(fit), _collinear(fit), _noise(fit))
    return " ".join(filter(None, lines))


def describe_evidence(evidence: CompositionEvidence) -> str:
    """The level of evidence and what is missing for the next level, or why there is no verdict."""
    target, basics, one_basic = evidence.target, join_names(evidence.basics), len(evidence.basics) == 1
    change = evidence.change
    if change is None:
        return f"No verdict on composition: {evidence.reason_untested}."
    if not change.reliable:
        return (
            f"No verdict on composition: the part of the change of {target} that the patterns before fine-tuning do "
            f"not explain is too noisy (reliability {fixed(change.reliability)}, at least {MIN_RELIABILITY:.2f} needed)"
            "; use more samples or training runs."
        )
    if not change.separable:
        return (
            f"No evidence for composition: {basics} cannot be distinguished from "
            f"{'noise' if one_basic else 'each other or from noise'} (condition number above {COLLINEAR} after "
            "regression on the patterns before fine-tuning)."
        )
    if not change.has_gain:
        return (
            f"No evidence for composition: beyond the patterns before fine-tuning, {basics} "
            f"{'does' if one_basic else 'do'} not explain the change of {target} (gain {_format_limit(change.gain)})."
        )
    gain = (
        f"Level of evidence: {evidence.level}. Beyond the patterns before fine-tuning, {basics} "
        f"{'explains' if one_basic else 'explain'} part of the change of {target} (gain {_format_limit(change.gain)})."
    )
    sentences = (gain, _describe_contributions(evidence, change), _describe_next_level(evidence, change))
    return " ".join(filter(None, sentences))


def _describe_next_level(evidence: CompositionEvidence, comparison: Comparison) -> str:
    """The tests above *gain*: their results, or what is missing to make them."""
    if not comparison.has_excess:
        tested = f"{_describe_excess(comparison, evidence.basics)}. " if comparison.excess is not None else ""
        needs = f" Testing this needs {evidence.missing}." if evidence.missing and not tested else ""
        return f"{tested}A change common to all fine-tuning is not excluded.{needs}"
    sentences = [f"{_describe_excess(comparison, evidence.basics)}."]
    beyond = evidence.beyond_format
    if beyond is None:
        return f"{sentences[0]} A common answer format is not excluded; testing this needs {evidence.missing}."
    if beyond.reliable:
        excess = f"; {_describe_excess(beyond, evidence.basics)}" if beyond.excess is not None else ""
        sentences.append(f"For own minus shuffled answers: gain {_format_limit(beyond.gain)}{excess}.")
    else:
        sentences.append(
            "The change with own answers minus the change with shuffled answers is too noisy "
            f"(reliability {fixed(beyond.reliability)}, at least {MIN_RELIABILITY:.2f} needed)."
        )
    if not beyond.has_excess:
        sentences.append("A common answer format is not excluded.")
    return " ".join(sentences)


def _describe_contributions(evidence: CompositionEvidence, comparison: Comparison) -> str:
    if len(evidence.basics) == 1:
        return ""
    if len(comparison.contributing) == len(evidence.basics):
        return "Each basic task has a unique contribution."
    not_shown = [
        f"{name} ({_format_limit(limit)})"
        for name, limit in comparison.unique_contributions.items()
        if name not in comparison.contributing
    ]
    return (
        f"No unique contribution is shown for {join_names(not_shown)}, so a combination of all basic tasks is not "
        "supported."
    )


def _describe_excess(comparison: Comparison, basics: Sequence[str]) -> str:
    if comparison.excess is None:
        return ""
    if comparison.has_excess:
        shown = "explains more" if len(basics) == 1 else "explain more"
    else:
        shown = "is not shown to explain more" if len(basics) == 1 else "are not shown to explain more"
    alternatives = join_names(comparison.alternatives)
    return f"{join_names(basics)} {shown} than {alternatives} (excess {_format_limit(comparison.excess)})"


def _format_limit(limit: Limit) -> str:
    test = "" if math.isnan(limit.p) else f", p = {limit.p:.2g} over layers"
    return f"{fixed(limit.value)}, lower limit {fixed(limit.low)}{test}"


def _r_squared(fit: FitData) -> str:
    what = "change" if fit.on == "change" else "pattern after fine-tuning"
    scale = ", scale-free," if fit.scale_free else ""
    if math.isnan(fit.r2):
        return f"The {what}{scale} is the same in all heads, so the fit has no R²."
    ceiling = "" if math.isnan(fit.ceiling) else f", noise ceiling {fit.ceiling:.2f}"
    return (
        f"The fit to the {what}{scale} has R² {fixed(fit.r2)} (leave-layers-out {fixed(fit.r2_cv)}{ceiling}; "
        f"{fixed(fit.r2_uncentred)} {UNCENTRED})."
    )


def _shrinkage(fit: FitData) -> str:
    """The shrinkage null model, if its weight is the factor by which the pattern shrank, minus 1."""
    if fit.on != "change" or fit.scale_free or fit.form.intercept or SHRINKAGE not in fit.nulls.index:
        return ""
    row = fit.nulls.loc[SHRINKAGE]
    if math.isnan(row["r2"]):
        return ""
    return f"Shrinkage alone ({1 + row['weight']:.2f} times the pattern before fine-tuning) has R² {fixed(row['r2'])}."


def _collinear(fit: FitData) -> str:
    if fit.condition <= COLLINEAR:
        return ""
    return (
        "The weights of the basic tasks cannot be separated, because their patterns are nearly collinear (condition "
        f"number {f'{fit.condition:.0f}' if math.isfinite(fit.condition) else 'infinite'})."
    )


def _noise(fit: FitData) -> str:
    """Reliability of the least reliable pattern, if below 0.9, and what would raise it."""
    known = fit.reliability.dropna("task")
    if not known.size:
        return "The noise is unknown: there are no scores per sample."
    task = str(known.idxmin().item())
    lowest = known.sel(task=task)
    if lowest >= TARGET_RELIABILITY:
        return ""
    samples, runs = (int(count.sel(task=task)) for count in (fit.samples, fit.runs))
    needed = [int(lowest[name]) for name in ("samples_for_090", "runs_for_090")]
    return f"{task}: {Evidence(samples, float(lowest), needed[0], runs, needed[1]).sentence}."


def join_names(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
