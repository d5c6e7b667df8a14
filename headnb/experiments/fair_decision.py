"""Decision rule of the fair experiment, as registered in docs/experiment.md before any result.

Every statistic is one of headnb's public functions: `fit_combination` for the evidence, `composition_power` for the
spike. This module only compares their numbers with the registered thresholds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import stats

from headnb.analysis.composition.fit import fit_combination
from headnb.analysis.composition.power import EACH_CONTRIBUTES, composition_power
from headnb.analysis.json_values import to_json_value
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr

    from headnb.analysis.composition.evidence import CompositionEvidence
    from headnb.experiments.fair_results import FairResults

    Pairs = list[tuple[xr.Dataset, xr.Dataset]]

MIN_RUNS = 3
RELIABILITY = 0.7  # least residual reliability of the target
SPIKE = 0.5  # share of the target's change that is composed in the simulated studies
POWER = 0.8  # least fraction of simulated studies in which the spike is found
ABSENT = 0.25  # the upper limit of the gain must be below it
SLOPE = 0.5  # log half-time per log length of the training must be below it
LEVEL = 0.95  # of one-sided limits, before Holm's correction
FAMILIES = 2  # mathqa_python and the procedural family
TARGET, BASICS, OTHERS = "mathqa_python", ("gsm8k", "mbpp"), ("boolq", "arc_easy", "openbookqa", "svamp")
POSITIVE, NEGATIVE = "gsm8k+mbpp", "boolq"

Verdict = Literal["composition", "shared, perhaps format", "absent", "undecided", "not decidable"]


@dataclass(frozen=True)
class Study:
    """The changes of one family of tasks: task -> (before, after) of every training run."""

    target: str
    basics: tuple[str, ...]
    own: Mapping[str, Pairs]
    shuffled: Mapping[str, Pairs]

    def changes(self, target: str = "") -> dict[str, Any]:
        """Arguments of `fit_combination` and `composition_power`, for another target if one is given.

        The complex target and the positive control never serve as other tasks, because they contain the basics.
        """
        name = target or self.target
        not_other = {name, *self.basics, self.target, POSITIVE}
        others = {task: pairs for task, pairs in self.own.items() if task not in not_other}
        used = {name, *self.basics, *others}
        return {
            "target": self.own[name],
            "basics": {task: self.own[task] for task in self.basics},
            "name": name,
            "others": others or None,
            "shuffled": {task: pairs for task, pairs in self.shuffled.items() if task in used} or None,
        }

    def evidence(self, target: str = "", level: float = LEVEL) -> CompositionEvidence:
        """Evidence for composition of the target, or of another task."""
        return fit_combination(**self.changes(target), level=level, permutations=1, resamples=1).evidence

    @classmethod
    def of(cls, results: FairResults) -> Study:
        """The study of mathqa_python from compact results; only tasks with trainings of both kinds and equal seeds."""
        own, shuffled = {}, {}
        for task in (TARGET, *BASICS, *OTHERS, POSITIVE):
            seeds = [seed for seed in results.seeds("own", task) if seed in results.seeds("shuffled", task)]
            if seeds:
                before = results.before(task)
                own[task] = [(before, results.after("own", task, seed)) for seed in seeds]
                shuffled[task] = [(before, results.after("shuffled", task, seed)) for seed in seeds]
        return cls(TARGET, BASICS, own, shuffled)


@dataclass(frozen=True)
class Decision:
    """The verdict on one family of tasks.

    Attributes:
        verdict: the registered verdict.
        reasons: what is missing or failed, in sentences; empty if the experiment is valid.
        numbers: the numbers that the rule compares, as plain JSON values.
        level: level of the one-sided limits and tests.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    numbers: Mapping[str, Any] = field(default_factory=dict)
    level: float = LEVEL

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        return f"Composition: {self.verdict}." + "".join(f" {reason}." for reason in self.reasons)


def decide(study: Study, *, level: float = LEVEL, replicates: int = 40) -> Decision:
    """Apply the registered rule to one family of tasks.

    Args:
        study: the changes.
        level: level of the limits and tests of the target; the controls always use 0.95.
        replicates: simulated studies for the spike.
    """
    if reasons := _missing(study):
        return Decision("not decidable", tuple(reasons), {"runs": _runs(study)}, level)
    evidence = study.evidence(level=level)
    change, beyond = evidence.change, evidence.beyond_format
    if change is None or beyond is None or change.excess is None:
        return Decision("not decidable", (evidence.reason_untested or f"needs {evidence.missing}",), {}, level)
    at_level = evidence if level == LEVEL else study.evidence()
    upper = at_level.change.gain.high if at_level.change is not None else math.nan
    lost = _not_learnt(study)
    found = math.nan if math.isnan(change.gain.value) else _spike_found(study, level, replicates)
    controls = {name: study.evidence(name).composed for name in (POSITIVE, NEGATIVE) if name in study.own}
    numbers = {
        "runs": _runs(study),
        "gain": change.gain._asdict(),
        "upper limit of the gain": upper,
        "excess": change.excess._asdict(),
        "added": {name: limit._asdict() for name, limit in change.unique_contributions.items()},
        "gain beyond format": beyond.gain._asdict(),
        "reliability": change.reliability,
        "condition": change.condition,
        "spike found": found,
        "controls": controls,
        "level of evidence": evidence.level,
    }
    checks = {
        f"the loss of {', '.join(lost)} is not lower than after training on shuffled answers": bool(lost),
        f"residual reliability {change.reliability:.2f} is below {RELIABILITY}": change.reliability < RELIABILITY,
        f"a spike of {SPIKE} is found in {found:.0%} of simulated studies, fewer than {POWER:.0%}": not found >= POWER,
        f"the positive control {POSITIVE} is not found": not controls.get(POSITIVE, True),
        f"composition is found for the negative control {NEGATIVE}": controls.get(NEGATIVE, False),
    }
    reasons = [reason for reason, failed in checks.items() if failed]
    plain = _plain(numbers)
    if reasons:
        return Decision("not decidable", tuple(reasons), plain, level)
    verdict: Verdict = "undecided"
    if evidence.composed:
        verdict = "composition" if beyond.has_gain else "shared, perhaps format"
    elif upper < ABSENT:
        verdict = "absent"
    return Decision(verdict, (), plain, level)


