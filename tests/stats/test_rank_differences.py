"""Differences of ranks between two results, against a hand calculation and scipy."""

from __future__ import annotations

import headnb
import numpy as np
import pytest
from headnb.errors import HeadnbError
from scipy import stats

from synthetic_results import comparison, pattern, random_pattern, scores


def test_difference_of_ranks_by_hand():
    first = pattern([[1.0, 2.0], [3.0, 4.0]], task="a")
    second = pattern([[8.0, 5.0], [6.0, 7.0]], task="b")
    found = headnb.rank_difference(first, second)
    np.testing.assert_allclose(found, [[1.0 - 0.25, 0.25 - 0.5], [0.5 - 0.75, 0.75 - 1.0]])
    assert found.attrs["task"] == "b − a"


def test_ranks_of_scores_are_those_of_scipy_with_ties_and_missing_heads():
    first, second = random_pattern(4, 5, seed=1), random_pattern(4, 5, seed=2)
    first[0, :3], second[2] = 0.5, np.nan
    expected = [
        stats.rankdata(one.values.ravel(), nan_policy="omit").reshape(4, 5) / np.isfinite(one.values).sum()
        for one in (first, second)
    ]
    found = headnb.rank_difference(first, second)
    np.testing.assert_allclose(found, expected[1] - expected[0])


def test_the_direction_is_that_of_compare():
    before, after = scores(16), scores(16)
    after["score"].values[:, 1, 1] = 1000
    assert float(headnb.compare(before, after)["difference"][1, 1]) > 0
    assert float(headnb.rank_difference(before, after)[1, 1]) > 0


def test_scores_patterns_and_studies_give_the_same():
    one, other = scores(9, seed=1, task="a"), scores(12, seed=2, task="b")
    of_scores = headnb.rank_difference(one, other)
    of_patterns = headnb.rank_difference(one.heads.pattern(), other.heads.pattern())
    np.testing.assert_array_equal(of_scores, of_patterns)
    assert of_patterns.attrs["task"] == of_scores.attrs["task"] == "b − a"


def test_the_picture_says_that_no_head_is_tested():
    drawn = headnb.rank_difference(scores(9, task="a"), scores(9, seed=1, task="b")).heads.grid()
    payload = drawn.payload
    assert (payload["kind"], payload["quantity"]) == ("difference", "difference of ranks")
    assert "significant" not in payload["panels"][0]
    (note,) = payload["panels"][0]["notes"]
    assert "no head is tested" in note
    assert "b − a" in payload["title"]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (random_pattern(2, 2), "cannot be paired"),
        (random_pattern(3, 4, kind="signed"), "not comparable: level and signed"),
        (comparison(np.zeros((3, 4)), np.zeros((3, 4))), "ranks of a comparison"),
        # older versions of xarray drop the attributes
        (scores(4).heads.pattern() - 1, "numbers computed from them|level and value values"),
        (random_pattern(3, 4).expand_dims(task=["a", "b"]), "select one pattern first"),
    ],
)
def test_results_that_have_no_common_ranks_are_refused(second, said):
    with pytest.raises(HeadnbError, match=said) as error:
        headnb.rank_difference(random_pattern(3, 4), second)
    assert "\n" not in str(error.value)
