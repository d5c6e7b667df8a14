"""What a combination fit and its evidence show, in sentences made from their numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from headnb.analysis.composition.design import SHRINKAGE
from headnb.analysis.composition.evidence import COLLINEAR
from headnb.stats.reliability import TARGET_RELIABILITY, Evidence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headnb.analysis.composition.evidence import Comparison, CompositionEvidence, Limit
    from headnb.analysis.composition.fit_data import FitData

UNCENTRED = "uncentred: high without composition"


def fit_verdict(fit: FitData) -> str:
    """The evidence, then the fit beside it."""
    lines = (describe_evidence(fit.evidence), _r_squared(fit), _shrinkage(fit), _collinear(fit), _noise(fit))
    return " ".join(filter(None, lines))


def describe_evidence(evidence: CompositionEvidence) -> str:
    """The level that was reached and what the next one lacks, or why there is no verdict."""
    target, basics = evidence.target, join_names(evidence.basics)
    found = evidence.change
    if found is None:
        return f"No verdict on composition: {evidence.unjudged}."
    if not found.reliable:
        return (
            f"No verdict on composition: what the patterns before fine-tuning leave of the change of {target} is too "
            f"noisy (reliability {found.reliability:.2f}, 0.50 needed); use more samples or training runs."
        )
    if not found.apart:
        return (
            f"No composition is shown: {basics} cannot be told apart from each other or from noise (condition number "
            f"above {COLLINEAR} after the patterns before fine-tuning)."
        )
    if not found.has_gain:
        return (
            f"No composition is shown: beyond the patterns before fine-tuning, {basics} do not explain the change of "
            f"{target} (gain {_format_limit(found.gain)})."
        )
    lead = (
        f"Level of evidence: {evidence.level}. Beyond the patterns before fine-tuning, {basics} explain a part of the"
    )
    gain = f"change of {target}: gain {_format_limit(found.gain)}."
    return " ".join(
        filter(None, (lead, gain, _describe_additions(evidence, found), _describe_next_level(evidence, found)))
    )


def _describe_next_level(evidence: CompositionEvidence, found: Comparison) -> str:
    """What more was tested, what was not found, and what could not be tested."""
    if not found.has_excess:
        tested = f"{_describe_excess(found)}. " if found.excess is not None else ""
        needs = f" To test that, this needs {evidence.lacking}." if evidence.lacking and not tested else ""
        return f"{tested}A change common to all fine-tuning is not excluded.{needs}"
    lines = [f"{_describe_excess(found)}."]
    beyond = evidence.beyond
    if beyond is None:
        return f"{lines[0]} A format of the answers that they share is not excluded: that needs {evidence.lacking}."
    less = "With own answers less shuffled answers"
    if not beyond.reliable:
        lines.append(f"{less} the rest is too noisy (reliability {beyond.reliability:.2f}, 0.50 needed).")
    else:
        excess = f"; {_describe_excess(beyond, start='they ')}" if beyond.excess is not None else ""
        lines.append(f"{less}: gain {_format_limit(beyond.gain)}{excess}.")
    if not beyond.has_excess:
        lines.append("A format of the answers that they share is not excluded.")
    return " ".join(lines)


def _describe_additions(evidence: CompositionEvidence, found: Comparison) -> str:
    if len(evidence.basics) == 1:
        return ""
    if len(found.adding) == len(evidence.basics):
        return "Each of them adds to the others."
    lacking = [f"{name} ({_format_limit(one)})" for name, one in found.adds.items() if name not in found.adding]
    return f"Not shown to add to the others: {join_names(lacking)}; so a combination of all of them is not shown."


def _describe_excess(found: Comparison, start: str = "They ") -> str:
    if found.excess is None:
        return ""
    shown = "explain more" if found.has_excess else "are not shown to explain more"
    return f"{start}{shown} than {join_names(found.rivals)} ({_format_limit(found.excess)})"


def _format_limit(one: Limit) -> str:
    test = "" if math.isnan(one.p) else f", p = {one.p:.2g} over layers"
    return f"{one.value:.2f}, at least {one.low:.2f}{test}".replace("-", "−")


def _r_squared(fit: FitData) -> str:
    what = "change" if fit.on == "change" else "pattern after fine-tuning"
    scale = ", scale-free," if fit.scale_free else ""
    ceiling = "" if math.isnan(fit.ceiling) else f", at most {fit.ceiling:.2f} with this much noise"
    return (
        f"The fit to the {what}{scale} has R² {fit.r2:.2f}, {fit.r2_cv:.2f} leaving layers "
        f"out{ceiling} (R² {fit.r2_uncentred:.2f} {UNCENTRED})."
    )


def _shrinkage(fit: FitData) -> str:
    """The shrinkage null in its own words, where its weight has them."""
    if fit.on != "change" or fit.scale_free or fit.form.intercept or SHRINKAGE not in fit.nulls.index:
        return ""
    row = fit.nulls.loc[SHRINKAGE]
    return f"That the pattern merely became {1 + row['weight']:.2f} times what it was has R² {row['r2']:.2f}."


def _collinear(fit: FitData) -> str:
    if fit.condition <= COLLINEAR:
        return ""
    return f"The basic tasks are too alike to weigh them apart (condition number {fit.condition:.0f})."


def _noise(fit: FitData) -> str:
    """Of the least reliable pattern below 0.9: what would raise it."""
    known = fit.reliability.dropna("task")
    if not known.size:
        return "Without scores per sample nothing is known about noise."
    task = str(known.idxmin().item())
    least = known.sel(task=task)
    if least >= TARGET_RELIABILITY:
        return ""
    samples, runs = (int(count.sel(task=task)) for count in (fit.samples, fit.runs))
    needed = [int(least[name]) for name in ("samples_for_090", "runs_for_090")]
    return f"{task}: {Evidence(samples, float(least), needed[0], runs, needed[1]).sentence}."


def join_names(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
