"""Changes of nothing, of one sample, and of scores without variation: a result or a HeadnbError, in every analysis."""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import headnb
import numpy as np
import pytest
import xarray as xr
from headnb.analysis import forgetting

from simulated_finetuning import random_change, scores_of

if TYPE_CHECKING:
    from collections.abc import Callable

TASKS = ("a", "b", "c", "d")
Pair = tuple[xr.Dataset, xr.Dataset]


def unchanged(seed: int, task: str) -> Pair:
    before, _ = random_change(seed, task)
    return before, before.copy(deep=True)


def zero(_seed: int, task: str) -> Pair:
    nothing = scores_of(np.zeros((12, 8, 5)), task)
    return nothing, nothing.copy(deep=True)


def constant(seed: int, task: str) -> Pair:
    return tuple(scores_of(np.full((12, 8, 5), 1.0 + seed + stage), task) for stage in range(2))  # type: ignore[return-value]


def without_noise(seed: int, task: str) -> Pair:
    rng = np.random.default_rng(seed)
    return tuple(scores_of(np.tile(rng.lognormal(size=(8, 5)), (12, 1, 1)), task) for _ in range(2))  # type: ignore[return-value]


def one_sample(seed: int, task: str) -> Pair:
    before, after = random_change(seed, task)
    return before.isel(sample=[0]), after.isel(sample=[0])


def one_head(seed: int, task: str) -> Pair:
    before, after = random_change(seed, task)
    return before.isel(layer=[0], head=[0]), after.isel(layer=[0], head=[0])


def one_changed_head(seed: int, task: str) -> Pair:
    before, after = unchanged(seed, task)
    after["score"][{"layer": 2, "head": 1}] *= 3.0
    return before, after


def far_below_one(seed: int, task: str) -> Pair:
    before, after = random_change(seed, task)
    return before * 1e-170, after * 1e-170


CHANGES = (unchanged, zero, constant, without_noise, one_sample, one_head, one_changed_head, far_below_one)


def levels_study(pair: Pair) -> tuple[xr.Dataset, xr.Dataset]:
    scores = xr.concat([pair[0], pair[0], pair[1], pair[1]], xr.Variable("step", [0, 1, 2, 4]))
    return np.abs(scores.rename(score="level")).mean("sample"), scores


def fit_combination(changes: dict[str, Pair]) -> object:
    others = {name: [changes[name]] * 3 for name in "cd"}
    return headnb.fit_combination(
        changes["a"], {"b": changes["b"]}, others=others, permutations=20, resamples=5
    ).verdict


def selectivity(changes: dict[str, Pair]) -> object:
    before, after = ({name: pair[stage] for name, pair in changes.items()} for stage in range(2))
    found = headnb.selectivity(before, {name: [scores] * 2 for name, scores in after.items()})
    return found.verdict, found.table, found.order(), found.rose("a"), found.to_dict()


def specificity(changes: dict[str, Pair]) -> object:
    before = {name: pair[0] for name, pair in changes.items()}
    after = {trained: {name: [pair[1]] * 2 for name, pair in changes.items()} for trained in changes}
    return headnb.specificity(before, after, permutations=20).verdict


def trajectory(changes: dict[str, Pair]) -> object:
    study, scores = levels_study(changes["a"])
    return headnb.trajectory(study, scores).verdict, headnb.trajectory(study, scores, scale_free=True).verdict


def forgotten(changes: dict[str, Pair]) -> object:
    before, after = (
        {name: pair[stage].assign(loss=pair[stage]["sample"] + 1.0) for name, pair in changes.items()}
        for stage in range(2)
    )
    found = forgetting.forgetting(list(changes), [[before, *[after] * len(changes)]])
    return found.verdict, found.table, found.to_dict()


def compare_methods(changes: dict[str, Pair]) -> object:
    return headnb.compare_methods({name: pair[0] for name, pair in changes.items()})


def compare(changes: dict[str, Pair]) -> object:
    return repr(headnb.compare(*changes["a"]))


def rank_difference(changes: dict[str, Pair]) -> object:
    return repr(headnb.rank_difference(*changes["a"]))


def atlas(changes: dict[str, Pair]) -> object:
    return headnb.atlas({name: pair[0] for name, pair in changes.items()}).nearest(changes["a"][1])


def drawn(changes: dict[str, Pair]) -> object:
    before, after = changes["a"]
    return [headnb.grid(x)._repr_mimebundle_() for x in (after, headnb.compare(before, after))]


def statistics(changes: dict[str, Pair]) -> object:
    heads = changes["a"][1].heads
    return heads.reliability(), heads.pattern(), heads.top(3)


ANALYSES = (
    *(fit_combination, selectivity, specificity, trajectory, compare_methods, compare, rank_difference, atlas),
    *(forgotten, drawn, statistics),
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("analysis", ANALYSES, ids=lambda analysis: analysis.__name__)
def test_a_degenerate_change_has_a_result_or_a_reason(
    analysis: Callable[[dict[str, Pair]], Any], change: Callable[[int, str], Pair]
) -> None:
    with warnings.catch_warnings(), suppress(headnb.HeadnbError):
        warnings.simplefilter("error", RuntimeWarning)  # such as a division by zero
        analysis({task: change(seed, task) for seed, task in enumerate(TASKS)})


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("analysis", [fit_combination, selectivity, specificity, trajectory, forgotten])
def test_a_verdict_on_a_degenerate_change_has_no_unknown_numbers(analysis, change):
    with suppress(headnb.HeadnbError):
        found = analysis({task: change(seed, task) for seed, task in enumerate(TASKS)})
        verdicts = [found] if isinstance(found, str) else [part for part in found if isinstance(part, str)]
        assert verdicts
        assert not [text for text in verdicts if re.search(r"\b(nan|inf)\b", text)]


def test_nothing_is_found_where_nothing_changed():
    changes = {task: unchanged(seed, task) for seed, task in enumerate(TASKS)}
    assert "No verdict" in fit_combination(changes)
    assert (
        "significant increase in 0, significant decrease in 0 and no significant change in 4" in selectivity(changes)[0]
    )
    assert "p < 0.05 on 0 of 4 tasks" in specificity(changes)
    assert "equal in all 6 pairs of a step and an earlier task" in forgotten(changes)[0]
    assert all("do not differ beyond noise" in text for text in trajectory(changes))
