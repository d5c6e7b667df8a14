"""Decision rule of the fair experiment, as registered in docs/experiment.md before any result.

Every statistic is one of headnb's public functions: `fit_combination` for the evidence, `composition_power` for the
spike. This module only compares their numbers with the registered thresholds. In the rule, "excess > 0" is the level
*shared with these basics* of the evidence, and "gain > 0" the level *gain*: both also need separable basics and a
reliable residual, and the former needs the latter.

A number that is not known (NaN) never meets a condition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from scipy import stats

from headnb.analysis.composition.evidence import SHARED
from headnb.analysis.composition.fit import fit_combination
from headnb.analysis.composition.power import composition_power
from headnb.errors import HeadnbError
from headnb.experiments.fair.results import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr

    from headnb.analysis.composition.evidence import CompositionEvidence
    from headnb.experiments.fair.design import Family
    from headnb.experiments.fair.results import FairResults

    Pairs = list[tuple[xr.Dataset, xr.Dataset]]

MIN_RUNS = 3
RELIABILITY = 0.7  # least residual reliability of the target
SPIKE = 0.5  # share of the target's change that is composed in the simulated studies
POWER = 0.8  # least fraction of simulated studies in which the spike is found
ABSENT = 0.25  # the upper limit of the gain must be below it
SLOPE = 0.5  # log half-time per log length of the training must be below it
LEVEL = 0.95  # of one-sided limits, before Holm's correction
FIRST_LEVEL = 1 - (1 - LEVEL) / 2  # of the first test of two, and of the small study

Verdict = Literal["composition", "shared, perhaps format", "absent", "undecided", "not decidable"]


@dataclass(frozen=True)
class Study:
    """The changes of one family of tasks: task -> (before, after) of every training run.

    Run i on own and on shuffled answers has the same seed. `exact_match` has that of the target after every training on
    own answers, NaN where it is not known.
    """

    family: Family
    own: Mapping[str, Pairs]
    shuffled: Mapping[str, Pairs]
    exact_match: tuple[float, ...] = ()

    def changes(self, target: str = "") -> dict[str, Any]:
        """Arguments of `fit_combination` and `composition_power`, for another target if one is given."""
        name, family = target or self.family.target, self.family
        return {
            "target": self.own[name],
            "basics": {task: self.own[task] for task in family.basics},
            "name": name,
            "others": {task: self.own[task] for task in family.others if task != name},
        }

    def evidence(self, target: str = "", level: float = LEVEL) -> CompositionEvidence:
        """Evidence for composition of the target, or of another task."""
        changes = self.changes(target)
        used = (changes["name"], *changes["basics"], *changes["others"])
        shuffled = {task: self.shuffled[task] for task in used}
        return fit_combination(**changes, shuffled=shuffled, level=level, permutations=1, resamples=1).evidence

    @classmethod
    def of(cls, results: FairResults, family: Family) -> Study:
        """The study of a family from compact results; the runs of a task are those with own and shuffled answers."""
        own, shuffled = (
            {task: pairs for task in family.tasks if (pairs := results.pairs(kind, task))} for kind in KINDS
        )
        about = [results.meta("own", family.target, seed) for seed in results.seeds("own", family.target)]
        return cls(family, own, shuffled, tuple(float(one.get("exact_match", math.nan)) for one in about))


@dataclass(frozen=True)
class Decision:
    """The verdict on one family of tasks.

    Attributes:
        verdict: the registered verdict.
        reasons: what is missing or failed, in sentences; empty if the experiment is valid.
        numbers: the numbers that the rule compares.
        level: level of the one-sided limits and tests.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    numbers: Mapping[str, Any] = field(default_factory=dict)
    level: float = LEVEL

    @property
    def shares(self) -> dict[str, Mapping[str, float]]:
        """The shares of e(Z) that the rule compares with zero; empty if they were not computed."""
        if "gain" not in self.numbers:
            return {}
        names = ("gain", "excess", "gain beyond format")
        added = {f"added by {name}": limit for name, limit in self.numbers["added"].items()}
        return {name: self.numbers[name] for name in names} | added

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        return f"Composition: {self.verdict}." + "".join(
            f" {reason[0].upper()}{reason[1:]}." for reason in self.reasons
        )


