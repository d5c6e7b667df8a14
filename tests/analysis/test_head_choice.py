"""Top and bottom heads of a pattern, and random heads of the same layers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import xarray as xr
from headnb.analysis.head_choice import choose_heads, ranked_heads, shuffled_within_layers
from headnb.errors import HeadnbError

from simulated_finetuning import scores_of

PATTERN = xr.DataArray([[0.1, 0.9, 0.3], [np.nan, np.nan, np.nan], [0.2, -0.5, 0.8]], dims=("layer", "head"))


def test_top_and_bottom_are_the_ends_of_the_pattern():
    assert choose_heads(PATTERN, 3) == ["L0H1", "L2H2", "L0H2"]
    assert choose_heads(PATTERN, 2, which="bottom") == ["L2H1", "L0H0"]
    assert len(choose_heads(PATTERN, 6)) == 6  # layer 1 has no heads


def test_scores_choose_by_mean_absolute_value_or_by_signed_mean_as_their_method_has_it():
    levels = np.array([[[1.0, 5.0], [3.0, 2.0]], [[1.0, 5.0], [3.0, 4.0]]])  # scores_of alternates the signs
    assert choose_heads(scores_of(levels), 4) == ["L0H1", "L1H0", "L1H1", "L0H0"]
    signed = scores_of(levels, reduction="mean")  # means: 0, 0, 0, 1
    assert choose_heads(signed, 1) == ["L1H1"]


def test_coordinates_name_the_heads():
    part = PATTERN.assign_coords(layer=[4, 5, 6], head=[1, 2, 3]).isel(layer=[0, 2])
    assert choose_heads(part, 2) == ["L4H2", "L6H3"]


def test_random_heads_lie_in_the_layers_of_the_top_and_each_head_of_a_layer_is_as_likely():
    pattern = xr.DataArray(np.random.default_rng(0).random((5, 4)), dims=("layer", "head"))
    layers = Counter(name[1] for name in choose_heads(pattern, 7))
    found = Counter()
    for seed in range(400):
        names = choose_heads(pattern, 7, which="random", seed=seed)
        assert len(set(names)) == 7
        assert Counter(name[1] for name in names) == layers
        found.update(names)
    for layer, wanted in layers.items():
        for head in range(4):
            assert found[f"L{layer}H{head}"] / 400 == pytest.approx(wanted / 4, abs=0.1)


def test_a_shuffled_ranking_has_the_layers_of_the_ranking_at_every_k():
    ranking = ranked_heads(xr.DataArray(np.random.default_rng(1).random((6, 5)), dims=("layer", "head")))
    shuffled = shuffled_within_layers(ranking, np.random.default_rng(2))
    assert [layer for layer, _ in shuffled] == [layer for layer, _ in ranking]
    assert sorted(shuffled) == sorted(ranking)
    assert shuffled != ranking


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        (PATTERN, {"k": 7}, "from 1 to 6"),
        (PATTERN, {"k": 0}, "from 1 to 6"),
        (PATTERN, {"k": 2.0}, "k must be a whole number, not 2.0"),
        (PATTERN, {"k": 2, "which": "best"}, "unknown choice of heads 'best'"),
        (PATTERN.expand_dims(task=2), {"k": 2}, "select one pattern"),
        ([1, 2], {"k": 2}, "not list"),
    ],
)
def test_invalid_choices_are_refused(scores, options, message):
    with pytest.raises(HeadnbError, match=message):
        choose_heads(scores, **options)


def test_heads_without_a_finite_value_are_never_chosen():
    broken = xr.DataArray([[np.inf, 2.0, np.nan], [1.0, -np.inf, 3.0]], dims=("layer", "head"))
    assert choose_heads(broken, 3) == ["L1H2", "L0H1", "L1H0"]
    with pytest.raises(HeadnbError, match="from 1 to 3"):
        choose_heads(broken, 4)
