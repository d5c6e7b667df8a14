"""Deletion curves against a direct loop of hooks over the chosen heads, and their intervals against scipy."""

from __future__ import annotations

import json

import headnb
import numpy as np
import pytest
import torch
from headnb.analysis.deletion import deletion_curve
from headnb.analysis.head_choice import choose_heads
from headnb.engine.hooks import find_heads
from headnb.engine.tokenization import encode_task
from headnb.errors import HeadnbError
from headnb.head_names import parse_heads
from headnb.stats import significance
from headnb.tasks.loading import load_task
from scipy import stats

from model_state import state
from reference_replacement import reference_loss, reference_means
from tiny import tiny_model, tiny_tokenizer
from trainers import PAIRS

TOKENIZER = tiny_tokenizer()
TASK = load_task(PAIRS[:12], name="sums")
KS = [1, 3, 5]


def curve(model, task=TASK, by="activation", **options):
    return deletion_curve(model, TOKENIZER, task, by, **{"ks": KS, "draws": 3} | options)


@pytest.fixture(scope="module")
def found():
    return curve(tiny_model(layers=3, dtype=torch.float64), batch_tokens=120)


def test_losses_equal_a_direct_loop_of_hooks(found):
    model = tiny_model(layers=3, dtype=torch.float64)
    samples = encode_task(TASK, TOKENIZER).samples
    size, mean = model.config.head_dim, reference_means(model, samples)
    tested = [samples[TASK.ids.index(key)] for key in found.losses["sample"].values]
    whole = [reference_loss(model, sample, {}) for sample in tested]
    np.testing.assert_allclose(found.losses["loss"], whole, rtol=1e-10)
    for choice in ("top", "bottom"):
        for k in KS:
            places = parse_heads(str(found.heads.sel(choice=choice, k=k).values))
            assert len(places) == k
            for how in ("zero", "mean"):
                values = {}
                for layer, head in places:
                    own = mean[layer][head * size : (head + 1) * size]
                    values.setdefault(layer, {})[head] = own if how == "mean" else torch.zeros_like(own)
                rise = [reference_loss(model, s, values) - was for s, was in zip(tested, whole, strict=True)]
                kept = found.losses["rise"].sel(replacement=how, removal=choice, k=k)
                np.testing.assert_allclose(kept, rise, rtol=1e-8, atol=1e-12)


def test_heads_are_chosen_on_the_samples_that_are_not_tested(found):
    tested = set(found.losses["sample"].values.tolist())
    rest = [place for place, key in enumerate(TASK.ids) if key not in tested]
    assert len(tested) == len(rest) == found.chosen_on == 6
    others = load_task([PAIRS[place] for place in rest])
    scores = headnb.score_heads(tiny_model(layers=3, dtype=torch.float64), TOKENIZER, others)
    for k in KS:
        for which in ("top", "bottom"):
            chosen = choose_heads(scores, k, which=which)
            assert str(found.heads.sel(choice=which, k=k).values) == ",".join(chosen)


def test_given_scores_choose_without_the_tested_samples(found):
    model = tiny_model(layers=3, dtype=torch.float64)
    own = curve(model, by=headnb.score_heads(model, TOKENIZER, TASK))
    assert own.heads.identical(found.heads)
    assert own.losses["sample"].identical(found.losses["sample"])
    renamed = headnb.score_heads(model, TOKENIZER, load_task(PAIRS[:12], name="again"))
    assert curve(model, by=renamed).chosen_on == 6  # the same tokens with another task name
    other = headnb.score_heads(model, TOKENIZER, load_task(PAIRS[12:20], name="others"))
    apart = curve(model, by=other)
    assert (apart.chosen_on, apart.losses.sizes["sample"]) == (8, 12)
    assert str(apart.heads.sel(choice="top", k=3).values) == ",".join(choose_heads(other, 3))
    tested = headnb.score_heads(model, TOKENIZER, TASK).sel(sample=found.losses["sample"].values)
    with pytest.raises(HeadnbError, match="all scored samples are also tested"):
        curve(model, by=tested)
    with pytest.raises(HeadnbError, match="by must be the name of a method or per-sample scores"):
        curve(model, by=other.heads.pattern())
    with pytest.raises(HeadnbError, match="at least 2 tested samples; the task has 1"):
        headnb.deletion_curve(model, TOKENIZER, load_task(PAIRS[:1], name="one"), by=other, ks=[3])


def test_intervals_are_paired_t_intervals_and_count_the_draws(found):
    rise = found.losses["rise"]
    top = rise.sel(replacement="zero", removal="top", k=3).values
    expected = stats.ttest_1samp(top, 0).confidence_interval(0.95)
    kept = found.rise.sel(replacement="zero", choice="top", k=3)
    assert (float(kept.low), float(kept.high)) == pytest.approx((expected.low, expected.high))
    random = rise.sel(replacement="zero", k=3).values[2:]  # (draws, samples)
    kept = found.difference.sel(replacement="zero", choice="top", k=3)
    assert float(kept.value) == pytest.approx((top - random.mean(0)).mean())
    _, low, high = significance.crossed_intervals((top - random)[..., None])  # rankings take the place of runs
    assert (float(kept.low), float(kept.high)) == pytest.approx((low[0], high[0]))


