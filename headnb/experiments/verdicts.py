"""Verdicts of the report: found, not found or undecided, from the interval of an effect.

An effect is positive in the claimed direction. It has a smallest size of interest, fixed here before any result is
known. With an interval [low, high]:

    found       low > 0
    not found   high < smallest size of interest: the effect is excluded, or in the opposite direction
    undecided   otherwise, or no interval: the study can neither show the effect nor exclude it

A significance test alone can show an effect, but cannot exclude one: without an interval or a known power, a test that
is not significant leaves a finding undecided.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from headnb.display.report import FOUND, NOT_FOUND, UNDECIDED
from headnb.stats.estimates import Estimate

if TYPE_CHECKING:
    from collections.abc import Iterable

    import xarray as xr

    from headnb.display.report import Verdict

MIN_POWER = 0.8  # of a study whose test is not significant, to conclude that there is no effect


@dataclass(frozen=True)
class Size:
    """Smallest size of interest of an effect.

    Attributes:
        value: the size, in the units of the effect.
        words: the size in words, for sentences.
    """

    value: float
    words: str


GINI = Size(0.05, "a Gini coefficient lower by 0.05")
LOSS = Size(0.05, "0.05 nats")
PRECISION = Size(0.1, "a precision higher by 0.1")
TRANSITION = Size(0.1, "a transition of at most 70 % of the layers")


class Answer(NamedTuple):
    """A verdict and its reason, in one sentence."""

    verdict: Verdict
    reason: str


class Effect(NamedTuple):
    """The interval of an effect, which is positive in the claimed direction; NaN without an interval."""

    low: float
    high: float

    @classmethod
    def of(cls, one: Estimate | xr.Dataset, sign: int = 1) -> Effect:
        """The interval of an estimate, or of a Dataset of `low` and `high` without dims; `sign` -1: a decrease."""
        ends = (one.low, one.high) if isinstance(one, Estimate) else (one["low"], one["high"])
        low, high = sorted(sign * float(end) for end in ends)
        return cls(low, high)


def verdict_of(effect: Effect, smallest: Size) -> Verdict:
    """The verdict on one effect (see the module docstring)."""
    if math.isnan(effect.low + effect.high):
        return UNDECIDED
    if effect.low > 0:
        return FOUND
    return NOT_FOUND if effect.high < smallest.value else UNDECIDED


def answer_of(effect: Effect, smallest: Size) -> Answer:
    """The verdict on one effect, with its reason."""
    verdict = verdict_of(effect, smallest)
    if verdict == FOUND:
        return Answer(verdict, "The 95 % interval excludes zero.")
    if verdict == UNDECIDED:
        known = not math.isnan(effect.low + effect.high)
        reason = f"The 95 % interval includes zero and also {smallest.words}." if known else "There is no interval."
        return Answer(verdict, f"{reason} More samples or training runs are needed.")
    if effect.high < 0:
        return Answer(verdict, "The effect is in the opposite direction: the 95 % interval excludes zero.")
    return Answer(verdict, f"The 95 % interval excludes {smallest.words}.")


def answer_of_cases(effects: Iterable[Effect], smallest: Size, cases: str) -> Answer:
    """The verdict on most of several effects, with the number of each verdict.

    Args:
        effects: one for each case.
        smallest: smallest size of interest.
        cases: what the cases are, in the plural, such as "tasks".
    """
    undecided = f"the 95 % interval is missing, or includes zero and also {smallest.words}"
    return answer_of_verdicts([verdict_of(effect, smallest) for effect in effects], cases, undecided)


def answer_of_verdicts(verdicts: Iterable[Verdict], cases: str, undecided: str) -> Answer:
    """The verdict on most of several cases, with the number of each verdict.

    Args:
        verdicts: one for each case.
        cases: what the cases are, in the plural, such as "tasks".
        undecided: when a case is undecided.
    """
    counts = Counter(verdicts)
    of = counts.total()
    majority = [verdict for verdict in (FOUND, NOT_FOUND) if counts[verdict] > of / 2]
    verdict: Verdict = majority[0] if majority else UNDECIDED
    numbers = f"Found in {counts[FOUND]}, not found in {counts[NOT_FOUND]} and undecided in {counts[UNDECIDED]}"
    reason = f"{numbers} of {of} {cases}."
    if counts[UNDECIDED] and verdict == UNDECIDED:
        reason += f" Undecided: {undecided}."
    return Answer(verdict, reason)


def answer_of_test(p: float, *, claimed: bool, alpha: float, fewest: str = "") -> Answer:
    """The verdict of a significance test without an interval.

    Args:
        p: p-value; NaN if not tested.
        claimed: whether the observed effect is in the claimed direction.
        alpha: level of significance.
        fewest: what is needed so that p < alpha is possible; empty if it is possible.
    """
    if fewest:
        return Answer(UNDECIDED, f"This study cannot show it: {fewest}.")
    if math.isnan(p):
        return Answer(UNDECIDED, "It was not tested.")
    if p >= alpha:
        return Answer(
            UNDECIDED,
            f"The difference is not significant (permutation p = {p:.2g}), and the test has no interval that would "
            "exclude a difference.",
        )
    direction = "" if claimed else " The difference is in the opposite direction."
    return Answer(FOUND if claimed else NOT_FOUND, f"Permutation p = {p:.2g}.{direction}")


def answer_of_power(power: float, share: float) -> Answer:
    """The verdict on a test that is not significant, from its power for an effect of this share; NaN if unknown."""
    if math.isnan(power):
        return Answer(UNDECIDED, "The power of this study is unknown; notebook 04_composition computes it.")
    seen = f"composition of {share:.0%} of the change would be detected with probability {power:.0%}"
    if power >= MIN_POWER:
        return Answer(NOT_FOUND, f"This study has the power to see it: {seen}.")
    return Answer(UNDECIDED, f"This study has too little power: {seen} ({MIN_POWER:.0%} are required).")
