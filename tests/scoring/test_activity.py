"""Each activity score equals its definition on explicit attention matrices, for every batch layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from headnb import score_heads
from headnb.engine import attention_weights
from headnb.engine.attention_functions import observe_attention_calls
from headnb.engine.batching import collate, pack
from headnb.engine.hooks import find_heads, head_outputs
from headnb.errors import HeadnbError
from headnb.scoring.activity import ACTIVITIES, activity_recorder
from headnb.scoring.one_pass import pass_scorer
from headnb.scoring.registry import methods

from architectures import FLOAT32_INSIDE, build, tolerance, wide_softmax
from explicit_attention import matrices, with_explicit_attention
from random_samples import mean_loss, random_samples, token_task
from tiny import tiny_model

LENGTHS = (6, 11, 8)
SEEN = ("llama", "gpt2", "gemma2", "gpt_oss", "deepseek_v3")  # grouped heads; window and capping; sinks; latent values


def explicit_parts(model, sample):
    """A (L, H, T, T), V and O = A V (L, H, T, D) of one sample."""
    found = matrices(with_explicit_attention(model), sample.input_ids)
    return tuple(torch.stack(parts) for parts in zip(*(found[layer] for layer in sorted(found)), strict=True))


def by_definition(A, V, O):
    """All 13 scores (L, H), computed by loops over heads and tokens."""
    layers, heads, tokens, _ = A.shape
    raw = {name: np.zeros((layers, heads)) for name in (
        "output-norm", "output-norm-last", "value-norm", "value-norm-first", "first-token", "entropy",
    )}  # fmt: skip
    for layer in range(layers):
        for head in range(heads):
            a, v, o = (part[layer, head].numpy() for part in (A, V, O))
            norms = [np.sqrt((o[q] ** 2).sum()) for q in range(tokens)]
            value_norms = [np.sqrt((v[k] ** 2).sum()) for k in range(tokens)]
            terms = [[-a[q, k] * np.log(a[q, k]) if a[q, k] > 0 else 0.0 for k in range(tokens)] for q in range(tokens)]
            raw["output-norm"][layer, head] = np.mean(norms)
            raw["output-norm-last"][layer, head] = norms[-1]
            raw["value-norm"][layer, head] = np.mean(value_norms)
            raw["value-norm-first"][layer, head] = value_norms[0]
            raw["first-token"][layer, head] = np.mean([a[q, 0] for q in range(tokens)])
            raw["entropy"][layer, head] = np.mean([sum(row) for row in terms])
    found = dict(raw)
    for name in ("output-norm", "value-norm", "value-norm-first", "first-token", "entropy"):
        found[f"{name}-ln"] = raw[name] / raw[name].mean(1, keepdims=True)
    found["output-norm-last-ln"] = raw["output-norm-last"] / raw["output-norm"].mean(1, keepdims=True)
    found["output-norm-last-hn"] = raw["output-norm-last"] / raw["output-norm"]
    return found


def definitions(model, samples):
    """All 13 scores, (B, L, H) each."""
    found = [by_definition(*explicit_parts(model, sample)) for sample in samples]
    return {name: np.stack([scores[name] for scores in found]) for name in found[0]}


@pytest.mark.parametrize("name", SEEN)
def test_explicit_attention_has_the_matrices_of_the_models_own_eager_code(name):
    (sample,) = random_samples((11,))
    eager = build(name, torch.float32, attn_implementation="eager")
    with torch.no_grad():
        own = eager(torch.tensor(sample.input_ids)[None], output_attentions=True, use_cache=False).attentions
    A, _, _ = explicit_parts(build(name, torch.float32), sample)
    assert (A - torch.cat(own)).abs().max() < 1e-6


@pytest.mark.parametrize("name", SEEN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_scores_are_their_definitions_on_attention_matrices(name, dtype):
    samples = random_samples(LENGTHS)
    expected = definitions(build(name), samples)
    model = build(name, dtype)
    assert expected.keys() == ACTIVITIES.keys()
    losses = torch.stack([mean_loss(model, sample) for sample in samples])
    allowed = 2e-5 if dtype == torch.float32 else tolerance(name)
    for method, score in ACTIVITIES.items():
        scorer = pass_scorer(model, activity_recorder(score))
        batches = [collate(samples)] + [pack(samples)] * scorer.supports_packing
        if dtype == torch.float32 or name not in FLOAT32_INSIDE:  # float64 masks overflow in a float32 softmax
            batches.append(collate(samples, side="left"))
        for batch in batches:
            with wide_softmax():
                found, loss = scorer(batch)
            assert np.abs(found.numpy() - expected[method]).max() < allowed * np.abs(expected[method]).max(), method
            assert torch.allclose(loss, losses, rtol=1e-4)


def test_llama_is_packed_and_gemma2_is_not():
    assert pass_scorer(build("llama", torch.float32), activity_recorder(ACTIVITIES["entropy"])).supports_packing
    assert not pass_scorer(build("gemma2", torch.float32), activity_recorder(ACTIVITIES["entropy"])).supports_packing


@pytest.mark.parametrize("name", ["bloom", "gptj"])
def test_code_that_hides_keys_and_values_has_output_norms_and_says_so(name):
    model = build(name, torch.float32)
    if not find_heads(model).projections:
        pytest.skip("this release of transformers has no own attention code for it")
    (sample,) = random_samples((9,))
    outputs = []
    with torch.no_grad(), head_outputs(model, lambda _, O: outputs.append(O[0]) or O):
        model(torch.tensor(sample.input_ids)[None])
    found, _ = pass_scorer(model, activity_recorder(ACTIVITIES["output-norm"]))(collate([sample]))
    expected = torch.stack([O.norm(dim=-1).mean(0) for O in outputs])
    assert torch.allclose(found[0], expected, rtol=1e-5)
    for method in ("entropy", "first-token", "value-norm", "attattr"):
        with pytest.raises(HeadnbError, match="has its own attention code"):
            score_heads(model, None, token_task([sample]), method=method)


def test_entropy_in_blocks_of_queries_is_the_same(monkeypatch):
    samples = random_samples((30, 41))
    scorer = pass_scorer(tiny_model(), activity_recorder(ACTIVITIES["entropy"]))
    for batch in (collate(samples), pack(samples)):
        expected, _ = scorer(batch)
        with monkeypatch.context() as patch:
            patch.setattr(attention_weights, "MAX_WEIGHT_ELEMENTS", 7 * 2 * 4 * 41)
            found, _ = scorer(batch)
        assert torch.allclose(found, expected, rtol=1e-6)


def test_weights_in_blocks_are_those_of_explicit_attention_in_every_form_of_mask():
    for name in ("mistral", "gpt_oss", "gemma3"):
        (sample,) = random_samples((17,))
        A, _, _ = explicit_parts(build(name, torch.float32), sample)
        model, calls = build(name, torch.float32), []
        listeners = {module: calls.append for _, module in find_heads(model).attention}
        with torch.no_grad(), observe_attention_calls(model, listeners):
            model(torch.tensor(sample.input_ids)[None], use_cache=False)
        for layer, call in enumerate(calls):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(attention_weights, "MAX_WEIGHT_ELEMENTS", 5 * 4 * 17)
                blocks = list(attention_weights.attention_rows(call))
            assert [rows.stop - rows.start for rows, _ in blocks] == [5, 5, 5, 2]
            found = torch.cat([weights for _, weights in blocks], 2)[0]
            assert (found - A[layer]).abs().max() < 1e-6


def test_in_bfloat16_norms_and_entropy_are_taken_in_float32():
    samples = random_samples((20, 30))
    model = tiny_model(layers=3).bfloat16()
    exact = definitions(tiny_model(layers=3), samples)
    for method in ("output-norm", "value-norm", "first-token", "entropy"):
        found, _ = pass_scorer(model, activity_recorder(ACTIVITIES[method]))(collate(samples))
        assert found.dtype == torch.float32
        assert np.abs(found.numpy() / exact[method] - 1).max() < 0.05


def test_a_layer_of_silent_heads_scores_zero_and_stops_nothing():
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[1].self_attn.v_proj.weight.zero_()
    scores = score_heads(model, None, token_task(random_samples()), method="output-norm-ln").score.values
    assert (scores[:, 1] == 0).all()
    assert np.allclose(scores[:, 0].mean(1), 1)


def test_patterns_are_levels_in_units_of_their_own():
    scores = score_heads(tiny_model(), None, token_task(random_samples()), method="output-norm")
    pattern = scores.heads.pattern()
    assert (pattern.attrs["kind"], pattern.attrs["units"], pattern.name) == ("level", "norm", "output-norm")
    np.testing.assert_allclose(pattern, scores.score.mean("sample"), rtol=1e-6)
    assert float(pattern.heads.gini()) >= 0


def test_no_other_loss_changes_a_score_that_is_no_share_of_a_loss():
    model, task = tiny_model(), token_task(random_samples())
    with pytest.raises(HeadnbError, match=r"method entropy are not contributions to a loss"):
        score_heads(model, None, task, method="entropy", loss="sum")
    with pytest.raises(HeadnbError, match=r"entropy are not parts of a loss"):
        score_heads(model, None, task, method="entropy").heads.with_loss("sum")


def test_the_thirteen_scores_are_listed_with_one_line_each():
    known = methods()
    assert len(ACTIVITIES) == 13
    assert known.keys() >= ACTIVITIES.keys()
    assert all(
        "\n" not in summary and "2504.03889" in known[name] for name, summary in known.items() if name in ACTIVITIES
    )