def decide(study: Study, *, level: float = LEVEL, replicates: int = 40) -> Decision:
    """Apply the registered rule to one family of tasks.

    Args:
        study: the changes.
        level: level of the limits and tests of the target; the controls always use 0.95.
        replicates: simulated studies for the spike.
    """
    if reasons := _missing(study):
        known = {"runs": _runs(study), "exact match": list(study.exact_match)}
        return Decision("not decidable", tuple(reasons), known, level)
    evidence = study.evidence(level=level)
    change, beyond = evidence.change, evidence.beyond_format
    if change is None or beyond is None or change.excess is None:
        return Decision("not decidable", (evidence.reason_untested or f"needs {evidence.missing}",), {}, level)
    at_level = (evidence if level == LEVEL else study.evidence()).change
    upper = at_level.gain.high if at_level is not None else math.nan
    found = math.nan if math.isnan(change.gain.value) else _spike_found(study, level, replicates)
    family, unlearnt = study.family, _not_learnt(study)
    controls = {task: study.evidence(task).composed for task in (family.positive, family.negative) if task}
    solved = not family.least_match or bool(np.min(study.exact_match or (math.nan,)) >= family.least_match)
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
        "controls found": controls,
        "exact match": list(study.exact_match),
        "level of evidence": evidence.level,
    }
    spike = "cannot be simulated" if math.isnan(found) else f"is found in {found:.0%} of simulated studies"
    checks = {
        f"the loss of {', '.join(unlearnt)} is not lower than after training on shuffled answers": bool(unlearnt),
        f"residual reliability {change.reliability:.2f} is below {RELIABILITY}": not change.reliability >= RELIABILITY,
        f"a spike of {SPIKE} {spike}; the rule needs {POWER:.0%}": not found >= POWER,
        f"the positive control {family.positive} is not found": not controls.get(family.positive, True),
        f"composition is found for the negative control {family.negative}": controls.get(family.negative, False),
        f"the exact match on {family.target} is not known or below {family.least_match:g}": not solved,
    }
    if reasons := [reason for reason, failed in checks.items() if failed]:
        return Decision("not decidable", tuple(reasons), numbers, level)
    verdict: Verdict = "undecided"
    if evidence.composed:
        verdict = "composition" if beyond.has_gain else "shared, perhaps format"
    elif upper < ABSENT:
        verdict = "absent"
    return Decision(verdict, (), numbers, level)


def holm(studies: Sequence[Study], replicates: int = 40) -> list[Decision]:
    """Decisions on the families by Holm's procedure.

    Each is judged at `FIRST_LEVEL`; once one shows composition, the other at 0.95. Both registered families count, also
    while one of them has no results. A single family stays at `FIRST_LEVEL`.
    """
    first = [decide(study, level=FIRST_LEVEL, replicates=replicates) for study in studies]
    if sum(one.verdict == "composition" for one in first) != 1:
        return first
    both = zip(first, studies, strict=True)
    return [one if one.verdict == "composition" else decide(study, replicates=replicates) for one, study in both]


