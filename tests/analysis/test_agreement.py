"""Agreement of methods: correlations against scipy, overlaps against a count by hand, and coverage of intervals.

`-m slow` simulates 500 comparisons in each case. Measured coverage in per cent, with a binomial error of 1:

    95 % intervals cover             n = 16     24     64    256
    24 heads, rank correlation 0.3     97.4   97.8   96.2   96.4
    24 heads, 0.8                      96.4   97.4   98.2   96.0
    270 heads, 0.3                     96.2   95.6   94.6   96.0
    270 heads, 0.8                     98.8   97.8   98.0   93.8
"""

from __future__ import annotations

import itertools
import json
import math

import headnb
import numpy as np
import pytest
from headnb.analysis.agreement import compare_methods
from headnb.errors import HeadnbError
from headnb.stats.jackknife import rank_correlation
from scipy import stats

from simulated_finetuning import scores_of
from tiny import tiny_tokenizer
from trainers import PAIRS


def related(seed, heads=(6, 10), n=24, rho=0.8, sigma=0.7):
    """Levels (n, L, H) by two methods, and the Spearman correlation of their expectations.

    A level is a head effect times a lognormal of the sample (shared by heads and methods) times the absolute value of a
    normal whose variance is half shared by the methods. Its expectation is proportional to the head effect.
    """
    rng = np.random.default_rng(seed)
    size = int(np.prod(heads))
    z = rng.standard_normal((2, size))
    own = np.exp(0.55 * np.stack([z[0], rho * z[0] + np.sqrt(1 - rho**2) * z[1]]))
    scale, common = np.exp(sigma * rng.standard_normal((n, 1))), rng.standard_normal((n, size))
    levels = [each * scale * np.abs(common + rng.standard_normal((n, size))) for each in own]
    return [each.reshape(n, *heads) for each in levels], stats.spearmanr(*own).statistic


def scored(seed=0, **options):
    levels, _ = related(seed, **options)
    return {name: scores_of(each) for name, each in zip(("one", "other"), levels, strict=True)}


def test_uncorrected_rank_correlation_is_scipys_and_overlaps_are_counted():
    scores = scored() | {"third": scores_of(related(5)[0][0])}
    found = compare_methods(scores, ks=[5, 12])
    patterns = {name: each.heads.pattern().values.ravel() for name, each in scores.items()}
    for one, other in itertools.combinations(scores, 2):
        at = {"measure": one, "other_measure": other}
        expected = stats.spearmanr(patterns[one], patterns[other]).statistic
        assert float(found.correlation["uncorrected"].sel(at)) == pytest.approx(expected)
        for k in (5, 12):
            tops = [set(np.argsort(patterns[name])[-k:]) for name in (one, other)]
            assert int(found.overlap["shared"].sel(at | {"k": k})) == len(tops[0] & tops[1])
    assert (found.samples, found.heads) == (24, 60)


def test_chance_is_what_random_choices_share():
    found = compare_methods(scored(), ks=[12]).overlap.sel(k=12)
    chance = np.array([math.comb(12, i) * math.comb(48, 12 - i) / math.comb(60, 12) for i in range(13)])
    assert float(found["expected"]) == pytest.approx(chance @ np.arange(13))
    at_most = int(found["at_most"])
    assert chance[: at_most + 1].sum() >= 0.95 > chance[:at_most].sum()
    shared = int(found["shared"].sel(measure="one", other_measure="other"))
    assert float(found["p"].sel(measure="one", other_measure="other")) == pytest.approx(chance[shared:].sum())


def test_halves_of_noiseless_samples_share_all_and_of_noise_as_much_as_chance():
    rng = np.random.default_rng(1)
    fixed = np.broadcast_to(rng.random((1, 6, 10)), (20, 6, 10))
    noise = rng.standard_normal((20, 6, 10)) ** 2
    own = compare_methods({"fixed": scores_of(fixed), "noise": scores_of(noise)}, ks=[12]).own
    assert float(own.sel(measure="fixed", k=12)) == 12
    assert float(own.sel(measure="noise", k=12)) < 5


