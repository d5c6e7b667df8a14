"""Layer profiles of a planted change: numbers against their definitions, and the verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from headnb.analysis.cka import cka, gram
from headnb.analysis.layer_profile import LayerRun, layer_profile, transition
from headnb.errors import HeadnbError
from headnb.experiments import layers
from scipy import stats

from simulated_finetuning import scores_of

LAYERS, SAMPLES, HEADS = 8, 16, 5
SIZES = np.array([0, 0, 0, 0.5, 1, 1, 1, 1])  # change of representations per layer
HEAD_SIZES = np.array([0, 0, 0, 0.6, 0.6, 0, 0, 0])


def grams_of(vectors):
    ids = range(len(vectors[0]))
    return xr.Dataset(
        {"gram": (("layer", "sample", "other_sample"), gram(vectors)), "fingerprint": ("sample", np.arange(len(ids)))},
        {"layer": range(len(vectors)), "sample": ids, "other_sample": ids},
    )


def planted(seed, noise=0.1):
    """One run, and its vectors before and after (layers, n, C)."""
    rng = np.random.default_rng(seed)
    before = np.cumsum(rng.standard_normal((LAYERS, SAMPLES, 20)), axis=0)
    scale = SIZES[:, None, None] * before.std(axis=(1, 2), keepdims=True)
    after = before + scale * rng.standard_normal(before.shape)
    levels = np.ones((LAYERS, HEADS))
    signs = np.where(np.arange(HEADS) % 2, 1, -1) * (np.arange(HEADS) < 4)  # leaves the mean over heads unchanged
    scores = tuple(
        scores_of(pattern * rng.gamma(noise**-2, noise**2, (SAMPLES, LAYERS, HEADS)))
        for pattern in (levels, levels + HEAD_SIZES[:, None] * signs)
    )
    movement = xr.DataArray(0.01 + 0.001 * np.arange(LAYERS), dims="layer")
    return LayerRun((grams_of(before), grams_of(after)), scores, movement), before, after


@pytest.fixture(scope="module")
def found():
    return layer_profile({task: [planted(10 * i + j)[0] for j in range(2)] for i, task in enumerate("abc")})


def test_similarity_is_the_cka_of_the_vectors_before_and_after():
    run, before, after = planted(0)
    own = layer_profile({"a": [run]})
    plain = [float(cka(gram(x), gram(y)).full) for x, y in zip(before, after, strict=True)]
    np.testing.assert_allclose(np.diag(own.across), plain)
    np.testing.assert_allclose(own.across[2], [float(cka(gram(before[2]), gram(y)).full) for y in after])
    value, low, high = (own.similarity[end].sel(task="a").to_numpy() for end in ("value", "low", "high"))
    np.testing.assert_allclose(value, plain, atol=0.05)  # up to the jackknife correction
    assert (low[3:] < value[3:]).all()
    assert (value[3:] < high[3:]).all()
    np.testing.assert_allclose(value[:3], 1, atol=1e-9)


def test_kinds_of_layers_are_those_that_were_planted(found):
    assert found.stages[0] == 3
    assert found.stages[1] in (4, 5)
    assert found.transition.sizes["run"] == found.runs == 6
    assert found.supported
    assert "L0 to L2 are shared" in found.verdict


def test_change_of_heads_is_that_of_the_population_without_the_noise_of_samples(found):
    expected = HEAD_SIZES * np.sqrt(4 / 5)
    low, high = (found.heads[end] for end in ("low", "high"))
    inside = (low <= expected + 1e-9) & (expected <= high + 1e-9)
    assert float(inside.mean()) > 0.8
    changed = found.heads["value"].sel(layer=[3, 4])
    np.testing.assert_allclose(changed, expected[3], rtol=0.1)


def test_what_goes_together_is_scipys_correlation_over_layers():
    runs = [planted(seed)[0] for seed in range(3)]
    own = layer_profile({"a": runs})
    expected = []
    for one in runs:
        K, L = (stage["gram"].to_numpy() for stage in one.grams)
        change = 1 - cka(K, L).full
        added = np.diff(np.where(change < 1e-6, 0, change), prepend=0)
        expected.append(stats.spearmanr(added, one.movement).statistic)
    interval = stats.ttest_1samp(expected, 0).confidence_interval()
    row = own.go_together.sel(beside="movement")
    ends = np.clip([np.mean(expected), *interval], -1, 1)
    np.testing.assert_allclose([float(row[end]) for end in ("value", "low", "high")], ends)


def test_two_runs_have_no_interval():
    own = layer_profile({"a": [planted(0)[0], planted(1)[0]]})
    assert own.supported is None
    assert np.isnan(own.go_together["low"]).all()
    assert "No evidence of distinct kinds of layers" in own.verdict
    assert own.verdict.count("(no interval)") == 2


def test_depth_is_the_distance_to_a_layer_that_differed_as_much():
    run, before, _ = planted(0)
    own = layer_profile({"a": [run]})
    value = own.similarity["value"].sel(task="a").to_numpy()
    most = int(value.argmin())
    far = [k for k in range(1, most + 1) if float(cka(gram(before[most]), gram(before[most - k])).full) <= value[most]]
    assert own.depth.values.tolist() == [far[0]]


@pytest.mark.parametrize(
    ("change", "bounds"),
    [
        (np.arange(1, 31) / 30, (2, 26)),  # a uniform rise: 24 of 30 layers
        ([0, 0.01, 0.5, 1, 0.2], (2, 3)),
        ([1, 1, 1], (0, 0)),
        ([0, 0, 0], (3, 3)),
    ],
)
def test_a_transition_begins_at_a_tenth_and_ends_at_nine_tenths(change, bounds):
    assert transition(np.array(change)) == bounds


def test_a_model_that_did_not_change_is_shared_throughout():
    run, before, _ = planted(0)
    same = LayerRun((grams_of(before), grams_of(before)), (run.scores[0], run.scores[0]), 0 * run.movement)
    own = layer_profile({"a": [same, same]})
    np.testing.assert_allclose(own.similarity["value"], 1)
    np.testing.assert_allclose(own.heads["value"], 0, atol=1e-9)


def test_result_has_a_verdict_html_json_and_a_chart(found):
    for words in (repr(found), found._repr_html_()):
        assert "most changed" in words
        assert "a uniform rise over depth would span 80%" in words
    first = json.loads(json.dumps(found.to_dict(), default=float))["tasks"][0]
    assert (first["task"], first["shared"]) == ("a", 3)
    assert found.plot().svg().startswith("<svg")
    assert found.plot_across().svg().startswith("<svg")
    assert len(found.plot().plots) == 3
    wide = replace(found, similarity=found.similarity.assign(low=found.similarity["low"] - 5))
    assert min(line.low.min() for line in wide.plot().plots[0].series) == 0


def test_other_samples_before_and_no_runs_are_refused():
    run, before, _ = planted(0)
    other = grams_of(before).assign(fingerprint=("sample", np.arange(SAMPLES) + 1))
    with pytest.raises(HeadnbError, match="a: representations before and after fine-tuning are of different samples"):
        layer_profile({"a": [LayerRun((other, run.grams[1]), run.scores, run.movement)]})
    with pytest.raises(HeadnbError, match="at least one training run"):
        layer_profile({"a": []})


def test_signed_scores_are_refused():
    run, *_ = planted(0)
    signed = run._replace(scores=tuple(one.assign_attrs(reduction="mean") for one in run.scores))
    with pytest.raises(HeadnbError, match="needs activation levels"):
        layer_profile({"a": [signed]})


def test_unchanged_representations_have_no_transition(monkeypatch):
    """CKA of equal representations is 1 up to rounding, such as 1 - 1e-16."""
    assert transition(np.array([0, 1e-16, 2e-16, 1e-9])) == (4, 4)
    runs = [planted(seed)[0] for seed in range(4)]
    own = layer_profile({"a": [run._replace(grams=(run.grams[0], run.grams[0])) for run in runs]})
    assert own.stages == (LAYERS, LAYERS)
    assert own.supported is None
    assert np.isnan(own.width).all()
    assert "Not every run has a transition, since nothing changed (4 training runs)" in own.verdict
    assert "No evidence of distinct kinds of layers" in own.verdict
    monkeypatch.setattr(layers, "layers_of", lambda run: own)
    (section,) = layers.layer_sections(SimpleNamespace(findings=SimpleNamespace(has_arrays=lambda name: True)))
    assert section.finding.verdict == "undecided"
    assert "nan" not in section.finding.headline


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_layer_without_heads_has_an_unknown_change():
    runs = [planted(seed)[0] for seed in range(3)]
    gone = [run._replace(scores=tuple(s.where(s["layer"] != 2) for s in run.scores)) for run in runs]
    own = layer_profile({"a": gone})
    assert np.isnan(own.heads["value"].sel(layer=2)).all()
    assert np.isfinite(own.heads["value"].drop_sel(layer=2)).all()


def test_an_undefined_correlation_is_a_sentence_of_its_own():
    """The parameters move equally in all layers, then the representations do not change either."""
    runs = [planted(seed)[0] for seed in range(3)]
    even = [run._replace(movement=run.movement * 0 + 0.01) for run in runs]
    verdict = layer_profile({"a": even}).verdict
    assert "The Spearman correlation over layers of this increase with its parameter distance is undefined." in verdict
    assert "needs more samples" not in verdict
    still = [run._replace(grams=(run.grams[0], run.grams[0])) for run in even]
    verdict = layer_profile({"a": still}).verdict
    assert "needs more samples" not in verdict
    assert "with the change of its heads and with its parameter distance is undefined." in verdict