def test_intervals_over_samples_and_draws_cover():
    """Values with sample and ranking effects: intervals without the ranking variance are far too narrow."""
    rng, covered, too_narrow = np.random.default_rng(0), 0, 0
    for _ in range(1000):
        values = rng.standard_normal((5, 1, 1)) + rng.standard_normal((1, 30, 1)) + rng.standard_normal((5, 30, 1))
        found = significance.crossed_intervals(values)
        covered += int(found.low[0] <= 0 <= found.high[0])
        simple = significance.t_intervals(values.mean(0))
        too_narrow += int(simple.low[0] <= 0 <= simple.high[0])
    assert 0.93 < covered / 1000 < 0.99
    assert too_narrow / 1000 < 0.7


def test_random_heads_share_the_layers_of_the_top():
    model = tiny_model(layers=3)
    layout = find_heads(model)
    every = curve(model, ks=[sum(layout.heads)], replacements=["zero"])
    rise = every.losses["rise"].values[0, :, 0]  # with all heads ablated, the order does not matter
    np.testing.assert_allclose(rise, np.broadcast_to(rise[0], rise.shape), atol=1e-6)


def test_each_task_has_random_heads_of_its_own(found):
    """The same samples with another task name have the same top heads and other random heads."""
    renamed = load_task(PAIRS[:12], name="again")
    other = curve(tiny_model(layers=3, dtype=torch.float64), renamed, batch_tokens=120).losses["rise"]
    np.testing.assert_allclose(other.sel(removal="top"), found.losses["rise"].sel(removal="top"))
    random = [f"random {draw}" for draw in range(3)]
    assert not np.allclose(other.sel(removal=random), found.losses["rise"].sel(removal=random))


def test_the_model_is_as_before_also_when_stopped():
    model = tiny_model().train()
    before = state(model)

    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        curve(model, on_progress=stop, batch_tokens=40)
    curve(model)
    assert state(model) == before


def test_result_has_a_verdict_html_json_and_a_chart(found):
    for words in (repr(found), found._repr_html_()):
        assert "on 6 samples" in words
        assert "With the top k heads replaced by zero, the rise of the loss" in words
    low, high = (found.difference[end].sel(replacement="mean", choice="top") for end in ("low", "high"))
    sentences = found.verdict.split("replaced by their mean output, ")[1].split(" (paired")[0]
    for k in KS:
        worse, better = bool(low.sel(k=k) > 0), bool(high.sel(k=k) < 0)
        part = "is higher than" if worse else "is lower than" if better else "does not differ"
        (sentence,) = (each for each in sentences.split("; ") if str(k) in each)
        assert part in sentence
    assert len(found.table) == 2 * len(KS)
    assert json.loads(json.dumps(found.to_dict()))["rows"][0]["k"] == 1
    assert found.plot().svg().startswith("<svg")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ks": [0]}, "from 1 to 8"),
        ({"ks": [9]}, "from 1 to 8"),
        ({"draws": 0}, "one random ranking"),
        ({"replacements": ["zero", "zero"]}, "a name twice: zero, zero"),
        ({"replacements": ["noise"]}, "unknown replacement 'noise'"),
        ({"task": PAIRS[:3]}, "at least 4 samples"),
        ({"by": "activatoin"}, "did you mean 'activation'"),
    ],
)
def test_bad_input_is_refused(model, options, message):
    with pytest.raises(HeadnbError, match=message):
        curve(model, **options)


def test_scores_of_another_task_in_memory_do_not_split_the_samples():
    """Lists of samples all have the name "samples" and ids from 0 on."""
    model = tiny_model(layers=3)
    other = headnb.score_heads(model, TOKENIZER, PAIRS[12:20])
    assert other.attrs["task"] == load_task(PAIRS[:12]).name
    found = curve(model, PAIRS[:12], by=other, ks=[1], draws=1, replacements=["zero"])
    assert (found.chosen_on, found.losses.sizes["sample"]) == (8, 12)
    own = headnb.score_heads(model, TOKENIZER, PAIRS[:12])
    assert curve(model, PAIRS[:12], by=own, ks=[1], draws=1, replacements=["zero"]).losses.sizes["sample"] == 6
    short = headnb.score_heads(model, TOKENIZER, PAIRS[:12], max_length=20)  # other fingerprints of the same samples
    assert curve(model, PAIRS[:12], by=short, ks=[1], draws=1, replacements=["zero"]).losses.sizes["sample"] == 6