@pytest.mark.parametrize(("n", "rho"), [(24, 0.8), (64, 0.3)])
def test_intervals_of_rank_correlations_cover(n, rho):
    """At 95 % coverage, fewer than 86 of 100 intervals cover with probability 1 / 5000."""
    assert coverage(100, n=n, rho=rho, heads=(6, 10))[0] >= 0.86


def test_correction_takes_the_bias_away():
    _, corrected, plain = coverage(60, n=24, rho=0.8, heads=(10, 20))
    assert abs(corrected) < 0.03 < -plain


@pytest.mark.slow
@pytest.mark.parametrize("n", [16, 24, 64, 256])
@pytest.mark.parametrize("heads", [(4, 6), (30, 9)])
@pytest.mark.parametrize("rho", [0.3, 0.8])
def test_many_intervals_of_rank_correlations_cover(n, heads, rho):
    covered, corrected, plain = coverage(500, n=n, rho=rho, heads=heads)
    print(f"n {n}, {heads}, rho {rho}: covered {covered:.1%}, bias {corrected:+.3f}, uncorrected {plain:+.3f}")
    assert covered > 0.92


def coverage(replicates, **population):
    """Fraction of intervals that contain the truth, and the biases of the corrected and the uncorrected value."""
    inside, corrected, plain = [], [], []
    for seed in range(replicates):
        (one, other), truth = related(seed, **population)
        found = rank_correlation(one.reshape(len(one), -1), other.reshape(len(other), -1))
        inside.append(found.low <= truth <= found.high)
        corrected.append(found.value - truth)
        plain.append(found.uncorrected - truth)
    return np.mean(inside), np.mean(corrected), np.mean(plain)


def test_without_noise_the_rank_correlation_is_scipys_and_its_interval_a_point():
    rng = np.random.default_rng(0)
    pattern, other = rng.random((2, 40))
    found = rank_correlation(np.tile(pattern, (8, 1)), np.tile(other, (8, 1)))
    assert [found.value, found.low, found.high] == pytest.approx([stats.spearmanr(pattern, other).statistic] * 3)


def test_only_common_samples_and_heads_count():
    scores = scored()
    scores["one"]["score"][:, 2, 3] = np.nan
    scores["other"] = scores["other"].isel(sample=slice(None, None, -1)).isel(sample=slice(0, 20))
    found = compare_methods(scores)
    assert (found.samples, found.heads) == (20, 59)
    kept = [scores["one"].isel(sample=slice(4, 24)), scores["other"]]
    expected = stats.spearmanr(*(each.heads.pattern().values.ravel() for each in kept), nan_policy="omit").statistic
    assert float(found.correlation["uncorrected"][0, 1]) == pytest.approx(expected)


def test_a_method_without_samples_is_compared_with_one_that_has_them():
    scores = scored()
    scores["fitted"] = scores["one"].mean("sample", keep_attrs=True).assign_attrs(reduction="mean")
    found = compare_methods(scores)
    assert np.isfinite(found.correlation["low"].sel(measure="one", other_measure="fitted"))
    assert np.isnan(found.own.sel(measure="fitted")).all()
    alone = compare_methods(dict.fromkeys(("a", "b"), scores["fitted"]))
    assert float(alone.correlation["value"][0, 1]) == pytest.approx(1)
    assert np.isnan(alone.correlation["low"][0, 1])


def test_a_model_is_scored_by_each_method(model):
    names = ["activation", "taylor-token"]
    found = compare_methods(model, tiny_tokenizer(), PAIRS, methods=names, ks=[3])
    scores = {name: headnb.score_heads(model, tiny_tokenizer(), PAIRS, method=name) for name in names}
    assert found.to_dict() == compare_methods(scores, ks=[3]).to_dict()


