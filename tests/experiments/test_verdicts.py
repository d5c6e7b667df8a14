"""Verdicts of the report: the words follow from made-up findings of each kind."""

from __future__ import annotations

import math
from types import SimpleNamespace

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb.analysis.composition.evidence import Comparison, CompositionEvidence, Limit
from headnb.experiments.report_findings import composition_answer, rapid_verdict, specificity_answer
from headnb.experiments.verdicts import (
    LOSS,
    Effect,
    answer_of,
    answer_of_cases,
    answer_of_power,
    answer_of_test,
    verdict_of,
)
from headnb.stats.estimates import Estimate
from hypothesis import given
from hypothesis.strategies import floats

from simulated_tracking import EXPONENTIAL, SHAPE, STEPS, simulated_study

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("low", "high", "verdict", "reason"),
    [
        (0.01, 0.2, "found", "The 95 % interval excludes zero."),
        (-0.02, 0.04, "not found", "The 95 % interval excludes 0.05 nats."),
        (-0.3, -0.1, "not found", "The effect is in the opposite direction: the 95 % interval excludes zero."),
        (-0.02, 0.06, "undecided", "The 95 % interval includes zero and also 0.05 nats."),
        (NAN, NAN, "undecided", "There is no interval."),
        (NAN, 0.01, "undecided", "There is no interval."),
        (0.5, INF, "found", "The 95 % interval excludes zero."),
    ],
)
def test_the_verdict_follows_from_the_interval(low: float, high: float, verdict: str, reason: str) -> None:
    answer = answer_of(Effect(low, high), LOSS)
    assert answer.verdict == verdict
    assert answer.reason.startswith(reason)
    assert (answer.verdict == "undecided") == answer.reason.endswith("More samples or training runs are needed.")


@given(middle=floats(-1, 1), half=floats(0.0001, 2), factor=floats(1, 10))
def test_a_wider_interval_decides_nothing_that_a_narrower_one_leaves_open(
    middle: float, half: float, factor: float
) -> None:
    """A study in which nothing could have been seen never says "not found"."""
    narrow = verdict_of(Effect(middle - half, middle + half), LOSS)
    wide = verdict_of(Effect(middle - factor * half, middle + factor * half), LOSS)
    small = narrow == "found" and middle + half < LOSS.value  # the wider interval may include zero
    assert wide in {narrow, "undecided", *(["not found"] if small else [])}
    if half > 1.05:
        assert narrow == "undecided"


def test_a_decrease_is_read_from_either_kind_of_estimate() -> None:
    lower = Estimate(-0.2, -0.3, -0.1, 0.95, 8, -0.2)
    table = xr.Dataset({"value": -0.2, "low": -0.3, "high": -0.1})
    assert Effect.of(lower, -1) == Effect.of(table, -1) == (0.1, 0.3)
    assert Effect.of(lower) == (-0.3, -0.1)


@pytest.mark.parametrize(
    ("lows", "highs", "verdict"),
    [
        ([0.1, 0.1, -0.1], [0.2, 0.2, 0.2], "found"),
        ([-0.2, -0.2, 0.1], [0.0, 0.01, 0.2], "not found"),
        ([0.1, -0.2, -0.2], [0.2, 0.01, 0.2], "undecided"),
        ([-0.2, NAN], [0.2, NAN], "undecided"),
    ],
)
def test_most_cases_decide(lows: list[float], highs: list[float], verdict: str) -> None:
    effects = [Effect(*ends) for ends in zip(lows, highs, strict=True)]
    answer = answer_of_cases(effects, LOSS, "tasks")
    assert answer.verdict == verdict
    assert f"of {len(lows)} tasks" in answer.reason


def test_a_test_without_significance_decides_nothing() -> None:
    assert answer_of_test(0.01, claimed=True, alpha=0.05).verdict == "found"
    assert answer_of_test(0.01, claimed=False, alpha=0.05).verdict == "not found"
    assert answer_of_test(0.5, claimed=False, alpha=0.05).verdict == "undecided"
    assert answer_of_test(NAN, claimed=True, alpha=0.05).reason == "It was not tested."


def specificity(tasks: int, p: float, own_p: float, own: float) -> SimpleNamespace:
    change = xr.Dataset({"value": (("train", "eval"), np.ones((tasks, tasks)))})
    return SimpleNamespace(change=change, p=p, own_p=own_p, own=own, others=1.0, level=0.95, unit="training runs")


@pytest.mark.parametrize(
    ("tasks", "p", "own_p", "own", "verdict", "reason"),
    [
        (3, 0.001, 1 / 6, 2.0, "undecided", "with 3 tasks the smallest possible p-value is 0.17"),
        (4, 0.001, 1 / 24, 2.0, "found", "p = 0.042"),
        (4, 0.001, 1 / 24, 0.5, "not found", "opposite"),
        (4, 0.3, 1 / 24, 2.0, "undecided", "do not differ significantly"),
        (5, 0.001, 0.4, 2.0, "undecided", "not significant"),
    ],
)
def test_specificity_needs_enough_tasks(
    tasks: int, p: float, own_p: float, own: float, verdict: str, reason: str
) -> None:
    answer = specificity_answer(specificity(tasks, p, own_p, own))
    assert answer.verdict == verdict
    assert reason in answer.reason