class SeedMean(NamedTuple):
    """Mean over seeds with its one-sided limits (t over seeds); NaN where there are too few seeds."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Rapid:
    """Whether patterns change rapidly.

    Attributes:
        verdict: "rapid", "not rapid", "undecided" or "not decidable".
        slope: log half-time per log length of the training.
        ahead: log of the pattern's half-time over the loss's half-time in the longest training.
        seeds: number of long trainings.
    """

    verdict: str
    slope: SeedMean
    ahead: SeedMean
    seeds: int


def decide_rapid(
    trainings: Sequence[Sequence[Mapping[str, float]]], lengths: Sequence[int], level: float = LEVEL
) -> Rapid:
    """Apply the registered rule to the half-times of long trainings (`results.half_times`), one per seed.

    Args:
        trainings: half-times of each training.
        lengths: registered prefixes, in steps; a slope needs the half-times of all.
        level: level of the one-sided limits.
    """
    slopes, ahead = [], []
    for rows in trainings:
        of_length = {row["length"]: row for row in rows}
        prefixes = [of_length[length] for length in lengths if length in of_length]
        halves = np.array([row["pattern"] for row in prefixes])
        if len(halves) == len(lengths) and np.isfinite(halves).all():
            slopes.append(float(np.polyfit(np.log(lengths), np.log(halves), 1)[0]))
        ahead += [math.log(row["pattern"] / row["loss"]) for row in prefixes if row["length"] == lengths[-1]]
    ahead = [value for value in ahead if math.isfinite(value)]
    slope, first = (_mean_over_seeds(values, level) for values in (slopes, ahead))
    verdict = "undecided"
    if min(len(slopes), len(ahead)) < MIN_RUNS:
        verdict = "not decidable"
    elif slope.high < SLOPE and first.high < 0:
        verdict = "rapid"
    elif slope.low > SLOPE or first.low > 0:
        verdict = "not rapid"
    return Rapid(verdict, slope, first, len(trainings))


def _mean_over_seeds(values: Sequence[float], level: float) -> SeedMean:
    mean = float(np.mean(values)) if values else math.nan
    half = float(stats.t.ppf(level, len(values) - 1) * stats.sem(values)) if len(values) > 1 else math.nan
    return SeedMean(mean, mean - half, mean + half)


def _missing(study: Study) -> list[str]:
    """What the design requires and the study does not have, in sentences; empty if nothing is missing.

    Runs that exist may fail a condition that every run must meet. More runs cannot change that, and it is said too.
    """
    few = [f"{task} ({runs})" for task, runs in _runs(study).items() if runs < MIN_RUNS]
    if not few:
        return []
    failed, target = [], study.family.target
    if unlearnt := _not_learnt(study):
        failed.append(f"the loss of {', '.join(unlearnt)} is not lower than after training on shuffled answers")
    if (least := min(filter(math.isfinite, study.exact_match), default=math.inf)) < study.family.least_match:
        failed.append(f"the exact match on {target} is {least:.2f}, below {study.family.least_match:g}")
    return [
        f"fewer than {MIN_RUNS} training runs of {', '.join(few)}",
        *(f"in a finished run {reason}, so more runs cannot give a verdict" for reason in failed),
    ]


def _runs(study: Study) -> dict[str, int]:
    """Training runs of every required task: the smaller number of own and shuffled answers."""
    own, shuffled = study.own, study.shuffled
    return {task: min(len(own.get(task, [])), len(shuffled.get(task, []))) for task in study.family.tasks}


def _not_learnt(study: Study) -> list[str]:
    """Tasks with a run whose loss is not below that of the run on shuffled answers with the same seed."""

    def losses(pairs: Pairs) -> list[float]:
        if any("loss" not in after for _, after in pairs):
            raise HeadnbError("the scores have no losses")
        return [float(after["loss"].to_numpy().mean()) for _, after in pairs]

    tasks = [task for task, runs in _runs(study).items() if runs]
    own, shuffled = ({task: losses(of[task]) for task in tasks} for of in (study.own, study.shuffled))
    return [task for task in tasks if not all(a < b for a, b in zip(own[task], shuffled[task], strict=True))]


def _spike_found(study: Study, level: float, replicates: int) -> float:
    """Fraction of simulated studies in which a composed share of `SPIKE` is found to be shared with the basics."""
    power = composition_power(**study.changes(), shares=[SPIKE], replicates=replicates, level=level)
    return float(power.rates[SHARED].iloc[0])