def test_each_method_of_a_model_has_its_own_options(model):
    asked = {"methods": ["activation", "attattr"], "ks": [3], "options": {"attattr": {"steps": 2}}}
    found = compare_methods(model, tiny_tokenizer(), PAIRS[:6], **asked)
    scores = {
        name: headnb.score_heads(model, tiny_tokenizer(), PAIRS[:6], method=name, options=options)
        for name, options in (("activation", None), ("attattr", {"steps": 2}))
    }
    assert found.to_dict() == compare_methods(scores, ks=[3]).to_dict()
    with pytest.raises(HeadnbError, match="unknown option of attattr 'step'; did you mean 'steps'"):
        compare_methods(model, tiny_tokenizer(), PAIRS[:6], **asked | {"options": {"attattr": {"step": 2}}})
    with pytest.raises(HeadnbError, match="unknown compared method 'gates'"):
        compare_methods(model, tiny_tokenizer(), PAIRS[:6], **asked | {"options": {"gates": {"steps": 2}}})


def test_result_has_a_verdict_html_json_and_a_chart():
    found = compare_methods(scored(), ks=[5, 12])
    for words in (repr(found), found._repr_html_()):
        assert "24 samples, 60 heads" in words
        assert "one and other: Spearman correlation 0." in words
        assert "of the top 5 (" in words
    assert json.loads(json.dumps(found.to_dict()))["pairs"][0]["other_measure"] == "other"
    assert found.plot().svg().startswith("<svg")


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"one": scored()["one"]}, "at least two methods"),
        ({"one": scored()["one"], "other": scored(heads=(5, 10))["other"]}, "6 x 10 heads of one and 5 x 10 of other"),
        (
            {"one": scored()["one"].assign_attrs(task_fingerprint="a"),
             "other": scored()["other"].assign_attrs(task_fingerprint="b")},
            "task_fingerprint is 'a' of one and 'b' of other",
        ),
        (scored() | {"third": scored()["one"].assign_coords(sample=range(50, 74))}, "0 sample ids in common"),
        ({"one": scored()["one"], "other": scored()["other"].assign_attrs(task="x")}, "task is 'sums' of one"),
        ({"one": scored()["one"], "other": scored()["other"].assign_attrs(encoding="chat")}, "encoding is None of one"),
        (
            {"one": scored()["one"].assign(fingerprint=("sample", range(24))),
             "other": scored()["other"].assign(fingerprint=("sample", range(1, 25)))},
            "24 of 24 sample ids denote samples with different tokens of one and of other",
        ),
    ],
)  # fmt: skip
def test_incomparable_scores_are_refused(scores, message):
    with pytest.raises(HeadnbError, match=message):
        compare_methods(scores)


@pytest.mark.parametrize(
    "unused",
    [
        {"tokenizer": tiny_tokenizer()},
        {"task": PAIRS},
        {"methods": ["one", "other"]},
        {"options": {"attattr": {"steps": 2}}},
        {"max_length": 9},
    ],
)
def test_arguments_that_score_a_model_are_refused_with_scores(unused):
    with pytest.raises(HeadnbError, match=f"^{next(iter(unused))}: only with a model to score"):
        compare_methods(scored(), **unused)


def test_a_model_without_two_methods_is_refused(model):
    with pytest.raises(HeadnbError, match="at least two methods; known: activation"):
        compare_methods(model, tiny_tokenizer(), PAIRS, methods=["activation"])


def test_scores_of_two_revisions_are_refused():
    one, other = (each.assign_attrs(scoring_revision=i + 1) for i, each in enumerate(scored().values()))
    with pytest.raises(HeadnbError, match="different scoring revisions, 1 and 2"):
        compare_methods({"one": one, "other": other})


def test_scores_without_sample_ids_are_refused():
    with pytest.raises(HeadnbError, match="unique id for each sample; the scores of other do not"):
        compare_methods({"one": scored()["one"], "other": scored()["other"].drop_vars("sample")})