def holm(studies: Mapping[str, Study], replicates: int = 40) -> dict[str, Decision]:
    """Decisions on the families by Holm's procedure.

    Each is judged at 1 - 0.05 / `FAMILIES`; once one shows composition, the other at 1 - 0.05 / (`FAMILIES` - 1). The
    number of registered families counts, also while one of them has no results.
    """
    shown: dict[str, Decision] = {}
    while True:
        level = 1 - (1 - LEVEL) / (FAMILIES - len(shown))
        rest = {name: decide(s, level=level, replicates=replicates) for name, s in studies.items() if name not in shown}
        found = {name: one for name, one in rest.items() if one.verdict == "composition"}
        shown |= found
        if not found or len(shown) == len(studies):
            return {name: (shown | rest)[name] for name in studies}


@dataclass(frozen=True)
class Rapid:
    """Whether patterns change rapidly.

    Attributes:
        verdict: "rapid", "not rapid", "undecided" or "not decidable".
        slope: log half-time per log length of the training: mean over seeds and its one-sided upper limit.
        ahead: log of the pattern's half-time over the loss's half-time in the longest training, likewise.
        seeds: number of long trainings.
    """

    verdict: str
    slope: tuple[float, float]
    ahead: tuple[float, float]
    seeds: int


def decide_rapid(trainings: Sequence[Sequence[Mapping[str, float]]], level: float = LEVEL) -> Rapid:
    """Apply the registered rule to the half-times of long trainings (`fair_results.half_times`), one per seed."""
    slopes, ahead = [], []
    for rows in trainings:
        known = [row for row in rows if row["pattern"] > 0]
        if len(known) >= 3:
            logs = np.log([[row["length"], row["pattern"]] for row in known])
            slopes.append(float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0]))
        if rows and rows[-1]["pattern"] > 0 and rows[-1]["loss"] > 0:
            ahead.append(float(np.log(rows[-1]["pattern"] / rows[-1]["loss"])))
    (slope, slope_low, slope_high), (first, first_low, first_high) = (_limits(x, level) for x in (slopes, ahead))
    verdict = "undecided"
    if min(len(slopes), len(ahead)) < MIN_RUNS:
        verdict = "not decidable"
    elif slope_high < SLOPE and first_high < 0:
        verdict = "rapid"
    elif slope_low > SLOPE or first_low > 0:
        verdict = "not rapid"
    return Rapid(verdict, (slope, slope_high), (first, first_high), len(trainings))


def _limits(values: Sequence[float], level: float) -> tuple[float, float, float]:
    """Mean with one-sided lower and upper limits (t over seeds); NaN with fewer than two values."""
    if len(values) < 2:
        return (float(values[0]) if values else math.nan), math.nan, math.nan
    half = float(stats.t.ppf(level, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    mean = float(np.mean(values))
    return mean, mean - half, mean + half


def _missing(study: Study) -> list[str]:
    """What the design requires and the study does not have, in sentences."""
    needed = (study.target, *study.basics)
    runs = _runs(study)
    reasons = [f"{task} has {runs[task]} of {MIN_RUNS} training runs" for task in needed if runs[task] < MIN_RUNS]
    if study.target == TARGET:
        needed_more = (*OTHERS, POSITIVE)
        reasons += [f"{task} has {runs[task]} of {MIN_RUNS} runs" for task in needed_more if runs[task] < MIN_RUNS]
    return reasons


def _runs(study: Study) -> dict[str, int]:
    """Training runs of every required task: the smaller number of own and shuffled answers."""
    names = dict.fromkeys((study.target, *study.basics, *study.own))
    if study.target == TARGET:
        names |= dict.fromkeys((*OTHERS, POSITIVE))
    return {name: min(len(study.own.get(name, [])), len(study.shuffled.get(name, []))) for name in names}


def _not_learnt(study: Study) -> list[str]:
    """Target, basics or positive control with a run whose loss is not below that of its run on shuffled answers."""

    def loss(pair: tuple[xr.Dataset, xr.Dataset]) -> float:
        if "loss" not in pair[1]:
            raise HeadnbError("the scores have no losses")
        return float(pair[1]["loss"].mean())

    return [
        task
        for task in (study.target, *study.basics, POSITIVE)
        if any(
            loss(own) >= loss(other)
            for own, other in zip(study.own.get(task, []), study.shuffled.get(task, []), strict=False)
        )
    ]


def _spike_found(study: Study, level: float, replicates: int) -> float:
    """Fraction of simulated studies in which a composed share of `SPIKE` is found, both basics included."""
    power = composition_power(**study.changes(), shares=[SPIKE], replicates=replicates, level=level)
    return float(power.rates[EACH_CONTRIBUTES].iloc[0]) if EACH_CONTRIBUTES in power.rates else math.nan


def _plain(values: Any) -> Any:
    if isinstance(values, dict):
        return {str(key): _plain(value) for key, value in values.items()}
    return to_json_value(values) if isinstance(values, float) else values
