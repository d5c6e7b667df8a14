"""Precision of instruction selection, by hand on planted pools."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from headnb.analysis.selection.precision import mean_over_targets, selection_precision, source_of_sample
from headnb.errors import HeadnbError
from headnb.tasks.loading import Task
from scipy import stats

WORDS = {"sums": "add the numbers", "hub/org/birds": "which bird sings", "hub/org": "what is the capital"}


def task(name: str, rows: list[str]) -> Task:
    return Task(name, [(row, "x") for row in rows], range(len(rows)), "made up")


POOL = {name: task(name, [f"{words} {name[:3]}{i}" for i in range(6)]) for name, words in WORDS.items()}
TARGETS = {name: task(name, [f"{words} please"]) for name, words in WORDS.items()}


def test_tfidf_finds_the_own_task_for_any_task_name() -> None:
    found = selection_precision(TARGETS, POOL, (2, 6, 12), "tfidf")
    np.testing.assert_allclose(found, [[1, 1, 0.5]] * 3)
    assert list(found["target"].values) == list(WORDS)


def test_a_target_with_the_words_of_another_task_finds_that_task() -> None:
    swapped = TARGETS | {"sums": TARGETS["hub/org"]}
    found = selection_precision(swapped, POOL, (6, 12), "tfidf")
    assert found.sel(target="sums", k=6) == 0
    assert found.sel(target="hub/org", k=6) == 1


def test_random_choices_find_the_share_of_the_pool_on_average() -> None:
    pool = POOL | {"sums": task("sums", [f"sum {i}" for i in range(12)])}
    found = selection_precision(TARGETS, pool, (4,), "random", seeds=range(60))
    expected = np.array([12, 6, 6]) / 24
    assert np.abs(found.sel(k=4) - expected).max() < 4 * np.sqrt(0.25 / 4 / 60)


def test_random_choices_are_independent_between_targets() -> None:
    """If all targets had the same random samples, precisions would have a correlation of -1/2."""
    seeds = range(150)
    found = np.array([selection_precision(TARGETS, POOL, (6,), "random", seeds=(seed,))[:, 0] for seed in seeds])
    pairs = np.corrcoef(found.T)[np.triu_indices(3, 1)]
    assert np.abs(pairs).max() < 3.5 / np.sqrt(len(seeds))


def test_ids_name_the_longest_source() -> None:
    assert source_of_sample("hub/org/birds/3", POOL) == "hub/org/birds"
    assert source_of_sample("hub/org/3", POOL) == "hub/org"


def test_intervals_over_targets_are_students() -> None:
    values = np.random.default_rng(0).random((2, 5, 3))
    given = xr.DataArray(values, {"way": ["a", "b"], "target": list("abcde"), "k": [1, 2, 3]}, ("way", "target", "k"))
    found = mean_over_targets(given, 0.9)
    ends = stats.t.interval(0.9, 4, values.mean(axis=1), stats.sem(values, axis=1))
    assert found["low"].dims == ("way", "k")
    np.testing.assert_allclose([found["low"], found["high"]], ends)
    assert np.isnan(mean_over_targets(given.isel(target=[0]))["low"]).all()


def test_equal_values_of_all_targets_have_no_interval() -> None:
    """0.3 - 0.2 and 0.8 - 0.7 differ in the last bits only: a width of 1e-17 would show any direction."""
    equal = xr.DataArray([[0.3 - 0.2], [0.8 - 0.7], [0.1]], {"target": list("abc"), "k": [2]}, ("target", "k"))
    found = mean_over_targets(equal)
    assert float(found["value"][0]) == pytest.approx(0.1)
    assert np.isnan(found[["low", "high"]].to_array()).all()


def test_a_target_without_samples_in_the_pool_has_no_precision() -> None:
    with pytest.raises(HeadnbError, match="no samples of sums"):
        selection_precision(TARGETS, {"hub/org": POOL["hub/org"]}, (2,), "tfidf")
    with pytest.raises(HeadnbError, match="at least one target and one k"):
        selection_precision(TARGETS, POOL, (), "tfidf")
