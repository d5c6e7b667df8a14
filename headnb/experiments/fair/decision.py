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

from headnb.analysis.composition.evidence import SHARED
from headnb.analysis.composition.fit import fit_combination
from headnb.analysis.composition.power import composition_power
from headnb.analysis.json_values import to_json_value
from headnb.errors import HeadnbError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import xarray as xr

    from headnb.analysis.composition.evidence import CompositionEvidence
    from headnb.experiments.fair.results import FairResults

    Pairs = list[tuple[xr.Dataset, xr.Dataset]]

MIN_RUNS = 3
RELIABILITY = 0.7  # least residual reliability of the target
SPIKE = 0.5  # share of the target's change that is composed in the simulated studies
POWER = 0.8  # least fraction of simulated studies in which the spike is found
ABSENT = 0.25  # the upper limit of the gain must be below it
SLOPE = 0.5  # log half-time per log length of the training must be below it
LEVEL = 0.95  # of one-sided limits, before Holm's correction

Verdict = Literal["composition", "shared, perhaps format", "absent", "undecided", "not decidable"]


@dataclass(frozen=True)
class Family:
    """The registered tasks of one test.

    Attributes:
        target: the complex task.
        basics: the basic tasks.
        others: the other tasks, whose best pair the basics must beat.
        positive: positive control, in which composition must be found; "" for none.
        negative: negative control, in which it must not be found; "" for none.
        least_match: least exact match on the target in every run.
    """

    target: str
    basics: tuple[str, ...]
    others: tuple[str, ...]
    positive: str = ""
    negative: str = ""
    least_match: float = 0.0

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task that must be trained."""
        return (self.target, *self.basics, *((self.positive,) if self.positive else ()), *self.others)


PRIMARY = Family(
    "mathqa_python",
    ("gsm8k", "mbpp"),
    ("boolq", "svamp", "arc_easy", "openbookqa"),
    positive="gsm8k+mbpp",
    negative="boolq",
)
PROCEDURAL = Family("lcm", ("gcd", "products"), ("leg_counting", "syllogism"), least_match=0.5)
FAMILIES = (PRIMARY, PROCEDURAL)


@dataclass(frozen=True)
class Study:
    """The changes of one family of tasks: task -> (before, after) of every training run.

    `exact_match` has that of the target after every training on own answers, where it is known.
    """

    family: Family
    own: Mapping[str, Pairs]
    shuffled: Mapping[str, Pairs]
    exact_match: tuple[float, ...] = ()

    def changes(self, target: str = "") -> dict[str, Any]:
        """Arguments of `fit_combination` and `composition_power`, for another target if one is given."""
        name, family = target or self.family.target, self.family
        others = {task: self.own[task] for task in family.others if task != name}
        used = {name, *family.basics, *others}
        return {
            "target": self.own[name],
            "basics": {task: self.own[task] for task in family.basics},
            "name": name,
            "others": others,
            "shuffled": {task: pairs for task, pairs in self.shuffled.items() if task in used},
        }

    def evidence(self, target: str = "", level: float = LEVEL) -> CompositionEvidence:
        """Evidence for composition of the target, or of another task."""
        return fit_combination(**self.changes(target), level=level, permutations=1, resamples=1).evidence

    @classmethod
    def of(cls, results: FairResults, family: Family = PRIMARY) -> Study:
        """The study of a family from compact results; the runs of a task are those with own and shuffled answers."""
        own, shuffled = {}, {}
        for task in family.tasks:
            seeds = [seed for seed in results.seeds("own", task) if seed in results.seeds("shuffled", task)]
            if seeds:
                before = results.before(task)
                own[task] = [(before, results.after("own", task, seed)) for seed in seeds]
                shuffled[task] = [(before, results.after("shuffled", task, seed)) for seed in seeds]
        about = (results.meta("own", family.target, seed) for seed in results.seeds("own", family.target))
        return cls(family, own, shuffled, tuple(one["exact_match"] for one in about if "exact_match" in one))


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
        return Decision("not decidable", tuple(reasons), {"runs": _runs(study)}, level)
    evidence = study.evidence(level=level)
    change, beyond = evidence.change, evidence.beyond_format
    if change is None or beyond is None or change.excess is None:
        return Decision("not decidable", (evidence.reason_untested or f"needs {evidence.missing}",), {}, level)
    at_level = evidence if level == LEVEL else study.evidence()
    upper = at_level.change.gain.high if at_level.change is not None else math.nan
    lost = _not_learnt(study)
    found = math.nan if math.isnan(change.gain.value) else _spike_found(study, level, replicates)
    family = study.family
    positive = study.evidence(family.positive).composed if family.positive else True
    negative = study.evidence(family.negative).composed if family.negative else False
    match = min(study.exact_match, default=0.0)
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
        "controls found": {family.positive: positive, family.negative: negative},
        "exact match": list(study.exact_match),
        "level of evidence": evidence.level,
    }
    checks = {
        f"the loss of {', '.join(lost)} is not lower than after training on shuffled answers": bool(lost),
        f"residual reliability {change.reliability:.2f} is below {RELIABILITY}": change.reliability < RELIABILITY,
        f"a spike of {SPIKE} is found in {found:.0%} of simulated studies, fewer than {POWER:.0%}": not found >= POWER,
        f"the positive control {family.positive} is not found": not positive,
        f"composition is found for the negative control {family.negative}": negative,
        f"the exact match on {family.target} is below {family.least_match:g}": match < family.least_match,
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


def holm(studies: Sequence[Study], replicates: int = 40) -> list[Decision]:
    """Decisions on the families by Holm's procedure.

    Each is judged at 1 - 0.05 / 2; once one shows composition, the other at 0.95. Both registered families count, also
    while one of them has no results.
    """
    level = 1 - (1 - LEVEL) / len(FAMILIES)
    first = [decide(study, level=level, replicates=replicates) for study in studies]
    if sum(one.verdict == "composition" for one in first) != 1:
        return first
    both = zip(first, studies, strict=True)
    return [one if one.verdict == "composition" else decide(study, replicates=replicates) for one, study in both]


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
    """Apply the registered rule to the half-times of long trainings (`results.half_times`), one per seed."""
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
    """What the design requires and the study does not have, in sentences; empty if nothing is missing."""
    few = [f"{task} ({runs})" for task, runs in _runs(study).items() if runs < MIN_RUNS]
    return [f"fewer than {MIN_RUNS} training runs of {', '.join(few)}"] if few else []


def _runs(study: Study) -> dict[str, int]:
    """Training runs of every required task: the smaller number of own and shuffled answers."""
    own, shuffled = study.own, study.shuffled
    return {task: min(len(own.get(task, [])), len(shuffled.get(task, []))) for task in study.family.tasks}


def _not_learnt(study: Study) -> list[str]:
    """Target, basics or positive control with a run whose loss is not below that of its run on shuffled answers."""

    def loss(pair: tuple[xr.Dataset, xr.Dataset]) -> float:
        if "loss" not in pair[1]:
            raise HeadnbError("the scores have no losses")
        return float(pair[1]["loss"].mean())

    family = study.family
    return [
        task
        for task in (family.target, *family.basics, *filter(None, [family.positive]))
        if any(loss(own) >= loss(other) for own, other in zip(study.own[task], study.shuffled[task], strict=False))
    ]


def _spike_found(study: Study, level: float, replicates: int) -> float:
    """Fraction of simulated studies in which a composed share of `SPIKE` is found to be shared with the basics."""
    power = composition_power(**study.changes(), shares=[SPIKE], replicates=replicates, level=level)
    return float(power.rates[SHARED].iloc[0]) if SHARED in power.rates else math.nan


def _plain(values: Any) -> Any:
    if isinstance(values, dict):
        return {str(key): _plain(value) for key, value in values.items()}
    return to_json_value(values) if isinstance(values, float) else values