@pytest.mark.parametrize(
    ("power", "verdict", "reason"),
    [
        (0.95, "not found", "composition of 50% of the change would be detected with probability 95%"),
        (0.4, "undecided", "too little power"),
        (NAN, "undecided", "unknown"),
    ],
)
def test_composition_is_excluded_only_with_power(power: float, verdict: str, reason: str) -> None:
    evidence = CompositionEvidence("t", ("a", "b"), comparison(gain=Limit(0.1, -0.05, 0.4, 0.2)))
    for answer in (
        answer_of_power(power, 0.5),
        composition_answer(SimpleNamespace(supported=False, evidence=evidence), 0.5, power),
    ):
        assert answer.verdict == verdict
        assert reason in answer.reason


NONE, SURE = Limit(0.1, -0.05, 0.4, 0.2), Limit(0.5, 0.3, 0.001, 0.7)


def comparison(gain: Limit, excess: Limit | None = SURE, second: Limit = SURE) -> Comparison:
    """Basics a and b; the unique contribution of a is certain."""
    return Comparison(gain, excess, {"a": SURE, "b": second}, ("c", "d"), 2.0, 0.9, 0.95)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (comparison(SURE, second=NONE), "shared with these basics. No unique contribution is shown for b."),
        (comparison(SURE, excess=NONE), "gain. The basic tasks are not shown to explain more than other tasks do."),
        (comparison(NONE._replace(high=0.6)), "The upper limit of the gain is not below 0.25"),
        (comparison(NONE._replace(high=NAN)), "The upper limit of the gain is not below 0.25"),
    ],
)
def test_evidence_for_composition_or_a_possible_gain_is_not_its_absence(change: Comparison, reason: str) -> None:
    fit = SimpleNamespace(supported=False, evidence=CompositionEvidence("t", ("a", "b"), change))
    answer = composition_answer(fit, 0.5, 0.99)
    assert answer.verdict == "undecided"
    assert reason in answer.reason


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (SimpleNamespace(change=None, reason_untested="too few training runs"), "not tested: too few training runs"),
        (SimpleNamespace(change=SimpleNamespace(reliability=0.2), has_verdict=False), "too noisy (reliability 0.20)"),
        (
            SimpleNamespace(change=SimpleNamespace(excess=None), has_verdict=True, level="gain", missing="other tasks"),
            "The next level needs other tasks",
        ),
    ],
)
def test_composition_that_could_not_be_seen_is_undecided(evidence: SimpleNamespace, reason: str) -> None:
    answer = composition_answer(SimpleNamespace(supported=False, evidence=evidence), 0.5, 0.99)
    assert answer.verdict == "undecided"
    assert reason in answer.reason


def tracked(done: np.ndarray, loss_done: np.ndarray, scale: float) -> headnb.Trajectory:
    """Scale-free course of levels that move straight to other levels, with `scale` times their mean."""
    rng = np.random.default_rng(0)
    study, scores = simulated_study(done)
    first, last = rng.lognormal(sigma=0.5, size=(2, *SHAPE))
    last *= scale * first.mean() / last.mean()
    levels = first + done[:, None, None] * (last - first)
    noise = rng.gamma(2500, 1 / 2500, scores["score"].shape)
    scores = scores.assign(score=(scores["score"].dims, levels[:, None] * noise))
    study["eval_loss"][:] = (2 - loss_done)[:, None]
    study["level"][:] = scores["score"].mean("sample").values[:, None]
    return headnb.trajectory(study, scores, scale_free=True)


EVEN = STEPS / 80


@pytest.mark.parametrize("scale", [0.5, 0.9, 1.5, 3])
def test_levels_that_change_at_constant_speed_are_never_found_to_change_rapidly(scale: float) -> None:
    """Dividing a straight line a + s b by its mean gives an early speed of exactly mean(a + b) / mean(a)."""
    course = tracked(EVEN, EVEN, scale)
    assert course.scale == pytest.approx(scale, rel=0.01)
    assert course.early_speed.value == pytest.approx(scale, rel=0.1)
    assert rapid_verdict(course) == "undecided"


def test_a_slow_start_is_not_rapid_and_a_sharp_one_only_before_the_loss() -> None:
    assert rapid_verdict(tracked(EVEN**2, EVEN, 0.9)) == "not found"
    assert rapid_verdict(tracked(np.sqrt(EVEN), EVEN, 0.1)) == "undecided"  # fast levels, slowed by the falling mean
    assert rapid_verdict(tracked(EXPONENTIAL, EVEN, 0.9)) == "found"
    assert rapid_verdict(tracked(EXPONENTIAL, np.full(8, NAN), 0.9)) == "found"
    assert rapid_verdict(tracked(EXPONENTIAL, np.sqrt(EXPONENTIAL), 0.9)) == "undecided"
