"""`until` ends scoring when enough samples are scored, and not earlier."""

from __future__ import annotations

from typing import TYPE_CHECKING

import headnb
import numpy as np
import pytest
from headnb.engine.batching import BLOCK
from headnb.errors import HeadnbError
from headnb.scoring.progress import ScoringInterrupted
from headnb.scoring.stopping import MIN_SAMPLES, RelativeError, Reliable, StableTop, rule_for
from headnb.stats.reliability import components

from scoring_samples import stop_after
from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

RANDOM = np.random.default_rng(5)
TASK = headnb.load_task([(f"{a} + {b} =", f" {a + b}") for a in range(20) for b in range(15)])


def scores(until: float | str | None, **settings: object):
    return headnb.score_heads(tiny_model(), tiny_tokenizer(), TASK, batch_tokens=64, until=until, **settings)


def test_the_relative_error_is_that_of_numpy_in_whatever_parts_it_comes():
    levels = RANDOM.lognormal(5, 0.1, (200, 12))
    expected = np.linalg.norm(levels.std(axis=0, ddof=1) / np.sqrt(200)) / np.linalg.norm(levels.mean(axis=0))
    for cuts in ([], [1], [13, 14, 150]):
        rule = RelativeError(0.5)
        for part in np.split(levels, cuts):
            rule.add(part)
        assert rule.value == pytest.approx(expected, rel=1e-12)


def test_the_reliability_is_that_of_the_pattern_in_whatever_parts_it_comes():
    levels = RANDOM.lognormal(size=12) * RANDOM.gamma(1, size=(200, 12))
    for cuts in ([], [1], [13, 14, 150]):
        rule = Reliable(0.9)
        for part in np.split(levels, cuts):
            rule.add(part)
        assert rule.value.reliability == pytest.approx(components(levels).reliability)
        assert rule.value.samples_for(0.9) == components(levels).samples_for(0.9)
    assert "reliability 0.9" in rule.words
    assert f"(about {components(levels).samples_for(0.9)} samples)" in rule.words


def test_scoring_ends_when_the_pattern_is_reliable_enough():
    whole = scores(None)
    limit = round(whole.isel(sample=slice(100)).heads.reliability(), 2)
    part = scores(f"reliability{limit}")
    assert MIN_SAMPLES <= part.sizes["sample"] < whole.sizes["sample"]
    assert part.heads.reliability() >= limit
    assert part.attrs["until"].startswith("reliability ")


def test_a_store_that_goes_on_with_packing_stops_only_where_its_order_is_random(tmp_path: Path):
    """Inside a block of a run without packing, samples are sorted by length."""
    out = tmp_path / "a.zarr"
    with pytest.raises(ScoringInterrupted):
        scores(None, packed=False, out=out, on_progress=stop_after(2, KeyboardInterrupt()))
    part = scores(0.2, packed=True, out=out)
    assert part.sizes["sample"] == BLOCK


def test_halves_that_share_their_top_heads_are_told_from_halves_that_do_not():
    clear, noise = StableTop(3), StableTop(3)
    clear.add(RANDOM.normal([9, 8, 7, 1, 1, 1, 1, 1], 0.1, (80, 8)))
    noise.add(RANDOM.normal(1, 0.1, (80, 8)))
    assert clear.value == 1
    assert clear.reached()
    assert 0.1 < noise.value < 0.7  # 3/8 are shared by chance
    assert not noise.reached()


def test_the_groups_that_halves_are_made_of_stay_few_and_lose_no_sample():
    rule, levels = StableTop(2), RANDOM.random((8 * 128 * 4, 5))
    for part in np.split(levels, [7, 900, 2000]):
        rule.add(part)
    np.testing.assert_allclose(np.sum(rule._sums, axis=0), levels.sum(axis=0))
    assert len(rule._sums) < 128


@pytest.mark.parametrize("packed", [True, False])
def test_scoring_ends_at_the_first_place_where_the_error_is_small_enough(packed: bool):
    whole = scores(None, packed=packed)
    part = scores(0.2, packed=packed)
    n = part.sizes["sample"]
    assert MIN_SAMPLES <= n < whole.sizes["sample"]
    same = whole.sel(sample=part.sample)
    np.testing.assert_allclose(part.score, same.score, rtol=1e-5, atol=1e-8)
    levels = abs(part.score.values.reshape(n, -1).astype(float))
    errors = levels.std(axis=0, ddof=1) / np.sqrt(n)
    found = np.linalg.norm(errors) / np.linalg.norm(levels.mean(axis=0))
    assert found <= 0.2
    assert part.attrs["until"] == f"relative standard error {found:.3g}, until 0.2"
    assert not part.attrs["complete"]
    note = f"Stopped early: {n} of 300 samples are scored ({part.attrs['until']})."
    assert note in part.heads.grid().payload["panels"][0]["notes"]


def test_a_rule_that_is_never_met_scores_the_whole_task():
    whole = scores(1e-6)
    assert whole.attrs["complete"]
    assert whole.attrs["until"].endswith("until 1e-06")
    assert "until" not in scores(None).attrs


def test_a_store_goes_on_from_where_a_rule_ended_it_and_holds_still_where_it_is_met(tmp_path: Path):
    first = scores("top2", out=tmp_path / "x.zarr")
    assert "of their top 2 heads" in first.attrs["until"]
    again = scores("top2", out=tmp_path / "x.zarr")
    assert again.identical(first)
    rest = scores(None, out=tmp_path / "x.zarr")
    assert rest.attrs["complete"]
    np.testing.assert_array_equal(rest.sel(sample=first.sample).score, first.score)


@pytest.mark.parametrize("until", [0, 1.5, -0.1, "top", "top0", "bottom5", True, "nan", [1]])
def test_other_rules_are_refused(until: object):
    with pytest.raises(HeadnbError, match="is not a relative standard error"):
        rule_for(until)


def test_what_cannot_stop_early_is_refused():
    with pytest.raises(HeadnbError, match="until= is not available for gates"):
        scores(0.1, method="gates")
    seen: list[object] = []
    with pytest.raises(HeadnbError, match="needs a model with more than 5000 heads"):
        scores("top5000", on_progress=seen.append)
    assert not seen  # before anything is scored


@pytest.mark.parametrize("until", ["top2", "reliability0.9", 0.02])
def test_a_rule_says_if_there_are_too_few_samples_for_its_value(until: float | str):
    one = headnb.load_task(TASK, n=1)
    few = headnb.score_heads(tiny_model(), tiny_tokenizer(), one, until=until)
    assert few.attrs["until"].startswith("too few samples for ")
